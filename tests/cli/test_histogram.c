/* If this fails, latencies that `duet bench` prints are not those that were measured. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cli/histogram.h"
#include "core/base/rng.h"

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void quantiles_are_within_a_percent(void **state)
{
    (void)state;
    enum { N = 20000 };
    struct histogram *h = calloc(1, sizeof(*h));
    uint64_t *v = calloc(N, sizeof(*v));
    struct rng g;
    rng_init(&g, 7);
    for (int i = 0; i < N; i++) {
        v[i] = rng_u64(&g) >> (20 + rng_below(&g, 40)); // all magnitudes
        histogram_add(h, v[i]);
    }
    qsort(v, N, sizeof(*v), by_value);
    static const double q[] = {0.01, 0.5, 0.9, 0.99, 0.999, 1};
    for (int i = 0; i < 6; i++) {
        uint64_t exact = v[(size_t)(q[i] * N + 0.999999) - 1], found = histogram_quantile(h, q[i]);
        assert_true(found >= exact && (double)found <= (double)exact * 1.008 + 1);
    }
    assert_int_equal(h->max, v[N - 1]);
    assert_int_equal(histogram_quantile(h, 1), v[N - 1]);
    free(h);
    free(v);
}

static void edges(void **state)
{
    (void)state;
    struct histogram *h = calloc(1, sizeof(*h)), *other = calloc(1, sizeof(*other));
    assert_int_equal(histogram_quantile(h, 0.5), 0);
    assert_true(histogram_mean(h) == 0);
    histogram_add(h, 0);
    histogram_add(h, UINT64_MAX);
    assert_int_equal(histogram_quantile(h, 0.5), 0);
    assert_int_equal(histogram_quantile(h, 0.9), UINT64_MAX);
    for (uint64_t i = 0; i < 1000; i++)
        histogram_add(other, i);
    assert_int_equal(histogram_quantile(other, 0.1), 99); // small values are exact
    histogram_merge(h, other);
    assert_int_equal(h->n, 1002);
    assert_int_equal(h->max, UINT64_MAX);
    free(h);
    free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(quantiles_are_within_a_percent), cmocka_unit_test(edges)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
