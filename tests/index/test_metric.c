/* Breaks when a SIMD kernel scores differently from plain C, depends on a vector's place in the batch, or reads past a
 * vector. */
#include "index_testing.h"

#include "index/hnsw_priv.h"

static const size_t dims[] = {1,  2,  3,  4,  5,  7,  8,  9,  12, 15,  16,  17,  24,
                              31, 32, 33, 47, 48, 50, 63, 64, 65, 100, 128, 257, 1024};
#define N_DIMS (sizeof(dims) / sizeof(dims[0]))
#define N 37

static float *vectors(size_t n, size_t dim, uint64_t seed)
{
    float *v = malloc(n * dim * sizeof(*v));
    assert_non_null(v);
    for (size_t i = 0; i < n * dim; i++)
        v[i] = rnd_normal(&seed);
    return v;
}

static double truth(enum hnsw_metric m, const float *q, const float *v, size_t dim)
{
    double ip = 0, l2 = 0, qq = 0, vv = 0;
    for (size_t j = 0; j < dim; j++) {
        ip += (double)q[j] * v[j];
        l2 += ((double)q[j] - v[j]) * ((double)q[j] - v[j]);
        qq += (double)q[j] * q[j];
        vv += (double)v[j] * v[j];
    }
    return m == HNSW_IP ? ip : m == HNSW_L2 ? -l2 : ip / sqrt(qq * vv);
}

static void check_kernel(const char *name)
{
    for (size_t d = 0; d < N_DIMS; d++) {
        size_t dim = dims[d];
        float *q = vectors(1, dim, 1), *v = vectors(N, dim, 2), s[N], one;
        for (int m = HNSW_IP; m <= HNSW_L2; m++) {
            hnsw_scores((enum hnsw_metric)m, dim, q, v, NULL, N, s);
            for (uint32_t i = 0; i < N; i++) {
                double want = truth((enum hnsw_metric)m, q, v + i * dim, dim);
                if (fabs(s[i] - want) > 1e-5 * (double)dim + 1e-5)
                    fail_msg("%s %d dim %d: %g, wanted %g", name, m, (int)dim, (double)s[i], want);
                hnsw_scores((enum hnsw_metric)m, dim, q, v, &i, 1, &one);
                assert_true(one == s[i]); // the same alone, at the end and in the middle of a batch
            }
        }
        free(q);
        free(v);
    }
}

static void every_kernel_agrees_with_the_truth(void **state)
{
    (void)state;
    static const char *const name[] = {"plain", "sse", "avx2", "avx512"};
    unsigned tried = 0;
    for (size_t i = 0; i < 4; i++)
        if (hnsw_force_kernel(name[i])) {
            assert_string_equal(hnsw_kernel(), name[i]);
            check_kernel(name[i]);
            tried++;
        } else
            print_message("%s: not on this CPU\n", name[i]);
    assert_true(tried >= 1);
    assert_false(hnsw_force_kernel("abacus"));
    assert_true(hnsw_force_kernel(NULL));
}

static void zero_has_cosine_zero(void **state)
{
    (void)state;
    float z[3] = {0}, v[3] = {1, 2, 3}, s;
    hnsw_scores(HNSW_COSINE, 3, z, v, NULL, 1, &s);
    assert_true(s == 0);
    hnsw_scores(HNSW_COSINE, 3, v, z, NULL, 1, &s);
    assert_true(s == 0);
    hnsw_metric_normalize(z, 3, z);
    assert_true(z[0] == 0);
}

/* Else a vector changed, and its scores with it, each time an index passes it on. */
static void normalising_twice_is_normalising_once(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (size_t i = 0; i < 20000; i++) { // of few dimensions: with many, the errors of the values make up for each other
        size_t dim = 2 + i % 8;
        float v[9], once[9], twice[9];
        for (size_t j = 0; j < dim; j++)
            v[j] = 100 * rnd_normal(&seed);
        hnsw_metric_normalize(v, dim, once);
        hnsw_metric_normalize(once, dim, twice);
        assert_memory_equal(once, twice, dim * sizeof(float));
    }
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(hnsw_metric_name(HNSW_IP), "ip");
    assert_string_equal(hnsw_metric_name(HNSW_COSINE), "cosine");
    assert_string_equal(hnsw_metric_name(HNSW_L2), "l2");
    assert_string_equal(hnsw_metric_name((enum hnsw_metric)9), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_agrees_with_the_truth),
        cmocka_unit_test(zero_has_cosine_zero),
        cmocka_unit_test(normalising_twice_is_normalising_once),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
