/* The placement kernel: a fleet of cards whose states are interned, and the decision where a request goes.
 *
 * A card's state (what is free of it, in which mode, which model) is a row in a table; a node is a handful of row
 * numbers plus its free CPU and memory. Everything that scoring needs of a card is looked up by row, so a score costs a
 * few additions. All numbers are integers: the same input gives the same answer on every machine, and the engine in
 * `vectorised.py` gives the same.
 */
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define GY_EXPORT __attribute__((visibility("default")))
#define GY_MOST_CARDS 32
#define GY_MOST_TYPICAL 256
#define GY_MOST_MODELS 62
#define GY_MOST_ROOMS 16
#define GY_EXCLUSIVE 4 /* the mode of a slice that shares its card with none, not even of its own mode */
#define GY_KINDS 12
#define GY_TERMS 9
#define GY_NEVER INT64_MAX
#define GY_PPM 1000000LL

enum policy { P_GPUYARD, P_FGD, P_BESTFIT, P_PACKING, P_CLUSTERING, P_DOTPROD, P_RANDOM, P_BINPACK_SPREAD };
enum term { T_LOST, T_WASTE, T_STRANDED, T_OPENED, T_ORDER, T_TIER, T_TOPOLOGY, T_WATTS, T_PRICE };
enum { NO_STATE = -1, UNKNOWN = -2 };

/* What is asked for: `count` slices on different cards of one node. `share` is in ppm of a card, `room` in bytes of its
 * memory. `models` is a set of model numbers, as bits. */
typedef struct {
    int64_t cpu, memory, count, share, room, models, mode;
} want;

typedef struct {
    want want;
    int64_t weight;
} typical;

/* One state that a card can be in. `mode` is 0 while nothing is on it. */
typedef struct {
    int64_t share, room, mode, model, share_total, room_total;
} card_state;

/* A class of requests, with what was worked out for it. */
typedef struct {
    want want;
    int64_t kind;
    int32_t *after; /* by card state: the state that taking a slice leaves, NO_STATE where it does not fit */
    int32_t states; /* how many entries `after` has */
    int64_t *cost;  /* by node; NULL until first asked */
    int32_t *stamp; /* by node: the node's version that `cost` was worked out for */
    int64_t seen;   /* how far in the log of touched nodes */
    int64_t epoch;  /* the mix that `cost` was worked out for */
} wanted;

typedef struct {
    int32_t nodes, width, policy, typicals;
    int64_t weights[GY_TERMS], seed, decisions;
    int64_t *cpu, *memory, *cpu_total, *open; /* by node */
    int64_t *kinds;                           /* [nodes * GY_KINDS] leases by kind of request */
    int32_t *card;                            /* [nodes * width] state of each card, NO_STATE where there is none */
    int32_t *cards, *version;                 /* by node */
    uint64_t *looks;                          /* by node: a hash of all that its cost depends on, but for its place */
    int32_t *alike;                           /* scratch: a table of nodes by `looks` */
    int64_t alike_size;
    card_state *states;
    int32_t state_count, state_room, *hash, hash_size;
    uint16_t *copies; /* [states * GY_MOST_TYPICAL] how many slices of each typical request the card holds alone */
    int64_t *waste;   /* by state: what of it random arrivals would leave unused, in ppm */
    wanted *classes;
    int32_t class_count, class_room;
    int32_t *log; /* touched nodes, a ring */
    int64_t log_to, log_size;
    typical mix[GY_MOST_TYPICAL];
    int64_t value[GY_MOST_TYPICAL];   /* weight x share of all its slices */
    int32_t several[GY_MOST_TYPICAL]; /* its slices */
    double cpu_inverse[GY_MOST_TYPICAL], memory_inverse[GY_MOST_TYPICAL];
    int64_t total_weight, cpu_per_card, epoch;
    int64_t rooms[GY_MOST_ROOMS], filled[GY_MOST_ROOMS][101]; /* card sizes, and what random arrivals use of a rest */
    int32_t room_count;
    int64_t tier[GY_MOST_MODELS]; /* by model: how much dearer than the cheapest, in ppm */
    /* by model, in ppm of the largest here: power of a whole card at work beyond idling, power idle, price */
    int64_t working[GY_MOST_MODELS], idling[GY_MOST_MODELS], price[GY_MOST_MODELS];
    int32_t *links;    /* by node: the number of its table of links, -1 where they are not known */
    int64_t *distance; /* [tables * width * width] how far cards are from each other, in ppm of the usual farthest */
    int32_t link_tables;
    int64_t fgd_step[101];
} fleet;

static inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
static inline int is_empty(const card_state *s) { return s->share == s->share_total && s->room == s->room_total; }

int32_t gy_intern(fleet *f, card_state state);
void gy_touch(fleet *f, int32_t node);
int32_t gy_after(fleet *f, wanted *w, int32_t state);
int32_t gy_take(fleet *f, int32_t class_, int32_t node, const int32_t *chosen);
int64_t gy_cost(fleet *f, wanted *w, int32_t node, int32_t *chosen, int64_t *terms);
void gy_measure(fleet *f, int32_t row);
int64_t gy_farness(const fleet *f, int32_t node, const int32_t *chosen, int64_t count);
int gy_grow(fleet *f, wanted *w, int32_t node, int32_t first, int32_t *chosen);
int gy_pick(fleet *f, wanted *w, int32_t node, int32_t *chosen, int order);
int64_t gy_cost_fgd(fleet *f, wanted *w, int32_t node, int32_t *chosen);
int64_t gy_cost_peer(fleet *f, wanted *w, int32_t node, int32_t *chosen);
