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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(averages_what_is_learned)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
