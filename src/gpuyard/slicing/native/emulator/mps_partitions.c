/* Static partitions of the emulated MPS: multiprocessors that are a client's alone, given out in chunks. The last chunk of a card
 * comes with what no chunk is made of. */
#include "mps_control.h"
#include <string.h>
#include <unistd.h>

static uint32_t chunk_of(const gy_card *card) { return card->major >= 9 ? 8 : 4; }

static int card_named(const char *wish) {
    for (uint32_t i = 0; i < gy_here->card_count; i++)
        if (gy_served >> i & 1 && strlen(wish) > 4 && gy_is_called(&gy_here->cards[i], wish)) return (int)i;
    return -1;
}

static bool is_used(uint32_t partition) {
    for (uint32_t i = 0; i < gy_here->process_high; i++)
        if (gy_here->processes[i].mps_server && gy_here->processes[i].mps_static == partition + 1 && gy_alive((int)i)) return true;
    return false;
}

/* What is left of a card: chunks, and multiprocessors, which may be more than those. */
static void left_of(uint32_t card, uint32_t *chunks, uint32_t *multiprocessors) {
    *multiprocessors = gy_here->cards[card].multiprocessors;
    *chunks = *multiprocessors / chunk_of(&gy_here->cards[card]);
    for (uint32_t i = 0; i < GY_EMULATOR_PARTITIONS; i++) {
        const struct gy_emulator_partition *each = &gy_here->partitions[i];
        if (each->in_use && each->card == card) *chunks -= each->chunks, *multiprocessors -= each->multiprocessors;
    }
}

static void tell_uuid(FILE *answer, const gy_card *card, int bytes) {
    fprintf(answer, "GPU-");
    for (int i = 0; i < bytes; i++) fprintf(answer, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", card->uuid[i]);
}

static void add_partition(FILE *answer, int card, uint32_t chunks) {
    static uint32_t made;
    uint32_t left, multiprocessors;
    for (uint32_t i = 0; card >= 0 && i < GY_EMULATOR_PARTITIONS; i++) {
        struct gy_emulator_partition *each = &gy_here->partitions[i];
        if (each->in_use) continue;
        left_of((uint32_t)card, &left, &multiprocessors);
        if (!chunks || chunks > left) break;
        *each = (struct gy_emulator_partition){.in_use = 1, .card = (uint32_t)card, .chunks = chunks};
        each->multiprocessors = chunks == left ? multiprocessors : chunks * chunk_of(&gy_here->cards[card]); /* the last has the rest too */
        snprintf(each->name, sizeof each->name, "D%05xAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ++made + (uint32_t)getpid() % 1000 * 64);
        tell_uuid(answer, &gy_here->cards[card], 16);
        fprintf(answer, "/%s\n", each->name);
        return;
    }
    fprintf(answer, "Failed to fulfill the requested SM partition of %u chunks, error CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION\n", chunks);
}

static void remove_partition(FILE *answer, int card, const char *name) {
    for (uint32_t i = 0; i < GY_EMULATOR_PARTITIONS; i++) {
        struct gy_emulator_partition *each = &gy_here->partitions[i];
        if (!each->in_use || (int)each->card != card || strcmp(each->name, name)) continue;
        if (is_used(i)) fprintf(answer, "Failed to remove the SM partition: it is in use\n");
        else memset(each, 0, sizeof *each);
        return;
    }
    fprintf(answer, "Failed to find the SM partition\n");
}

static void list_partitions(FILE *answer) {
    fprintf(answer, "GPU           Partition                            free   used   free  used  clients\n"
                    "                                                   chunk  chunk  SM    SM\n");
    for (uint32_t card = 0; card < gy_here->card_count; card++) {
        uint32_t left, multiprocessors, total = gy_here->cards[card].multiprocessors;
        if (!(gy_served >> card & 1)) continue;
        left_of(card, &left, &multiprocessors);
        tell_uuid(answer, &gy_here->cards[card], 4);
        fprintf(answer, "  -  %u  %u  %u  %u  -\n", left, total / chunk_of(&gy_here->cards[card]) - left, multiprocessors, total - multiprocessors);
        for (uint32_t i = 0; i < GY_EMULATOR_PARTITIONS; i++) {
            const struct gy_emulator_partition *each = &gy_here->partitions[i];
            if (!each->in_use || each->card != card) continue;
            tell_uuid(answer, &gy_here->cards[card], 4);
            fprintf(answer, "  %s  -  %u  -  %u  %s\n", each->name, each->chunks, each->multiprocessors, is_used(i) ? "Yes" : "-");
        }
    }
}

bool gy_command_partitions(FILE *answer, const char *line) {
    char device[48], name[48];
    unsigned chunks = 0;
    if (!gy_partitioned) return false;
    if (!strcmp(line, "lspart")) list_partitions(answer);
    else if (sscanf(line, "sm_partition add %47s %u", device, &chunks) == 2) add_partition(answer, card_named(device), chunks);
    else if (sscanf(line, "sm_partition rm %47s %47s", device, name) == 2) remove_partition(answer, card_named(device), name);
    else return false;
    return true;
}

void gy_forget_partitions(void) {
    for (uint32_t i = 0; i < GY_EMULATOR_PARTITIONS; i++)
        if (gy_here->partitions[i].in_use && gy_served >> gy_here->partitions[i].card & 1)
            memset(&gy_here->partitions[i], 0, sizeof gy_here->partitions[i]);
}
