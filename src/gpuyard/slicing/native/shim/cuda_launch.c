/* Everything that makes the device work passes the gate; where the slice has whole cards, it is one branch. */
#include "cuda_shim.h"

/* The exported names are two instructions that go on to the driver where nothing is limited, and here otherwise. */
#define GATED(name) __attribute__((visibility("hidden"))) CUresult gy_gated_##name
#undef REAL
#define REAL(name) ((__typeof__(&gy_gated_##name))gy_real[I_##name])

#define LAUNCH(stream, per_thread, call)                                                     \
    do {                                                                                     \
        ENTER();                                                                             \
        bool fast = gy_gate_fast(stream, per_thread);                                        \
        if (!fast && !(gy_gated && gy_gate_enter(stream, per_thread))) return call;          \
        CUresult result = call;                                                              \
        if (fast) gy_gate_unlock();                                                          \
        else gy_gate_left();                                                                 \
        return result;                                                                       \
    } while (0)

#define KERNEL_ARGUMENTS                                                                                                     \
    CUhandle f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, CUstream stream, \
        void **arguments

GATED(cuLaunchKernel)(KERNEL_ARGUMENTS, void **extra) {
    LAUNCH(stream, false, REAL(cuLaunchKernel)(f, gx, gy, gz, bx, by, bz, shared, stream, arguments, extra));
}

GATED(cuLaunchKernel_ptsz)(KERNEL_ARGUMENTS, void **extra) {
    LAUNCH(stream, true, REAL(cuLaunchKernel_ptsz)(f, gx, gy, gz, bx, by, bz, shared, stream, arguments, extra));
}

GATED(cuLaunchCooperativeKernel)(KERNEL_ARGUMENTS) {
    LAUNCH(stream, false, REAL(cuLaunchCooperativeKernel)(f, gx, gy, gz, bx, by, bz, shared, stream, arguments));
}

GATED(cuLaunchCooperativeKernel_ptsz)(KERNEL_ARGUMENTS) {
    LAUNCH(stream, true, REAL(cuLaunchCooperativeKernel_ptsz)(f, gx, gy, gz, bx, by, bz, shared, stream, arguments));
}

struct gy_launch_config { unsigned grid[3], block[3], shared; CUstream stream; };

GATED(cuLaunchKernelEx)(const struct gy_launch_config *config, CUhandle f, void **arguments, void **extra) {
    LAUNCH(config ? config->stream : NULL, false, REAL(cuLaunchKernelEx)(config, f, arguments, extra));
}

GATED(cuLaunchKernelEx_ptsz)(const struct gy_launch_config *config, CUhandle f, void **arguments, void **extra) {
    LAUNCH(config ? config->stream : NULL, true, REAL(cuLaunchKernelEx_ptsz)(config, f, arguments, extra));
}

GATED(cuLaunch)(CUhandle f) { LAUNCH(NULL, false, REAL(cuLaunch)(f)); }

GATED(cuLaunchGrid)(CUhandle f, int width, int height) { LAUNCH(NULL, false, REAL(cuLaunchGrid)(f, width, height)); }

GATED(cuLaunchGridAsync)(CUhandle f, int width, int height, CUstream stream) {
    LAUNCH(stream, false, REAL(cuLaunchGridAsync)(f, width, height, stream));
}

GATED(cuGraphLaunch)(CUhandle exec, CUstream stream) { LAUNCH(stream, false, REAL(cuGraphLaunch)(exec, stream)); }

GATED(cuGraphLaunch_ptsz)(CUhandle exec, CUstream stream) { LAUNCH(stream, true, REAL(cuGraphLaunch_ptsz)(exec, stream)); }

/* One launch on several cards passes the gate of each only by itself: on a limited slice it is not possible. */
GATED(cuLaunchCooperativeKernelMultiDevice)(void *launches, unsigned count, unsigned flags) {
    ENTER();
    return gy_gated ? NOT_SUPPORTED : REAL(cuLaunchCooperativeKernelMultiDevice)(launches, count, flags);
}

#define SYNCHRONIZE(call)                     \
    do {                                      \
        ENTER();                              \
        if (!gy_gated) return call;           \
        gy_gate_before_sync();                \
        CUresult result = call;               \
        gy_gate_after_sync();                 \
        return result;                        \
    } while (0)

