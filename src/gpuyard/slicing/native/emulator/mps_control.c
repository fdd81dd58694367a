/* nvidia-cuda-mps-control of an emulated machine: with -d or -f the daemon of one pipe directory, without either the shell
 * that commands it, line by line from standard input. The daemon starts a server for the first client, or when it is told.
 * With -S too, every client must name a static partition. */
#include "mps_control.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *folder;
static int listening[2]; /* for clients, and for whoever may command */
static int held = -1;     /* the folder's lock */
static uint32_t default_ppm = 1000000;
uint32_t gy_served;
static uint64_t default_limit[GY_MAX_CARDS];
static pid_t server;
static int server_slot = -1;
static uid_t server_user;
bool gy_partitioned;

bool gy_is_called(const gy_card *card, const char *wish) {
    const uint8_t *u = card->uuid;
    char text[41], index[8];
    snprintf(text, sizeof text, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3],
             u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
    snprintf(index, sizeof index, "%d", (int)(card - gy_here->cards));
    for (const char *word = wish; *word; word += strcspn(word, ","), word += *word == ',') {
        size_t length = strcspn(word, ",");
        if (!strncasecmp(word, text, length > 4 ? length : 40) || (!strncmp(word, index, length) && !index[length])) return true;
    }
    return false;
}

static void choose_cards(void) {
    const char *wish = getenv("CUDA_VISIBLE_DEVICES");
    for (uint32_t i = 0; i < gy_here->card_count; i++)
        if (!gy_here->cards[i].unplugged && (!wish || gy_is_called(&gy_here->cards[i], wish))) gy_served |= 1u << i;
}

static bool has_clients(void) {
    for (uint32_t i = 0; i < gy_here->process_high; i++)
        if (gy_here->processes[i].pid && gy_here->processes[i].mps_server == (uint32_t)server_slot + 1 && gy_alive((int)i)) return true;
    return false;
}

/* The server holds a context on each of its cards for as long as it lives. It is told apart from the programs that virtual
 * time waits for. */
static void serve(int told) {
    prctl(PR_SET_NAME, "nvidia-cuda-mps");
    for (int file = 3; file < 256; file++) /* the daemon's sockets and lock, and whoever it is answering */
        if (file != told) close(file);
    if (!gy_open()) _exit(1);
    gy_lock();
    int slot = gy_process();
    bool opens = slot >= 0;
    gy_here->arrived--;
    for (uint32_t i = 0; opens && i < gy_here->card_count; i++) {
        if (!(gy_served >> i & 1)) continue;
        opens = gy_may_open(i);
        if (opens) gy_lane_on(i)->contexts = 1;
    }
    if (opens) {
        struct gy_emulator_process *me = &gy_here->processes[slot];
        me->mps_role = GY_MPS_SERVER;
        me->mps_cards = gy_served;
        me->mps_ppm = default_ppm;
        me->mps_static = gy_partitioned;
        memcpy(me->mps_limit, default_limit, sizeof default_limit);
    }
    gy_unlock();
    if (!opens) slot = -1;
    if (write(told, &slot, sizeof slot) != sizeof slot || !opens) exit(1);
    close(told);
    server_slot = slot;
    for (pid_t daemon = getppid(); getppid() == daemon || has_clients();) usleep(200000);
    exit(0);
}

static void look_for_server(void) {
    if (server && waitpid(server, NULL, WNOHANG) == server) server = 0, server_slot = -1;
}

static void end_server(void) {
    look_for_server();
    if (!server) return;
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    server = 0, server_slot = -1;
}

static void start_server(uid_t user) {
    int told[2], slot = -1;
    look_for_server();
    if (server || pipe2(told, O_CLOEXEC)) return;
    server = fork();
    if (!server) {
        close(told[0]);
        serve(told[1]);
    }
    close(told[1]);
    if (read(told[0], &slot, sizeof slot) != sizeof slot) slot = -1;
    close(told[0]);
    server_slot = slot;
    server_user = user;
    if (slot < 0 && server > 0) waitpid(server, NULL, 0), server = 0;
}

