/* Checkpoint folders. If this fails, a damaged or mixed folder is published as if it were a model. */
#include <limits.h>
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
#include "train/checkpoint.h"
#include "train/resume.h"

struct lab {
    char dir[40];
    struct toy toy;
    struct recipe r;
    struct model *m;
};

static int set_up(void **state)
{
    struct lab *l = calloc(1, sizeof(*l));
    struct err err = {0};
    snprintf(l->dir, sizeof(l->dir), "/tmp/duet-checkpoint-XXXXXX");
    assert_non_null(mkdtemp(l->dir));
    toy_init(&l->toy, 20, 20, 1);
    l->r = toy_recipe(MODEL_DAT);
    l->m = toy_model(&l->toy, &l->r, 1);
    struct checkpoint_info info = {
        .recipe = l->r, .epoch = 3, .spec = {{50, 100}, 2}, .valid = {.n = 5, .hr = {0.25, 0.5}}};
    snprintf(info.dataset_hash, sizeof(info.dataset_hash), "%s", l->toy.d.hash);
    if (!checkpoint_save(l->dir, l->m, &info, &err))
        fail_msg("%s", err.msg);
    *state = l;
    return 0;
}

static int tear_down(void **state)
{
    struct lab *l = *state;
    model_free(l->m);
    toy_fini(&l->toy);
    fio_remove_tree(l->dir, NULL);
    free(l);
    return 0;
}

static void loads_what_was_saved(void **state)
{
    struct lab *l = *state;
    struct err err = {0};
    struct checkpoint *c = checkpoint_load(l->dir, &err);
    if (!c)
        fail_msg("%s", err.msg);
    assert_int_equal(c->info.epoch, 3);
    assert_false(c->info.collapsed);
    assert_int_equal(c->info.spec.k[1], 100);
    assert_true(c->info.valid.n == 5 && c->info.valid.hr[1] == 0.5);
    assert_memory_equal(c->model->user.block, l->m->user.block, l->m->user.block_floats * sizeof(float));
    assert_memory_equal(c->model->item.block, l->m->item.block, l->m->item.block_floats * sizeof(float));
    checkpoint_free(c);
}

static void a_flag_keeps_the_model_and_gives_the_reason(void **state)
{
    struct lab *l = *state;
    struct err err = {0};
    assert_true(checkpoint_flag(l->dir, "it died", &err));
    struct checkpoint *c = checkpoint_load(l->dir, &err);
    assert_non_null(c);
    assert_true(c->info.collapsed);
    assert_string_equal(c->info.reason, "it died");
    assert_int_equal(c->info.epoch, 3);
    checkpoint_free(c);
}

/* Each file missing, and each member of checkpoint.json missing or of a wrong kind. */
static void missing_files_are_named(void **state)
{
    struct lab *l = *state;
    const char *files[] = {"schema.json", "model.safetensors", "checkpoint.json"};
    for (int i = 0; i < 3; i++) {
        char path[PATH_MAX], aside[PATH_MAX];
        struct err err = {0};
        assert_true(fio_join(path, l->dir, files[i], &err) && fio_join(aside, l->dir, "aside", &err));
        assert_int_equal(rename(path, aside), 0);
        assert_null(checkpoint_load(l->dir, &err));
        assert_int_equal(err.code, ERR_NOT_FOUND);
        assert_non_null(strstr(err.msg, files[i]));
        assert_int_equal(rename(aside, path), 0);
    }
}

static void bad_members_are_named(void **state)
{
    struct lab *l = *state;
    const char *keys[] = {"format", "format_version", "dataset_hash", "epoch",     "collapsed",
                          "reason", "recipe",         "validation",   "model_xxh3"};
    char path[PATH_MAX];
    struct err err = {0};
    assert_true(fio_join(path, l->dir, "checkpoint.json", &err));
    json_t *good = json_read_file(path, 1 << 20, &err);
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
        for (int wrong = 0; wrong < 2; wrong++) {
            json_t *o = json_deep_copy(good);
            err = (struct err){0};
            if (wrong)
                json_object_set_new(o, keys[i], json_array());
            else
                json_object_del(o, keys[i]);
            assert_int_equal(json_dump_file(o, path, 0), 0);
            assert_null(checkpoint_load(l->dir, &err));
            if (!strstr(err.msg, keys[i]))
                fail_msg("\"%s\" does not name %s", err.msg, keys[i]);
            json_decref(o);
        }
    json_decref(good);
}

static void another_version_is_refused(void **state)
{
    struct lab *l = *state;
    char path[PATH_MAX];
    struct err err = {0};
    assert_true(fio_join(path, l->dir, "checkpoint.json", &err));
    json_t *o = json_read_file(path, 1 << 20, &err);
    json_object_set_new(o, "format_version", json_integer(2));
    assert_int_equal(json_dump_file(o, path, 0), 0);
    assert_null(checkpoint_load(l->dir, &err));
    assert_non_null(strstr(err.msg, "version 2, want duet-checkpoint version 1"));
    json_decref(o);
}

/* The optimiser's file cut at any length is refused; none of it may be believed. */
static void a_cut_optimiser_file_is_refused(void **state)
{
    struct lab *l = *state;
    struct err err = {0};
    struct sampler s;
    struct step step;
    struct progress p = {.epoch = 2};
    struct pool *pool = pool_new(1, &err);
    char path[PATH_MAX];
    uint64_t size = 0;
    assert_true(sampler_init(&s, &l->toy.d, &l->r, &err) &&
                step_init(&step, &dist_alone, &l->r, &l->toy.d, l->m, &s, pool, &err));
    assert_true(resume_save(l->dir, &step, &p, l->toy.d.hash, &err));
    assert_true(resume_load(l->dir, &step, &p, l->toy.d.hash, &err));
    assert_false(resume_load(l->dir, &step, &p, "0123", &err));
    assert_non_null(strstr(err.msg, "another dataset"));
    assert_true(fio_join(path, l->dir, "optimizer.safetensors", NULL) && fio_size(path, &size, NULL));
    for (uint64_t cut = size - 1; cut > size / 2; cut -= size / 9) {
        assert_int_equal(truncate(path, (off_t)cut), 0);
        err = (struct err){0};
        assert_false(resume_load(l->dir, &step, &p, l->toy.d.hash, &err));
        assert_non_null(strstr(err.msg, "optimizer.safetensors"));
    }
    step_fini(&step);
    sampler_fini(&s);
    pool_free(pool);
}

#define test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        test(loads_what_was_saved),       test(a_flag_keeps_the_model_and_gives_the_reason),
        test(missing_files_are_named),    test(bad_members_are_named),
        test(another_version_is_refused), test(a_cut_optimiser_file_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
