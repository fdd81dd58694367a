/* Everything that makes the device work passes the gate; where the slice has whole cards, it is one branch. The exported
 * names are two instructions that go on to the driver where nothing is limited, and here otherwise. */
#include "cuda_shim.h"

#define GATED(name) __attribute__((visibility("hidden"))) CUresult gy_gated_##name

#define LAUNCH(name, per_thread, on_stream, parameters, ...)                                              \
    GATED(name) parameters {                                                                              \
        ENTER();                                                                                          \
        bool fast = gy_gate_fast(on_stream, per_thread);                                                  \
        if (!fast && !(gy_gated && gy_gate_enter(on_stream, per_thread))) return REAL(name)(__VA_ARGS__); \
        CUresult result = REAL(name)(__VA_ARGS__);                                                        \
        if (fast) gy_let_go(&gy_gate_busy);                                                               \
        else gy_gate_left();                                                                              \
        return result;                                                                                    \
    }
GY_EACH_LAUNCH(LAUNCH)

/* One launch on several cards passes the gate of each only by itself: on a limited slice it is not possible. */
GATED(cuLaunchCooperativeKernelMultiDevice)(void *launches, unsigned count, unsigned flags) {
    ENTER();
    return gy_gated ? NOT_SUPPORTED : REAL(cuLaunchCooperativeKernelMultiDevice)(launches, count, flags);
}

#define SYNCHRONIZE(name, per_thread, extra, parameters, ...) \
    GATED(name) parameters {                                  \
        ENTER();                                              \
        if (gy_gated) gy_gate_before_sync();                  \
        CUresult result = REAL(name)(__VA_ARGS__);            \
        if (gy_gated) gy_gate_after_sync();                   \
        return result;                                        \
    }
GY_EACH_SYNCHRONIZE(SYNCHRONIZE)

/* While a stream is captured nothing may be recorded into it or waited for: the batch before it is closed first. */
#define CAPTURE(name, parameters, before, after, ...)      \
    GATED(name) parameters {                               \
        ENTER();                                           \
        if (gy_gated && (before)) gy_gate_capture(before); \
        CUresult result = REAL(name)(__VA_ARGS__);         \
        if (gy_gated && (after)) gy_gate_capture(after);   \
        return result;                                     \
    }
#define BEGIN_CAPTURE(name, per_thread, extra, parameters, ...) CAPTURE(name, parameters, +1, result == OK ? 0 : -1, __VA_ARGS__)
#define END_CAPTURE(name, per_thread, extra, parameters, ...) CAPTURE(name, parameters, 0, -1, __VA_ARGS__)
GY_EACH_BEGIN_CAPTURE(BEGIN_CAPTURE)
GY_EACH_END_CAPTURE(END_CAPTURE)
