/* recency.h - the weights of a history's items (core/history.h), learned: w = e^theta, one theta a step, by Adam.
 * Threads: one user at a time. */
#ifndef DUET_TRAIN_RECENCY_H
#define DUET_TRAIN_RECENCY_H

#include "core/history.h"

struct recency {
    float theta[HISTORY_STEPS], grad[HISTORY_STEPS], m[HISTORY_STEPS], v[HISTORY_STEPS];
};

void recency_begin(struct recency *r, struct history_form *f); // starting weights, (1 + newer)^-1/2, into f too

void recency_weights(const struct recency *r, struct history_form *f); // into f

/* Adds the gradients of one user: of theta, and of the rows p that `idx` names to dp. a, scale: what history_sum gave;
 * da: gradient of a. dp = NULL: p is a constant. */
void recency_backward(struct recency *r, const struct history_form *f, const float *p, const uint32_t *idx, size_t n, size_t d,
                      const float *a, float scale, const float *da, float *dp);

void recency_step(struct recency *r, uint32_t step, double lr, struct history_form *f); // step counts from 1; gradients become 0

#endif
