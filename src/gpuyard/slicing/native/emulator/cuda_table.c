/* Handles and addresses, in one open-addressed table: a program may pass anything, and only what is here is followed. */
#include "cuda_state.h"
#include <stdlib.h>
#include <string.h>

struct entry { uint64_t key; handle object; };
static struct entry *table;
static uint64_t room, held;
static struct { handle *all; uint64_t count, room; } kinds[KINDS];

static uint64_t slot_of(uint64_t key) { return (key * 0x9E3779B97F4A7C15ull >> 17) & (room - 1); }

static uint64_t find(uint64_t key) {
    uint64_t at = slot_of(key);
    while (table[at].key && table[at].key != key) at = (at + 1) & (room - 1);
    return at;
}

static void grow(void) {
    struct entry *old = table;
    uint64_t count = room;
    room = room ? room * 2 : 1024;
    table = calloc(room, sizeof *table);
    if (!table) abort();
    for (uint64_t i = 0; i < count; i++)
        if (old[i].key) table[find(old[i].key)] = old[i];
    free(old);
}

void gy_table_put(uint64_t key, handle object) {
    if (held * 2 >= room) grow();
    uint64_t at = find(key);
    if (!table[at].key) held++;
    table[at] = (struct entry){key, object};
}

handle gy_table_at(uint64_t key) { return room && key ? table[find(key)].object : NULL; }

handle gy_table_take(uint64_t key) {
    if (!room || !key) return NULL;
    uint64_t hole = find(key);
    handle object = table[hole].object;
    if (!table[hole].key) return NULL;
    held--;
    for (uint64_t at = (hole + 1) & (room - 1); table[at].key; at = (at + 1) & (room - 1)) {
        uint64_t home = slot_of(table[at].key);
        if (((at - home) & (room - 1)) < ((at - hole) & (room - 1))) continue;
        table[hole] = table[at];
        hole = at;
    }
    table[hole] = (struct entry){0, NULL};
    return object;
}

handle gy_new(enum kind kind, uint32_t card, handle context) {
    handle object = calloc(1, sizeof *object);
    if (object && kinds[kind].count == kinds[kind].room) {
        kinds[kind].room = kinds[kind].room ? kinds[kind].room * 2 : 64;
        kinds[kind].all = realloc(kinds[kind].all, kinds[kind].room * sizeof(handle));
    }
    if (!object || !kinds[kind].all) abort();
    object->kind = kind;
    object->card = card;
    object->context = context;
    object->place = kinds[kind].count;
    kinds[kind].all[kinds[kind].count++] = object;
    gy_table_put((uint64_t)(uintptr_t)object, object);
    return object;
}

void gy_delete(handle object) {
    handle last = kinds[object->kind].all[--kinds[object->kind].count];
    kinds[object->kind].all[object->place] = last;
    last->place = object->place;
    gy_table_take((uint64_t)(uintptr_t)object);
    if (object->kind == STREAM) free(object->s.marks);
    free(object);
}

handle gy_get(const void *value, enum kind kind) {
    handle object = gy_table_at((uint64_t)(uintptr_t)value);
    return object && (const void *)object == value && object->kind == kind ? object : NULL;
}

static void each_of(enum kind kind, void (*visit)(handle, void *), void *with) {
    /* A visit may delete: the handles are gathered first, and looked up again. */
    uint64_t count = kinds[kind].count;
    if (!count) return;
    handle few[16], *found = count <= 16 ? few : malloc(count * sizeof(handle));
    if (!found) abort();
    memcpy(found, kinds[kind].all, count * sizeof(handle));
    for (uint64_t i = 0; i < count; i++)
        if (gy_table_at((uint64_t)(uintptr_t)found[i]) == found[i]) visit(found[i], with);
    if (found != few) free(found);
}

void gy_each(enum kind kind, void (*visit)(handle, void *), void *with) {
    if (kind) each_of(kind, visit, with);
    for (enum kind any = CONTEXT; !kind && any < KINDS; any++) each_of(any, visit, with);
}

void gy_forget_all(void) {
    if (table) memset(table, 0, room * sizeof *table);
    held = 0;
    for (int kind = 0; kind < KINDS; kind++) kinds[kind].count = 0;
}
