/* A block is R rows of W times C rows of x: R x C sums under way at once (one sum alone would wait 4 cycles for each
 * addition), each loaded piece of x meeting R rows of W and each piece of W meeting C rows of x. R x C is the lanes of
 * a vector, so that in the end the R x C vectors of partial sums become one vector of sums by a tree of shuffles and
 * additions, much cheaper than reducing them one by one:
 *
 *            x_0 .. x_C-1  ----->
 *      w_0    ================== \
 *      w_1    ==================  |  R x C accumulators -> transpose and add -> lane c R + r = <x_c, w_r>
 *      ...                        |
 *      w_R-1  ================== /
 *
 * One row of x runs with R = all lanes, C = 1, and is bound by how fast weights leave the L2 cache; four rows with 4 x
 * 4 are bound by arithmetic. */
#include "core/dense.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define ROWS_AT_ONCE 16 // rows of x that share one pass over W: 16 x 288 floats leave room in a 32 KiB L1 cache

static float activate(float v, bool relu)
{
    return !relu || v > 0 ? v : 0;
}

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

static void dense_plain(const struct dense *l, const float *x, size_t B, float *y)
{
    for (size_t o = 0; o < l->n_out; o++)
        for (size_t i = 0; i < B; i++)
            y[i * l->n_out + o] = activate(dot_plain(l->w + o * l->n_in, x + i * l->n_in, l->n_in) + l->b[o], l->relu);
}

#if defined(__x86_64__)

#define INLINE inline __attribute__((always_inline)) // R and C become constants, the loops over them vanish

/* All rows of W for C rows of x, R at a time. `block` computes and stores one block. */
#define ROWS_OF_W(block, l, x, R, C, y)                                                                                \
    do {                                                                                                               \
        size_t o_ = 0;                                                                                                 \
        for (; o_ + (R) <= (l)->n_out; o_ += (R))                                                                      \
            block((l), (x), o_, (R), (C), (y));                                                                        \
        for (; o_ < (l)->n_out; o_++)                                                                                  \
            block((l), (x), o_, 1, (C), (y));                                                                          \
    } while (0)

// ---------------------------------------------------------------------------------------------------------- avx2

#define AVX2 __attribute__((target("avx2,fma")))