GATED(cuCtxSynchronize)(void) { SYNCHRONIZE(REAL(cuCtxSynchronize)()); }
GATED(cuCtxSynchronize_v2)(CUcontext context) { SYNCHRONIZE(REAL(cuCtxSynchronize_v2)(context)); }
GATED(cuStreamSynchronize)(CUstream stream) { SYNCHRONIZE(REAL(cuStreamSynchronize)(stream)); }
GATED(cuStreamSynchronize_ptsz)(CUstream stream) { SYNCHRONIZE(REAL(cuStreamSynchronize_ptsz)(stream)); }
GATED(cuEventSynchronize)(CUevent event) { SYNCHRONIZE(REAL(cuEventSynchronize)(event)); }

/* While a stream is captured nothing may be recorded into it or waited for: the batch before it is closed first. */
#define BEGIN_CAPTURE(call)                           \
    do {                                              \
        ENTER();                                      \
        if (gy_gated) gy_gate_capture(+1);            \
        CUresult result = call;                       \
        if (gy_gated && result != OK) gy_gate_capture(-1); \
        return result;                                \
    } while (0)

#define END_CAPTURE(call)                             \
    do {                                              \
        ENTER();                                      \
        CUresult result = call;                       \
        if (gy_gated) gy_gate_capture(-1);            \
        return result;                                \
    } while (0)

GATED(cuStreamBeginCapture)(CUstream s) { BEGIN_CAPTURE(REAL(cuStreamBeginCapture)(s)); }
GATED(cuStreamBeginCapture_ptsz)(CUstream s) { BEGIN_CAPTURE(REAL(cuStreamBeginCapture_ptsz)(s)); }
GATED(cuStreamBeginCapture_v2)(CUstream s, int mode) { BEGIN_CAPTURE(REAL(cuStreamBeginCapture_v2)(s, mode)); }
GATED(cuStreamBeginCapture_v2_ptsz)(CUstream s, int mode) { BEGIN_CAPTURE(REAL(cuStreamBeginCapture_v2_ptsz)(s, mode)); }
GATED(cuStreamBeginCaptureToGraph)(CUstream s, CUhandle graph, const void *nodes, const void *data, size_t count, int mode) {
    BEGIN_CAPTURE(REAL(cuStreamBeginCaptureToGraph)(s, graph, nodes, data, count, mode));
}
GATED(cuStreamBeginCaptureToGraph_ptsz)(CUstream s, CUhandle graph, const void *nodes, const void *data, size_t count, int mode) {
    BEGIN_CAPTURE(REAL(cuStreamBeginCaptureToGraph_ptsz)(s, graph, nodes, data, count, mode));
}
GATED(cuStreamBeginCaptureToCig)(CUstream s, void *params) { BEGIN_CAPTURE(REAL(cuStreamBeginCaptureToCig)(s, params)); }
GATED(cuStreamBeginCaptureToCig_ptsz)(CUstream s, void *params) { BEGIN_CAPTURE(REAL(cuStreamBeginCaptureToCig_ptsz)(s, params)); }
GATED(cuStreamBeginRecaptureToGraph)(CUstream s, int mode, CUhandle graph, void *callback, void *data) {
    BEGIN_CAPTURE(REAL(cuStreamBeginRecaptureToGraph)(s, mode, graph, callback, data));
}
GATED(cuStreamBeginRecaptureToGraph_ptsz)(CUstream s, int mode, CUhandle graph, void *callback, void *data) {
    BEGIN_CAPTURE(REAL(cuStreamBeginRecaptureToGraph_ptsz)(s, mode, graph, callback, data));
}
GATED(cuStreamEndCapture)(CUstream s, CUhandle *graph) { END_CAPTURE(REAL(cuStreamEndCapture)(s, graph)); }
GATED(cuStreamEndCapture_ptsz)(CUstream s, CUhandle *graph) { END_CAPTURE(REAL(cuStreamEndCapture_ptsz)(s, graph)); }
GATED(cuStreamEndCaptureToCig)(CUstream s) { END_CAPTURE(REAL(cuStreamEndCaptureToCig)(s)); }
GATED(cuStreamEndCaptureToCig_ptsz)(CUstream s) { END_CAPTURE(REAL(cuStreamEndCaptureToCig_ptsz)(s)); }
