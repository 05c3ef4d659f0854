/* Every loop is written once, over vectors of 16 floats that the compiler cuts into what the target has, and compiled three times. The file
 * is built with -ffp-contract=off: a product that one kernel rounds must not be fused with the addition after it in another. */
#include "train/wide.h"

#include <stdint.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wpsabi" // how vectors are returned: nothing here is called but inline

#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define EXACT 256 // additions to one float lane before it is emptied into a double

typedef float v16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t i16 __attribute__((vector_size(64), aligned(4), may_alias));

// --------------------------------------------------------------------------------------------------------- loops

INLINE void sum_rows(const float *const *row, const float *weight, size_t m, size_t n, float *out)
{
    size_t c = 0;
    for (; c + LANES <= n; c += LANES) {
        v16 s = weight[0] * *(const v16 *)(row[0] + c);
        for (size_t i = 1; i < m; i++)
            s += weight[i] * *(const v16 *)(row[i] + c);
        *(v16 *)(out + c) = s;
    }
    for (; c < n; c++) {
        float s = weight[0] * row[0][c];
        for (size_t i = 1; i < m; i++)
            s += weight[i] * row[i][c];
        out[c] = s;
    }
}

INLINE void add_to_rows(const float *x, float *const *row, const float *weight, size_t m, size_t n)
{
    size_t c = 0;
    for (; c + LANES <= n; c += LANES) {
        const v16 v = *(const v16 *)(x + c);
        for (size_t i = 0; i < m; i++)
            *(v16 *)(row[i] + c) += weight[i] * v;
    }
    for (; c < n; c++)
        for (size_t i = 0; i < m; i++)
            row[i][c] += weight[i] * x[c];
}

INLINE void relu(float *h, size_t n)
{
    size_t c = 0;
    for (; c + LANES <= n; c += LANES) {
        v16 *v = (v16 *)(h + c);
        *v = (v16)((i16)*v & (*v > 0));
    }
    for (; c < n; c++)
        h[c] = h[c] > 0 ? h[c] : 0;
}

INLINE void relu_back(const float *h, size_t n, float *dh)
{
    size_t c = 0;
    for (; c + LANES <= n; c += LANES) {
        v16 *v = (v16 *)(dh + c);
        *v = (v16)((i16)*v & (*(const v16 *)(h + c) > 0));
    }
    for (; c < n; c++)
        dh[c] = h[c] > 0 ? dh[c] : 0;
}

INLINE v16 choose(i16 which, v16 yes, v16 no)
{
    return (v16)(((i16)yes & which) | ((i16)no & ~which));
}

INLINE float max(const float *x, size_t n)
{
    float m = x[0];
    size_t c = 0;
    v16 most = m - (v16){0};
    for (; c + LANES <= n; c += LANES) {
        const v16 v = *(const v16 *)(x + c);
        most = choose(v > most, v, most);
    }
    for (size_t j = 0; j < LANES; j++)
        m = most[j] > m ? most[j] : m;
    for (; c < n; c++)
        m = x[c] > m ? x[c] : m;
    return m;
}

/* 2^n times a polynomial of 2^f, |f| <= 1/2; x <= 0, so truncation of t - 1/2 is the nearest integer. */
INLINE v16 exp16(v16 x)
{
    v16 t = x * 1.44269504f;
    t = choose(t < -126.0f, -126.0f - (v16){0}, t);
    const i16 n = __builtin_convertvector(t - 0.5f, i16);
    const v16 f = (t - __builtin_convertvector(n, v16)) * 0.693147181f;
    const v16 y = 1 + f * (1 + f * (0.5f + f * (1.66666667e-1f + f * (4.16666667e-2f + f * (8.33333333e-3f + f * 1.38888889e-3f)))));
    return y * (v16)((n + 127) << 23);
}

INLINE double lanes_sum(v16 v)
{
    double s = 0;
    for (size_t j = 0; j < LANES; j++)
        s += (double)v[j];
    return s;
}

INLINE double exp_sum(float *x, size_t n, float most)
{
    double sum = 0;
    size_t c = 0;
    while (c + LANES <= n) {
        v16 s = {0};
        for (size_t i = 0; i < EXACT && c + LANES <= n; i++, c += LANES) {
            v16 *v = (v16 *)(x + c);
            s += *v = exp16(*v - most);
        }
        sum += lanes_sum(s);
    }
    float rest[LANES] = {0};
    memcpy(rest, x + c, (n - c) * sizeof(*rest));
    const v16 v = exp16(*(const v16 *)rest - most);
    for (size_t j = 0; c + j < n; j++)
        sum += (double)(x[c + j] = v[j]);
    return sum;
}

INLINE void scale(float *x, size_t n, float f)
{
    size_t c = 0;
    for (; c + LANES <= n; c += LANES)
        *(v16 *)(x + c) *= f;
    for (; c < n; c++)
        x[c] *= f;
}

// ------------------------------------------------------------------------------------------------------- kernels

/* The loops above for one target. */
#define KERNEL(name, target)                                                                                           \
    target static void name##_sum_rows(const float *const *row, const float *weight, size_t m, size_t n, float *out)   \
    {                                                                                                                  \
        sum_rows(row, weight, m, n, out);                                                                              \
    }                                                                                                                  \
    target static void name##_add_to_rows(const float *x, float *const *row, const float *weight, size_t m, size_t n)  \
    {                                                                                                                  \
        add_to_rows(x, row, weight, m, n);                                                                             \
    }                                                                                                                  \
    target static void name##_relu(float *h, size_t n)                                                                 \
    {                                                                                                                  \
        relu(h, n);                                                                                                    \
    }                                                                                                                  \
    target static void name##_relu_back(const float *h, size_t n, float *dh)                                           \
    {                                                                                                                  \
        relu_back(h, n, dh);                                                                                           \
    }                                                                                                                  \
    target static float name##_max(const float *x, size_t n)                                                           \
    {                                                                                                                  \
        return max(x, n);                                                                                              \
    }                                                                                                                  \
    target static double name##_exp_sum(float *x, size_t n, float most)                                                \
    {                                                                                                                  \
        return exp_sum(x, n, most);                                                                                    \
    }                                                                                                                  \
    target static void name##_scale(float *x, size_t n, float f)                                                       \
    {                                                                                                                  \
        scale(x, n, f);                                                                                                \
    }                                                                                                                  \
    static const struct wide name = {name##_sum_rows, name##_add_to_rows, name##_relu, name##_relu_back,               \
                                     name##_max,      name##_exp_sum,     name##_scale};

KERNEL(plain, )
#if defined(__x86_64__)
KERNEL(avx2, __attribute__((target("avx2"))))
KERNEL(avx512, __attribute__((target("avx512f"))))
#endif

const struct wide *wide_kernel(enum dense_isa isa)
{
#if defined(__x86_64__)
    if (isa == DENSE_AVX512)
        return __builtin_cpu_supports("avx512f") ? &avx512 : NULL;
    if (isa == DENSE_AVX2)
        return __builtin_cpu_supports("avx2") ? &avx2 : NULL;
#endif
    return isa == DENSE_PLAIN ? &plain : NULL;
}

const struct wide *wide_best(void)
{
    const struct wide *best = &plain;
    for (int isa = DENSE_PLAIN; isa < DENSE_N_ISAS; isa++)
        if (wide_kernel((enum dense_isa)isa))
            best = wide_kernel((enum dense_isa)isa);
    return best;
}
