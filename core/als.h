/* als.h - one row of implicit alternating least squares: the vector that fits a set of items best while the items stand still.
 * Source:  Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, eq. (4), with confidence 1
 *          for what was seen and w0 for what was not; the penalty grows with the row's count and with w0 times the number of
 *          items (Rendle et al., "Revisiting the Performance of iALS", RecSys 2022, nu = 1).
 * Place:   train/wals.c solves every user and item with it; serving folds in users whose history alone is known.
 * Threads: pure; each caller has its own scratch. */
#ifndef DUET_ALS_H
#define DUET_ALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct als_side {
    const float *v;    // [n][d] the vectors that stand still
    size_t n;
    uint32_t d;
    const float *gram; // [d][d] sum of v v' over all n
    float w0, lambda;
};

size_t als_scratch(uint32_t d); // floats

/* (w0 G + (1 - w0) sum v v' + lambda (m + w0 n) I) out = sum v, sums over the m rows of `idx`. Zeros for m = 0, and false with
 * zeros where the matrix has no Cholesky factor (lambda = 0 and too few rows, or values that are not finite).
 *   out [d]   may not be in scratch */
bool als_row(const struct als_side *s, const uint32_t *idx, size_t m, float *scratch, float *out);

/* gram [d][d] = sum of v v' over the n rows. */
void als_gram(const float *v, size_t n, uint32_t d, float *gram);

#endif
