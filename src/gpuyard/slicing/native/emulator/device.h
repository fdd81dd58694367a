/* The emulated machine: one file that every process maps, and what happens on its cards. */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "layout.h"

/* Exported, and bound to this library from inside of it, whatever else in the process has the same name. */
#define GY_API __attribute__((visibility("protected")))

enum { GY_RUNS = 0, GY_WAITS_MOMENT = 1, GY_WAITS_MARK = 2 };
#define GY_FOREVER UINT64_MAX

typedef struct gy_emulator_file gy_machine;
typedef struct gy_emulator_card gy_card;
typedef struct gy_emulator_lane gy_lane;
typedef struct gy_emulator_mark gy_mark;
typedef struct gy_emulator_instance gy_instance;
typedef struct gy_emulator_thread gy_thread;

/* The machine that GPUYARD_EMULATOR names; NULL without one, with a reason on standard error the first time. */
gy_machine *gy_open(void);
extern gy_machine *gy_here; /* NULL until gy_open */

/* One lock for everything below. A holder that dies leaves it to the next one, who puts the sums right. */
void gy_lock(void);
void gy_unlock(void);

/* device_slots.c: who is here. All with the lock held. */
int gy_process(void);                  /* this process's slot, -1 where the machine is full */
gy_lane *gy_lane_on(uint32_t card);    /* this process's lane on a card; NULL where there is no more room */
gy_lane *gy_lane_if(uint32_t card);    /* the same, NULL where it has none yet */
void gy_reap(void);                    /* takes back what the dead left */
bool gy_alive(int slot);
uint32_t gy_pid_here(int slot);        /* its pid as this process counts, also where it lives in a container */
void gy_leave_process(void);           /* gives everything of this process back */
bool gy_reserve(uint32_t card, uint64_t bytes); /* false where the card is full */
void gy_give_back(uint32_t card, uint64_t bytes);

/* device_mps.c: the Multi-Process Service. With the lock held, but for the first four. */
enum { GY_MPS_SERVER = 1, GY_MPS_CLIENT = 2 };
int gy_mps_socket(const char *folder, const char *name, bool listens); /* -1 where there is none */
bool gy_mps_ask(const char *folder, const char *name, const char *line, char *answer, size_t room);
uint64_t gy_mps_bytes(const char *text);
uint32_t gy_mps_join(void);            /* makes this process a client where a daemon answers; the CUDA error where it cannot be one */
void gy_mps_enlist(int slot);          /* notes in this process's slot whose client it is */
bool gy_mps_is_client(void);
bool gy_mps_sees(uint32_t card);
uint32_t gy_mps_rate(void);            /* its share of each card, in parts per million */
uint64_t gy_mps_limit(uint32_t card);  /* bytes; 0: no limit */
uint32_t gy_mps_multiprocessors(const gy_card *card); /* as this process sees them */
bool gy_mps_placed(uint32_t card);     /* false for a client of partitions that names none of this card */
uint32_t gy_mps_trouble(void);         /* what every call of a client answers whose server is gone, or failed */
void gy_mps_failed(uint32_t result);   /* a client died of this, if it is an error that one dies of, and takes all others along */
bool gy_may_open(uint32_t card);       /* whether the card's compute mode lets this process make a context */

/* device_groups.c: memory limits by cgroup, as drivers from 615 on have them. With the lock held. */
bool gy_group_allows(uint32_t card, uint64_t bytes); /* whether every cgroup that this process is in has room for so much more */
uint64_t gy_group_limit(uint32_t card);              /* of the cgroup that it is in itself; UINT64_MAX: none */
uint64_t gy_group_used(uint32_t card, const char *group); /* by all processes in it and below it */
uint64_t gy_group_read(const gy_card *card, const char *folder, const char *file); /* UINT64_MAX: no limit, or no such file */
bool gy_group_write(const gy_card *card, const char *folder, const char *file, uint64_t bytes);

/* device_mig.c: instances of cards. All with the lock held; a place is an instance's number + 1, 0 for none. */
#define GY_MIG_SLICES 7u
void gy_mig_choose(uint32_t card, uint32_t place); /* this process computes there, and nowhere else */
gy_instance *gy_mig_here(uint32_t card);           /* where it computes on a card; NULL for the whole card */
uint32_t gy_mig_place(uint32_t card);
uint32_t gy_mig_first(uint32_t card);
bool gy_mig_may_compute(uint32_t card);
gy_instance *gy_mig_of(const gy_lane *lane);
bool gy_mig_busy(uint32_t card, uint32_t place);
uint64_t gy_total(uint32_t card);                  /* bytes of the card, or of its instance, as this process has it */
uint64_t gy_used(uint32_t card);
uint32_t gy_multiprocessors(uint32_t card);
void gy_mig_name(const gy_card *card, const gy_instance *instance, char *text, size_t room);
void gy_mig_uuid(const gy_instance *instance, char text[41]); /* as CUDA_VISIBLE_DEVICES takes it */


/* device_work.c: processor sharing. All with the lock held. */
uint64_t gy_now(void);
uint64_t gy_real_ns(void);
void gy_advance(uint64_t now);                      /* every card up to now, its utilisation too */
uint64_t gy_submit(uint32_t card, uint64_t work_ns);/* a mark, which is done after this much device time */
bool gy_done(const gy_lane *lane, uint64_t mark);
uint64_t gy_done_at(const gy_lane *lane, uint64_t mark);
uint64_t gy_next_change(uint64_t now);              /* when a lane runs dry or a turn ends, if nobody submits anything */
uint64_t gy_done_earliest(const gy_lane *lane, uint64_t mark, uint64_t now);
gy_mark *gy_mark_of(const gy_lane *lane, uint64_t mark);

/* device_wait.c: time passing. With the lock held; they let it go while they wait. */
void gy_take_part(void);
void gy_step_out(void); /* this thread will wait outside of the driver: time passes without it */
void gy_wait_until(uint64_t moment);
void gy_wait_mark(const gy_lane *lane, uint64_t mark);

/* device_faults.c: the result and the delay that were injected for a call; card 0xffffffff for a call on none. */
uint32_t gy_injected(const char *function, uint32_t card);
