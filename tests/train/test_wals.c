/* Alternating least squares: each half-step against NumPy's dense solution (tests/golden/baselines.py), and that sweeps
 * lower the loss whose minimum they are after. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/train/golden_baselines.h"
#include "tests/train/toy.h"
#include "train/baseline.h"
#include "train/wals.h"

static struct recipe recipe(uint32_t k)
{
    struct recipe r;
    baseline_recipe(MODEL_WALS, (struct recipe_data){100, 100, 1000, false}, &r);
    r.width[0] = k;
    return r;
}

static void half_steps_are_the_dense_solutions(void **state)
{
    (void)state;
    struct golden_baselines g;
    struct wals w;
    struct err err = {0};
    golden_baselines_open(&g);
    struct recipe r = recipe((uint32_t)json_integer_value(json_object_get(g.json, "k")));
    r.w0 = json_number_value(json_object_get(g.json, "w0"));
    r.reg = json_number_value(json_object_get(g.json, "lambda"));
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct pool *pool = pool_new(threads, &err);
        assert_true(wals_init(&w, &g.d, &r, pool, &err));
        for (size_t i = 0; i < g.d.n_items * w.k; i++)
            w.item[i] = (float)golden_baselines_at(&g, "item", i / w.k, i % w.k);
        wals_users(&w);
        for (size_t i = 0; i < g.d.n_users * w.k; i++)
            assert_float_equal(w.user[i], golden_baselines_at(&g, "user_after", i / w.k, i % w.k), 1e-5);
        wals_items(&w);
        for (size_t i = 0; i < g.d.n_items * w.k; i++)
            assert_float_equal(w.item[i], golden_baselines_at(&g, "item_after", i / w.k, i % w.k), 1e-4);
        wals_fini(&w);
        pool_free(pool);
    }
    golden_baselines_close(&g);
}

/* The loss, pair by pair in double. */
static double loss_of(const struct wals *w)
{
    const struct interactions *t = &w->d->train;
    double loss = 0;
    for (uint32_t u = 0; u < w->d->n_users; u++) {
        for (uint32_t i = 0; i < w->d->n_items; i++) {
            double s = 0, n = 0;
            for (uint32_t c = 0; c < w->k; c++)
                s += (double)w->user[u * w->k + c] * (double)w->item[i * w->k + c];
            for (uint64_t q = t->off[u]; q < t->off[u + 1]; q++)
                n += t->item[q] == i;
            loss += n > 0 ? (1 - s) * (1 - s) : (double)w->w0 * s * s;
        }
    }
    for (uint32_t c = 0; c < w->k; c++) {
        for (uint32_t u = 0; u < w->d->n_users; u++)
            loss += (double)w->lambda * ((double)(t->off[u + 1] - t->off[u]) + (double)w->w0 * w->d->n_items) *
                    (double)w->user[u * w->k + c] * (double)w->user[u * w->k + c];
        for (uint32_t i = 0; i < w->d->n_items; i++)
            loss += (double)w->lambda *
                    ((double)(w->item_off[i + 1] - w->item_off[i]) + (double)w->w0 * w->d->n_users) *
                    (double)w->item[i * w->k + c] * (double)w->item[i * w->k + c];
    }
    return loss / (double)t->off[w->d->n_users];
}

static void every_sweep_lowers_the_loss(void **state)
{
    (void)state;
    struct toy t;
    struct wals w;
    struct err err = {0};
    toy_init(&t, 60, 40, 3);
    struct recipe r = recipe(5);
    struct pool *pool = pool_new(2, &err);
    assert_true(wals_init(&w, &t.d, &r, pool, &err));
    double before = 1e30;
    for (int i = 0; i < 10; i++) {
        wals_users(&w);
        wals_items(&w);
        double now = wals_loss(&w);
        assert_float_equal(now, loss_of(&w), 1e-5);
        assert_true(now <= before + 1e-7);
        before = now;
    }
    wals_fini(&w);
    pool_free(pool);
    toy_fini(&t);
}

static void one_seed_one_result_whatever_the_threads(void **state)
{
    (void)state;
    struct toy t;
    struct wals w[2];
    struct err err = {0};
    toy_init(&t, 60, 40, 3);
    struct recipe r = recipe(5);
    for (unsigned i = 0; i < 2; i++) {
        struct pool *pool = pool_new(1 + 2 * i, &err);
        assert_true(wals_init(&w[i], &t.d, &r, pool, &err));
        for (int s = 0; s < 3; s++) {
            wals_users(&w[i]);
            wals_items(&w[i]);
        }
        pool_free(pool);
    }
    assert_memory_equal(w[0].user, w[1].user, 60 * 5 * sizeof(float));
    assert_memory_equal(w[0].item, w[1].item, 40 * 5 * sizeof(float));
    wals_fini(&w[0]);
    wals_fini(&w[1]);
    toy_fini(&t);
}

static void rows_without_pairs_are_zero(void **state)
{
    (void)state;
    struct golden_baselines g;
    struct wals w;
    struct err err = {0};
    golden_baselines_open(&g);
    struct recipe r = recipe(3);
    struct pool *pool = pool_new(1, &err);
    assert_true(wals_init(&w, &g.d, &r, pool, &err));
    wals_users(&w);
    for (int c = 0; c < 3; c++)
        assert_float_equal(w.user[4 * 3 + c], 0, 0); // baselines.py leaves user 4 without
    wals_fini(&w);
    pool_free(pool);
    golden_baselines_close(&g);
}

static struct recipe weights(uint32_t n_users, uint32_t n_items, uint64_t n_pairs)
{
    struct recipe r = {0};
    wals_weights((struct recipe_data){n_users, n_items, n_pairs, false}, &r);
    return r;
}

/* A weight that suits dense data drowns what was seen where there is little of it, and a penalty that grows with it zeroes the model. */
static void weights_follow_the_density(void **state)
{
    (void)state;
    double last = 0;
    for (uint64_t pairs = 1; pairs <= 1000000; pairs *= 10) {
        double w0 = weights(1000, 1000, pairs).w0, density = (double)pairs / 1e6;
        assert_true(w0 > last && w0 < 0.1);
        assert_true(w0 / density < 20);
        last = w0;
    }
    assert_true(last > 0.0995);
    assert_float_equal(weights(6040, 3706, 988129).w0, 0.0898, 1e-4);    // MovieLens-1M, where .1 was found by hand
    assert_float_equal(weights(70679, 24915, 581835).w0, 0.0062, 1e-4); // Amazon-Book, .005 and .01 alike
    assert_float_equal(weights(1000, 1000, 500).reg, 0.01, 1e-9);
    assert_float_equal(weights(0, 0, 0).w0, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_steps_are_the_dense_solutions),
        cmocka_unit_test(every_sweep_lowers_the_loss),
        cmocka_unit_test(one_seed_one_result_whatever_the_threads),
        cmocka_unit_test(rows_without_pairs_are_zero),
        cmocka_unit_test(weights_follow_the_density),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
