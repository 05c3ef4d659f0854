/* tfevents.h - scalars of a run as TensorBoard's event files.
 * Format:  records of TFRecord (u64 length, u32 masked CRC-32C of it, data, u32 masked CRC-32C of them; little-endian), each data a protobuf message
 *          Event: double wall_time = 1, int64 step = 2, string file_version = 3 or Summary summary = 5, which holds
 *          Value value = 1: string tag = 1, float simple_value = 2. Docs/formats.md, "Checkpoint".
 * Threads: one user at a time. */
#ifndef DUET_TRAIN_TFEVENTS_H
#define DUET_TRAIN_TFEVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/base/err.h"

struct tfscalar {
    const char *tag; // "loss/main"
    double value;    // kept as a float
};

/* A new file events.out.tfevents.<seconds>.<host>.<process> in `dir`, made if missing, with its first record. NULL on failure; for fclose. */
FILE *tfevents_open(const char *dir, double wall_time, struct err *err);

/* One event with n scalars, flushed: a run that is watched shows it. */
bool tfevents_put(FILE *f, double wall_time, int64_t step, const struct tfscalar *scalar, size_t n, struct err *err);

#endif
