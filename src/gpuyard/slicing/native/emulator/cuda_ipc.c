/* Memory of another process on the same machine. The owner is charged, and the memory goes with it. */
#include "cuda_state.h"
#include <string.h>

struct ticket { uint64_t magic, address, size, started; uint32_t card, slot, pid, reserved; };
#define TICKET_MAGIC 0x4349504955594747ull

GY_API CUresult cuIpcGetMemHandle(ipc_handle *answer, CUdeviceptr address) {
    IN_CONTEXT;
    (void)context;
    handle block = gy_block_around(address);
    REFUSE_IF(!answer || !block || block->b.kind != LINEAR, INVALID_VALUE);
    const struct gy_emulator_process *process = &gy_here->processes[gy_process()];
    struct ticket ticket = {TICKET_MAGIC, block->b.address, block->b.size, process->start_time, block->card,
                            (uint32_t)gy_process(), process->pid, 0};
    memset(answer, 0, sizeof *answer);
    memcpy(answer, &ticket, sizeof ticket);
    OUT(CUDA_SUCCESS);
}

static CUresult open_handle(const char *function, CUdeviceptr *address, const ipc_handle *given, unsigned flags) {
    handle context, block;
    TRY(gy_enter_context(function, &context));
    struct ticket ticket;
    memcpy(&ticket, given, sizeof ticket);
    REFUSE_IF(!address || flags != 1 || ticket.magic != TICKET_MAGIC || ticket.slot >= GY_EMULATOR_PROCESSES, INVALID_VALUE);
    const struct gy_emulator_process *owner = &gy_here->processes[ticket.slot];
    REFUSE_IF(owner->pid != ticket.pid || owner->start_time != ticket.started || !gy_alive((int)ticket.slot), INVALID_VALUE);
    REFUSE_IF((int)ticket.slot == gy_process() || ticket.card != context->card, INVALID_CONTEXT);
    CUresult result = gy_block(context, context->card, ticket.size, 0, IPC, &block);
    if (!result) *address = block->b.address;
    OUT(result);
}

GY_API CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *a, ipc_handle h, unsigned f) { return open_handle(__func__, a, &h, f); }
GY_API CUresult cuIpcOpenMemHandle(CUdeviceptr *a, ipc_handle h, unsigned f) { return open_handle(__func__, a, &h, f); }

GY_API CUresult cuIpcCloseMemHandle(CUdeviceptr address) {
    IN_CONTEXT;
    (void)context;
    handle block = gy_table_at(address);
    REFUSE_IF(!block || block->kind != BLOCK || block->b.kind != IPC, INVALID_VALUE);
    gy_block_free(block);
    OUT(CUDA_SUCCESS);
}
