/* dense.h - one fully connected layer, y = act(x W' + b), for one or a few rows, by the widest SIMD that the CPU has.
 * Why:     a BLAS that meets one row keeps too few sums under way, and one that meets sixteen rows copies the weights into an order of
 *          its own first, which costs more than the product (bench/results.md, "Tower"). Here weights are read where they lie, once for
 *          every 16 rows.
 * Threads: no state. */
#ifndef DUET_DENSE_H
#define DUET_DENSE_H

#include <stdbool.h>
#include <stddef.h>

enum dense_isa { DENSE_PLAIN, DENSE_AVX2, DENSE_AVX512, DENSE_N_ISAS };

struct dense {
    const float *w; // [n_out][n_in], as PyTorch's Linear
    const float *b; // [n_out]
    size_t n_out, n_in;
    bool relu; // negative results and NaN become 0
};

/* x [B][n_in] -> y [B][n_out]; y may not overlap the others. No alignment is needed. */
typedef void dense_fn(const struct dense *l, const float *x, size_t B, float *y);

dense_fn *dense_kernel(enum dense_isa isa); // NULL if this CPU cannot run it; DENSE_PLAIN always can
dense_fn *dense_best(void);
const char *dense_isa_name(enum dense_isa isa); // "plain", "avx2", "avx512"

#endif
