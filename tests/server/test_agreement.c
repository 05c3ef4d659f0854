/* If this fails, what is said of shadow variants is wrong. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/base/strtab.h"
#include "server/agreement.h"

enum { MOST = 8 };

static void fill(struct retrieve_hit *h, const uint32_t *item, size_t n, float first)
{
    for (size_t i = 0; i < n; i++)
        h[i] = (struct retrieve_hit){item[i], first - (float)i};
}

/* Computed from the definition with Python's sets and fractions. */
static void overlap_and_rbo(void **state)
{
    (void)state;
    static const struct {
        uint32_t a[MOST];
        size_t n_a;
        uint32_t b[MOST];
        size_t n_b;
        double overlap, rbo;
    } golden[] = {
        {{1, 2, 3, 4, 5}, 5, {1, 2, 3, 4, 5}, 5, 1, 1},
        {{6, 2, 4, 1, 5}, 5, {2, 3, 5, 1, 8}, 5, 0.6, 0.50211},
        {{1, 2, 7, 4, 10, 9, 6, 3}, 8, {7, 1, 2, 8, 6, 5, 9, 3}, 8, 0.75, 0.6462482464285715},
        {{10, 7, 1, 4, 12, 5, 2, 3}, 8, {7, 3, 9, 2, 5}, 5, 0.5, 0.38495449285714284},
        {{9, 3, 1}, 3, {4, 6, 1, 5, 7, 8, 3, 9}, 8, 0.375, 0.26273386607142857},
        {{32, 35, 28, 21, 30, 36, 24, 20}, 8, {16, 12, 40, 6, 20, 34, 32, 22}, 8, 0.25, 0.12716623928571427},
        {{3}, 1, {2}, 1, 0.0, 0.0},
        {{5, 2, 1, 9, 4, 8, 6, 7}, 8, {0}, 0, 0.0, 0.0},
        {{4, 2, 1, 3}, 4, {3, 2, 4, 1}, 4, 1.0, 0.828},
    };
    struct agreement_scratch s = {0};
    for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
        struct retrieve_hit a[MOST], b[MOST];
        struct agreement g;
        fill(a, golden[i].a, golden[i].n_a, 0);
        fill(b, golden[i].b, golden[i].n_b, 0);
        assert_true(agreement_of(a, golden[i].n_a, b, golden[i].n_b, &s, &g));
        if (fabs(g.overlap - golden[i].overlap) > 1e-12 || fabs(g.rbo - golden[i].rbo) > 1e-12)
            fail_msg("row %zu: found %.17g, %.17g", i, g.overlap, g.rbo);
        assert_true(agreement_of(b, golden[i].n_b, a, golden[i].n_a, &s, &g)); // it is symmetric
        assert_true(fabs(g.rbo - golden[i].rbo) < 1e-12);
    }
    agreement_scratch_fini(&s);
}

static void drift_is_of_common_items(void **state)
{
    (void)state;
    struct retrieve_hit a[] = {{7, 0.5f}, {STRTAB_NONE, 0.4f}, {3, 0.25f}}, b[] = {{3, 0.75f}, {7, 0.25f}, {STRTAB_NONE, 0.1f}};
    struct agreement_scratch s = {0};
    struct agreement g;
    assert_true(agreement_of(a, 3, b, 3, &s, &g));
    assert_int_equal(g.n_common, 2);
    assert_true(g.drift == 0.375);
    assert_true(agreement_of(a, 0, b, 0, &s, &g));
    assert_true(g.overlap == 1 && g.rbo == 1 && g.drift == 0);
    agreement_scratch_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlap_and_rbo),
        cmocka_unit_test(drift_is_of_common_items),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
