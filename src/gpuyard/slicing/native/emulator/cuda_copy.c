/* Copies and fills. Contents up to a size are really there; the time they take is the card's, at what its PCIe slot carries. */
#include "cuda_state.h"
#include <string.h>

#define CONTENT_LIMIT (64ull << 20) /* larger transfers move no bytes, so that no test fills the host's memory */
#define BYTES_PER_NS 25u

static bool reachable(CUdeviceptr address, uint64_t size) {
    handle block = gy_block_around(address);
    return !block || block->b.size - (address - block->b.address) >= size;
}

static void move(CUdeviceptr to, CUdeviceptr from, uint64_t size) {
    if (!gy_has_content() || size > CONTENT_LIMIT) return;
    gy_touch(to);
    memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, size);
}

static CUresult copy(const char *function, bool own, CUdeviceptr to, CUdeviceptr from, uint64_t size, handle given, bool async) {
    handle context, stream, node;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!size, CUDA_SUCCESS);
    REFUSE_IF(!to || !from || !reachable(to, size) || !reachable(from, size), INVALID_VALUE);
    CUresult result = gy_stream(context, given, own, &stream);
    REFUSE_IF(result, result);
    if (gy_capturing(stream)) OUT(async ? gy_capture_node(stream, 1, &node) : gy_capture_broken(stream));
    if (!async && (result = gy_capture_forbidden())) OUT(result);
    result = gy_stream_work(stream, size / BYTES_PER_NS);
    if (!result && !async) gy_stream_wait(stream);
    if (!result) move(to, from, size);
    OUT(result);
}

#define AT(p) ((CUdeviceptr)(uintptr_t)(p))
#define COPY(name, sync_suffix, to_type, from_type) \
    GY_API CUresult name##_v2(to_type to, from_type from, size_t n) { return copy(__func__, false, AT(to), AT(from), n, NULL, false); } \
    GY_API CUresult name##_v2##sync_suffix(to_type to, from_type from, size_t n) { \
        return copy(__func__, true, AT(to), AT(from), n, NULL, false); }
#define COPY_ASYNC(name, to_type, from_type) \
    GY_API CUresult name##_v2(to_type to, from_type from, size_t n, handle s) { return copy(__func__, false, AT(to), AT(from), n, s, true); } \
    GY_API CUresult name##_v2_ptsz(to_type to, from_type from, size_t n, handle s) { \
        return copy(__func__, true, AT(to), AT(from), n, s, true); }

COPY(cuMemcpyHtoD, _ptds, CUdeviceptr, const void *)
COPY(cuMemcpyDtoH, _ptds, void *, CUdeviceptr)
COPY(cuMemcpyDtoD, _ptds, CUdeviceptr, CUdeviceptr)
COPY_ASYNC(cuMemcpyHtoDAsync, CUdeviceptr, const void *)
COPY_ASYNC(cuMemcpyDtoHAsync, void *, CUdeviceptr)
COPY_ASYNC(cuMemcpyDtoDAsync, CUdeviceptr, CUdeviceptr)

#define cuMemcpy_on(function, own, to, from, n) copy(function, own, to, from, n, NULL, false)
#define cuMemcpyAsync_on(function, own, to, from, n, s) copy(function, own, to, from, n, s, true)
BOTH(cuMemcpy, _ptds, (CUdeviceptr to, CUdeviceptr from, size_t n), to, from, n)
BOTH(cuMemcpyAsync, _ptsz, (CUdeviceptr to, CUdeviceptr from, size_t n, handle s), to, from, n, s)

/* Rectangles, row by row: types 1 host, 2 device, 4 unified; arrays keep no contents. */
static CUresult copy_rows(const char *function, bool own, const copy_2d *w, handle given, bool async) {
    handle context, stream, node;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!w, INVALID_VALUE);
    CUresult result = gy_stream(context, given, own, &stream);
    REFUSE_IF(result, result);
    if (gy_capturing(stream)) OUT(async ? gy_capture_node(stream, 1, &node) : gy_capture_broken(stream));
    CUdeviceptr from = w->from_type == 1 ? AT(w->from_host) : w->from_type == 3 ? 0 : w->from_device;
    CUdeviceptr to = w->to_type == 1 ? AT(w->to_host) : w->to_type == 3 ? 0 : w->to_device;
    REFUSE_IF((!from && w->from_type != 3) || (!to && w->to_type != 3), INVALID_VALUE);
    result = gy_stream_work(stream, w->width * w->height / BYTES_PER_NS);
    if (!result && !async) gy_stream_wait(stream);
    size_t from_pitch = w->from_pitch ? w->from_pitch : w->width, to_pitch = w->to_pitch ? w->to_pitch : w->width;
    for (size_t y = 0; !result && from && to && y < w->height && w->width * w->height <= CONTENT_LIMIT; y++)
        move(to + (w->to_y + y) * to_pitch + w->to_x, from + (w->from_y + y) * from_pitch + w->from_x, w->width);
    OUT(result);
}

