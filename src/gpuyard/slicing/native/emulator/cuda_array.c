/* Arrays and mipmapped arrays: opaque memory whose size the driver alone knows. */
#include "cuda_state.h"
#include <string.h>

#define TILE 65536ull

static uint64_t element_size(int format, unsigned channels) {
    switch (format) {
    case 0x01: case 0x08: return channels;
    case 0x02: case 0x09: case 0x10: return 2 * channels;
    case 0x03: case 0x0a: case 0x20: return 4 * channels;
    default: return 0;
    }
}

static uint64_t level_size(const array3d_description *shape, unsigned level) {
    uint64_t height = shape->height ? shape->height : 1, depth = shape->depth ? shape->depth : 1;
    uint64_t width = shape->width >> level ? shape->width >> level : 1;
    height = height >> level ? height >> level : 1;
    if (!(shape->flags & 1)) depth = depth >> level ? depth >> level : 1; /* layers do not shrink */
    uint64_t size = element_size(shape->format, shape->channels);
    if (__builtin_mul_overflow(size, width, &size) || __builtin_mul_overflow(size, height, &size) ||
        __builtin_mul_overflow(size, depth, &size) || size > (1ull << 60))
        return 1ull << 60;
    return (size + TILE - 1) & ~(TILE - 1);
}

static CUresult make(handle context, handle *answer, const array3d_description *shape, unsigned levels) {
    if (!answer || !shape || !shape->width || !element_size(shape->format, shape->channels)) return INVALID_VALUE;
    if (shape->channels != 1 && shape->channels != 2 && shape->channels != 4) return INVALID_VALUE;
    TRY(gy_capture_forbidden());
    uint64_t size = 0;
    for (unsigned i = 0; i < levels; i++) size += level_size(shape, i);
    if (!gy_reserve(context->card, size)) return OUT_OF_MEMORY;
    *answer = gy_new(ARRAY, context->card, context);
    (*answer)->a.shape = *shape;
    (*answer)->a.size = size;
    return CUDA_SUCCESS;
}

static CUresult create(const char *function, handle *answer, const array_description *wish) {
    handle context;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!wish, INVALID_VALUE);
    array3d_description shape = {.width = wish->width, .height = wish->height, .format = wish->format, .channels = wish->channels};
    OUT(make(context, answer, &shape, 1));
}

static CUresult create_3d(const char *function, handle *answer, const array3d_description *wish) {
    handle context;
    TRY(gy_enter_context(function, &context));
    OUT(make(context, answer, wish, 1));
}

GY_API CUresult cuArrayCreate_v2(handle *a, const array_description *wish) { return create(__func__, a, wish); }
GY_API CUresult cuArray3DCreate_v2(handle *a, const array3d_description *wish) { return create_3d(__func__, a, wish); }

GY_API CUresult cuArrayDestroy(handle array) {
    IN;
    REFUSE_IF(!gy_get(array, ARRAY) || array->a.levels || array->a.borrowed, INVALID_HANDLE);
    gy_give_back(array->card, array->a.size);
    gy_delete(array);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuArrayGetDescriptor_v2(array_description *answer, handle array) {
    IN;
    REFUSE_IF(!gy_get(array, ARRAY), INVALID_HANDLE);
    REFUSE_IF(!answer, INVALID_VALUE);
    const array3d_description *shape = &array->a.shape;
    *answer = (array_description){shape->width, shape->height, shape->format, shape->channels};
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuArray3DGetDescriptor_v2(array3d_description *answer, handle array) {
    IN;
    REFUSE_IF(!gy_get(array, ARRAY), INVALID_HANDLE);
    REFUSE_IF(!answer, INVALID_VALUE);
    *answer = array->a.shape;
    OUT(CUDA_SUCCESS);
}

static CUresult requirements(const char *function, array_requirements *answer, handle array, CUdevice device) {
    TRY(gy_enter(function));
    REFUSE_IF(!gy_get(array, ARRAY), INVALID_HANDLE);
    REFUSE_IF(!answer, INVALID_VALUE);
    REFUSE_IF(device < 0 || device >= gy_visible_count, INVALID_DEVICE);
    *answer = (array_requirements){.size = array->a.size, .alignment = TILE};
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuArrayGetMemoryRequirements(array_requirements *answer, handle array, CUdevice device) {
    return requirements(__func__, answer, array, device);
}

GY_API CUresult cuMipmappedArrayGetMemoryRequirements(array_requirements *answer, handle array, CUdevice device) {
    return requirements(__func__, answer, array, device);
}

GY_API CUresult cuMipmappedArrayCreate(handle *answer, const array3d_description *wish, unsigned levels) {
    IN_CONTEXT;
    REFUSE_IF(!levels || levels > 16, INVALID_VALUE);
    CUresult result = make(context, answer, wish, levels);
    if (!result) (*answer)->a.levels = levels;
    OUT(result);
}

GY_API CUresult cuMipmappedArrayGetLevel(handle *answer, handle array, unsigned level) {
    IN;
    REFUSE_IF(!gy_get(array, ARRAY) || !array->a.levels, INVALID_HANDLE);
    REFUSE_IF(!answer || level >= array->a.levels, INVALID_VALUE);
    if (!array->a.level[level]) {
        handle view = gy_new(ARRAY, array->card, array->context);
        view->a.shape = array->a.shape;
        view->a.size = level_size(&array->a.shape, level);
        view->a.borrowed = true;
        view->a.shape.width = view->a.shape.width >> level ? view->a.shape.width >> level : 1;
        if (view->a.shape.height) view->a.shape.height = view->a.shape.height >> level ? view->a.shape.height >> level : 1;
        array->a.level[level] = view;
    }
    *answer = array->a.level[level];
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMipmappedArrayDestroy(handle array) {
    IN;
    REFUSE_IF(!gy_get(array, ARRAY) || !array->a.levels, INVALID_HANDLE);
    for (unsigned i = 0; i < array->a.levels; i++)
        if (array->a.level[i]) gy_delete(array->a.level[i]);
    gy_give_back(array->card, array->a.size);
    gy_delete(array);
    OUT(CUDA_SUCCESS);
}
