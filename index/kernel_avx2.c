/* kernel_avx2.c - scores by AVX2 and FMA: 8 floats at a time. Compiled for its own target, picked at run time. */
#include "index/metric.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))

static bool supported(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

TARGET static inline float sum8(__m256 x)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

TARGET static inline float ip_one(const float *q, const float *v, size_t dim)
{
    __m256 a = _mm256_setzero_ps(), b = a;
    size_t j = 0;
    for (; j + 16 <= dim; j += 16) {
        a = _mm256_fmadd_ps(_mm256_loadu_ps(q + j), _mm256_loadu_ps(v + j), a);
        b = _mm256_fmadd_ps(_mm256_loadu_ps(q + j + 8), _mm256_loadu_ps(v + j + 8), b);
    }
    if (j + 8 <= dim) {
        a = _mm256_fmadd_ps(_mm256_loadu_ps(q + j), _mm256_loadu_ps(v + j), a);
        j += 8;
    }
    float s = sum8(_mm256_add_ps(a, b));
    for (; j < dim; j++)
        s += q[j] * v[j];
    return s;
}

TARGET static inline float l2_one(const float *q, const float *v, size_t dim)
{
    __m256 a = _mm256_setzero_ps(), b = a, d;
    size_t j = 0;
    for (; j + 16 <= dim; j += 16) {
        d = _mm256_sub_ps(_mm256_loadu_ps(q + j), _mm256_loadu_ps(v + j));
        a = _mm256_fmadd_ps(d, d, a);
        d = _mm256_sub_ps(_mm256_loadu_ps(q + j + 8), _mm256_loadu_ps(v + j + 8));
        b = _mm256_fmadd_ps(d, d, b);
    }
    if (j + 8 <= dim) {
        d = _mm256_sub_ps(_mm256_loadu_ps(q + j), _mm256_loadu_ps(v + j));
        a = _mm256_fmadd_ps(d, d, a);
        j += 8;
    }
    float s = sum8(_mm256_add_ps(a, b));
    for (; j < dim; j++)
        s += (q[j] - v[j]) * (q[j] - v[j]);
    return -s;
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

TARGET static inline __m256 load8(struct planes row, size_t j) // 8 codes as floats
{
    __m128i hi = _mm_loadl_epi64((const __m128i *)(const void *)(row.hi + j));
    __m128i lo = _mm_loadl_epi64((const __m128i *)(const void *)(row.lo + j));
    __m128i code = _mm_xor_si128(_mm_unpacklo_epi8(lo, hi), _mm_set1_epi16(INT16_MIN));
    return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(code));
}

TARGET static void ip16(const float *q, const float *step, struct planes code, const uint32_t *idx, size_t n,
                        size_t dim, float *score)
{
    (void)step;
    for (size_t i = 0; i < n; i++) {
        struct planes c = metric_row16(code, idx, i, dim);
        __m256 a = _mm256_setzero_ps(), b = a;
        size_t j = 0;
        for (; j + 16 <= dim; j += 16) {
            a = _mm256_fmadd_ps(_mm256_loadu_ps(q + j), load8(c, j), a);
            b = _mm256_fmadd_ps(_mm256_loadu_ps(q + j + 8), load8(c, j + 8), b);
        }
        score[i] = sum8(_mm256_add_ps(a, b));
        for (; j < dim; j++)
            score[i] += q[j] * metric_code16(c, j);
    }
}

TARGET static void l2_16(const float *q, const float *step, struct planes code, const uint32_t *idx, size_t n,
                         size_t dim, float *score)
{
    for (size_t i = 0; i < n; i++) {
        struct planes c = metric_row16(code, idx, i, dim);
        __m256 a = _mm256_setzero_ps(), b = a, d;
        size_t j = 0;
        for (; j + 16 <= dim; j += 16) {
            d = _mm256_fnmadd_ps(_mm256_loadu_ps(step + j), load8(c, j), _mm256_loadu_ps(q + j));
            a = _mm256_fmadd_ps(d, d, a);
            d = _mm256_fnmadd_ps(_mm256_loadu_ps(step + j + 8), load8(c, j + 8), _mm256_loadu_ps(q + j + 8));
            b = _mm256_fmadd_ps(d, d, b);
        }
        float s = sum8(_mm256_add_ps(a, b));
        for (; j < dim; j++)
            s += (q[j] - step[j] * metric_code16(c, j)) * (q[j] - step[j] * metric_code16(c, j));
        score[i] = -s;
    }
}

const struct kernel hnsw_kernel_avx2 = {"avx2", supported, ip, l2, ip16, l2_16};
#else
static bool supported(void)
{
    return false;
}
const struct kernel hnsw_kernel_avx2 = {"avx2", supported, NULL, NULL, NULL, NULL};
#endif