#define cuMemcpy2D_v2_on(function, own, w) copy_rows(function, own, w, NULL, false)
#define cuMemcpy2DUnaligned_v2_on(function, own, w) copy_rows(function, own, w, NULL, false)
#define cuMemcpy2DAsync_v2_on(function, own, w, s) copy_rows(function, own, w, s, true)
BOTH(cuMemcpy2D_v2, _ptds, (const copy_2d *w), w)
BOTH(cuMemcpy2DUnaligned_v2, _ptds, (const copy_2d *w), w)
BOTH(cuMemcpy2DAsync_v2, _ptsz, (const copy_2d *w, handle s), w, s)

/* Boxes take their time and move nothing. */
static CUresult copy_box(const char *function, bool own, const copy_3d *w, handle given, bool async) {
    handle context, stream, node;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!w, INVALID_VALUE);
    CUresult result = gy_stream(context, given, own, &stream);
    REFUSE_IF(result, result);
    if (gy_capturing(stream)) OUT(async ? gy_capture_node(stream, 1, &node) : gy_capture_broken(stream));
    result = gy_stream_work(stream, w->width * w->height * w->depth / BYTES_PER_NS);
    if (!result && !async) gy_stream_wait(stream);
    OUT(result);
}

#define cuMemcpy3D_v2_on(function, own, w) copy_box(function, own, w, NULL, false)
#define cuMemcpy3DAsync_v2_on(function, own, w, s) copy_box(function, own, w, s, true)
BOTH(cuMemcpy3D_v2, _ptds, (const copy_3d *w), w)
BOTH(cuMemcpy3DAsync_v2, _ptsz, (const copy_3d *w, handle s), w, s)

static CUresult fill(const char *function, bool own, CUdeviceptr to, size_t pitch, unsigned value, unsigned element, size_t width,
                     size_t height, handle given, bool async) {
    handle context, stream, node;
    TRY(gy_enter_context(function, &context));
    uint64_t size = pitch * (height - 1) + width * element;
    REFUSE_IF(!width || !height, CUDA_SUCCESS);
    REFUSE_IF(!to || to % element || !reachable(to, size), INVALID_VALUE);
    CUresult result = gy_stream(context, given, own, &stream);
    REFUSE_IF(result, result);
    if (gy_capturing(stream)) OUT(async ? gy_capture_node(stream, 2, &node) : gy_capture_broken(stream));
    result = gy_stream_work(stream, size / 1000); /* the card's own memory is faster than the slot */
    if (result || !gy_has_content() || size > CONTENT_LIMIT) OUT(result);
    gy_touch(to);
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++) memcpy((char *)(uintptr_t)to + y * pitch + x * element, &value, element);
    OUT(CUDA_SUCCESS);
}

#define FILL(bits, type) \
    GY_API CUresult cuMemsetD##bits##_v2(CUdeviceptr a, type v, size_t n) { return fill(__func__, false, a, 0, v, bits / 8, n, 1, NULL, false); } \
    GY_API CUresult cuMemsetD##bits##_v2_ptds(CUdeviceptr a, type v, size_t n) { return fill(__func__, true, a, 0, v, bits / 8, n, 1, NULL, false); } \
    GY_API CUresult cuMemsetD##bits##Async(CUdeviceptr a, type v, size_t n, handle s) { return fill(__func__, false, a, 0, v, bits / 8, n, 1, s, true); } \
    GY_API CUresult cuMemsetD##bits##Async_ptsz(CUdeviceptr a, type v, size_t n, handle s) { return fill(__func__, true, a, 0, v, bits / 8, n, 1, s, true); } \
    GY_API CUresult cuMemsetD2D##bits##_v2(CUdeviceptr a, size_t p, type v, size_t w, size_t h) { return fill(__func__, false, a, p, v, bits / 8, w, h, NULL, false); } \
    GY_API CUresult cuMemsetD2D##bits##_v2_ptds(CUdeviceptr a, size_t p, type v, size_t w, size_t h) { return fill(__func__, true, a, p, v, bits / 8, w, h, NULL, false); }
FILL(8, unsigned char)
FILL(16, unsigned short)
FILL(32, unsigned)
