/* NVIDIA's Multi-Process Service, as a program meets it. One whose pipe directory leads to a living control daemon becomes a
 * client of that daemon's server: of the cards that the server serves, with the share of their multiprocessors and the
 * memory that the server allows and its own environment asks for. Without a daemon it runs as if there were no such thing. */
#include "device_local.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { WHOLE_PPM = 1000000, RPC_FAILURE = 806, SERVER_NOT_READY = 807, FATAL_FROM = 700, FATAL_TO = 720 };

static int server = -1; /* its slot, where this process is a client */
static uint32_t own_ppm = WHOLE_PPM;
static uint64_t own_limit[GY_MAX_CARDS];
static int own_partition = -1;

/* Through the folder's descriptor, because a socket's path may only be short. */
int gy_mps_socket(const char *folder, const char *name, bool listens) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int directory = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int link = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", directory, name);
    int (*open_it)(int, const struct sockaddr *, socklen_t) = listens ? bind : connect;
    bool opened = directory >= 0 && link >= 0 && !open_it(link, (struct sockaddr *)&address, sizeof address);
    if (opened && listens) opened = !listen(link, 64);
    if (directory >= 0) close(directory);
    if (opened) return link;
    if (link >= 0) close(link);
    return -1;
}

bool gy_mps_ask(const char *folder, const char *name, const char *line, char *answer, size_t room) {
    int link = gy_mps_socket(folder, name, false);
    if (link < 0) return false;
    size_t length = 0;
    bool sent = write(link, line, strlen(line)) == (ssize_t)strlen(line) && write(link, "\n", 1) == 1;
    for (ssize_t got; sent && length < room - 1 && (got = read(link, answer + length, room - 1 - length)) > 0;) length += (size_t)got;
    answer[length] = 0;
    close(link);
    return sent;
}

/* 2G, 512M, with or without a B; 0 for what is no size. */
uint64_t gy_mps_bytes(const char *text) {
    char *end;
    uint64_t number = strtoull(text, &end, 10);
    int shift = *end == 'G' ? 30 : *end == 'M' ? 20 : 0;
    return end == text || !shift || number >> 30 ? 0 : number << shift;
}

/* DEVICE=SIZE,...; the devices are numbered as the server has them. As with the real thing, whoever names one that is not
 * there has no limit at all. */
static void read_limits(const char *wish, uint32_t cards) {
    uint64_t limit[GY_MAX_CARDS];
    memcpy(limit, own_limit, sizeof limit);
    while (wish && *wish) {
        unsigned device = 0;
        uint32_t card = 0;
        int used = 0;
        if (sscanf(wish, "%u=%n", &device, &used) != 1 || !used) return;
        for (unsigned seen = 0; card < GY_MAX_CARDS && !(cards >> card & 1 && seen++ == device); card++) continue;
        if (card == GY_MAX_CARDS) {
            memset(own_limit, 0, sizeof own_limit);
            return;
        }
        uint64_t bytes = gy_mps_bytes(wish + used);
        if (bytes && (!limit[card] || bytes < limit[card])) limit[card] = bytes;
        wish += strcspn(wish, ",");
        wish += *wish == ',';
    }
    memcpy(own_limit, limit, sizeof limit);
}

/* UUID/NAME; of the UUID its beginning is enough. */
static int partition_named(const char *wish, uint32_t cards) {
    for (uint32_t i = 0; wish && i < GY_EMULATOR_PARTITIONS; i++) {
        const struct gy_emulator_partition *each = &gy_here->partitions[i];
        const char *name = strchr(wish, '/');
        if (each->in_use && name && !strcmp(name + 1, each->name) && cards >> each->card & 1) return (int)i;
    }
    return -1;
}

