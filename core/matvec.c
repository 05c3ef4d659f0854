/* Rows are taken R at a time, so that each piece of x that is loaded meets R rows and R sums are under way at once (one
 * sum alone would wait 4 cycles for each addition). At the end R vectors of partial sums become one vector of R sums: a
 * tree of shuffles and additions, much cheaper than R reductions one by one.
 *
 *        x  ----------------->
 *      w_0  ================== \
 *      w_1  ==================  |  R accumulators -> transpose and add -> y[0 .. R)
 *      ...                      |
 *    w_R-1  ================== /                                                    */
#include "core/matvec.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// --------------------------------------------------------------------------------------------------------- plain

#define LANES 8 // enough independent sums for the compiler to use whatever vectors the baseline has

static float dot_plain(const float *restrict w, const float *restrict x, size_t n)
{
    float s[LANES] = {0}, tail = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            s[j] += w[i + j] * x[i + j];
    for (; i < n; i++)
        tail += w[i] * x[i];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])) + tail;
}

static float activate(float v, bool relu)
{
    return !relu || v > 0 ? v : 0;
}

static void matvec_plain(const float *w, const float *b, const float *x, size_t n_out, size_t n_in, bool relu, float *y)
{
    for (size_t o = 0; o < n_out; o++)
        y[o] = activate(dot_plain(w + o * n_in, x, n_in) + b[o], relu);
}

#if defined(__x86_64__)

// ---------------------------------------------------------------------------------------------------------- avx2

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX2_ROWS 8

static AVX2 __m256i mask8(size_t n) // first n of 8 lanes
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Lane r of the result is the sum of the lanes of s[r]. */
static AVX2 __m256 sums8(const __m256 s[8])
{
    __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(s[0], s[1]), _mm256_hadd_ps(s[2], s[3]));
    __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(s[4], s[5]), _mm256_hadd_ps(s[6], s[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

/* Sums of `rows` <= 8 rows, a constant at each call, so that the loops over it vanish. */
static inline __attribute__((always_inline)) AVX2 __m256 rows8(const float *w, const float *x, size_t n_in, size_t rows)
{
    __m256 s[AVX2_ROWS];
    size_t i = 0;
    for (size_t r = 0; r < AVX2_ROWS; r++)
        s[r] = _mm256_setzero_ps();
    for (; i + 8 <= n_in; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        for (size_t r = 0; r < rows; r++)
            s[r] = _mm256_fmadd_ps(_mm256_loadu_ps(w + r * n_in + i), v, s[r]);
    }
    if (i < n_in) {
        __m256i m = mask8(n_in - i);
        __m256 v = _mm256_maskload_ps(x + i, m);
        for (size_t r = 0; r < rows; r++)
            s[r] = _mm256_fmadd_ps(_mm256_maskload_ps(w + r * n_in + i, m), v, s[r]);
    }
    return sums8(s);
}

static AVX2 void matvec_avx2(const float *w, const float *b, const float *x, size_t n_out, size_t n_in, bool relu,
                             float *y)
{
    size_t o = 0;
    for (; o + AVX2_ROWS <= n_out; o += AVX2_ROWS) {
        __m256 v = _mm256_add_ps(rows8(w + o * n_in, x, n_in, AVX2_ROWS), _mm256_loadu_ps(b + o));
        _mm256_storeu_ps(y + o, relu ? _mm256_max_ps(v, _mm256_setzero_ps()) : v);
    }
    for (; o < n_out; o++)
        y[o] = activate(_mm256_cvtss_f32(rows8(w + o * n_in, x, n_in, 1)) + b[o], relu);
}

// -------------------------------------------------------------------------------------------------------- avx512

#define AVX512 __attribute__((target("avx512f")))
#define AVX512_ROWS 16

/* Pairs of neighbours: lanes 2j of the result are sums from a, lanes 2j + 1 from b, within each 128-bit quarter. */
static AVX512 __m512 add_pairs(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}

/* Quarter q of the result holds the 4 sums over quarter q of a, b, c and d. */
static AVX512 __m512 sums4(const __m512 s[4])
{
    __m512d ac = _mm512_castps_pd(add_pairs(s[0], s[1])), bd = _mm512_castps_pd(add_pairs(s[2], s[3]));
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ac, bd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ac, bd)));
}

/* Lane r of the result is the sum of the lanes of s[r]: a 4 x 4 transpose of quarters, added up on the way. */
static AVX512 __m512 sums16(const __m512 s[16])
{
    __m512 a = sums4(s), b = sums4(s + 4), c = sums4(s + 8), d = sums4(s + 12);
    __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee)); // a02 a13 b02 b13
    __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}

static inline __attribute__((always_inline)) AVX512 __m512 rows16(const float *w, const float *x, size_t n_in,
                                                                  size_t rows)
{
    __m512 s[AVX512_ROWS];
    size_t i = 0;
    for (size_t r = 0; r < AVX512_ROWS; r++)
        s[r] = _mm512_setzero_ps();
    for (; i + 16 <= n_in; i += 16) {
        __m512 v = _mm512_loadu_ps(x + i);
        for (size_t r = 0; r < rows; r++)
            s[r] = _mm512_fmadd_ps(_mm512_loadu_ps(w + r * n_in + i), v, s[r]);
    }
    if (i < n_in) {
        __mmask16 m = (__mmask16)((1u << (n_in - i)) - 1);
        __m512 v = _mm512_maskz_loadu_ps(m, x + i);
        for (size_t r = 0; r < rows; r++)
            s[r] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, w + r * n_in + i), v, s[r]);
    }
    return sums16(s);
}

static AVX512 void matvec_avx512(const float *w, const float *b, const float *x, size_t n_out, size_t n_in, bool relu,
                                 float *y)
{
    size_t o = 0;
    for (; o + AVX512_ROWS <= n_out; o += AVX512_ROWS) {
        __m512 v = _mm512_add_ps(rows16(w + o * n_in, x, n_in, AVX512_ROWS), _mm512_loadu_ps(b + o));
        _mm512_storeu_ps(y + o, relu ? _mm512_max_ps(v, _mm512_setzero_ps()) : v);
    }
    for (; o < n_out; o++)
        y[o] = activate(_mm512_cvtss_f32(rows16(w + o * n_in, x, n_in, 1)) + b[o], relu);
}

#endif

// ------------------------------------------------------------------------------------------------------ choosing

matvec_fn *matvec_kernel(enum matvec_isa isa)
{
#if defined(__x86_64__)
    if (isa == MATVEC_AVX512)
        return __builtin_cpu_supports("avx512f") ? matvec_avx512 : NULL;
    if (isa == MATVEC_AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? matvec_avx2 : NULL;
#endif
    return isa == MATVEC_PLAIN ? matvec_plain : NULL;
}

matvec_fn *matvec_best(void)
{
    matvec_fn *best = matvec_plain;
    for (int isa = MATVEC_PLAIN; isa < MATVEC_N_ISAS; isa++)
        if (matvec_kernel((enum matvec_isa)isa))
            best = matvec_kernel((enum matvec_isa)isa);
    return best;
}

const char *matvec_isa_name(enum matvec_isa isa)
{
    static const char *const names[] = {"plain", "avx2", "avx512"};
    return names[isa];
}
