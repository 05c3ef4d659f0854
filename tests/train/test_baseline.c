/* Runs of the models without towers: learning, the checkpoint they leave, evaluation of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/fio.h"
#include "tests/train/toy.h"
#include "train/baseline.h"
#include "train/evaluate.h"

static char dir[64];

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/duet-baseline-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return fio_remove_tree(dir, NULL) ? 0 : -1;
}

static const enum model_kind kinds[] = {MODEL_WALS, MODEL_FM, MODEL_YOUTUBE_DNN, MODEL_MIND};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static struct recipe toy_baseline(enum model_kind kind)
{
    struct recipe r;
    baseline_recipe(kind, (struct recipe_data){200, 200, 1600, false}, &r);
    r.width[r.n_layers - 1] = 8;
    r.batch = 32;
    return r;
}

static void each_learns_more_than_popularity_and_is_evaluated_as_trained(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    toy_init(&t, 200, 200, 7);
    for (size_t i = 0; i < N_KINDS; i++) {
        struct trainer_result res;
        struct trainer_params p = {.data = &t.d, .recipe = toy_baseline(kinds[i]), .out_dir = dir};
        if (!baseline_run(&p, &res, &err))
            fail_msg("%s: %s", model_kind_name(kinds[i]), err.msg);
        if (res.valid.hr[0] < 0.45) // 50 of 200 items at random find a quarter
            fail_msg("%s: validation HR@50 %.3f", model_kind_name(kinds[i]), res.valid.hr[0]);
        assert_true(res.valid.hr[1] > res.popularity_hr100);
        struct checkpoint *c = checkpoint_load(dir, &err);
        assert_non_null(c);
        assert_int_equal(c->model->kind, kinds[i]);
        assert_int_equal(c->info.epoch, res.best_epoch);
        assert_string_equal(c->info.recipe.name, "tuned");
        struct evaluation e;
        struct pool *pool = pool_new(2, &err);
        struct evaluation_params ep = {.data = &t.d, .valid = true, .spec = {{50}, 1}};
        assert_true(evaluation_init(&e, &ep, pool, &err));
        json_t *o = evaluation_model(&e, "x", c->model, &err), *view;
        assert_float_equal(json_number_value(json_object_get(json_object_get(o, "metrics"), "hr@50")), res.valid.hr[0],
                           1e-9);
        view = json_array_get(json_object_get(o, "cold_start"), 0);
        assert_true(json_number_value(json_object_get(view, "hr@50")) > 0.4);
        json_decref(o);
        evaluation_fini(&e);
        pool_free(pool);
        checkpoint_free(c);
    }
    toy_fini(&t);
}

/* Folding in a stored user's own history gives what training stored. */
static void folding_in_is_the_half_step(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    struct trainer_result res;
    toy_init(&t, 60, 40, 7);
    struct trainer_params p = {.data = &t.d, .recipe = toy_baseline(MODEL_WALS), .out_dir = dir};
    assert_true(baseline_run(&p, &res, &err));
    struct checkpoint *c = checkpoint_load(dir, &err);
    const struct stored *s = c->model->stored;
    float *scratch = calloc(stored_scratch(s), sizeof(float)), q[8];
    for (uint32_t u = 0; u < 60; u++) {
        uint64_t lo = t.d.train.off[u], hi = t.d.train.off[u + 1];
        assert_true(stored_from_history(s, s->item, t.d.train.item + lo, (size_t)(hi - lo), scratch, q));
        for (int j = 0; j < 8; j++)
            assert_float_equal(q[j], s->user[u * 8 + (uint32_t)j], 1e-5);
    }
    free(scratch);
    checkpoint_free(c);
    toy_fini(&t);
}

static char *model_in(const char *folder, size_t *n)
{
    char path[PATH_MAX];
    struct err err = {0};
    assert_true(fio_join(path, folder, "model.safetensors", &err));
    char *bytes = fio_read_all(path, (size_t)1 << 24, n, &err);
    assert_non_null(bytes);
    return bytes;
}

static void note_first(void *user, const struct trainer_report *r)
{
    uint32_t *first = user;
    *first = *first ? *first : r->epoch;
}

/* Runs a baseline up to epoch `epochs` in the folder; it must begin with epoch `first`, 0 = with none. */
static struct trainer_result run_in(const char *folder, const struct toy *t, struct recipe r, uint32_t first,
                                    uint32_t epochs, bool resume)
{
    struct err err = {0};
    struct trainer_result res;
    struct trainer_params p = {.data = &t->d, .recipe = r, .out_dir = folder, .resume = resume, .progress = note_first};
    uint32_t begun = 0;
    p.progress_user = &begun;
    p.recipe.epochs = epochs;
    if (!baseline_run(&p, &res, &err))
        fail_msg("%s: %s", model_kind_name(r.model), err.msg);
    assert_int_equal(begun, first);
    return res;
}

