/* If this fails, transposes or leading dimensions are mixed up and every product of training and batches is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/base/rng.h"
#include "core/blas.h"

enum { M = 5, N = 7, K = 11, LD = 13 };

static void fill(struct rng *r, float *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (float)rng_normal(r);
}

static void sgemm_is_the_definition(void **state)
{
    (void)state;
    float a[LD * LD], b[LD * LD], c[M * LD], want;
    struct rng r;
    rng_init(&r, 1);
    for (int t = 0; t < 4; t++) {
        bool ta = t & 1, tb = t & 2;
        float c0[M * LD];
        fill(&r, a, LD * LD);
        fill(&r, b, LD * LD);
        fill(&r, c0, M * LD);
        for (size_t i = 0; i < M * LD; i++)
            c[i] = c0[i];
        blas_sgemm(ta, tb, M, N, K, 2.0f, a, LD, b, LD, 0.5f, c, LD);
        for (size_t i = 0; i < M; i++)
            for (size_t j = 0; j < LD; j++) {
                want = j < N ? 0.5f * c0[i * LD + j] : c0[i * LD + j];
                for (size_t k = 0; j < N && k < K; k++)
                    want += 2.0f * (ta ? a[k * LD + i] : a[i * LD + k]) * (tb ? b[j * LD + k] : b[k * LD + j]);
                assert_float_equal(c[i * LD + j], want, 1e-4);
            }
    }
    blas_sgemm(false, true, 0, N, K, 1.0f, a, K, b, K, 0.0f, c, N); // no rows: nothing happens
}

static void sgemv_and_ssyrk_agree_with_sgemm(void **state)
{
    (void)state;
    float a[N * LD], x[K], y[N], z[N], c[N * N], d[N * N];
    struct rng r;
    rng_init(&r, 2);
    fill(&r, a, N * LD);
    fill(&r, x, K);
    fill(&r, y, N);
    for (int i = 0; i < N; i++)
        z[i] = y[i];
    blas_sgemv(N, K, a, LD, x, 1.0f, y);
    blas_sgemm(false, true, N, 1, K, 1.0f, a, LD, x, K, 1.0f, z, 1);
    for (int i = 0; i < N; i++)
        assert_float_equal(y[i], z[i], 1e-5);
    for (int t = 0; t < 2; t++) {
        size_t n = t ? 6 : N, k = t ? N : K;
        blas_ssyrk(t, n, k, 0.5f, a, LD, 0.0f, c, n);
        blas_sgemm(t, !t, n, n, k, 0.5f, a, LD, a, LD, 0.0f, d, n);
        for (size_t i = 0; i < n * n; i++)
            assert_float_equal(c[i], d[i], 1e-5);
    }
}

/* A = B'B + I for a random B. */
static void positive(struct rng *r, double *a, size_t n)
{
    double b[N * N];
    for (size_t i = 0; i < n * n; i++)
        b[i] = rng_normal(r);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            a[i * n + j] = i == j;
            for (size_t k = 0; k < n; k++)
                a[i * n + j] += b[k * n + i] * b[k * n + j];
        }
}

static void sposv_solves(void **state)
{
    (void)state;
    double a[N * N];
    float f[N * N], x[N], b[N];
    struct rng r;
    rng_init(&r, 4);
    positive(&r, a, N);
    for (size_t i = 0; i < N * N; i++)
        f[i] = (float)a[i];
    fill(&r, b, N);
    for (size_t i = 0; i < N; i++)
        x[i] = b[i];
    assert_true(blas_sposv(N, f, N, x));
    for (size_t i = 0; i < N; i++) {
        double s = 0;
        for (size_t j = 0; j < N; j++)
            s += a[i * N + j] * (double)x[j];
        assert_float_equal(s, b[i], 1e-4);
    }
    float bad[4] = {1, 2, 2, 1}, y[2] = {1, 1};
    assert_false(blas_sposv(2, bad, 2, y));
}

static void dpotri_inverts(void **state)
{
    (void)state;
    double a[N * N], inverse[N * N];
    struct rng r;
    rng_init(&r, 5);
    positive(&r, a, N);
    for (size_t i = 0; i < N * N; i++)
        inverse[i] = a[i];
    assert_true(blas_dpotri(N, inverse));
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++) {
            double s = 0;
            for (size_t k = 0; k < N; k++)
                s += a[i * N + k] * inverse[k * N + j];
            assert_float_equal(s, i == j, 1e-9);
            assert_float_equal(inverse[i * N + j], inverse[j * N + i], 0);
        }
    double bad[4] = {1, 2, 2, 1};
    assert_false(blas_dpotri(2, bad));
}

int main(void)
{
    blas_set_threads(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sposv_solves),
        cmocka_unit_test(dpotri_inverts),
        cmocka_unit_test(sgemm_is_the_definition),
        cmocka_unit_test(sgemv_and_ssyrk_agree_with_sgemm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
