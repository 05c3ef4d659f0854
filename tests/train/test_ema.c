/* The average of parameters that is kept. If this fails, checkpoints hold something else than what was validated. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/train/toy.h"
#include "train/ema.h"

static void averages_what_is_learned(void **state)
{
    (void)state;
    struct toy toy;
    struct err err = {0};
    struct ema e;
    toy_init(&toy, 10, 12, 1);
    struct recipe r = toy_recipe_closed();
    struct model *m = toy_model(&toy, &r, 3);
    for (int with_aug = 0; with_aug < 2; with_aug++) {
        struct tower *t = &m->item;
        assert_true(ema_init(&e, t, with_aug, &err));
        t->emb[4] = 1;
        t->aug[8] = 10;
        t->w[1][3] = 100;
        t->aug_segment[2] = 7;
        ema_swap(&e); // nothing to change places with yet
        assert_float_equal(t->emb[4], 1, 0);
        ema_take(&e, 0.75);
        t->emb[4] = 5;
        t->aug[8] = 50;
        t->w[1][3] = 500;
        t->aug_segment[2] = 8;
        ema_take(&e, 0.75);
        ema_swap(&e);
        assert_float_equal(t->emb[4], 2, 1e-6);
        assert_float_equal(t->aug[8], with_aug ? 20 : 50, 1e-5);
        assert_float_equal(t->w[1][3], 200, 1e-4);
        assert_float_equal(t->aug_segment[2], 8, 0); // derived, never averaged
        ema_swap(&e);
        assert_float_equal(t->emb[4], 5, 0);
        assert_float_equal(t->w[1][3], 500, 0);
        ema_fini(&e);
    }
    model_free(m);
    toy_fini(&toy);
}

static void averages_an_array(void **state)
{
    (void)state;
    struct err err = {0};
    float w[2] = {1, 10};
    struct ema_array e;
    assert_true(ema_array_init(&e, w, 2, &err));
    ema_array_swap(&e); // nothing to change places with yet
    assert_true(w[0] == 1 && w[1] == 10);
    ema_array_take(&e, 0.75);
    w[0] = 5;
    w[1] = 50;
    ema_array_take(&e, 0.75);
    ema_array_swap(&e);
    assert_float_equal(w[0], 2, 1e-6);
    assert_float_equal(w[1], 20, 1e-5);
    ema_array_swap(&e);
    assert_true(w[0] == 5 && w[1] == 50);
    ema_array_fini(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(averages_what_is_learned), cmocka_unit_test(averages_an_array)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
