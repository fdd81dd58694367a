/* MIG as a program meets it: it computes in one instance of a card and has that instance's memory and multiprocessors, and
 * its part of the card's time, whatever the other instances do. */
#include "device_local.h"
#include <stdio.h>

static struct gy_emulator_instance *mine; /* where this process computes; NULL: on whole cards */
static uint32_t mine_on, mine_made;

void gy_mig_choose(uint32_t card, uint32_t place) {
    mine = place ? &gy_here->cards[card].instances[place - 1] : NULL;
    mine_on = card;
    mine_made = mine ? mine->made : 0;
}

void gy_mig_forget(void) { mine = NULL; }

gy_instance *gy_mig_here(uint32_t card) { return mine && card == mine_on ? mine : NULL; }

uint32_t gy_mig_place(uint32_t card) {
    const gy_instance *instance = gy_mig_here(card);
    return instance ? (uint32_t)(instance - gy_here->cards[card].instances) + 1 : 0;
}

/* A card in MIG mode is for its instances alone, and one that was made where another had been is another. */
bool gy_mig_may_compute(uint32_t card) {
    const gy_instance *instance = gy_mig_here(card);
    if (!instance) return !gy_here->cards[card].mig_mode;
    return instance->in_use && instance->computes && instance->made == mine_made;
}

/* The first instance of a card that computes, by its place + 1. */
uint32_t gy_mig_first(uint32_t card) {
    for (uint32_t i = 0; i < GY_EMULATOR_INSTANCES; i++)
        if (gy_here->cards[card].instances[i].in_use && gy_here->cards[card].instances[i].computes) return i + 1;
    return 0;
}

gy_instance *gy_mig_of(const gy_lane *lane) {
    return lane->instance ? &gy_here->cards[lane->card].instances[lane->instance - 1] : NULL;
}

bool gy_mig_busy(uint32_t card, uint32_t place) {
    for (uint32_t i = 0; i < gy_here->lane_high; i++) {
        const gy_lane *lane = &gy_here->lanes[i];
        if (lane->process && lane->card == card && lane->instance == place && lane->contexts) return true;
    }
    return false;
}

uint64_t gy_total(uint32_t card) {
    const gy_instance *instance = gy_mig_here(card);
    return instance ? instance->total : gy_here->cards[card].total;
}

uint64_t gy_used(uint32_t card) {
    const gy_instance *instance = gy_mig_here(card);
    return instance ? instance->used : gy_here->cards[card].used;
}

uint32_t gy_multiprocessors(uint32_t card) {
    const gy_instance *instance = gy_mig_here(card);
    return instance ? instance->multiprocessors : gy_mps_multiprocessors(&gy_here->cards[card]);
}

/* Each instance has its sevenths of the card's time, and shares them among its own programs. */
void gy_mig_rates(const uint16_t *lanes, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        gy_lane *lane = &gy_here->lanes[lanes[i]];
        if (!lane->instance) continue;
        uint32_t beside = 0;
        for (uint32_t j = 0; j < count; j++) beside += gy_here->lanes[lanes[j]].instance == lane->instance;
        lane->rate_ppm = gy_mig_of(lane)->slices * 1000000u / GY_MIG_SLICES / beside;
    }
}

void gy_mig_name(const gy_card *card, const gy_instance *instance, char *text, size_t room) {
    for (uint32_t i = 0; i < card->mig_profiles; i++)
        if (card->profiles[i].id == instance->profile) snprintf(text, room, "%s MIG %s", card->name, card->profiles[i].name);
}

void gy_mig_uuid(const gy_instance *instance, char text[41]) {
    const uint8_t *u = instance->uuid;
    snprintf(text, 41, "MIG-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3], u[4],
             u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}
