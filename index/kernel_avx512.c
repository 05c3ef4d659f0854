/* kernel_avx512.c - scores by AVX-512: 16 floats at a time, the rest under a mask. Compiled for its own target, picked
 * at run time. */
#include "index/metric.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,fma")))

static bool supported(void)
{
    return __builtin_cpu_supports("avx512f");
}

static inline __mmask16 first(size_t n) // the first n of 16, or all
{
    unsigned bits = n >= 16 ? 0xffffu : (1u << n) - 1;
    return (__mmask16)bits;
}

TARGET static inline float ip_one(const float *q, const float *v, size_t dim)
{
    __m512 a = _mm512_setzero_ps(), b = a;
    size_t j = 0;
    for (; j + 32 <= dim; j += 32) {
        a = _mm512_fmadd_ps(_mm512_loadu_ps(q + j), _mm512_loadu_ps(v + j), a);
        b = _mm512_fmadd_ps(_mm512_loadu_ps(q + j + 16), _mm512_loadu_ps(v + j + 16), b);
    }
    for (; j < dim; j += 16) {
        __mmask16 m = first(dim - j);
        a = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, q + j), _mm512_maskz_loadu_ps(m, v + j), a);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(a, b));
}

TARGET static inline float l2_one(const float *q, const float *v, size_t dim)
{
    __m512 a = _mm512_setzero_ps(), b = a, d;
    size_t j = 0;
    for (; j + 32 <= dim; j += 32) {
        d = _mm512_sub_ps(_mm512_loadu_ps(q + j), _mm512_loadu_ps(v + j));
        a = _mm512_fmadd_ps(d, d, a);
        d = _mm512_sub_ps(_mm512_loadu_ps(q + j + 16), _mm512_loadu_ps(v + j + 16));
        b = _mm512_fmadd_ps(d, d, b);
    }
    for (; j < dim; j += 16) {
        __mmask16 m = first(dim - j);
        d = _mm512_sub_ps(_mm512_maskz_loadu_ps(m, q + j), _mm512_maskz_loadu_ps(m, v + j));
        a = _mm512_fmadd_ps(d, d, a);
    }
    return -_mm512_reduce_add_ps(_mm512_add_ps(a, b));
}

TARGET static void ip(const float *q, const void *base, size_t stride, const uint32_t *idx, size_t n, size_t dim,
                      float *score)
{
    for (size_t i = 0; i < n; i++) {
        metric_prefetch(base, stride, idx, i, n);
        score[i] = ip_one(q, metric_row(base, stride, idx, i), dim);
    }
}

TARGET static void l2(const float *q, const void *base, size_t stride, const uint32_t *idx, size_t n, size_t dim,
                      float *score)
{
    for (size_t i = 0; i < n; i++) {
        metric_prefetch(base, stride, idx, i, n);
        score[i] = l2_one(q, metric_row(base, stride, idx, i), dim);
    }
}

const struct kernel hnsw_kernel_avx512 = {"avx512", supported, ip, l2};
#else
static bool supported(void)
{
    return false;
}
const struct kernel hnsw_kernel_avx512 = {"avx512", supported, NULL, NULL};
#endif
