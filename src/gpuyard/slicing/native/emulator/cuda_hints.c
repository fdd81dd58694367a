/* Calls that tell a driver something, or ask it for work that costs nothing here: checked, and otherwise without effect. */
#include "cuda_state.h"

GY_API CUresult cuProfilerStart(void) {
    IN_CONTEXT;
    (void)context;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuProfilerStop(void) {
    IN_CONTEXT;
    (void)context;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuCtxResetPersistingL2Cache(void) {
    IN_CONTEXT;
    (void)context;
    OUT(CUDA_SUCCESS);
}

static CUresult managed(const char *function, CUdeviceptr address, size_t size) {
    TRY(gy_enter(function));
    handle block = gy_block_around(address);
    REFUSE_IF(!block || block->b.kind != MANAGED || size > block->b.size, INVALID_VALUE);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemAdvise(CUdeviceptr address, size_t size, int advice, CUdevice device) {
    (void)advice, (void)device;
    return managed(__func__, address, size);
}

GY_API CUresult cuMemAdvise_v2(CUdeviceptr address, size_t size, int advice, location where) {
    (void)advice, (void)where;
    return managed(__func__, address, size);
}

static CUresult prefetch(const char *function, bool own, CUdeviceptr address, size_t size, handle given) {
    handle context, stream;
    TRY(managed(function, address, size));
    TRY(gy_enter_context(function, &context));
    CUresult result = gy_stream(context, given, own, &stream);
    OUT(result ? result : gy_stream_work(stream, size / 25)); /* at what a PCIe slot carries, 25 bytes in a nanosecond */
}

#define cuMemPrefetchAsync_on(function, own, a, n, d, s) ((void)(d), prefetch(function, own, a, n, s))
#define cuMemPrefetchAsync_v2_on(function, own, a, n, w, f, s) ((void)(w), (void)(f), prefetch(function, own, a, n, s))
BOTH(cuMemPrefetchAsync, _ptsz, (CUdeviceptr a, size_t n, CUdevice d, handle s), a, n, d, s)
BOTH(cuMemPrefetchAsync_v2, _ptsz, (CUdeviceptr a, size_t n, location w, unsigned f, handle s), a, n, w, f, s)
