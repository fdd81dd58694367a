/* Device addresses, and blocks of device memory at them. Behind every address lies host memory that is never filled until it
 * is written to, so that what was copied in can be copied out again, and a card's 80 GB cost nothing. */
#include "cuda_state.h"
#include <sys/mman.h>
#include <string.h>

#define SPACE (16ull << 40)
#define FALLBACK 0x0000400000000000ull /* addresses without memory behind them, where none could be reserved */
#define CLASSES 48
#define DEEPEST 1024

static uint64_t base, top;
static bool content;
/* Freed addresses by size class; the next one is kept in this small stack, so that a program may go on for long. */
static uint64_t freed[CLASSES][DEEPEST];
static uint32_t freed_count[CLASSES];

static uint32_t class_of(uint64_t size) {
    uint32_t class = 9; /* 512 bytes: what every allocation is aligned to */
    while (class < CLASSES - 1 && (1ull << class) < size) class++;
    return class;
}

CUdeviceptr gy_address(uint64_t size, uint64_t *room) {
    if (!base) {
        void *memory = mmap(NULL, SPACE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        content = memory != MAP_FAILED;
        if (content) madvise(memory, SPACE, MADV_DONTDUMP);
        base = content ? ((uint64_t)(uintptr_t)memory + (1 << 21) - 1) & ~((1ull << 21) - 1) : FALLBACK;
    }
    uint32_t class = class_of(size);
    *room = 1ull << class;
    if (freed_count[class]) return freed[class][--freed_count[class]];
    uint64_t alignment = *room < (2u << 20) ? *room : 2u << 20;
    top = (top + alignment - 1) & ~(alignment - 1);
    if (top + *room > SPACE - (4u << 20)) return 0;
    CUdeviceptr address = base + top;
    top += *room;
    return address;
}

void gy_address_free(CUdeviceptr address, uint64_t room, bool touched) {
    uint32_t class = class_of(room);
    if (touched && content) {
        uint64_t from = (address + 4095) & ~4095ull, to = (address + room) & ~4095ull;
        if (to > from) madvise((void *)(uintptr_t)from, to - from, MADV_DONTNEED);
    }
    if (freed_count[class] < DEEPEST) freed[class][freed_count[class]++] = address;
}

bool gy_has_content(void) { return content; }

CUresult gy_block(handle context, uint32_t card, uint64_t size, uint64_t charge, enum block_kind kind, handle *block) {
    if (charge && !gy_reserve(card, charge)) return OUT_OF_MEMORY;
    uint64_t room;
    CUdeviceptr address = gy_address(size, &room);
    if (!address) {
        gy_give_back(card, charge);
        return OUT_OF_MEMORY;
    }
    handle made = gy_new(BLOCK, card, context);
    made->b.address = address;
    made->b.size = size;
    made->b.room = room;
    made->b.charged = charge;
    made->b.kind = kind;
    gy_table_put(address, made);
    *block = made;
    return CUDA_SUCCESS;
}

void gy_block_free(handle block) {
    gy_table_take(block->b.address);
    gy_give_back(block->card, block->b.charged);
    if (block->b.pool && gy_get(block->b.pool, POOL)) gy_pool_return(block->b.pool, block->b.size);
    gy_address_free(block->b.address, block->b.room, block->b.touched);
    gy_delete(block);
}

struct search { CUdeviceptr address; handle found; };

static void look(handle block, void *with) {
    struct search *search = with;
    if (search->address >= block->b.address && search->address - block->b.address < block->b.size) search->found = block;
}

handle gy_block_around(CUdeviceptr address) {
    handle exact = gy_table_at(address);
    if (exact && exact->kind == BLOCK && exact->b.address == address) return exact;
    struct search search = {address, NULL};
    gy_each(BLOCK, look, &search);
    return search.found;
}

void gy_touch(CUdeviceptr address) {
    handle block = gy_block_around(address);
    if (block) block->b.touched = true;
}
