/* Memory limits by cgroup, as drivers from 615 on have them where the kernel has the dmem controller. The kernel here has none for
 * emulated cards: which group a process is in is the kernel's word, and the group's dmem.max lies at the same path below the
 * machine's own folder. Its lines are the kernel's: a region, which is named after the card's address, and bytes or "max".
 * https://docs.nvidia.com/deploy/mps (memory partitioning), Documentation/admin-guide/cgroup-v2.rst (DMEM) */
#include "device.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_ROOM = 768, LINE_ROOM = 128 };

static void region_of(const gy_card *card, char text[LINE_ROOM]) {
    snprintf(text, LINE_ROOM, "nvidia/%08x:%02x:00.0/vidmem", card->pci_domain, card->pci_bus);
}

uint64_t gy_group_read(const gy_card *card, const char *folder, const char *file) {
    char path[PATH_ROOM], line[LINE_ROOM], region[LINE_ROOM], size[32];
    uint64_t found = UINT64_MAX;
    region_of(card, region);
    size_t length = strlen(region);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *limits = fopen(path, "re");
    while (limits && fgets(line, sizeof line, limits))
        if (!strncmp(line, region, length) && sscanf(line + length, " %31s", size) == 1 && strcmp(size, "max")) found = strtoull(size, NULL, 10);
    if (limits) fclose(limits);
    return found;
}

/* The lines of other cards stay. A reader meets the old file or the new one. */
bool gy_group_write(const gy_card *card, const char *folder, const char *file, uint64_t bytes) {
    char path[PATH_ROOM], partial[PATH_ROOM + 8], line[LINE_ROOM], region[LINE_ROOM];
    region_of(card, region);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    snprintf(partial, sizeof partial, "%s.new", path);
    FILE *after = fopen(partial, "we"), *before = after ? fopen(path, "re") : NULL;
    if (!after) return false;
    while (before && fgets(line, sizeof line, before))
        if (strncmp(line, region, strlen(region))) fputs(line, after);
    if (before) fclose(before);
    if (bytes == UINT64_MAX) fprintf(after, "%s max\n", region);
    else fprintf(after, "%s %lu\n", region, (unsigned long)bytes);
    return !fclose(after) && !rename(partial, path);
}

/* The group that the kernel says this process is in now; empty where it has none, or the machine has no such limits. */
static char *own_group(void) {
    int slot = gy_process();
    if (slot < 0 || !gy_here->group_root[0]) return NULL;
    char line[PATH_ROOM], *group = gy_here->processes[slot].group;
    group[0] = 0;
    FILE *groups = fopen("/proc/self/cgroup", "re");
    while (groups && fgets(line, sizeof line, groups)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "0::/", 4) && strlen(line + 3) < sizeof gy_here->processes[slot].group) strcpy(group, line + 3);
    }
    if (groups) fclose(groups);
    return group[0] && group[1] ? group : NULL;
}

static bool is_inside(const char *inner, const char *outer) {
    size_t length = strlen(outer);
    return !strncmp(inner, outer, length) && (!inner[length] || inner[length] == '/');
}

uint64_t gy_group_used(uint32_t card, const char *group) {
    uint64_t used = 0;
    for (uint32_t i = 0; i < gy_here->lane_high; i++) {
        const gy_lane *lane = &gy_here->lanes[i];
        if (lane->process && lane->card == card && is_inside(gy_here->processes[lane->process - 1].group, group)) used += lane->used;
    }
    return used;
}

uint64_t gy_group_limit(uint32_t card) {
    char folder[PATH_ROOM];
    const char *group = own_group();
    if (!group) return UINT64_MAX;
    snprintf(folder, sizeof folder, "%s%s", gy_here->group_root, group);
    return gy_group_read(&gy_here->cards[card], folder, "dmem.max");
}

static bool has_room(uint32_t card, const char *group, uint64_t bytes) {
    char folder[PATH_ROOM];
    snprintf(folder, sizeof folder, "%s%s", gy_here->group_root, group);
    uint64_t limit = gy_group_read(&gy_here->cards[card], folder, "dmem.max");
    if (limit == UINT64_MAX) return true;
    if (bytes <= limit && gy_group_used(card, group) <= limit - bytes) return true;
    gy_reap(); /* what the dead had may be all that is in the way */
    return bytes <= limit && gy_group_used(card, group) <= limit - bytes;
}

bool gy_group_allows(uint32_t card, uint64_t bytes) {
    const char *own = own_group();
    char group[sizeof gy_here->processes[0].group];
    if (!own) return true;
    for (strcpy(group, own); group[0]; *strrchr(group, '/') = 0)
        if (!has_room(card, group, bytes)) return false;
    return true;
}