uint32_t gy_mps_join(void) {
    const char *folder = getenv("CUDA_MPS_PIPE_DIRECTORY"), *share = getenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE");
    char answer[64];
    if (server >= 0 || !folder || !*folder || !gy_mps_ask(folder, "control", "client", answer, sizeof answer)) return 0;
    int slot = atoi(answer);
    if (!answer[0] || slot < 0 || slot >= (int)GY_EMULATOR_PROCESSES) return SERVER_NOT_READY;
    gy_lock();
    const struct gy_emulator_process *of = &gy_here->processes[slot];
    double percent = share ? atof(share) : 0;
    own_ppm = of->mps_ppm;
    if (percent > 0 && percent < 100 && (uint32_t)(percent * 10000) < own_ppm) own_ppm = (uint32_t)(percent * 10000);
    own_partition = of->mps_static ? partition_named(getenv("CUDA_MPS_SM_PARTITION"), of->mps_cards) : -1;
    if (own_partition >= 0) { /* the share that it asks for does not count */
        const struct gy_emulator_partition *mine = &gy_here->partitions[own_partition];
        own_ppm = (uint32_t)((uint64_t)mine->multiprocessors * WHOLE_PPM / gy_here->cards[mine->card].multiprocessors);
    }
    memcpy(own_limit, of->mps_limit, sizeof own_limit);
    read_limits(getenv("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"), of->mps_cards);
    server = slot;
    gy_unlock();
    return 0;
}

void gy_mps_enlist(int slot) {
    if (server < 0) return;
    gy_here->processes[slot].mps_role = GY_MPS_CLIENT;
    gy_here->processes[slot].mps_server = (uint32_t)server + 1;
    gy_here->processes[slot].mps_static = (uint32_t)(own_partition + 1);
}

void gy_mps_forget(void) {
    server = own_partition = -1;
    own_ppm = WHOLE_PPM;
    memset(own_limit, 0, sizeof own_limit);
}

bool gy_mps_is_client(void) { return server >= 0; }
bool gy_mps_sees(uint32_t card) { return server < 0 || gy_here->processes[server].mps_cards >> card & 1; }
uint32_t gy_mps_rate(void) { return own_ppm; }
uint64_t gy_mps_limit(uint32_t card) { return own_limit[card]; }

bool gy_mps_placed(uint32_t card) {
    if (server < 0 || !gy_here->processes[server].mps_static) return true;
    return own_partition >= 0 && gy_here->partitions[own_partition].card == card;
}

/* Multiprocessors are given out in pairs. */
uint32_t gy_mps_multiprocessors(const gy_card *card) {
    if (own_partition >= 0) return gy_here->partitions[own_partition].multiprocessors;
    if (own_ppm == WHOLE_PPM) return card->multiprocessors;
    uint32_t part = (uint32_t)((uint64_t)card->multiprocessors * own_ppm / WHOLE_PPM) & ~1u;
    return part ? part : 2;
}

uint32_t gy_mps_trouble(void) {
    if (server < 0) return 0;
    const struct gy_emulator_process *of = &gy_here->processes[server];
    if (of->mps_role != GY_MPS_SERVER || !gy_alive(server)) return RPC_FAILURE;
    return of->mps_fault;
}

void gy_mps_failed(uint32_t result) {
    if (server >= 0 && result >= FATAL_FROM && result < FATAL_TO) gy_here->processes[server].mps_fault = result;
}

static bool is_of_my_server(uint32_t process) {
    if (server < 0) return false;
    return process == (uint32_t)server || gy_here->processes[process].mps_server == (uint32_t)server + 1;
}

bool gy_may_open(uint32_t card) {
    enum { PROHIBITED = 2, EXCLUSIVE_PROCESS = 3 };
    if (gy_here->cards[card].compute_mode == PROHIBITED) return false;
    if (gy_here->cards[card].compute_mode != EXCLUSIVE_PROCESS) return true;
    const gy_lane *mine = gy_lane_if(card);
    gy_reap();
    for (uint32_t i = 0; i < gy_here->lane_high; i++) {
        const gy_lane *lane = &gy_here->lanes[i];
        if (lane == mine || !lane->process || lane->card != card || !lane->contexts) continue;
        if (!is_of_my_server(lane->process - 1)) return false;
    }
    return true;
}
