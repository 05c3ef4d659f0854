/* matvec.h - one layer for one user: y = act(W x + b), by the widest SIMD that the CPU has.
 * Why:     one user's tower reads each weight once, so it is bound by how fast weights come out of the L2 cache; a kernel that
 *          keeps several rows in flight and reduces them together beats sgemv (bench/results.md, "Tower").
 * Threads: no state. */
#ifndef DUET_MATVEC_H
#define DUET_MATVEC_H

#include <stdbool.h>
#include <stddef.h>

enum matvec_isa { MATVEC_PLAIN, MATVEC_AVX2, MATVEC_AVX512, MATVEC_N_ISAS };

/* w [n_out][n_in] as stored by PyTorch's Linear, b [n_out], x [n_in], y [n_out]; y may not overlap the others. No alignment is
 * needed. relu: negative results and NaN become 0. */
typedef void matvec_fn(const float *w, const float *b, const float *x, size_t n_out, size_t n_in, bool relu, float *y);

matvec_fn *matvec_kernel(enum matvec_isa isa); // NULL if this CPU cannot run it; MATVEC_PLAIN always can
matvec_fn *matvec_best(void);
const char *matvec_isa_name(enum matvec_isa isa); // "plain", "avx2", "avx512"

#endif
