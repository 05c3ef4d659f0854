/* A whole run: learning, the checkpoint, resuming, collapse. If this fails, `duet train` leaves a model that is not
 * what it says. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/fio.h"
#include "tests/train/toy.h"
#include "train/trainer.h"

static char dir[] = "/tmp/duet-trainer-XXXXXX";

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/duet-trainer-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return fio_remove_tree(dir, NULL) ? 0 : -1;
}

static struct trainer_result train(const struct toy *t, struct recipe r, const char *out, bool resume)
{
    struct err err = {0};
    struct trainer_result res;
    struct trainer_params p = {.data = &t->d, .recipe = r, .out_dir = out, .resume = resume};
    bool ok = trainer_run(&p, &res, &err);
    if (!ok)
        fprintf(stderr, "%s\n", err.msg);
    assert_true(ok);
    return res;
}

static void both_models_learn_more_than_popularity(void **state)
{
    (void)state;
    struct toy t;
    toy_init(&t, 200, 200, 7);
    for (int kind = 0; kind < 2; kind++)
        for (uint32_t threads = 1; threads <= 2; threads++) {
            struct recipe r = toy_recipe((enum model_kind)kind);
            r.threads = threads;
            r.epochs = 20;
            struct trainer_result res = train(&t, r, NULL, false);
            assert_false(res.collapsed);
            assert_true(res.valid.hr[0] > 0.4); // popularity: 50 of 200 items at random find a quarter
            assert_true(res.valid.hr[1] > res.popularity_hr100);
        }
    toy_fini(&t);
}

static void every_loss_and_batching_runs(void **state)
{
    (void)state;
    struct toy t;
    toy_init(&t, 60, 50, 7);
    for (int loss = 0; loss < 3; loss++)
        for (int batching = 0; batching < 2; batching++) {
            struct recipe r = toy_recipe(MODEL_DAT);
            r.loss = (enum loss_kind)loss;
            r.batching = (enum batch_kind)batching;
            r.negatives = 7;
            r.epochs = 3;
            r.learn_scale = true;
            struct trainer_result res = train(&t, r, NULL, false);
            assert_int_equal(res.epochs_done, 3);
            assert_false(res.collapsed);
        }
    toy_fini(&t);
}

static void count_within(void *user, const struct trainer_report *r)
{
    size_t *n = user;
    *n += r->batch < r->n_batches;
}

/* 60 users in batches of 8: the eighth batch's report is the epoch's end. */
static void reports_within_an_epoch_come_as_often_as_asked(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    toy_init(&t, 60, 40, 3);
    for (int often = 0; often < 2; often++) {
        struct trainer_result res;
        size_t n = 0;
        struct trainer_params p = {.data = &t.d,
                                   .recipe = toy_recipe(MODEL_TWO_TOWER),
                                   .progress = count_within,
                                   .progress_user = &n,
                                   .report_every_s = often ? 1e-12 : 1e6};
        p.recipe.epochs = 2;
        assert_true(trainer_run(&p, &res, &err));
        assert_int_equal(n, often ? 2 * 7 : 0);
    }
    toy_fini(&t);
}

static void the_checkpoint_is_the_best_epoch(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    toy_init(&t, 60, 50, 3);
    struct trainer_result res = train(&t, toy_recipe(MODEL_DAT), dir, false);
    struct checkpoint *c = checkpoint_load(dir, &err);
    assert_non_null(c);
    assert_int_equal(c->info.epoch, res.best_epoch);
    assert_string_equal(c->info.dataset_hash, t.d.hash);
    assert_int_equal(c->info.valid.n, 60);
    assert_float_equal(c->info.valid.hr[1], res.valid.hr[1], 1e-6);
    assert_int_equal(c->info.recipe.width[2], 6);
    assert_non_null(c->model->user.aug);
    checkpoint_free(c);
    toy_fini(&t);
}

static char *read_file(const char *name, size_t *n)
{
    char path[PATH_MAX];
    struct err err = {0};
    assert_true(fio_join(path, dir, name, &err));
    char *p = fio_read_all(path, 1 << 24, n, &err);
    assert_non_null(p);
    return p;
}

/* Three epochs, stop, three more = six in one go, to the bit. */
static void resume_and_compare(const struct toy *t, struct recipe r)
{
    size_t n[2], m[2];
    char *whole[2], *parts[2];
    r.epochs = 6;
    r.patience = 0;
    r.learn_scale = true;
    train(t, r, dir, false);
    whole[0] = read_file("model.safetensors", &n[0]);
    whole[1] = read_file("optimizer.safetensors", &n[1]);
    r.epochs = 4;
    train(t, r, dir, false);
    r.epochs = 6;
    struct trainer_result res = train(t, r, dir, true);
    assert_int_equal(res.epochs_done, 6);
    parts[0] = read_file("model.safetensors", &m[0]);
    parts[1] = read_file("optimizer.safetensors", &m[1]);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(n[i], m[i]);
        assert_memory_equal(whole[i], parts[i], n[i]);
        free(whole[i]);
        free(parts[i]);
    }
}

static void a_resumed_run_ends_with_the_same_bits(void **state)
{
    (void)state;
    struct toy t;
    toy_init(&t, 60, 50, 5);
    resume_and_compare(&t, toy_recipe(MODEL_DAT));
    resume_and_compare(&t, toy_recipe_closed());
    toy_give_times(&t);
    resume_and_compare(&t, toy_recipe_timed());
    toy_fini(&t);
}

/* The users' table of a checkpoint is n^-alpha times the sum of their items' p_v, so what is served is what was
 * validated; and the run learns. */