static AVX2 __m256i mask8(size_t n) // first n of 8 lanes
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Lane i of the result is the sum of the lanes of s[i]. */
static INLINE AVX2 __m256 sums8(const __m256 s[8])
{
    __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(s[0], s[1]), _mm256_hadd_ps(s[2], s[3]));
    __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(s[4], s[5]), _mm256_hadd_ps(s[6], s[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

/* Lanes c R + r of v: plus bias, through ReLU, to columns o .. o + R of C rows of y. Here and below every `R ==` is
 * decided when compiling. */
static INLINE AVX2 void store8(const struct dense *l, __m256 v, size_t o, size_t R, size_t C, float *y)
{
    const float *b = l->b + o;
    __m256 bias = R == 8 ? _mm256_loadu_ps(b) : R == 4 ? _mm256_broadcast_ps((const __m128 *)b) : _mm256_set1_ps(*b);
    v = _mm256_add_ps(v, bias);
    if (l->relu)
        v = _mm256_max_ps(v, _mm256_setzero_ps());
    y += o;
    if (R == 8) {
        _mm256_storeu_ps(y, v);
    } else if (R == 4) {
        _mm_storeu_ps(y, _mm256_castps256_ps128(v));
        _mm_storeu_ps(y + l->n_out, _mm256_extractf128_ps(v, 1));
    } else {
        float sum[8];
        _mm256_storeu_ps(sum, v);
        for (size_t c = 0; c < C; c++)
            y[c * l->n_out] = sum[c];
    }
}

static INLINE AVX2 void block8(const struct dense *l, const float *x, size_t o, size_t R, size_t C, float *y)
{
    const float *w = l->w + o * l->n_in;
    size_t n = l->n_in, i = 0;
    __m256 s[8], v[8];
    for (size_t j = 0; j < 8; j++)
        s[j] = _mm256_setzero_ps();
    for (; i + 8 <= n; i += 8) {
        for (size_t c = 0; c < C; c++)
            v[c] = _mm256_loadu_ps(x + c * n + i);
        for (size_t r = 0; r < R; r++)
            for (size_t c = 0; c < C; c++)
                s[c * R + r] = _mm256_fmadd_ps(_mm256_loadu_ps(w + r * n + i), v[c], s[c * R + r]);
    }
    if (i < n) {
        __m256i m = mask8(n - i);
        for (size_t c = 0; c < C; c++)
            v[c] = _mm256_maskload_ps(x + c * n + i, m);
        for (size_t r = 0; r < R; r++)
            for (size_t c = 0; c < C; c++)
                s[c * R + r] = _mm256_fmadd_ps(_mm256_maskload_ps(w + r * n + i, m), v[c], s[c * R + r]);
    }
    store8(l, sums8(s), o, R, C, y);
}

static AVX2 void dense_avx2(const struct dense *l, const float *x, size_t B, float *y)
{
    for (; B >= 2; B -= 2, x += 2 * l->n_in, y += 2 * l->n_out)
        ROWS_OF_W(block8, l, x, 4, 2, y);
    if (B)
        ROWS_OF_W(block8, l, x, 8, 1, y);
}

// -------------------------------------------------------------------------------------------------------- avx512

#define AVX512 __attribute__((target("avx512f")))

/* Pairs of neighbours: lanes 2j of the result are sums from a, lanes 2j + 1 from b, within each 128-bit quarter. */
static INLINE AVX512 __m512 add_pairs(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}

/* Quarter q of the result holds the 4 sums over quarter q of s[0 .. 3]. */
static INLINE AVX512 __m512 sums4(const __m512 s[4])
{
    __m512d ab = _mm512_castps_pd(add_pairs(s[0], s[1])), cd = _mm512_castps_pd(add_pairs(s[2], s[3]));
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
}

/* Lane i of the result is the sum of the lanes of s[i]: a 4 x 4 transpose of quarters, added up on the way. */
static INLINE AVX512 __m512 sums16(const __m512 s[16])
{
    __m512 a = sums4(s), b = sums4(s + 4), c = sums4(s + 8), d = sums4(s + 12);
    __m512 ab =
        _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee)); // quarters a02 a13 b02 b13
    __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}

static INLINE AVX512 __m512 bias16(const float *b, size_t R) // repeated for each row of x
{
    if (R == 16)
        return _mm512_loadu_ps(b);
    if (R == 8)
        return _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_castps_pd(_mm256_loadu_ps(b))));
    return R == 4 ? _mm512_broadcast_f32x4(_mm_loadu_ps(b)) : _mm512_set1_ps(*b);
}

