/* metric.c - picking a kernel, normalising, and the plain C kernel that the others are tested against.
 * After the space_*.h of hnswlib (Apache-2.0); own text. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

// ---------------------------------------------------------------------------------------------------------- plain

static bool plain_supported(void)
{
    return true;
}

/* Four sums, so that the additions do not wait for each other. */
static float plain_ip_one(const float *q, const float *v, size_t dim)
{
    float s[4] = {0};
    size_t j = 0;
    for (; j + 4 <= dim; j += 4)
        for (size_t l = 0; l < 4; l++)
            s[l] += q[j + l] * v[j + l];
    for (; j < dim; j++)
        s[0] += q[j] * v[j];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

static float plain_l2_one(const float *q, const float *v, size_t dim)
{
    float s[4] = {0};
    size_t j = 0;
    for (; j + 4 <= dim; j += 4)
        for (size_t l = 0; l < 4; l++)
            s[l] += (q[j + l] - v[j + l]) * (q[j + l] - v[j + l]);
    for (; j < dim; j++)
        s[0] += (q[j] - v[j]) * (q[j] - v[j]);
    return -((s[0] + s[1]) + (s[2] + s[3]));
}

static void plain_ip(const float *q, const void *base, size_t stride, const uint32_t *idx, size_t n, size_t dim,
                     float *score)
{
    for (size_t i = 0; i < n; i++)
        score[i] = plain_ip_one(q, metric_row(base, stride, idx, i), dim);
}

static void plain_l2(const float *q, const void *base, size_t stride, const uint32_t *idx, size_t n, size_t dim,
                     float *score)
{
    for (size_t i = 0; i < n; i++)
        score[i] = plain_l2_one(q, metric_row(base, stride, idx, i), dim);
}

static void plain_ip16(const float *q, const float *step, struct planes code, const uint32_t *idx, size_t n,
                       size_t dim, float *score)
{
    (void)step;
    for (size_t i = 0; i < n; i++) {
        struct planes c = metric_row16(code, idx, i, dim);
        float s = 0;
        for (size_t j = 0; j < dim; j++)
            s += q[j] * metric_code16(c, j);
        score[i] = s;
    }
}

static void plain_l2_16(const float *q, const float *step, struct planes code, const uint32_t *idx, size_t n,
                        size_t dim, float *score)
{
    for (size_t i = 0; i < n; i++) {
        struct planes c = metric_row16(code, idx, i, dim);
        float s = 0;
        for (size_t j = 0; j < dim; j++) {
            float d = q[j] - step[j] * metric_code16(c, j);
            s += d * d;
        }
        score[i] = -s;
    }
}

const struct kernel hnsw_kernel_plain = {"plain", plain_supported, plain_ip, plain_l2, plain_ip16, plain_l2_16};

// -------------------------------------------------------------------------------------------------------- picking

static const struct kernel *const kernels[] = {&hnsw_kernel_avx512, &hnsw_kernel_avx2, &hnsw_kernel_sse,
                                               &hnsw_kernel_plain}; // best first
#define N_KERNELS (sizeof(kernels) / sizeof(kernels[0]))

static _Atomic(const struct kernel *) picked; // NULL until first use; the CPU answers the same to every thread

static const struct kernel *pick(void)
{
    size_t i = 0;
    while (!kernels[i]->supported()) // plain ends it
        i++;
    atomic_store_explicit(&picked, kernels[i], memory_order_relaxed);
    return kernels[i];
}

const struct kernel *hnsw_kernel_get(void)
{
    const struct kernel *k = atomic_load_explicit(&picked, memory_order_relaxed);
    return k ? k : pick();
}

bool hnsw_force_kernel(const char *name)
{
    if (!name)
        return pick() != NULL;
    for (size_t i = 0; i < N_KERNELS; i++)
        if (strcmp(kernels[i]->name, name) == 0 && kernels[i]->supported()) {
            atomic_store_explicit(&picked, kernels[i], memory_order_relaxed);
            return true;
        }
    return false;
}

const char *hnsw_kernel(void)
{
    return hnsw_kernel_get()->name;
}

// --------------------------------------------------------------------------------------------------------- helpers

double hnsw_metric_norm2(const float *vec, size_t dim)
{
    double s = 0;
    for (size_t j = 0; j < dim; j++)
        s += (double)vec[j] * vec[j];
    return s;
}

/* As near to 1 as |vec|^2 of a normalised vector gets in floats: each value is off by at most 2^-24 of itself. Such a vector stays as it
 * is to the last bit, so that moving it from one index to another changes no score. */
#define UNIT_ERROR 0x1.8p-23

void hnsw_metric_normalize(const float *vec, size_t dim, float *out)
{
    double s = hnsw_metric_norm2(vec, dim);
    double scale = fabs(s - 1) <= UNIT_ERROR ? 1 : s > 0 ? 1 / sqrt(s) : 0;
    for (size_t j = 0; j < dim; j++)
        out[j] = (float)(vec[j] * scale);
}

void hnsw_scores(enum hnsw_metric metric, size_t dim, const float *q, const float *vec, const uint32_t *idx, size_t n,
                 float *score)
{
    metric_fn(metric)(q, vec, dim * sizeof(float), idx, n, dim, score);
    if (metric != HNSW_COSINE)
        return;
    double qq = hnsw_metric_norm2(q, dim);
    for (size_t i = 0; i < n; i++) {
        double vv = hnsw_metric_norm2(metric_row(vec, dim * sizeof(float), idx, i), dim);
        score[i] = qq > 0 && vv > 0 ? (float)(score[i] / (sqrt(qq) * sqrt(vv))) : 0;
    }
}
