/* Adam with lazy rows. If this fails, rarely seen users and items are trained differently from what dense Adam would
 * do, or the result depends on how often they were looked at. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/train/toy.h"
#include "train/adam.h"

#define STEPS 60

struct lab {
    struct toy toy;
    struct recipe r;
    struct model *m;
    struct pool *pool;
    struct adam adam;
};

static void lab_init(struct lab *l, float weight_decay, unsigned threads)
{
    struct err err = {0};
    struct adam_params p = {0.01f, 0.9f, 0.999f, 1e-8f, weight_decay};
    memset(l, 0, sizeof(*l));
    toy_init(&l->toy, 12, 10, 2);
    l->r = toy_recipe(MODEL_DAT);
    l->m = toy_model(&l->toy, &l->r, 9);
    l->pool = pool_new(threads, &err);
    assert_true(adam_init(&l->adam, &l->m->user, &p, l->pool, &err));
}

static void lab_fini(struct lab *l)
{
    adam_fini(&l->adam);
    model_free(l->m);
    pool_free(l->pool);
    toy_fini(&l->toy);
}

/* Dense Adam of one value, in double: every step, with a zero gradient where the row was left out. */
struct reference {
    double x, m, v;
};

static void dense_step(struct reference *d, double g, int t, double wd)
{
    d->m = 0.9 * d->m + 0.1 * g;
    d->v = 0.999 * d->v + 0.001 * g * g;
    d->x = d->x * (1 - 0.01 * wd) - 0.01 * (d->m / (1 - pow(0.9, t))) / (sqrt(d->v / (1 - pow(0.999, t))) + 1e-8);
}

/* User u is in every (u + 1)-th step; its id row's gradient is drawn. All rows must end where dense Adam ends. */
static void lazy_rows_end_where_dense_adam_ends(float wd, unsigned threads)
{
    struct lab l;
    struct rng rng;
    lab_init(&l, wd, threads);
    const struct tower *t = &l.m->user;
    uint32_t k = t->shape.k, n = l.toy.d.n_users - 1; // the last user has no row of its own
    struct reference *want = calloc((size_t)n * k, sizeof(*want));
    size_t first = t->shape.field[0].first_row;
    for (size_t i = 0; i < (size_t)n * k; i++)
        want[i].x = t->emb[(first + 1) * k + i];
    rng_init(&rng, 4);
    for (int step = 1; step <= STEPS; step++) {
        adam_begin(&l.adam);
        for (uint32_t u = 0; u < n; u++)
            if (step % (int)(u + 1) == 0)
                adam_touch(&l.adam, l.toy.user_x + u * t->shape.n_slots, &(uint32_t){u + 1}, 1);
        adam_catch_up(&l.adam);
        for (uint32_t u = 0; u < n; u++)
            for (uint32_t c = 0; c < k; c++) {
                float g = step % (int)(u + 1) ? 0 : (float)rng_normal(&rng);
                l.adam.grad.emb[(first + 1 + u) * k + c] = g;
                dense_step(&want[u * k + c], g, step, wd);
            }
        adam_step(&l.adam);
    }
    adam_flush(&l.adam);
    for (size_t i = 0; i < (size_t)n * k; i++)
        assert_float_equal(t->emb[(first + 1) * k + i], want[i].x, 2e-5f);
    free(want);
    lab_fini(&l);
}

static void lazy_is_dense(void **state)
{
    (void)state;
    lazy_rows_end_where_dense_adam_ends(0, 1);
    lazy_rows_end_where_dense_adam_ends(0, 3);
    lazy_rows_end_where_dense_adam_ends(0.5f, 1);
}

static void flushing_twice_changes_nothing(void **state)
{
    (void)state;
    struct lab l;
    lab_init(&l, 0.1f, 1);
    adam_begin(&l.adam);
    adam_touch(&l.adam, l.toy.user_x, (const uint32_t[]){1, 2}, 2);
    adam_catch_up(&l.adam);
    l.adam.grad.emb[5] = 1;
    l.adam.grad.aug[7] = 1;
    l.adam.grad.w[0][3] = 1;
    assert_float_equal(adam_grad_norm2(&l.adam), 1, 1e-6);
    adam_step(&l.adam);
    assert_float_equal(adam_grad_norm2(&l.adam), 0, 0); // used up
    adam_flush(&l.adam);
    size_t bytes = l.m->user.block_floats * sizeof(float);
    float *once = malloc(bytes);
    memcpy(once, l.m->user.block, bytes);
    adam_flush(&l.adam);
    assert_memory_equal(once, l.m->user.block, bytes);
    free(once);
    lab_fini(&l);
}

static void a_row_named_twice_is_updated_once(void **state)
{
    (void)state;
    struct lab l;
    lab_init(&l, 0, 1);
    adam_begin(&l.adam);
    adam_touch(&l.adam, l.toy.user_x, NULL, 1);
    size_t once = l.adam.emb.n_touched;
    adam_touch(&l.adam, l.toy.user_x, NULL, 1);
    assert_int_equal(l.adam.emb.n_touched, once);
    assert_int_equal(l.adam.aug.n_touched, 0);
    lab_fini(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lazy_is_dense),
        cmocka_unit_test(flushing_twice_changes_nothing),
        cmocka_unit_test(a_row_named_twice_is_updated_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
