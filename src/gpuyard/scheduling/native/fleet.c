/* The fleet's own state: nodes, interned card states, classes of requests, taking and giving back. */
#include "placing.h"

static uint64_t mixed(uint64_t x) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static uint64_t hash_of(const card_state *s) {
    uint64_t h = mixed((uint64_t)s->share);
    h = mixed(h ^ (uint64_t)s->room);
    h = mixed(h ^ (uint64_t)s->model ^ ((uint64_t)s->mode << 32));
    return mixed(h ^ (uint64_t)s->room_total);
}

static void rehash(fleet *f, int32_t size) {
    free(f->hash);
    f->hash = malloc(sizeof(int32_t) * (size_t)size);
    f->hash_size = size;
    for (int32_t i = 0; i < size; i++) f->hash[i] = NO_STATE;
    for (int32_t i = 0; i < f->state_count; i++) {
        uint64_t at = hash_of(&f->states[i]) & (uint64_t)(size - 1);
        while (f->hash[at] != NO_STATE) at = (at + 1) & (uint64_t)(size - 1);
        f->hash[at] = i;
    }
}

/* The row of a state; a new one where it was never seen. */
int32_t gy_intern(fleet *f, card_state state) {
    uint64_t at = hash_of(&state) & (uint64_t)(f->hash_size - 1);
    for (; f->hash[at] != NO_STATE; at = (at + 1) & (uint64_t)(f->hash_size - 1))
        if (memcmp(&f->states[f->hash[at]], &state, sizeof state) == 0) return f->hash[at];
    if (f->state_count == f->state_room) {
        size_t room = (size_t)(f->state_room *= 2);
        f->states = realloc(f->states, sizeof(card_state) * room);
        f->copies = realloc(f->copies, sizeof(uint16_t) * room * GY_MOST_TYPICAL);
        f->waste = realloc(f->waste, sizeof(int64_t) * room);
    }
    int32_t row = f->state_count++;
    f->states[row] = state;
    gy_measure(f, row);
    f->hash[at] = row;
    if (f->state_count * 2 > f->hash_size) rehash(f, f->hash_size * 2);
    return row;
}

static void know_states(const fleet *f, wanted *w) {
    if (w->states >= f->state_room) return;
    w->after = realloc(w->after, sizeof(int32_t) * (size_t)f->state_room);
    while (w->states < f->state_room) w->after[w->states++] = UNKNOWN;
}

/* The state that taking one slice leaves, or NO_STATE. */
int32_t gy_after(fleet *f, wanted *w, int32_t row) {
    know_states(f, w);
    if (w->after[row] != UNKNOWN) return w->after[row];
    card_state s = f->states[row];
    int32_t after = NO_STATE;
    if ((w->want.models >> s.model & 1) && s.share >= w->want.share && s.room >= w->want.room &&
        (is_empty(&s) || (s.mode == w->want.mode && s.mode != GY_EXCLUSIVE))) {
        s.share -= w->want.share, s.room -= w->want.room, s.mode = w->want.mode;
        after = gy_intern(f, s);
        know_states(f, w);
    }
    return w->after[row] = after;
}

GY_EXPORT fleet *gy_new(int32_t nodes, int32_t width, int32_t policy, const int64_t *weights, int64_t seed) {
    fleet *f = calloc(1, sizeof *f);
    size_t n = (size_t)nodes;
    f->nodes = nodes, f->width = width, f->policy = policy, f->seed = seed, f->cpu_per_card = 1, f->total_weight = 1;
    memcpy(f->weights, weights, sizeof f->weights);
    int64_t **columns[] = {&f->cpu, &f->memory, &f->cpu_total, &f->open};
    for (int i = 0; i < 4; i++) *columns[i] = calloc(n, sizeof(int64_t));
    f->kinds = calloc(n * GY_KINDS, sizeof(int64_t));
    f->card = malloc(n * (size_t)width * sizeof(int32_t));
    for (size_t i = 0; i < n * (size_t)width; i++) f->card[i] = NO_STATE;
    f->cards = calloc(n, sizeof(int32_t));
    f->version = calloc(n, sizeof(int32_t));
    f->looks = calloc(n, sizeof(uint64_t));
    f->links = malloc(n * sizeof(int32_t));
    for (size_t i = 0; i < n; i++) f->links[i] = -1;
    for (f->alike_size = 1024; f->alike_size < 2 * (int64_t)nodes;) f->alike_size *= 2;
    f->alike = malloc(sizeof(int32_t) * (size_t)f->alike_size);
    f->state_room = 256;
    f->states = malloc(sizeof(card_state) * 256);
    f->copies = malloc(sizeof(uint16_t) * 256 * GY_MOST_TYPICAL);
    f->waste = malloc(sizeof(int64_t) * 256);
    rehash(f, 1024);
    f->class_room = 64;
    f->classes = calloc(64, sizeof(wanted));
    f->log_size = 4 * (int64_t)nodes + 1024;
    f->log = malloc(sizeof(int32_t) * (size_t)f->log_size);
    return f;
}

