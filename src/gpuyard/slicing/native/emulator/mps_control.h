/* What the files of the MPS control program share. */
#pragma once
#include "device.h"
#include <stdio.h>

extern uint32_t gy_served;    /* a bit for each card that the daemon serves */
extern bool gy_partitioned;   /* it was started with -S: every client must name a partition */
bool gy_is_called(const gy_card *card, const char *wish); /* whether one of these words is its number, or how its UUID begins */
bool gy_command_partitions(FILE *answer, const char *line); /* false for a command of another kind */
void gy_forget_partitions(void); /* they are the daemon's: another one begins without any */
