/* kernel_sse.c - scores by SSE: 4 floats at a time. Compiled for its own target, picked at run time. */
#include "index/metric.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("sse2")))

static bool supported(void)
{
    return __builtin_cpu_supports("sse2");
}

TARGET static inline float sum4(__m128 s)
{
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

TARGET static inline float ip_one(const float *q, const float *v, size_t dim)
{
    __m128 a = _mm_setzero_ps(), b = a;
    size_t j = 0;
    for (; j + 8 <= dim; j += 8) {
        a = _mm_add_ps(a, _mm_mul_ps(_mm_loadu_ps(q + j), _mm_loadu_ps(v + j)));
        b = _mm_add_ps(b, _mm_mul_ps(_mm_loadu_ps(q + j + 4), _mm_loadu_ps(v + j + 4)));
    }
    float s = sum4(_mm_add_ps(a, b));
    for (; j < dim; j++)
        s += q[j] * v[j];
    return s;
}

TARGET static inline float l2_one(const float *q, const float *v, size_t dim)
{
    __m128 a = _mm_setzero_ps(), b = a, d;
    size_t j = 0;
    for (; j + 8 <= dim; j += 8) {
        d = _mm_sub_ps(_mm_loadu_ps(q + j), _mm_loadu_ps(v + j));
        a = _mm_add_ps(a, _mm_mul_ps(d, d));
        d = _mm_sub_ps(_mm_loadu_ps(q + j + 4), _mm_loadu_ps(v + j + 4));
        b = _mm_add_ps(b, _mm_mul_ps(d, d));
    }
    float s = sum4(_mm_add_ps(a, b));
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

/* 8 codes as floats. */
TARGET static inline void load8(struct planes row, size_t j, __m128 *lo, __m128 *hi)
{
    __m128i h = _mm_loadl_epi64((const __m128i *)(const void *)(row.hi + j));
    __m128i l = _mm_loadl_epi64((const __m128i *)(const void *)(row.lo + j)), zero = _mm_setzero_si128();
    __m128i c = _mm_xor_si128(_mm_unpacklo_epi8(l, h), _mm_set1_epi16(INT16_MIN));
    *lo = _mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(zero, c), 16));
    *hi = _mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpackhi_epi16(zero, c), 16));
}

TARGET static void ip16(const float *q, const float *step, struct planes code, const uint32_t *idx, size_t n,
                        size_t dim, float *score)
{
    (void)step;
    for (size_t i = 0; i < n; i++) {
        struct planes c = metric_row16(code, idx, i, dim);
        __m128 a = _mm_setzero_ps(), b = a, lo, hi;
        size_t j = 0;
        for (; j + 8 <= dim; j += 8) {
            load8(c, j, &lo, &hi);
            a = _mm_add_ps(a, _mm_mul_ps(_mm_loadu_ps(q + j), lo));
            b = _mm_add_ps(b, _mm_mul_ps(_mm_loadu_ps(q + j + 4), hi));
        }
        score[i] = sum4(_mm_add_ps(a, b));
        for (; j < dim; j++)
            score[i] += q[j] * metric_code16(c, j);
    }
}

TARGET static void l2_16(const float *q, const float *step, struct planes code, const uint32_t *idx, size_t n,
                         size_t dim, float *score)
{
    for (size_t i = 0; i < n; i++) {
        struct planes c = metric_row16(code, idx, i, dim);
        __m128 a = _mm_setzero_ps(), b = a, lo, hi;
        size_t j = 0;
        for (; j + 8 <= dim; j += 8) {
            load8(c, j, &lo, &hi);
            lo = _mm_sub_ps(_mm_loadu_ps(q + j), _mm_mul_ps(_mm_loadu_ps(step + j), lo));
            hi = _mm_sub_ps(_mm_loadu_ps(q + j + 4), _mm_mul_ps(_mm_loadu_ps(step + j + 4), hi));
            a = _mm_add_ps(a, _mm_mul_ps(lo, lo));
            b = _mm_add_ps(b, _mm_mul_ps(hi, hi));
        }
        float s = sum4(_mm_add_ps(a, b));
        for (; j < dim; j++)
            s += (q[j] - step[j] * metric_code16(c, j)) * (q[j] - step[j] * metric_code16(c, j));
        score[i] = -s;
    }
}

const struct kernel hnsw_kernel_sse = {"sse", supported, ip, l2, ip16, l2_16};
#else
static bool supported(void)
{
    return false;
}
const struct kernel hnsw_kernel_sse = {"sse", supported, NULL, NULL, NULL, NULL};
#endif
