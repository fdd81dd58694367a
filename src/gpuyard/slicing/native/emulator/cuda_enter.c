/* The way into every call: the machine, who is here, what a call costs, and the faults that were asked for. */
#include "cuda_state.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <stdio.h>

#define CONTEXTS_DEEP 64

uint32_t gy_visible[GY_MAX_CARDS];
int gy_visible_count;
static bool initialized, forked;
static __thread handle stack[CONTEXTS_DEEP];
static __thread int depth;

static void after_fork(void) {
    /* The parent's handles mean nothing here, and the driver refuses to start anew in a child of a process that used it. */
    forked = initialized;
    initialized = false;
    depth = 0;
    gy_forget_all();
}

static bool matches(const gy_card *card, const char *word, size_t length) {
    char text[41] = "GPU-";
    const uint8_t *u = card->uuid;
    snprintf(text + 4, sizeof text - 4, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
             u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
    return length > 4 && length <= 40 && !strncasecmp(text, word, length);
}

/* The card that one word of CUDA_VISIBLE_DEVICES names: an index, or the beginning of a UUID; -1 for none. */
static int named(const char *word, size_t length, const uint32_t *cards, int count) {
    char *end;
    long index = strtol(word, &end, 10);
    if (length && end == word + length) return index >= 0 && index < count ? (int)cards[index] : -1;
    int found = -1;
    for (int i = 0; i < count; i++) {
        if (!matches(&gy_here->cards[cards[i]], word, length)) continue;
        if (found >= 0) return -1; /* two cards begin so */
        found = (int)cards[i];
    }
    return found;
}

/* A program computes in one MIG instance or on whole cards, never in both and never in two. */
static void compute_in(uint32_t card, uint32_t place) {
    gy_mig_choose(card, place);
    gy_visible[0] = card;
    gy_visible_count = place > 0;
}

/* The instance that a word such as MIG-<uuid> names. */
static bool chose_instance(const char *word, size_t length) {
    for (uint32_t card = 0; card < gy_here->card_count; card++) {
        for (uint32_t i = 0; i < GY_EMULATOR_INSTANCES && !gy_here->cards[card].unplugged; i++) {
            const gy_instance *instance = &gy_here->cards[card].instances[i];
            char text[41];
            gy_mig_uuid(instance, text);
            if (!instance->in_use || !instance->computes || length != 40 || strncasecmp(text, word, length)) continue;
            compute_in(card, i + 1);
            return true;
        }
    }
    return false;
}

static void choose_devices(void) {
    uint32_t cards[GY_MAX_CARDS];
    int count = 0;
    const char *wish = getenv("CUDA_VISIBLE_DEVICES");
    gy_mig_choose(0, 0);
    gy_visible_count = 0;
    for (uint32_t i = 0; i < gy_here->card_count; i++)
        if (!gy_here->cards[i].unplugged && gy_mps_sees(i)) cards[count++] = i;
    if (!wish) {
        for (int i = 0; i < count; i++)
            if (!gy_here->cards[cards[i]].mig_mode) gy_visible[gy_visible_count++] = cards[i];
        for (int i = 0; i < count && !gy_visible_count; i++)
            if (gy_here->cards[cards[i]].mig_mode) compute_in(cards[i], gy_mig_first(cards[i]));
        return;
    }
    if (!strncasecmp(wish, "MIG-", 4) && chose_instance(wish, strcspn(wish, ", "))) return;
    while (*wish) { /* the list ends at the first word that names nothing */
        while (*wish == ' ') wish++;
        size_t length = strcspn(wish, ",");
        size_t word = length;
        while (word && wish[word - 1] == ' ') word--;
        int card = named(wish, word, cards, count);
        if (card < 0 || gy_visible_count == (int)GY_MAX_CARDS) return;
        if (gy_here->cards[card].mig_mode) { /* its first instance, where nothing was named before it */
            if (!gy_visible_count) compute_in((uint32_t)card, gy_mig_first((uint32_t)card));
            return;
        }
        for (int i = 0; i < gy_visible_count; i++)
            if (gy_visible[i] == (uint32_t)card) {
                gy_visible_count = 0; /* a card named twice leaves none */
                return;
            }
        gy_visible[gy_visible_count++] = (uint32_t)card;
        wish += length;
        if (*wish == ',') wish++;
    }
}

GY_API CUresult cuInit(unsigned flags) {
    static bool watched;
    if (flags) return INVALID_VALUE;
    if (forked) return NOT_INITIALIZED;
    if (!gy_open()) return NO_DEVICE;
    if (!watched) pthread_atfork(NULL, NULL, after_fork);
    watched = true;
    uint32_t joined = initialized ? 0 : gy_mps_join();
    gy_lock();
    uint32_t result = gy_injected(__func__, UINT32_MAX);
    if (!result) result = joined;
    if (!result && !initialized) choose_devices();
    if (!result && !gy_visible_count) result = NO_DEVICE;
    if (!result && gy_process() < 0) result = OUT_OF_MEMORY;
    if (!result) initialized = true, gy_take_part();
    gy_unlock();
    return (CUresult)result;
}

static CUresult enter(const char *function, bool needs_context) {
    if (!initialized) return NOT_INITIALIZED;
    gy_lock();
    gy_take_part();
    if (gy_here->virtual_clock && gy_here->call_ns) gy_wait_until(gy_here->virtual_ns + gy_here->call_ns);
    handle context = gy_current();
    uint32_t result = 0;
    if (gy_here->injection_count) result = gy_injected(function, context ? context->card : UINT32_MAX);
    if (!result && needs_context && !context) result = INVALID_CONTEXT;
    if (!result && context) {
        const gy_card *card = &gy_here->cards[context->card];
        result = card->lost ? card->lost : card->unplugged ? LAUNCH_FAILED : 0;
    }
    if (result) gy_mps_failed(result);
    else result = gy_mps_trouble();
    if (result) gy_unlock();
    return (CUresult)result;
}

CUresult gy_enter(const char *function) { return enter(function, false); }

CUresult gy_enter_context(const char *function, handle *context) {
    TRY(enter(function, true));
    *context = gy_current();
    return CUDA_SUCCESS;
}

CUresult gy_leave(CUresult result) {
    gy_unlock();
    return result;
}

/* A context that another thread destroyed is no longer current here. */
handle gy_current(void) { return depth && gy_get(stack[depth - 1], CONTEXT) ? stack[depth - 1] : NULL; }

void gy_push(handle context) {
    if (depth < CONTEXTS_DEEP) stack[depth++] = context;
}

handle gy_pop(void) { return depth ? stack[--depth] : NULL; }

void gy_set_current(handle context) {
    if (depth) depth--;
    if (context) gy_push(context);
}

/* How tests and clients ask what time it is on the machine, and let it pass. */
GY_API uint64_t gyEmulatorNowNs(void) {
    if (!gy_open()) return 0;
    gy_lock();
    uint64_t now = gy_now();
    gy_unlock();
    return now;
}

GY_API void gyEmulatorSleepNs(uint64_t ns) {
    if (!gy_open()) return;
    gy_lock();
    gy_wait_until(gy_now() + ns);
    gy_unlock();
}