/* A failed server is gone with the first client after it; one of another user once nobody uses it. */
static void join(FILE *answer, uid_t user) {
    start_server(user);
    gy_lock();
    bool failed = server && gy_here->processes[server_slot].mps_fault;
    bool foreign = server && user != server_user, busy = server && has_clients();
    gy_unlock();
    if (failed || (foreign && !busy)) end_server(), start_server(user);
    fprintf(answer, "%d\n", foreign && busy ? -1 : server_slot);
}

static uint64_t *limit_of(unsigned device, uint64_t *limits) {
    for (uint32_t card = 0, seen = 0; card < GY_MAX_CARDS; card++)
        if (gy_served >> card & 1 && seen++ == device) return &limits[card];
    return NULL;
}

static void set_share(FILE *answer, uint32_t *ppm, double percent) {
    if (percent > 0 && percent <= 100) *ppm = (uint32_t)(percent * 10000);
    else fprintf(answer, "Invalid value\n");
}

static void set_limit(FILE *answer, uint64_t *limits, unsigned device, const char *size) {
    uint64_t *limit = limit_of(device, limits), bytes = gy_mps_bytes(size);
    if (limit && bytes) *limit = bytes;
    else fprintf(answer, "Invalid value\n");
}

static void tell_limit(FILE *answer, uint64_t *limits, unsigned device) {
    uint64_t *limit = limit_of(device, limits);
    if (limit && *limit) fprintf(answer, "%luM\n", (unsigned long)(*limit >> 20));
}

static void list_clients(FILE *answer) {
    for (uint32_t i = 0; i < gy_here->process_high; i++)
        if (gy_here->processes[i].mps_server == (uint32_t)server_slot + 1 && gy_alive((int)i)) fprintf(answer, "%u\n", gy_pid_here((int)i));
}

/* What is said of one server, by its pid. */
static bool command_server(FILE *answer, const char *line) {
    struct gy_emulator_process *of = server ? &gy_here->processes[server_slot] : NULL;
    unsigned pid = 0, device = 0;
    double percent = 0;
    char size[32];
    bool set_share_of = sscanf(line, "set_active_thread_percentage %u %lf", &pid, &percent) == 2;
    bool set_limit_of = !set_share_of && sscanf(line, "set_device_pinned_mem_limit %u %u %31s", &pid, &device, size) == 3;
    bool tell_share = sscanf(line, "get_active_thread_percentage %u", &pid) == 1;
    bool tell_limit_of = sscanf(line, "get_device_pinned_mem_limit %u %u", &pid, &device) == 2;
    bool clients = sscanf(line, "get_client_list %u", &pid) == 1;
    if (!(set_share_of || set_limit_of || tell_share || tell_limit_of || clients)) return false;
    if (!of || (pid_t)pid != server) fprintf(answer, "Server %u not found\n", pid);
    else if (set_share_of) set_share(answer, &of->mps_ppm, percent);
    else if (set_limit_of) set_limit(answer, of->mps_limit, device, size);
    else if (tell_share) fprintf(answer, "%.1f\n", of->mps_ppm / 1e4);
    else if (tell_limit_of) tell_limit(answer, of->mps_limit, device);
    else list_clients(answer);
    return true;
}

static void command(FILE *answer, const char *line) {
    unsigned device = 0, user = 0;
    double percent = 0;
    char size[32];
    if (!strcmp(line, "get_server_list")) {
        if (server) fprintf(answer, "%d\n", (int)server);
    } else if (sscanf(line, "start_server -uid %u", &user) == 1) {
        start_server(user);
    } else if (sscanf(line, "set_default_active_thread_percentage %lf", &percent) == 1) {
        set_share(answer, &default_ppm, percent);
    } else if (!strcmp(line, "get_default_active_thread_percentage")) {
        fprintf(answer, "%.1f\n", default_ppm / 1e4);
    } else if (sscanf(line, "set_default_device_pinned_mem_limit %u %31s", &device, size) == 2) {
        set_limit(answer, default_limit, device, size);
    } else if (sscanf(line, "get_default_device_pinned_mem_limit %u", &device) == 1) {
        tell_limit(answer, default_limit, device);
    } else if (!strncmp(line, "quit", 4) && (!line[4] || line[4] == ' ')) {
        end_server();
        fclose(answer);
        unlink("control"), unlink("control_privileged"), unlink("nvidia-cuda-mps-control.pid");
        exit(0);
    } else {
        gy_lock();
        bool known = gy_command_partitions(answer, line) || command_server(answer, line);
        gy_unlock();
        if (!known) fprintf(answer, "Unrecognized command: %s\n", line);
    }
}

