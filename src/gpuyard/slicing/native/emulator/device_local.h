/* What the device files share among themselves. */
#pragma once
#include "device.h"

extern int gy_file;
void gy_forget_slots(void);    /* after a fork: the slots are the parent's */
void gy_repair(void);          /* the sums, after a holder of the lock died */
void gy_mps_forget(void);      /* after a fork: the client is the parent */
void gy_drop_threads(int slot);/* a process's threads no longer take part */
