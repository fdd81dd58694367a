/* What the device files share among themselves. */
#pragma once
#include "device.h"

extern int gy_file;
void gy_forget_slots(void);    /* after a fork: the slots are the parent's */
void gy_repair(void);          /* the sums, after a holder of the lock died */
void gy_mps_forget(void);      /* after a fork: the client is the parent */
void gy_mig_forget(void);      /* likewise */
void gy_mig_rates(const uint16_t *lanes, uint32_t count); /* what each busy lane of a card gets of it */
void gy_drop_threads(int slot);/* a process's threads no longer take part */