static bool read_line(int link, char *line, size_t room) {
    size_t length = 0;
    for (ssize_t got; length < room - 1 && !memchr(line, '\n', length); length += (size_t)got)
        if ((got = recv(link, line + length, room - 1 - length, 0)) <= 0) return false;
    line[length] = 0;
    line[strcspn(line, "\n")] = 0;
    return true;
}

static void meet(int from, bool may_command) {
    char line[256] = "";
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    struct timeval patience = {.tv_sec = 1};
    int link = accept4(from, NULL, NULL, SOCK_CLOEXEC);
    if (link < 0) return;
    setsockopt(link, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    getsockopt(link, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    bool asked = read_line(link, line, sizeof line);
    FILE *answer = fdopen(link, "w");
    if (!answer) {
        close(link);
        return;
    }
    look_for_server();
    if (asked && may_command) command(answer, line);
    else if (asked && !strcmp(line, "client")) join(answer, peer.uid);
    fclose(answer);
}

static void run(int ready) {
    struct pollfd both[2] = {{listening[0], POLLIN, 0}, {listening[1], POLLIN, 0}};
    FILE *note = fopen("nvidia-cuda-mps-control.pid", "we");
    if (note) fprintf(note, "%d\n", (int)getpid()), fclose(note);
    signal(SIGPIPE, SIG_IGN);
    if (ready >= 0 && write(ready, "+", 1) == 1) close(ready);
    for (;;) {
        if (poll(both, 2, 1000) > 0)
            for (int i = 0; i < 2; i++)
                if (both[i].revents) meet(listening[i], i == 1);
        look_for_server();
    }
}

static int become_daemon(bool in_background) {
    int ready[2];
    char told = 0;
    if (!gy_open()) return 1;
    if ((mkdir(folder, 0755) && errno != EEXIST) || chdir(folder)) return perror(folder), 1;
    held = open("control_lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (held < 0 || flock(held, LOCK_EX | LOCK_NB)) return puts("An instance of this daemon is already running"), 1;
    unlink("control"), unlink("control_privileged");
    choose_cards();
    gy_lock();
    gy_forget_partitions();
    gy_unlock();
    listening[0] = gy_mps_socket(".", "control", true);
    listening[1] = gy_mps_socket(".", "control_privileged", true);
    if (listening[0] < 0 || listening[1] < 0 || chmod("control", 0666) || chmod("control_privileged", 0600)) return perror(folder), 1;
    if (!in_background) run(-1);
    if (pipe2(ready, O_CLOEXEC)) return 1;
    if (fork()) {
        close(ready[1]);
        return read(ready[0], &told, 1) == 1 ? 0 : 1;
    }
    setsid();
    int nowhere = open("/dev/null", O_RDWR);
    for (int i = 0; i < 3; i++) dup2(nowhere, i);
    if (!gy_open()) return 1; /* a child has the machine to open anew */
    run(ready[1]);
    return 0;
}

static int shell(void) {
    char line[256], answer[4096];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (!line[0]) continue;
        if (!gy_mps_ask(folder, "control_privileged", line, answer, sizeof answer)) {
            puts("Cannot find MPS control daemon process");
            return 1;
        }
        fputs(answer, stdout);
    }
    return 0;
}

int main(int count, char **words) {
    folder = getenv("CUDA_MPS_PIPE_DIRECTORY");
    if (!folder || !*folder) folder = "/tmp/nvidia-mps";
    if (count == 1) return shell();
    bool in_background = false, in_front = false;
    for (int i = 1; i < count; i++) {
        if (!strcmp(words[i], "-d")) in_background = true;
        else if (!strcmp(words[i], "-f")) in_front = true;
        else if (!strcmp(words[i], "-S") || !strcmp(words[i], "--static-partitioning")) gy_partitioned = true;
        else in_background = in_front = true;
    }
    if (in_background != in_front) return become_daemon(in_background);
    fprintf(stderr, "usage: nvidia-cuda-mps-control [-d | -f] [-S | --static-partitioning]\n");
    return 1;
}
