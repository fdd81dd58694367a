/* Processes and their lanes. A process lives as long as it holds the lock on its own byte of the file: that is true in any
 * pid namespace, and ends with the process however it ends. */
#include "device_local.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int own = -1;
static uint16_t own_lane[GY_MAX_CARDS]; /* + 1 */

static struct flock byte_of(int slot, short kind) {
    struct flock range = {.l_type = kind, .l_whence = SEEK_SET, .l_start = ((off_t)1 << 40) + slot, .l_len = 1};
    return range;
}

bool gy_alive(int slot) {
    if (slot == own) return true;
    struct flock range = byte_of(slot, F_WRLCK);
    return fcntl(gy_file, F_OFD_GETLK, &range) != 0 || range.l_type != F_UNLCK;
}

static uint64_t start_time(const char *process) {
    char path[288], text[1024];
    uint64_t started = 0;
    snprintf(path, sizeof path, "/proc/%s/stat", process);
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    char *rest = strrchr(text, ')'); /* a program's name may hold anything */
    for (int field = 2; rest && field < 22; field++) rest = strchr(rest + 1, ' ');
    if (rest) sscanf(rest, "%lu", &started);
    return started;
}

static uint64_t pid_namespace(const char *process) {
    char path[288];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%s/ns/pid", process);
    return stat(path, &status) ? 0 : status.st_ino;
}

/* The pid as the innermost namespace of that process counts. */
static uint32_t inner_pid(const char *process) {
    char path[288], line[256];
    uint32_t pid = 0;
    snprintf(path, sizeof path, "/proc/%s/status", process);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, "NSpid:", 6)) pid = (uint32_t)strtoul(strrchr(line, '\t') + 1, NULL, 10);
    if (file) fclose(file);
    return pid;
}

uint32_t gy_pid_here(int slot) {
    const struct gy_emulator_process *wanted = &gy_here->processes[slot];
    if (wanted->pid_namespace == pid_namespace("self")) return wanted->pid;
    DIR *all = opendir("/proc");
    uint32_t found = 0;
    for (struct dirent *entry; all && !found && (entry = readdir(all));) {
        const char *name = entry->d_name;
        if (name[0] < '1' || name[0] > '9' || pid_namespace(name) != wanted->pid_namespace) continue;
        if (inner_pid(name) == wanted->pid && start_time(name) == wanted->start_time) found = (uint32_t)atoi(name);
    }
    if (all) closedir(all);
    return found ? found : wanted->pid;
}

void gy_forget_slots(void) {
    own = -1;
    gy_mps_forget();
    gy_mig_forget();
    memset(own_lane, 0, sizeof own_lane);
}

static void drop_lane(gy_lane *lane) {
    gy_card *card = &gy_here->cards[lane->card];
    gy_instance *instance = gy_mig_of(lane);
    card->used -= lane->used < card->used ? lane->used : card->used;
    if (instance) instance->used -= lane->used < instance->used ? lane->used : instance->used;
    memset(lane, 0, sizeof *lane);
}

static void drop_process(int slot) {
    for (uint32_t i = 0; i < gy_here->lane_high; i++)
        if (gy_here->lanes[i].process == (uint32_t)slot + 1) drop_lane(&gy_here->lanes[i]);
    gy_drop_threads(slot);
    memset(&gy_here->processes[slot], 0, sizeof gy_here->processes[slot]);
}

void gy_reap(void) {
    gy_advance(gy_now()); /* the dead had their part up to now */
    for (uint32_t i = 0; i < gy_here->process_high; i++)
        if (gy_here->processes[i].pid && !gy_alive((int)i)) drop_process((int)i);
}

void gy_repair(void) {
    for (uint32_t i = 0; i < gy_here->card_count; i++) {
        gy_here->cards[i].used = 0;
        for (uint32_t j = 0; j < GY_EMULATOR_INSTANCES; j++) gy_here->cards[i].instances[j].used = 0;
    }
    for (uint32_t i = 0; i < gy_here->lane_high; i++) {
        const gy_lane *lane = &gy_here->lanes[i];
        if (!lane->process) continue;
        gy_here->cards[lane->card].used += lane->used;
        if (lane->instance) gy_mig_of(lane)->used += lane->used;
    }
    gy_reap();
}

static int free_slot(void) {
    for (int i = 0; i < (int)GY_EMULATOR_PROCESSES; i++)
        if (!gy_here->processes[i].pid) return i;
    return -1;
}

int gy_process(void) {
    if (own >= 0) return own;
    int slot = free_slot();
    if (slot < 0) gy_reap(), slot = free_slot();
    struct flock range = byte_of(slot, F_WRLCK);
    if (slot < 0 || fcntl(gy_file, F_OFD_SETLK, &range)) return -1;
    own = slot;
    gy_here->processes[slot].start_time = start_time("self");
    gy_here->processes[slot].pid_namespace = pid_namespace("self");
    gy_mps_enlist(slot);
    gy_here->processes[slot].pid = (uint32_t)getpid();
    if (gy_here->process_high <= (uint32_t)slot) gy_here->process_high = (uint32_t)slot + 1;
    gy_here->arrived++;
    return slot;
}

void gy_leave_process(void) {
    if (own < 0) return;
    gy_advance(gy_now());
    drop_process(own);
    struct flock range = byte_of(own, F_UNLCK);
    fcntl(gy_file, F_OFD_SETLK, &range);
    gy_forget_slots();
}

gy_lane *gy_lane_if(uint32_t card) {
    return card < GY_MAX_CARDS && own_lane[card] ? &gy_here->lanes[own_lane[card] - 1] : NULL;
}

gy_lane *gy_lane_on(uint32_t card) {
    gy_lane *lane = gy_lane_if(card);
    int slot = gy_process();
    for (uint32_t i = 0; !lane && slot >= 0 && i < GY_EMULATOR_LANES; i++) {
        if (gy_here->lanes[i].process) continue;
        lane = &gy_here->lanes[i];
        *lane = (gy_lane){.process = (uint32_t)slot + 1, .card = card, .rate_ppm = gy_mps_rate(), .limit = gy_mps_limit(card),
                          .instance = gy_mig_place(card)};
        own_lane[card] = (uint16_t)(i + 1);
        if (gy_here->lane_high <= i) gy_here->lane_high = i + 1;
    }
    return lane;
}

bool gy_reserve(uint32_t card, uint64_t bytes) {
    gy_card *at = &gy_here->cards[card];
    gy_lane *lane = gy_lane_on(card);
    if (!lane || (lane->limit && (bytes > lane->limit || lane->used > lane->limit - bytes))) return false;
    if (!gy_group_allows(card, bytes)) return false;
    gy_instance *instance = gy_mig_of(lane);
    if (bytes > gy_total(card) - gy_used(card)) gy_reap();
    if (bytes > gy_total(card) - gy_used(card)) {
        at->refused++;
        return false;
    }
    lane->used += bytes;
    at->used += bytes;
    if (instance) instance->used += bytes;
    if (at->peak < at->used) at->peak = at->used;
    return true;
}

void gy_give_back(uint32_t card, uint64_t bytes) {
    gy_lane *lane = gy_lane_if(card);
    if (!lane) return;
    lane->used -= bytes;
    gy_here->cards[card].used -= bytes;
    if (lane->instance) gy_mig_of(lane)->used -= bytes;
}
