/* kernel_avx512.c - scores by AVX-512: 16 floats at a time, the rest under a mask. Compiled for its own target, picked
 * at run time. */
#include <string.h>

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

/* The sums of four registers, each added up in the same order whatever stands in the other three. */
TARGET static inline __m128 quarter(__m512 x)
{
    __m256 y =
        _mm256_add_ps(_mm512_castps512_ps256(x), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1)));
    return _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
}

TARGET static inline __m128 sum4(__m512 a, __m512 b, __m512 c, __m512 d)
{
    return _mm_hadd_ps(_mm_hadd_ps(quarter(a), quarter(b)), _mm_hadd_ps(quarter(c), quarter(d)));
}

TARGET static inline __m512 step_ip(__m512 sum, __m512 q, __m512 v)
{
    return _mm512_fmadd_ps(q, v, sum);
}

TARGET static inline __m512 step_l2(__m512 sum, __m512 q, __m512 v)
{
    __m512 d = _mm512_sub_ps(q, v);
    return _mm512_fnmadd_ps(d, d, sum);
}

typedef __m512 step_fn(__m512 sum, __m512 q, __m512 v);

/* Four vectors at a time: four chains of additions that do not wait for each other, and one shared end. */
TARGET static inline __attribute__((always_inline)) __m128 four(step_fn *step, const float *q, const float *const v[4],
                                                                size_t dim)
{
    __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
    for (size_t j = 0; j < dim; j += 16) {
        __mmask16 m = first(dim - j);
        __m512 x = _mm512_maskz_loadu_ps(m, q + j);
        a = step(a, x, _mm512_maskz_loadu_ps(m, v[0] + j));
        b = step(b, x, _mm512_maskz_loadu_ps(m, v[1] + j));
        c = step(c, x, _mm512_maskz_loadu_ps(m, v[2] + j));
        d = step(d, x, _mm512_maskz_loadu_ps(m, v[3] + j));
    }
    return sum4(a, b, c, d);
}

TARGET static inline __attribute__((always_inline)) void many(step_fn *step, const float *q, const void *base,
                                                              size_t stride, const uint32_t *idx, size_t n, size_t dim,
                                                              float *score)
{
    for (size_t i = 0; i < n; i += 4) {
        const float *v[4];
        size_t left = n - i < 4 ? n - i : 4;
        for (size_t l = 0; l < 4; l++) // the last group repeats its last vector
            v[l] = metric_row(base, stride, idx, i + (l < left ? l : left - 1));
        for (size_t l = 0; l < left; l++)
            metric_prefetch(base, stride, idx, i + l, n);
        __m128 s = dim == 32 ? four(step, q, v, 32) : four(step, q, v, dim);
        if (left == 4)
            _mm_storeu_ps(score + i, s);
        else
            _mm512_mask_storeu_ps(score + i, first(left), _mm512_castps128_ps512(s));
    }
}

TARGET static void ip(const float *q, const void *base, size_t stride, const uint32_t *idx, size_t n, size_t dim,
                      float *score)
{
    many(step_ip, q, base, stride, idx, n, dim, score);
}

TARGET static void l2(const float *q, const void *base, size_t stride, const uint32_t *idx, size_t n, size_t dim,
                      float *score)
{
    many(step_l2, q, base, stride, idx, n, dim, score);
}

/* 16 bytes from the first `left` of them. Masks for loads of bytes would ask for more than AVX-512F. */
TARGET static inline __m128i bytes16(const uint8_t *from, size_t left)
{
    uint8_t some[16] = {0};
    if (left < 16) {
        memcpy(some, from, left);
        from = some;
    }
    return _mm_loadu_si128((const __m128i *)(const void *)from);
}

/* The first `left` of 16 codes as floats, anything finite after them. */
TARGET static inline __m512 load16(struct planes row, size_t j, size_t left)
{
    __m128i hi = bytes16(row.hi + j, left), lo = bytes16(row.lo + j, left);
    __m256i code = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi8(lo, hi)), _mm_unpackhi_epi8(lo, hi), 1);
    return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_xor_si256(code, _mm256_set1_epi16(INT16_MIN))));
}

/* As `four`; the step of L2 is -|q - step c|^2, that of IP leaves `step` alone. */
TARGET static inline __attribute__((always_inline)) __m128 four16(bool l2, const float *q, const float *step,
                                                                  const struct planes c[4], size_t dim)
{
    __m512 sum[4];
    for (size_t l = 0; l < 4; l++)
        sum[l] = _mm512_setzero_ps();
    for (size_t j = 0; j < dim; j += 16) {
        __mmask16 m = first(dim - j);
        __m512 x = _mm512_maskz_loadu_ps(m, q + j), s = l2 ? _mm512_maskz_loadu_ps(m, step + j) : x;
        for (size_t l = 0; l < 4; l++) {
            __m512 v = load16(c[l], j, dim - j);
            __m512 d = l2 ? _mm512_fnmadd_ps(s, v, x) : v;
            sum[l] = l2 ? _mm512_fnmadd_ps(d, d, sum[l]) : _mm512_fmadd_ps(x, d, sum[l]);
        }
    }
    return sum4(sum[0], sum[1], sum[2], sum[3]);
}

TARGET static inline __attribute__((always_inline)) void many16(bool l2, const float *q, const float *step,
                                                                struct planes code, const uint32_t *idx, size_t n,
                                                                size_t dim, float *score)
{
    for (size_t i = 0; i < n; i += 4) {
        struct planes c[4];
        size_t left = n - i < 4 ? n - i : 4;
        for (size_t l = 0; l < 4; l++) // the last group repeats its last vector
            c[l] = metric_row16(code, idx, i + (l < left ? l : left - 1), dim);
        __m128 s = dim == 32 ? four16(l2, q, step, c, 32) : four16(l2, q, step, c, dim);
        if (left == 4)
            _mm_storeu_ps(score + i, s);
        else
            _mm512_mask_storeu_ps(score + i, first(left), _mm512_castps128_ps512(s));
    }
}

TARGET static void ip16(const float *q, const float *step, struct planes code, const uint32_t *idx, size_t n,
                        size_t dim, float *score)
{
    many16(false, q, step, code, idx, n, dim, score);
}

TARGET static void l2_16(const float *q, const float *step, struct planes code, const uint32_t *idx, size_t n,
                         size_t dim, float *score)
{
    many16(true, q, step, code, idx, n, dim, score);
}

const struct kernel hnsw_kernel_avx512 = {"avx512", supported, ip, l2, ip16, l2_16};
#else
static bool supported(void)
{
    return false;
}
const struct kernel hnsw_kernel_avx512 = {"avx512", supported, NULL, NULL, NULL, NULL};
#endif