GY_EXPORT void gy_free(fleet *f) {
    for (int32_t i = 0; i < f->class_count; i++) {
        wanted *w = &f->classes[i];
        free(w->after), free(w->cost), free(w->stamp);
    }
    void *parts[] = {f->cpu, f->memory, f->cpu_total, f->open, f->kinds, f->card, f->cards, f->version,
                     f->states, f->hash, f->copies, f->waste, f->looks, f->alike, f->classes, f->log, f->links, f->distance, f};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) free(parts[i]);
}

void gy_touch(fleet *f, int32_t node) {
    const int32_t *cards = f->card + (size_t)node * (size_t)f->width;
    uint64_t looks = mixed((uint64_t)f->cpu[node] ^ mixed((uint64_t)f->memory[node] ^ mixed((uint64_t)f->cpu_total[node])));
    for (int32_t c = 0; c < f->cards[node]; c++) looks = mixed(looks ^ (uint64_t)cards[c]);
    f->looks[node] = mixed(looks ^ (uint64_t)f->open[node] ^ ((uint64_t)(f->links[node] + 1) << 32));
    f->version[node]++;
    f->log[f->log_to++ % f->log_size] = node;
}

/* numbers: cpu free, memory free, cpu total, open (1 where new leases are taken) */
GY_EXPORT void gy_node(fleet *f, int32_t node, const int64_t *numbers) {
    f->cpu[node] = numbers[0], f->memory[node] = numbers[1];
    f->cpu_total[node] = numbers[2], f->open[node] = numbers[3];
    gy_touch(f, node);
}

/* Whether a node takes new leases. */
GY_EXPORT void gy_open(fleet *f, int32_t node, int32_t open) {
    f->open[node] = open;
    gy_touch(f, node);
}

/* numbers: share free, room free, mode, model, share total, room total */
GY_EXPORT void gy_card(fleet *f, int32_t node, int32_t card, const int64_t *numbers) {
    card_state s;
    memcpy(&s, numbers, sizeof s);
    f->card[(size_t)node * (size_t)f->width + (size_t)card] = gy_intern(f, s);
    if (card >= f->cards[node]) f->cards[node] = card + 1;
    gy_touch(f, node);
}

static int64_t kind_of(const want *w) {
    if (w->count == 0) return 0;
    if (w->share < GY_PPM) return 1;
    return w->count + 1 < GY_KINDS ? w->count + 1 : GY_KINDS - 1;
}

/* A new class of requests; its number. */
GY_EXPORT int32_t gy_class(fleet *f, const int64_t *numbers) {
    if (f->class_count == f->class_room) {
        f->classes = realloc(f->classes, sizeof(wanted) * (size_t)f->class_room * 2);
        memset(f->classes + f->class_room, 0, sizeof(wanted) * (size_t)f->class_room);
        f->class_room *= 2;
    }
    wanted *w = &f->classes[f->class_count];
    memcpy(&w->want, numbers, sizeof w->want);
    w->kind = kind_of(&w->want);
    return f->class_count++;
}

/* Takes the cards named; 0 where they do not fit, and then nothing is changed. */
GY_EXPORT int32_t gy_take(fleet *f, int32_t class_, int32_t node, const int32_t *chosen) {
    wanted *w = &f->classes[class_];
    int32_t *cards = f->card + (size_t)node * (size_t)f->width;
    if (f->cpu[node] < w->want.cpu || f->memory[node] < w->want.memory) return 0;
    for (int64_t i = 0; i < w->want.count; i++) {
        if (chosen[i] < 0 || chosen[i] >= f->cards[node] || gy_after(f, w, cards[chosen[i]]) == NO_STATE) return 0;
        for (int64_t j = 0; j < i; j++)
            if (chosen[j] == chosen[i]) return 0;
    }
    for (int64_t i = 0; i < w->want.count; i++) cards[chosen[i]] = gy_after(f, w, cards[chosen[i]]);
    f->cpu[node] -= w->want.cpu, f->memory[node] -= w->want.memory;
    f->kinds[(size_t)node * GY_KINDS + (size_t)w->kind]++;
    gy_touch(f, node);
    return 1;
}

/* Gives back what `gy_take` took. */
GY_EXPORT void gy_give(fleet *f, int32_t class_, int32_t node, const int32_t *chosen) {
    wanted *w = &f->classes[class_];
    int32_t *cards = f->card + (size_t)node * (size_t)f->width;
    for (int64_t i = 0; i < w->want.count; i++) {
        card_state s = f->states[cards[chosen[i]]];
        s.share += w->want.share, s.room += w->want.room;
        if (is_empty(&s)) s.mode = 0;
        cards[chosen[i]] = gy_intern(f, s);
    }
    f->cpu[node] += w->want.cpu, f->memory[node] += w->want.memory;
    f->kinds[(size_t)node * GY_KINDS + (size_t)w->kind]--;
    gy_touch(f, node);
}

/* Reads one node back: cpu, memory, then share, room and mode of each card. */
GY_EXPORT void gy_read(fleet *f, int32_t node, int64_t *out) {
    *out++ = f->cpu[node], *out++ = f->memory[node];
    for (int32_t c = 0; c < f->cards[node]; c++) {
        const card_state *s = &f->states[f->card[(size_t)node * (size_t)f->width + (size_t)c]];
        *out++ = s->share, *out++ = s->room, *out++ = s->mode;
    }
}
