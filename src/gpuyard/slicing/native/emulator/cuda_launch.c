/* Launches of every kind: each is so much device time in its stream, whatever the grid. */
#include "cuda_state.h"
#include <string.h>

static CUresult launch(handle context, bool own, const launch_parameters *wish) {
    handle stream, node;
    if (!gy_get(wish->function, FUNCTION)) return INVALID_HANDLE;
    for (int i = 0; i < 3; i++)
        if (!wish->grid[i] || !wish->block[i]) return INVALID_VALUE;
    if ((uint64_t)wish->block[0] * wish->block[1] * wish->block[2] > 1024 || wish->grid[1] > 65535 || wish->grid[2] > 65535)
        return INVALID_VALUE;
    TRY(gy_stream(context, wish->stream, own, &stream));
    if (gy_capturing(stream)) {
        kernel_node parameters = {.base = {.function = wish->function, .shared = wish->shared, .parameters = wish->parameters}};
        memcpy(parameters.base.grid, wish->grid, sizeof wish->grid);
        memcpy(parameters.base.block, wish->block, sizeof wish->block);
        TRY(gy_capture_node(stream, 0, &node));
        gy_node_kernel(node, &parameters);
        return CUDA_SUCCESS;
    }
    return gy_stream_work(stream, wish->function->f.work_ns);
}

static CUresult launch_once(const char *function, bool own, const launch_parameters *wish) {
    handle context;
    TRY(gy_enter_context(function, &context));
    OUT(launch(context, own, wish));
}

#define GRID unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared
#define WISH(f, s, p) (&(launch_parameters){f, {gx, gy, gz}, {bx, by, bz}, shared, s, p})
#define cuLaunchKernel_on launch_once
#define cuLaunchCooperativeKernel_on launch_once
BOTH(cuLaunchKernel, _ptsz, (handle f, GRID, handle s, void **p, void **extra), WISH(f, s, p ? p : extra))
BOTH(cuLaunchCooperativeKernel, _ptsz, (handle f, GRID, handle s, void **p), WISH(f, s, p))

static CUresult cuLaunchKernelEx_on(const char *function, bool own, const launch_config *config, handle f, void **parameters) {
    if (!config) return INVALID_VALUE;
    launch_parameters wish = {.function = f, .shared = config->shared, .stream = config->stream, .parameters = parameters};
    memcpy(wish.grid, config->grid, sizeof wish.grid);
    memcpy(wish.block, config->block, sizeof wish.block);
    return launch_once(function, own, &wish);
}
BOTH(cuLaunchKernelEx, _ptsz, (const launch_config *c, handle f, void **p, void **extra), c, f, p ? p : extra)

GY_API CUresult cuLaunchCooperativeKernelMultiDevice(launch_parameters *list, unsigned count, unsigned flags) {
    IN_CONTEXT;
    REFUSE_IF(!list || !count || flags & ~3u, INVALID_VALUE);
    for (unsigned i = 0; i < count; i++) {
        REFUSE_IF(!gy_get(list[i].stream, STREAM), INVALID_HANDLE);
        for (unsigned j = 0; j < i; j++) REFUSE_IF(list[j].stream->card == list[i].stream->card, INVALID_DEVICE);
    }
    CUresult result = CUDA_SUCCESS;
    for (unsigned i = 0; i < count && !result; i++) result = launch(context, false, &list[i]);
    OUT(result);
}

/* The launches of the first versions, whose parameters are set one by one. */
static CUresult launch_old(const char *function, handle f, int width, int height, handle stream) {
    launch_parameters wish = {f, {(unsigned)width, (unsigned)height, 1}, {1, 1, 1}, 0, stream, NULL};
    if (width < 1 || height < 1) return INVALID_VALUE;
    return launch_once(function, false, &wish);
}

GY_API CUresult cuLaunch(handle f) { return launch_old(__func__, f, 1, 1, NULL); }
GY_API CUresult cuLaunchGrid(handle f, int w, int h) { return launch_old(__func__, f, w, h, NULL); }
GY_API CUresult cuLaunchGridAsync(handle f, int w, int h, handle s) { return launch_old(__func__, f, w, h, s); }

GY_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, handle f, int size, size_t shared) {
    IN;
    (void)shared;
    REFUSE_IF(!gy_get(f, FUNCTION), INVALID_HANDLE);
    REFUSE_IF(!blocks || size < 1 || size > 1024, INVALID_VALUE);
    *blocks = 1536 / size > 24 ? 24 : 1536 / size;
    OUT(CUDA_SUCCESS);
}