static INLINE AVX512 void store16(const struct dense *l, __m512 v, size_t o, size_t R, size_t C, float *y)
{
    size_t n = l->n_out;
    v = _mm512_add_ps(v, bias16(l->b + o, R));
    if (l->relu)
        v = _mm512_max_ps(v, _mm512_setzero_ps());
    y += o;
    if (R == 16) {
        _mm512_storeu_ps(y, v);
    } else if (R == 8) {
        _mm256_storeu_ps(y, _mm512_castps512_ps256(v));
        _mm256_storeu_ps(y + n, _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
    } else if (R == 4) {
        _mm_storeu_ps(y, _mm512_castps512_ps128(v));
        _mm_storeu_ps(y + n, _mm512_extractf32x4_ps(v, 1));
        _mm_storeu_ps(y + 2 * n, _mm512_extractf32x4_ps(v, 2));
        _mm_storeu_ps(y + 3 * n, _mm512_extractf32x4_ps(v, 3));
    } else {
        float sum[16];
        _mm512_storeu_ps(sum, v);
        for (size_t c = 0; c < C; c++)
            y[c * n] = sum[c];
    }
}

static INLINE AVX512 void block16(const struct dense *l, const float *x, size_t o, size_t R, size_t C, float *y)
{
    const float *w = l->w + o * l->n_in;
    size_t n = l->n_in, i = 0;
    __m512 s[16], v[4];
    for (size_t j = 0; j < 16; j++)
        s[j] = _mm512_setzero_ps();
    for (; i + 16 <= n; i += 16) {
        for (size_t c = 0; c < C; c++)
            v[c] = _mm512_loadu_ps(x + c * n + i);
        for (size_t r = 0; r < R; r++)
            for (size_t c = 0; c < C; c++)
                s[c * R + r] = _mm512_fmadd_ps(_mm512_loadu_ps(w + r * n + i), v[c], s[c * R + r]);
    }
    if (i < n) {
        __mmask16 m = (__mmask16)((1u << (n - i)) - 1);
        for (size_t c = 0; c < C; c++)
            v[c] = _mm512_maskz_loadu_ps(m, x + c * n + i);
        for (size_t r = 0; r < R; r++)
            for (size_t c = 0; c < C; c++)
                s[c * R + r] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, w + r * n + i), v[c], s[c * R + r]);
    }
    store16(l, sums16(s), o, R, C, y);
}

/* Groups of four rows of x, W outermost, so that each piece of W is fetched once for all of them. Returns the rows
 * done. */
static AVX512 size_t fours(const struct dense *l, const float *x, size_t B, float *y)
{
    size_t o = 0, n = B / 4 * 4;
    for (; o + 4 <= l->n_out; o += 4)
        for (size_t i = 0; i < n; i += 4)
            block16(l, x + i * l->n_in, o, 4, 4, y + i * l->n_out);
    for (; o < l->n_out; o++)
        for (size_t i = 0; i < n; i += 4)
            block16(l, x + i * l->n_in, o, 1, 4, y + i * l->n_out);
    return n;
}

static AVX512 void few_rows(const struct dense *l, const float *x, size_t B, float *y)
{
    size_t n = B >= 4 ? fours(l, x, B, y) : 0;
    x += n * l->n_in;
    y += n * l->n_out;
    if ((B - n) & 2) {
        ROWS_OF_W(block16, l, x, 8, 2, y);
        x += 2 * l->n_in;
        y += 2 * l->n_out;
    }
    if (B & 1)
        ROWS_OF_W(block16, l, x, 16, 1, y);
}

static AVX512 void dense_avx512(const struct dense *l, const float *x, size_t B, float *y)
{
    for (size_t i = 0; i < B; i += ROWS_AT_ONCE)
        few_rows(l, x + i * l->n_in, B - i < ROWS_AT_ONCE ? B - i : ROWS_AT_ONCE, y + i * l->n_out);
}

#endif

// ------------------------------------------------------------------------------------------------------ choosing

dense_fn *dense_kernel(enum dense_isa isa)
{
#if defined(__x86_64__)
    if (isa == DENSE_AVX512)
        return __builtin_cpu_supports("avx512f") ? dense_avx512 : NULL;
    if (isa == DENSE_AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? dense_avx2 : NULL;
#endif
    return isa == DENSE_PLAIN ? dense_plain : NULL;
}

dense_fn *dense_best(void)
{
    dense_fn *best = dense_plain;
    for (int isa = DENSE_PLAIN; isa < DENSE_N_ISAS; isa++)
        if (dense_kernel((enum dense_isa)isa))
            best = dense_kernel((enum dense_isa)isa);
    return best;
}

const char *dense_isa_name(enum dense_isa isa)
{
    static const char *const names[] = {"plain", "avx2", "avx512"};
    return names[isa];
}
