/* missed.h - what Adam's steps with a zero gradient do to a row, many at once (adam.h has the formula).
 * Place:   adam.c asks for each row that a batch names; so all that depends on the step and not on the row is looked up here, in
 *          tables whose largest part is made once and the rest once a step in O(MISSED_MAX).
 * Threads: missed_at writes, missed_of reads: any number of readers between two missed_at. */
#ifndef DUET_TRAIN_MISSED_H
#define DUET_TRAIN_MISSED_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"

/* A missed step weighs (b1 / sqrt(b2))^j = 0.9005^j of the first; after 256 of them nothing is left in a float. */
#define MISSED_MAX 256

struct adam_params {
    float lr, beta1, beta2, eps;
    float weight_decay; // of the tables' rows, per step: row *= 1 - lr * weight_decay
};

/* x = keep x - move m / (sqrt(v) + eps), then m *= m_left, v *= v_left */
struct missed_step {
    float keep, move, eps, m_left, v_left;
};

struct missed {
    struct adam_params p;
    uint32_t to;                    // the steps end there
    double *root, *rate;            // [MISSED_KNOWN] sqrt(1 - b2^t) and root / (1 - b1^t) of step t; both 1 behind
    double move[MISSED_MAX + 1];    // of n steps that end at `to`, for lr = 1
    float keep[MISSED_MAX + 1], m_left[MISSED_MAX + 1], v_left[MISSED_MAX + 1]; // of n steps
};

bool missed_init(struct missed *s, const struct adam_params *p, struct err *err);
void missed_fini(struct missed *s); // accepts zeroed

/* From now on of steps that end at `to`. p: its rate and decay may differ from the last call's, its betas not. */
void missed_at(struct missed *s, const struct adam_params *p, uint32_t to);

/* Steps from + 1 .. to of a row whose last gradient was in step from >= 1. */
struct missed_step missed_of(const struct missed *s, uint32_t from);

double missed_root(const struct missed *s, uint32_t t); // sqrt(1 - b2^t)
double missed_rate(const struct missed *s, uint32_t t); // sqrt(1 - b2^t) / (1 - b1^t)

#endif
