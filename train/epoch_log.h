/* epoch_log.h - train.jsonl: a line an epoch. A line is written before the state that a killed run goes on from, so none is missing; what a kill
 * between the two leaves of an epoch that is done again is cut off.
 * Format:  docs/formats.md, "Checkpoint".
 * Threads: one user at a time. */
#ifndef DUET_TRAIN_EPOCH_LOG_H
#define DUET_TRAIN_EPOCH_LOG_H

#include <stdint.h>
#include <stdio.h>

#include "core/base/err.h"
#include "core/base/json.h"

/* The log in `dir` with its lines of epochs 1 .. epochs_done, all others cut off. NULL on failure; for fclose. */
FILE *epoch_log_open(const char *dir, uint32_t epochs_done, struct err *err);

void epoch_log_put(FILE *f, json_t *line); // takes the object; NULL f or line: nothing is written

#endif
