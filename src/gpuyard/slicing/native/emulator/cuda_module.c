/* Programs. Any image loads, and has every function that is asked for: `k_<ns>` in a name says how long it runs, and without
 * that it takes a microsecond. */
#include "cuda_state.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static CUresult load(const char *function, handle *answer, const void *image, enum kind kind) {
    handle context = NULL;
    if (kind == MODULE) TRY(gy_enter_context(function, &context));
    else TRY(gy_enter(function));
    REFUSE_IF(!answer || !image, INVALID_VALUE);
    *answer = gy_new(kind, context ? context->card : 0, context);
    OUT(CUDA_SUCCESS);
}

static CUresult load_file(const char *function, handle *answer, const char *path, enum kind kind) {
    if (path && access(path, R_OK)) return FILE_NOT_FOUND;
    return load(function, answer, path, kind);
}

GY_API CUresult cuModuleLoadData(handle *m, const void *image) { return load(__func__, m, image, MODULE); }
GY_API CUresult cuModuleLoadFatBinary(handle *m, const void *image) { return load(__func__, m, image, MODULE); }
GY_API CUresult cuModuleLoad(handle *m, const char *path) { return load_file(__func__, m, path, MODULE); }
GY_API CUresult cuModuleLoadDataEx(handle *m, const void *image, unsigned count, int *options, void **values) {
    (void)count, (void)options, (void)values;
    return load(__func__, m, image, MODULE);
}
GY_API CUresult cuLibraryLoadData(handle *l, const void *code, int *jit, void **jit_values, unsigned jit_count, int *options,
                                  void **values, unsigned count) {
    (void)jit, (void)jit_values, (void)jit_count, (void)options, (void)values, (void)count;
    return load(__func__, l, code, LIBRARY);
}
GY_API CUresult cuLibraryLoadFromFile(handle *l, const char *path, int *jit, void **jit_values, unsigned jit_count,
                                      int *options, void **values, unsigned count) {
    (void)jit, (void)jit_values, (void)jit_count, (void)options, (void)values, (void)count;
    return load_file(__func__, l, path, LIBRARY);
}

static void unload_function(handle function, void *module) {
    if (function->owner == module) gy_delete(function);
}

static CUresult unload(const char *function, handle module, enum kind kind) {
    TRY(gy_enter(function));
    REFUSE_IF(!gy_get(module, kind), INVALID_HANDLE);
    gy_each(FUNCTION, unload_function, module);
    gy_delete(module);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuModuleUnload(handle module) { return unload(__func__, module, MODULE); }
GY_API CUresult cuLibraryUnload(handle library) { return unload(__func__, library, LIBRARY); }

struct wanted { handle module; const char *name; handle found; };

static void same(handle function, void *with) {
    struct wanted *wanted = with;
    if (function->owner == wanted->module && !strcmp(function->f.name, wanted->name)) wanted->found = function;
}

static CUresult function_of(const char *function, handle *answer, handle module, const char *name, enum kind kind) {
    TRY(gy_enter(function));
    REFUSE_IF(!gy_get(module, kind), INVALID_HANDLE);
    REFUSE_IF(!answer || !name || !*name, INVALID_VALUE);
    struct wanted wanted = {module, name, NULL};
    gy_each(FUNCTION, same, &wanted);
    if (!wanted.found) {
        REFUSE_IF(strlen(name) >= sizeof wanted.found->f.name || !strcmp(name, "missing"), NOT_FOUND);
        wanted.found = gy_new(FUNCTION, module->card, module->context);
        wanted.found->owner = module;
        strcpy(wanted.found->f.name, name);
        const char *duration = strstr(name, "k_");
        wanted.found->f.work_ns = duration ? strtoull(duration + 2, NULL, 10) : 1000;
    }
    *answer = wanted.found;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuModuleGetFunction(handle *f, handle m, const char *name) { return function_of(__func__, f, m, name, MODULE); }
GY_API CUresult cuLibraryGetKernel(handle *k, handle l, const char *name) { return function_of(__func__, k, l, name, LIBRARY); }

/* A kernel is its function in any context: launches take either. */
GY_API CUresult cuKernelGetFunction(handle *function, handle kernel) {
    IN_CONTEXT;
    (void)context;
    REFUSE_IF(!gy_get(kernel, FUNCTION), INVALID_HANDLE);
    REFUSE_IF(!function, INVALID_VALUE);
    *function = kernel;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuKernelGetLibrary(handle *library, handle kernel) {
    IN;
    REFUSE_IF(!gy_get(kernel, FUNCTION) || kernel->owner->kind != LIBRARY, INVALID_HANDLE);
    *library = kernel->owner;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuLibraryGetModule(handle *module, handle library) {
    IN_CONTEXT;
    REFUSE_IF(!gy_get(library, LIBRARY), INVALID_HANDLE);
    REFUSE_IF(!module, INVALID_VALUE);
    *module = gy_new(MODULE, context->card, context);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuFuncGetModule(handle *module, handle function) {
    IN;
    REFUSE_IF(!gy_get(function, FUNCTION) || function->owner->kind != MODULE, INVALID_HANDLE);
    *module = function->owner;
    OUT(CUDA_SUCCESS);
}

static CUresult name_of(const char *called, const char **name, handle function) {
    TRY(gy_enter(called));
    REFUSE_IF(!gy_get(function, FUNCTION) || !name, INVALID_VALUE);
    *name = function->f.name;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuFuncGetName(const char **name, handle function) { return name_of(__func__, name, function); }
GY_API CUresult cuKernelGetName(const char **name, handle kernel) { return name_of(__func__, name, kernel); }

static CUresult attribute(const char *called, int *value, int which, handle function) {
    TRY(gy_enter(called));
    REFUSE_IF(!gy_get(function, FUNCTION), INVALID_HANDLE);
    REFUSE_IF(!value || which < 0 || which > 15, INVALID_VALUE);
    *value = which == 0 ? 1024 : which == 4 ? 32 : which == 5 || which == 6 ? 80 : 0; /* threads, registers, versions */
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuFuncGetAttribute(int *v, int which, handle f) { return attribute(__func__, v, which, f); }
GY_API CUresult cuKernelGetAttribute(int *v, int which, handle k, CUdevice device) {
    (void)device;
    return attribute(__func__, v, which, k);
}

GY_API CUresult cuFuncSetAttribute(handle function, int which, int value) {
    IN;
    (void)value;
    REFUSE_IF(!gy_get(function, FUNCTION), INVALID_HANDLE);
    OUT(which < 0 || which > 15 ? INVALID_VALUE : CUDA_SUCCESS);
}

GY_API CUresult cuModuleGetLoadingMode(int *mode) {
    if (!mode) return INVALID_VALUE;
    *mode = 2; /* lazy */
    return CUDA_SUCCESS;
}