static void closed_form_fills_the_users_table(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    toy_init(&t, 200, 200, 7);
    struct recipe r = toy_recipe_closed();
    r.threads = 2;
    r.epochs = 12;
    struct trainer_result res = train(&t, r, dir, false);
    assert_true(res.valid.hr[0] > 0.4 && res.valid.hr[1] > res.popularity_hr100);
    struct checkpoint *c = checkpoint_load(dir, &err);
    assert_non_null(c);
    const struct model *m = c->model;
    assert_true(m->history.alpha == (float)r.alpha && m->user.shape.skip_aug);
    struct tower_ws *ws = tower_ws_new(&m->item, 200, &err);
    static float p[200 * 6];
    tower_forward_own(&m->item, &m->schema->item, t.d.item_x, 200, ws, p);
    for (uint32_t u = 0; u < 199; u++) // the last has no row
        for (uint32_t k = 0; k < 6; k++) {
            double want = 0;
            for (uint64_t i = t.d.train.off[u]; i < t.d.train.off[u + 1]; i++)
                want += (double)p[t.d.train.item[i] * 6 + k] / sqrt(8);
            assert_true(fabs(want - (double)m->user.aug[(u + 1) * 6 + k]) < 1e-5);
        }
    for (uint32_t i = 0; i < m->user.shape.field[0].n_rows * m->user.shape.k; i++)
        assert_true(m->user.emb[i] == 0); // ids are told apart by a_u alone
    tower_ws_free(ws);
    checkpoint_free(c);
    toy_fini(&t);
}

/* Learned weights reach the checkpoint, and the users' table is made with them. */
static void weights_of_time_are_kept(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    toy_init(&t, 60, 50, 7);
    toy_give_times(&t);
    train(&t, toy_recipe_timed(), dir, false);
    struct checkpoint *c = checkpoint_load(dir, &err);
    assert_non_null(c);
    const struct model *m = c->model;
    assert_true(fabsf(m->history.weight[3] - 0.5f) > 1e-3f); // (1 + 3)^-1/2 at the start
    struct tower_ws *ws = tower_ws_new(&m->item, 50, &err);
    static float p[50 * 6], a[6];
    tower_forward_own(&m->item, &m->schema->item, t.d.item_x, 50, ws, p);
    for (uint32_t u = 0; u < 59; u++) {
        history_sum(&m->history, p, t.d.train.item + t.d.train.off[u], 8, 6, a);
        for (uint32_t k = 0; k < 6; k++)
            assert_true(fabsf(a[k] - m->user.aug[(u + 1) * 6 + k]) < 1e-5f);
    }
    tower_ws_free(ws);
    checkpoint_free(c);
    toy_fini(&t);
}

static void resuming_with_another_recipe_is_refused(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    struct trainer_result res;
    toy_init(&t, 60, 50, 5);
    struct trainer_params p = {.data = &t.d, .recipe = toy_recipe(MODEL_DAT), .out_dir = dir, .resume = true};
    train(&t, p.recipe, dir, false);
    p.recipe.lr = 0.5;
    assert_false(trainer_run(&p, &res, &err));
    assert_int_equal(err.code, ERR_MISMATCH);
    assert_non_null(strstr(err.msg, "another recipe"));
    toy_fini(&t);
}

static void a_changed_model_file_is_refused(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    char path[PATH_MAX];
    toy_init(&t, 60, 50, 5);
    train(&t, toy_recipe(MODEL_TWO_TOWER), dir, false);
    assert_true(fio_join(path, dir, "model.safetensors", &err));
    FILE *f = fopen(path, "r+b");
    fseek(f, -1, SEEK_END);
    int last = fgetc(f);
    fseek(f, -1, SEEK_END);
    fputc(last ^ 1, f);
    fclose(f);
    assert_null(checkpoint_load(dir, &err));
    assert_int_equal(err.code, ERR_MISMATCH);
    assert_non_null(strstr(err.msg, "model.safetensors"));
    toy_fini(&t);
}

/* The text to the letter: ReLU outputs, bare cosine, S = 4. It dies, and the run says so instead of printing a metric.
 */
static void the_literal_recipe_collapses_and_says_why(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    struct recipe r;
    toy_init(&t, 200, 200, 7);
    recipe_named("paper", MODEL_DAT, (struct recipe_data){5000, 200, 0, false}, &r);
    r.k = 8;
    r.width[0] = 32;
    r.width[1] = 16;
    r.width[2] = 8;
    r.batch = 64;
    r.epochs = 200;
    r.patience = 0;
    r.lr = 1e-2;
    struct trainer_result res = train(&t, r, dir, false);
    assert_true(res.collapsed);
    assert_true(res.epochs_done < 200);
    assert_non_null(strstr(res.reason, "zero vector"));
    assert_non_null(strstr(res.reason, "ln 2"));
    assert_non_null(strstr(res.reason, "--recipe duet"));
    struct checkpoint *c = checkpoint_load(dir, &err);
    assert_non_null(c);
    assert_true(c->info.collapsed);
    checkpoint_free(c);
    toy_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_models_learn_more_than_popularity),
        cmocka_unit_test(every_loss_and_batching_runs),
        cmocka_unit_test(reports_within_an_epoch_come_as_often_as_asked),
        cmocka_unit_test_setup_teardown(the_checkpoint_is_the_best_epoch, set_up, tear_down),
        cmocka_unit_test_setup_teardown(weights_of_time_are_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_resumed_run_ends_with_the_same_bits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(closed_form_fills_the_users_table, set_up, tear_down),
        cmocka_unit_test_setup_teardown(resuming_with_another_recipe_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_changed_model_file_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_literal_recipe_collapses_and_says_why, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
