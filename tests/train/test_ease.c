/* EASE^R against NumPy (tests/golden/baselines.py). If this fails, the yardstick that every model is measured against
 * is not the one of the paper. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/train/golden_baselines.h"
#include "tests/train/toy.h"
#include "train/ease.h"
#include "train/evaluate_stored.h"

static void weights_and_scores_are_numpys(void **state)
{
    (void)state;
    struct golden_baselines g;
    struct ease e;
    struct err err = {0};
    double sum[16];
    float out[16];
    golden_baselines_open(&g);
    assert_true(ease_init(&e, &g.d, json_number_value(json_object_get(g.json, "ease_lambda")), &err));
    for (size_t i = 0; i < g.d.n_items; i++)
        for (size_t j = 0; j < g.d.n_items; j++)
            assert_float_equal(ease_weight(&e, i, j), golden_baselines_at(&g, "ease_b", i, j), 1e-12);
    for (uint32_t u = 0; u < g.d.n_users; u++) {
        size_t n = (size_t)(g.off[u + 1] - g.off[u]);
        ease_scores(&e, g.item + g.off[u], n, sum, out);
        for (uint32_t j = 0; j < g.d.n_items; j++) {
            bool seen = false;
            for (size_t i = 0; i < n; i++)
                seen |= g.item[g.off[u] + i] == j;
            if (!seen)
                assert_float_equal(out[j], golden_baselines_at(&g, "ease_scores", u, j), 1e-6);
        }
    }
    ease_fini(&e);
    golden_baselines_close(&g);
}

static void bad_input_is_refused(void **state)
{
    (void)state;
    struct golden_baselines g;
    struct ease e;
    struct err err = {0};
    golden_baselines_open(&g);
    assert_false(ease_init(&e, &g.d, 0, &err));
    assert_int_equal(err.code, ERR_ARG);
    g.d.n_items = EASE_ITEMS_MAX + 1;
    err = (struct err){0};
    assert_false(ease_init(&e, &g.d, 1, &err));
    assert_int_equal(err.code, ERR_LIMIT);
    assert_non_null(strstr(err.msg, "25001"));
    golden_baselines_close(&g);
}

/* The toy's users like one class of four: 50 of 200 items hold nearly all of their targets. */
static void the_evaluator_finds_it_far_ahead_of_popularity(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    struct evaluation e;
    toy_init(&t, 200, 200, 7);
    toy_hold_out(&t, 10, 0);
    for (unsigned threads = 1; threads <= 2; threads++) {
        struct pool *pool = pool_new(threads, &err);
        struct evaluation_params p = {.data = &t.d, .spec = {{50}, 1}};
        assert_true(evaluation_init(&e, &p, pool, &err));
        json_t *o = evaluation_ease(&e, 10, &err), *cold = json_array_get(json_object_get(o, "cold_start"), 0);
        double hr = json_number_value(json_object_get(json_object_get(o, "metrics"), "hr@50"));
        if (hr < 0.38)
            fail_msg("HR@50 %.3f, items at random have a quarter", hr);
        assert_int_equal(json_integer_value(json_object_get(cold, "n")), 10);
        assert_string_equal(json_string_value(json_object_get(cold, "view")), "held-out users, by history");
        json_decref(o);
        assert_null(evaluation_ease(&e, -1, &err));
        err = (struct err){0};
        evaluation_fini(&e);
        pool_free(pool);
    }
    toy_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_and_scores_are_numpys),
        cmocka_unit_test(bad_input_is_refused),
        cmocka_unit_test(the_evaluator_finds_it_far_ahead_of_popularity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
