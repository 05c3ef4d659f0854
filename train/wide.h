/* wide.h - loops of training over floats, by the widest SIMD that the CPU has.
 * Why:     programs are built for any x86-64, so plain loops are four floats wide; these are up to sixteen (bench/results.md, "Training").
 * Result:  sums run in 16 lanes that are added in one order, and products are rounded before they are added: every kernel gives the same bits.
 * Threads: no state. */
#ifndef DUET_TRAIN_WIDE_H
#define DUET_TRAIN_WIDE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/dense.h"

struct wide {
    /* out [n] = sum of weight[i] row[i] over m >= 1 rows; out may be one of them. */
    void (*sum_rows)(const float *const *row, const float *weight, size_t m, size_t n, float *out);
    /* row[i] [n] += weight[i] x. Rows lie apart from each other and x. */
    void (*add_to_rows)(const float *x, float *const *row, const float *weight, size_t m, size_t n);
    void (*relu)(float *h, size_t n);                   // h = max(h, 0)
    void (*relu_back)(const float *h, size_t n, float *dh); // dh = 0 where h is not above 0
    float (*max)(const float *x, size_t n);             // n >= 1
    /* x = e^(x - max), x <= max, about 1e-7 relative; returns the sum. */
    double (*exp_sum)(float *x, size_t n, float max);
    void (*scale)(float *x, size_t n, float f);
};

const struct wide *wide_kernel(enum dense_isa isa); // NULL if this CPU cannot run it; DENSE_PLAIN always can
const struct wide *wide_best(void);

#endif
