/* metric.h - scores of one query against many vectors, by the best kernel that the CPU has.
 * Threads: all functions may be called from any thread; hnsw_force_kernel not while others score. */
#ifndef HNSW_METRIC_H
#define HNSW_METRIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "index/hnsw.h"

/* score[i] = score of q against the dim floats at base + (idx ? idx[i] : i) * stride bytes, i < n. The value does not
 * depend on where in the batch a vector stands. */
typedef void metric_many(const float *q, const void *base, size_t stride, const uint32_t *idx, size_t n, size_t dim,
                         float *score);

/* Codes of 16 bits, dim of them a vector, one vector after the other, in two planes: code = 256 hi + lo - 32768. */
struct planes {
    uint8_t *hi, *lo;
};

/* The same for such codes: the inner product of q and the codes; minus the squared distance of q and the codes times
 * `step` [dim], which the inner product does not look at. */
typedef void metric_many16(const float *q, const float *step, struct planes code, const uint32_t *idx, size_t n,
                           size_t dim, float *score);

struct kernel {
    const char *name;
    bool (*supported)(void);
    metric_many *ip, *l2; // inner product; minus the squared distance
    metric_many16 *ip16, *l2_16;
};

extern const struct kernel hnsw_kernel_plain, hnsw_kernel_sse, hnsw_kernel_avx2, hnsw_kernel_avx512;

const struct kernel *hnsw_kernel_get(void); // the picked one

static inline metric_many *metric_fn(enum hnsw_metric m)
{
    const struct kernel *k = hnsw_kernel_get();
    return m == HNSW_L2 ? k->l2 : k->ip;
}

double hnsw_metric_norm2(const float *vec, size_t dim);               // |vec|^2
void hnsw_metric_normalize(const float *vec, size_t dim, float *out); // unit length; zero stays zero, unit stays as it is

static inline const float *metric_row(const void *base, size_t stride, const uint32_t *idx, size_t i)
{
    return (const float *)(const void *)((const char *)base + (idx ? idx[i] : i) * stride);
}

static inline struct planes metric_row16(struct planes code, const uint32_t *idx, size_t i, size_t dim)
{
    size_t at = (idx ? idx[i] : i) * dim;
    return (struct planes){code.hi + at, code.lo + at};
}

static inline float metric_code16(struct planes row, size_t j)
{
    return (float)(256 * row.hi[j] + row.lo[j] - 32768);
}

/* Ask for the row a few places ahead, never past the list. */
static inline void metric_prefetch(const void *base, size_t stride, const uint32_t *idx, size_t i, size_t n)
{
    if (i + 4 < n) {
        const char *row = (const char *)metric_row(base, stride, idx, i + 4);
        __builtin_prefetch(row);
        __builtin_prefetch(row + 64);
    }
}

#endif
