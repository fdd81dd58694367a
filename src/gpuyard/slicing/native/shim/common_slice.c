/* The slice file: what this process may use. Anything that is not wholly right refuses. */
#include "shim.h"

struct gy_slice_file gy_slice;

uint64_t gy_fnv(const void *bytes, size_t count) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const uint8_t *p = bytes, *end = p + count; p < end; p++) hash = (hash ^ *p) * 0x100000001b3u;
    return hash;
}

uint64_t gy_monotonic_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool is_path(const char *text, size_t room, bool may_be_empty) {
    if (memchr(text, 0, room) == NULL) return false;
    return text[0] == '/' || (may_be_empty && text[0] == 0);
}

static const char *check_cards(void) {
    if (gy_slice.card_count < 1 || gy_slice.card_count > GY_MAX_CARDS) return "it names no card, or too many";
    for (uint32_t i = 0; i < gy_slice.card_count; i++) {
        const struct gy_slice_card *card = &gy_slice.cards[i];
        if (card->memory_bytes == 0 || card->memory_bytes >> 50) return "its memory is out of range";
        if (card->context_bytes >= card->memory_bytes) return "its memory cannot hold a context";
        if (card->turn_ns > 1000000000u) return "its turn is out of range";
        if (card->compute_ppm < 1 || card->compute_ppm > 1000000) return "its compute share is out of range";
        if (card->mode != GY_MODE_CAP && card->mode != GY_MODE_BORROW) return "its mode is unknown";
        if (!is_path(card->clock_path, sizeof card->clock_path, card->compute_ppm == 1000000 && !card->multiprocessors)) return "it lacks a clock";
        for (uint32_t j = 0; j < i; j++)
            if (!memcmp(card->uuid, gy_slice.cards[j].uuid, sizeof card->uuid)) return "it names a card twice";
    }
    return NULL;
}

static const char *check(void) {
    if (gy_slice.magic != GY_SLICE_MAGIC || gy_slice.size != sizeof gy_slice) return "it is not a slice file";
    if (gy_slice.version != GY_LAYOUT_VERSION) return "it is of another version";
    if (gy_slice.checksum != gy_fnv(&gy_slice, offsetof(struct gy_slice_file, checksum))) return "its checksum is wrong";
    if (memchr(gy_slice.slice_id, 0, sizeof gy_slice.slice_id) == NULL || !gy_slice.slice_id[0]) return "it has no id";
    if (!is_path(gy_slice.ledger_path, sizeof gy_slice.ledger_path, false)) return "it names no ledger";
    if (!is_path(gy_slice.real_cuda, sizeof gy_slice.real_cuda, false)) return "it names no driver";
    if (!is_path(gy_slice.real_nvml, sizeof gy_slice.real_nvml, true)) return "it names no NVML";
    return check_cards();
}

/* Whoever may write the file sets the limits: only root, or the one user who runs the whole yard and is no tenant of it. */
static const char *check_owner(int file) {
    struct stat status;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) return "it is not a plain file";
    if (status.st_uid != 0 && status.st_uid != geteuid()) return "it belongs to somebody else";
    if (status.st_mode & (S_IWGRP | S_IWOTH)) return "others may write it";
    if (status.st_uid != 0 && (status.st_mode & S_IWUSR)) return "its reader may write it";
    if (status.st_size != (off_t)sizeof gy_slice) return "it has the wrong size";
    if (gy_slice.cards[0].multiprocessors && status.st_uid != geteuid()) return "MPS serves its user alone, and this program is another's";
    return NULL;
}

const char *gy_slice_read(void) {
    const char *path = getenv("GPUYARD_SLICE");
    if (path == NULL || path[0] != '/') return "GPUYARD_SLICE names no file";
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0) return "it cannot be read";
    ssize_t got = read(file, &gy_slice, sizeof gy_slice);
    const char *why = check_owner(file);
    if (why == NULL && got != (ssize_t)sizeof gy_slice) why = "it cannot be read";
    close(file);
    return why == NULL ? check() : why;
}