static void a_resumed_run_ends_with_the_same_bits(void **state)
{
    (void)state;
    struct toy t;
    char whole[80], parts[80];
    toy_init(&t, 200, 200, 7);
    snprintf(whole, sizeof(whole), "%s/whole", dir);
    snprintf(parts, sizeof(parts), "%s/parts", dir);
    for (size_t i = 0; i < N_KINDS; i++) {
        struct recipe r = toy_baseline(kinds[i]);
        size_t n, m;
        r.patience = 0;
        r.lr_decay = 0.9; // an epoch's number matters
        r.ema_after = 1;  // the average is under way at both kills
        struct trainer_result a = run_in(whole, &t, r, 1, 7, false), b;
        run_in(parts, &t, r, 1, 2, false);
        run_in(parts, &t, r, 3, 3, true);
        b = run_in(parts, &t, r, 4, 7, true);
        assert_int_equal(a.best_epoch, b.best_epoch);
        assert_int_equal(a.epochs_done, b.epochs_done);
        assert_memory_equal(&a.valid, &b.valid, sizeof(a.valid));
        char *x = model_in(whole, &n), *y = model_in(parts, &m);
        assert_int_equal(n, m);
        assert_memory_equal(x, y, n);
        free(x);
        free(y);
        b = run_in(parts, &t, r, 0, 7, true); // nothing left to do: the result is told again
        assert_int_equal(a.best_epoch, b.best_epoch);
        assert_memory_equal(&a.valid, &b.valid, sizeof(a.valid));
    }
    toy_fini(&t);
}

/* A state of other options is not gone on from, and a run that begins anew does not leave one of the run before. */
static void only_its_own_state_is_resumed(void **state)
{
    (void)state;
    struct toy t;
    toy_init(&t, 60, 40, 7);
    for (size_t i = 0; i < N_KINDS; i++) {
        struct recipe r = toy_baseline(kinds[i]);
        struct trainer_result res;
        struct err err = {0};
        run_in(dir, &t, r, 1, 2, false);
        struct trainer_params p = {.data = &t.d, .recipe = r, .out_dir = dir, .resume = true};
        p.recipe.init_std = 0.04;
        assert_false(baseline_run(&p, &res, &err));
        assert_int_equal(err.code, ERR_MISMATCH);
        assert_non_null(strstr(err.msg, "another recipe"));
        assert_int_equal(run_in(dir, &t, p.recipe, 1, 1, false).epochs_done, 1);
        assert_int_equal(run_in(dir, &t, p.recipe, 2, 2, true).epochs_done, 2);
    }
    toy_fini(&t);
}

static void what_it_cannot_do_is_said(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    struct trainer_result res;
    toy_init(&t, 60, 40, 7);
    struct trainer_params p = {.data = &t.d, .recipe = toy_baseline(MODEL_WALS)};
    p.recipe.model = MODEL_DAT;
    assert_false(baseline_run(&p, &res, &err));
    assert_int_equal(err.code, ERR_ARG);
    p.recipe = toy_baseline(MODEL_WALS);
    p.recipe.w0 = 2;
    err = (struct err){0};
    assert_false(baseline_run(&p, &res, &err));
    assert_non_null(strstr(err.msg, "w0"));
    toy_fini(&t);
}

static void a_dataset_of_other_size_is_refused(void **state)
{
    (void)state;
    struct toy t, other;
    struct err err = {0};
    struct trainer_result res;
    toy_init(&t, 60, 40, 7);
    toy_init(&other, 61, 40, 7);
    struct trainer_params p = {.data = &t.d, .recipe = toy_baseline(MODEL_WALS), .out_dir = dir};
    assert_true(baseline_run(&p, &res, &err));
    struct checkpoint *c = checkpoint_load(dir, &err);
    struct evaluation e;
    struct pool *pool = pool_new(1, &err);
    struct evaluation_params ep = {.data = &other.d, .spec = {{50}, 1}};
    assert_true(evaluation_init(&e, &ep, pool, &err));
    assert_null(evaluation_model(&e, "x", c->model, &err));
    assert_int_equal(err.code, ERR_MISMATCH);
    evaluation_fini(&e);
    pool_free(pool);
    checkpoint_free(c);
    toy_fini(&t);
    toy_fini(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_learns_more_than_popularity_and_is_evaluated_as_trained, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(folding_in_is_the_half_step, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_resumed_run_ends_with_the_same_bits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_its_own_state_is_resumed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_it_cannot_do_is_said, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_dataset_of_other_size_is_refused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
