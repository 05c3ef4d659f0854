/* Starting vectors by singular directions. If this fails, training starts from noise and needs many more epochs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/blas.h"
#include "tests/train/toy.h"
#include "train/spectral.h"

#define N_USERS 60
#define N_ITEMS 40

static struct toy toy;

/* Z'Z of the definition, in double. */
static void normal_matrix(const struct dataset *d, double *a)
{
    const uint64_t *off = d->train.off;
    memset(a, 0, N_ITEMS * N_ITEMS * sizeof(*a));
    for (uint32_t u = 0; u < d->n_users; u++)
        for (uint64_t i = off[u]; i < off[u + 1]; i++)
            for (uint64_t j = off[u]; j < off[u + 1]; j++) {
                uint32_t v = d->train.item[i], w = d->train.item[j];
                a[v * N_ITEMS + w] +=
                    1 / sqrt((double)(off[u + 1] - off[u])) / sqrt(d->item_count[v]) / sqrt(d->item_count[w]);
            }
}

/* With every direction asked for, V S V' must be the square root of Z'Z: its square, up to one factor, is Z'Z. */
static void all_directions_rebuild_the_matrix(void **state)
{
    (void)state;
    static double a[N_ITEMS * N_ITEMS], g[N_ITEMS * N_ITEMS];
    static float v[N_ITEMS * N_ITEMS];
    struct err err = {0};
    for (unsigned threads = 1; threads <= 2; threads++) {
        struct rng rng;
        struct pool *pool = pool_new(threads, &err);
        rng_init(&rng, 3);
        assert_true(spectral_items(&toy.d, N_ITEMS, 0.05, &rng, pool, v, &err));
        normal_matrix(&toy.d, a);
        double dot = 0, aa = 0, gg = 0, rms = 0;
        for (size_t i = 0; i < N_ITEMS * N_ITEMS; i++)
            rms += (double)v[i] * v[i];
        assert_true(fabs(sqrt(rms / (N_ITEMS * N_ITEMS)) - 0.05) < 1e-6);
        double half[N_ITEMS * N_ITEMS] = {0};
        for (size_t i = 0; i < N_ITEMS; i++)
            for (size_t j = 0; j < N_ITEMS; j++)
                for (size_t c = 0; c < N_ITEMS; c++)
                    half[i * N_ITEMS + j] += (double)v[i * N_ITEMS + c] * v[j * N_ITEMS + c];
        for (size_t i = 0; i < N_ITEMS; i++)
            for (size_t j = 0; j < N_ITEMS; j++) {
                g[i * N_ITEMS + j] = 0;
                for (size_t k = 0; k < N_ITEMS; k++)
                    g[i * N_ITEMS + j] += half[i * N_ITEMS + k] * half[k * N_ITEMS + j];
                dot += g[i * N_ITEMS + j] * a[i * N_ITEMS + j];
                aa += a[i * N_ITEMS + j] * a[i * N_ITEMS + j];
                gg += g[i * N_ITEMS + j] * g[i * N_ITEMS + j];
            }
        assert_true(dot / sqrt(aa * gg) > 1 - 1e-6);
        pool_free(pool);
    }
}

/* Fewer directions: the leading ones, orthogonal, in falling order, and the same as among all. */
static void few_directions_are_the_leading_ones(void **state)
{
    (void)state;
    static float v[N_ITEMS * 5], all[N_ITEMS * N_ITEMS];
    struct err err = {0};
    struct rng rng;
    struct pool *pool = pool_new(1, &err);
    rng_init(&rng, 4);
    assert_true(spectral_items(&toy.d, 5, 1, &rng, pool, v, &err));
    assert_true(spectral_items(&toy.d, N_ITEMS, 1, &rng, pool, all, &err));
    double before = HUGE_VAL;
    for (size_t c = 0; c < 5; c++) {
        double len = 0, len_all = 0, same = 0;
        for (size_t i = 0; i < N_ITEMS; i++) {
            len += (double)v[i * 5 + c] * v[i * 5 + c];
            len_all += (double)all[i * N_ITEMS + c] * all[i * N_ITEMS + c];
            same += (double)v[i * 5 + c] * all[i * N_ITEMS + c];
        }
        assert_true(fabs(same) / sqrt(len * len_all) > 0.99);
        assert_true(len <= before * (1 + 1e-6));
        before = len;
        for (size_t e = 0; e < c; e++) {
            double dot = 0;
            for (size_t i = 0; i < N_ITEMS; i++)
                dot += (double)v[i * 5 + c] * v[i * 5 + e];
            assert_true(fabs(dot) < 1e-3 * len);
        }
    }
    pool_free(pool);
}

/* More columns than items: the surplus is 0, nothing is NaN. */
static void a_small_catalogue_leaves_columns_at_zero(void **state)
{
    (void)state;
    static float v[N_ITEMS * 64];
    struct err err = {0};
    struct rng rng;
    struct pool *pool = pool_new(1, &err);
    rng_init(&rng, 5);
    assert_true(spectral_items(&toy.d, 64, 0.1, &rng, pool, v, &err));
    for (size_t i = 0; i < N_ITEMS; i++)
        for (size_t c = 0; c < 64; c++)
            assert_true(isfinite(v[i * 64 + c]) && (c < N_ITEMS || v[i * 64 + c] == 0));
    pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_directions_rebuild_the_matrix),
        cmocka_unit_test(few_directions_are_the_leading_ones),
        cmocka_unit_test(a_small_catalogue_leaves_columns_at_zero),
    };
    blas_set_threads(1);
    toy_init(&toy, N_USERS, N_ITEMS, 9);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    toy_fini(&toy);
    return failed;
}
