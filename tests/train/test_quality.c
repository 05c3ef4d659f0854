/* MovieLens-1M, the figures that docs/results/tuning.md states. If this fails, the evaluator counts otherwise than it says
 * (popularity), or training no longer reaches what it reached. Needs DUET_TEST_DATA; with the argument "slow" whole
 * runs, a few minutes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/fio.h"
#include "core/blas.h"
#include "train/evaluate.h"
#include "train/prepare.h"
#include "train/trainer.h"

static char folder[] = "/tmp/duet-quality-XXXXXX";
static struct dataset *data;
static struct pool *pool;

static int setup(void **state)
{
    (void)state;
    char in[PATH_MAX], out[PATH_MAX];
    struct err err = {0};
    struct prepare_report report;
    snprintf(in, sizeof(in), "%s/ml-1m", getenv("DUET_TEST_DATA"));
    if (!mkdtemp(folder) || !fio_join(out, folder, "data.duet", &err))
        return -1;
    struct prepare_params p = {.in = in, .out = out, .min_count = 1, .log = {.days = 1, .seed = 1}};
    blas_set_threads(1);
    if (!prepare_run(&p, &report, &err) || !(data = dataset_open(out, &err)) || !(pool = pool_new(2, &err))) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pool_free(pool);
    dataset_close(data);
    return fio_remove_tree(folder, NULL) ? 0 : -1;
}

static struct evaluation evaluation(void)
{
    struct evaluation e;
    struct err err = {0};
    struct evaluation_params p = {.data = data, .spec = {{50, 100}, 2}};
    assert_true(evaluation_init(&e, &p, pool, &err));
    return e;
}

static double metric(const json_t *system, const char *name)
{
    return json_number_value(json_object_get(json_object_get(system, "metrics"), name));
}

static void popularity_is_what_everyone_gets(void **state)
{
    (void)state;
    struct err err = {0};
    struct evaluation e = evaluation();
    json_t *o = evaluation_popularity(&e, &err);
    assert_true(fabs(metric(o, "hr@50") - 0.1447) < 5e-5);
    assert_true(fabs(metric(o, "hr@100") - 0.2295) < 5e-5);
    assert_true(fabs(metric(o, "mrr") - 0.0218) < 5e-5);
    json_decref(o);
    evaluation_fini(&e);
}

static struct trainer_result train(const char *recipe, enum model_kind kind, uint32_t epochs, const char *out)
{
    struct err err = {0};
    struct trainer_result res;
    struct trainer_params p = {.data = data, .out_dir = out};
    assert_true(recipe_named(recipe, kind, recipe_data_of(data), &p.recipe));
    p.recipe.threads = 2;
    p.recipe.epochs = epochs ? epochs : p.recipe.epochs;
    if (!trainer_run(&p, &res, &err))
        fail_msg("%s", err.msg);
    return res;
}

static void three_epochs_beat_popularity(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct trainer_result res = train("duet", (enum model_kind)kind, 3, NULL);
        assert_false(res.collapsed);
        assert_true(res.valid.hr[1] > 1.1 * res.popularity_hr100);
    }
}

static void the_literal_recipe_dies_within_an_epoch(void **state)
{
    (void)state;
    struct trainer_result res = train("paper", MODEL_DAT, 0, NULL);
    assert_true(res.collapsed);
    assert_int_equal(res.epochs_done, 1);
    assert_non_null(strstr(res.reason, "ln 2"));
}

static void duet_reaches_its_figures(void **state)
{
    (void)state;
    struct err err = {0};
    for (int kind = 0; kind < 2; kind++) {
        train("duet", (enum model_kind)kind, 0, folder);
        struct checkpoint *c = checkpoint_load(folder, &err);
        assert_non_null(c);
        struct evaluation e = evaluation();
        json_t *o = evaluation_model(&e, "duet", c->model, &err);
        assert_non_null(o);
        print_message("%s: HR@50 %.4f HR@100 %.4f\n", model_kind_name(c->model->kind), metric(o, "hr@50"),
                      metric(o, "hr@100"));
        assert_true(metric(o, "hr@50") >= 0.29);
        assert_true(metric(o, "hr@100") >= 0.43);
        json_decref(o);
        evaluation_fini(&e);
        checkpoint_free(c);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest quick[] = {
        cmocka_unit_test(popularity_is_what_everyone_gets),
        cmocka_unit_test(three_epochs_beat_popularity),
        cmocka_unit_test(the_literal_recipe_dies_within_an_epoch),
    };
    const struct CMUnitTest slow[] = {cmocka_unit_test(duet_reaches_its_figures)};
    char path[PATH_MAX];
    if (!getenv("DUET_TEST_DATA") || !fio_join(path, getenv("DUET_TEST_DATA"), "ml-1m", NULL) || !fio_is_dir(path)) {
        printf("DUET_TEST_DATA holds no ml-1m: skipped\n");
        return 77;
    }
    if (argc > 1 && strcmp(argv[1], "slow") == 0)
        return cmocka_run_group_tests(slow, setup, teardown);
    return cmocka_run_group_tests(quick, setup, teardown);
}
