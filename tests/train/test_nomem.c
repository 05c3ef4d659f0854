/* Every allocation of a training run and of an evaluation fails once. If this fails, lack of memory ends in a crash, a
 * leak or a silent success instead of a message. */
#include <unistd.h>

#include "tests/core/support.h"

#include "tests/train/toy.h"
#include "train/evaluate.h"
#include "train/import.h"
#include "train/trainer.h"

static struct recipe small(enum loss_kind loss)
{
    struct recipe r = toy_recipe(MODEL_DAT);
    r.loss = loss;
    r.negatives = 3;
    r.epochs = 1;
    return r;
}

static void training_survives_each_failed_allocation(void **state)
{
    (void)state;
    struct toy t;
    toy_init(&t, 20, 20, 1);
    for (int loss = 0; loss < 3; loss++) {
        struct trainer_params p = {.data = &t.d, .recipe = small((enum loss_kind)loss)};
        bool ok = false;
        size_t n;
        for (n = 1; !ok && n < 5000; n++) {
            struct err err = {0};
            struct trainer_result res;
            alloc_fail_at(n);
            ok = trainer_run(&p, &res, &err);
            bool failed = alloc_failed();
            alloc_fail_at(0);
            if (!failed)
                break;
            if (!ok && !err.msg[0])
                fail_msg("allocation %zu failed without a message", n);
        }
        assert_true(ok);
        assert_true(n > 50); // it did look at many
    }
    toy_fini(&t);
}

static void evaluation_survives_each_failed_allocation(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    struct recipe r = small(LOSS_SOFTMAX);
    toy_init(&t, 20, 20, 1);
    struct model *m = toy_model(&t, &r, 1);
    struct pool *pool = pool_new(1, &err);
    struct evaluation_params p = {.data = &t.d, .spec = {{5}, 1}};
    size_t n = 1;
    for (bool failed = true; failed && n < 5000; n++) {
        struct evaluation e;
        json_t *o = NULL;
        err = (struct err){0};
        alloc_fail_at(n);
        if (evaluation_init(&e, &p, pool, &err)) {
            o = evaluation_model(&e, "toy", m, &err);
            evaluation_fini(&e);
        }
        failed = alloc_failed();
        alloc_fail_at(0);
        if (!o && !err.msg[0])
            fail_msg("allocation %zu failed without a message", n);
        json_decref(o);
    }
    assert_true(n > 20 && n < 5000);
    pool_free(pool);
    model_free(m);
    toy_fini(&t);
}

static void import_survives_each_failed_allocation(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    struct recipe r = small(LOSS_SOFTMAX);
    char path[] = "/tmp/duet-nomem-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && close(fd) == 0);
    toy_init(&t, 20, 20, 1);
    struct model *m = toy_model(&t, &r, 1);
    assert_true(model_save(m, path, true, &err));
    struct import_params p = {.data = &t.d, .state = path, .kind = MODEL_DAT, .history_alpha = 1};
    size_t n = 1;
    for (bool failed = true; failed && n < 5000; n++) {
        err = (struct err){0};
        alloc_fail_at(n);
        struct model *got = import_state(&p, &err);
        failed = alloc_failed();
        alloc_fail_at(0);
        if (!got && !err.msg[0])
            fail_msg("allocation %zu failed without a message", n);
        model_free(got);
    }
    assert_true(n > 20 && n < 5000);
    model_free(m);
    toy_fini(&t);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_survives_each_failed_allocation),
        cmocka_unit_test(evaluation_survives_each_failed_allocation),
        cmocka_unit_test(import_survives_each_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
