/* resume.h - optimizer.safetensors: everything that the next epoch depends on, so that a run that was killed goes on and ends
 * with the same bits as one that was not (same threads).
 * Format:  docs/formats.md, "Checkpoint". Written after adam_flush, when every row is up to date. */
#ifndef DUET_TRAIN_RESUME_H
#define DUET_TRAIN_RESUME_H

#include "train/step.h"

struct progress {
    uint32_t epoch;       // epochs done
    uint32_t best_epoch;  // 0 = none yet
    double best;          // its validation HR@100
};

bool resume_save(const char *dir, const struct step *s, const struct progress *p, const char *dataset_hash, struct err *err);

/* Fills parameters, moments, generator and progress of a step made for the same recipe and dataset. */
bool resume_load(const char *dir, struct step *s, struct progress *p, const char *dataset_hash, struct err *err);

#endif
