/* Models of vectors: their file, and queries from a history. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/als.h"
#include "core/base/fio.h"
#include "core/base/rng.h"
#include "core/stored.h"

static char path[64];

static int set_up(void **state)
{
    (void)state;
    snprintf(path, sizeof(path), "/tmp/duet-stored-XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(path);
}

static struct stored *make(bool fold_in)
{
    struct err err = {0};
    struct rng r;
    struct stored *s = stored_new(3, 2, 5, 4, fold_in, &err);
    rng_init(&r, 9);
    for (int i = 0; i < 5 * 2 * 3; i++)
        s->user[i] = (float)rng_normal(&r);
    for (int i = 0; i < 4 * 3; i++)
        s->item[i] = (float)rng_normal(&r);
    if (fold_in) {
        als_gram(s->item, 4, 3, s->gram);
        s->w0 = 0.25f;
        s->lambda = 0.5f;
        s->n_fold = 4;
    }
    return s;
}

static struct stored *load(bool with_vec, struct err *err)
{
    struct safetensors *st = safetensors_open(path, err);
    struct stored *s = st ? stored_load(st, with_vec, err) : NULL;
    safetensors_close(st);
    return s;
}

static void what_is_saved_is_loaded(void **state)
{
    (void)state;
    struct err err = {0};
    for (int fold_in = 0; fold_in < 2; fold_in++)
        for (int with_vec = 0; with_vec < 2; with_vec++) {
            struct stored *s = make(fold_in);
            s->item_bias = !fold_in;
            assert_true(stored_save(s, "wals", path, with_vec, &err));
            struct stored *l = load(with_vec, &err);
            assert_non_null(l);
            assert_int_equal(l->d, 3);
            assert_int_equal(l->n_interest, 2);
            assert_int_equal(l->item_bias, !fold_in);
            assert_int_equal(l->n_users, with_vec ? 5 : 0);
            assert_int_equal(l->n_items, with_vec ? 4 : 0);
            assert_true((l->user != NULL) == with_vec && (l->gram != NULL) == fold_in);
            if (with_vec) {
                assert_memory_equal(l->user, s->user, 5 * 2 * 3 * sizeof(float));
                assert_memory_equal(l->item, s->item, 4 * 3 * sizeof(float));
            }
            if (fold_in) {
                assert_memory_equal(l->gram, s->gram, 9 * sizeof(float));
                assert_true(l->w0 == 0.25f && l->lambda == 0.5f && l->n_fold == 4);
            }
            stored_free(l);
            stored_free(s);
        }
}

static void a_file_without_vectors_is_no_checkpoint(void **state)
{
    (void)state;
    struct err err = {0};
    struct stored *s = make(true);
    assert_true(stored_save(s, "wals", path, false, &err));
    assert_null(load(true, &err));
    assert_int_equal(err.code, ERR_FORMAT);
    assert_non_null(strstr(err.msg, "user.vec"));
    stored_free(s);
    s = load(false, NULL);
    err = (struct err){0};
    assert_false(stored_save(s, "wals", path, true, &err)); // nor can one be made of it
    assert_int_equal(err.code, ERR_STATE);
    stored_free(s);
}

static void values_that_are_not_finite_are_not_saved(void **state)
{
    (void)state;
    struct err err = {0};
    struct stored *s = make(false);
    s->item[2] = 0.0f / 0.0f;
    assert_false(stored_save(s, "fm", path, true, &err));
    assert_non_null(strstr(err.msg, "item.vec"));
    assert_false(fio_exists(path));
    assert_true(fio_write_atomic(path, "", 0, &err)); // for tear_down
    stored_free(s);
}

struct damage {
    const char *key, *value; // metadata put wrong, or
    const char *tensor;      // a tensor that does not belong there
    const char *says;
};

static void write_damaged(const struct damage *d)
{
    struct err err = {0};
    struct st_meta meta[] = {
        {"duet_format", "1"}, {"kind", "fm"}, {"d", "3"}, {"n_interest", "2"}, {"item_bias", "false"}};
    const float zeros[9] = {0};
    struct st_tensor t = {.name = d->tensor, .dtype = ST_F32, .n_dims = 2, .dim = {3, 3}};
    for (size_t i = 0; d->key && i < 5; i++)
        if (strcmp(meta[i].key, d->key) == 0)
            meta[i].value = d->value;
    const struct st_layout layout = {.tensor = &t, .n_tensors = d->tensor != NULL, .meta = meta, .n_meta = 5};
    struct safetensors_writer *w = safetensors_writer_new(path, &layout, &err);
    assert_true(w && (!d->tensor || safetensors_put(w, zeros, sizeof(zeros), &err)) && safetensors_finish(w, &err));
    safetensors_writer_free(w);
}

static void damaged_files_are_refused(void **state)
{
    (void)state;
    const struct damage damages[] = {
        {"d", "0", NULL, "metadata d"},
        {"d", "5000", NULL, "metadata d"},
        {"d", "3x", NULL, "metadata d"},
        {"n_interest", "65", NULL, "n_interest"},
        {"n_interest", "", NULL, "n_interest"},
        {"item_bias", "yes", NULL, "item_bias"},
        {NULL, NULL, "user.fc.0.weight", "not one of a model"},
        {NULL, NULL, "fold_in", "not one of a model"},
        {NULL, NULL, "item.gram", "fold_in"}, // there without its numbers
    };
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        struct err err = {0};
        write_damaged(&damages[i]);
        assert_null(load(false, &err));
        assert_int_equal(err.code, ERR_FORMAT);
        if (!strstr(err.msg, damages[i].says))
            fail_msg("%s: does not say %s", err.msg, damages[i].says);
    }
}

static void a_history_is_folded_in(void **state)
{
    (void)state;
    struct stored *s = make(true);
    const uint32_t history[] = {1, 3};
    float *scratch = calloc(stored_scratch(s), sizeof(float)), q[3];
    assert_true(stored_from_history(s, s->item, history, 2, scratch, q));
    for (int r = 0; r < 3; r++) { // (sum of weights v v' + penalty I) q = sum v, weight 1 for the history and w0 else
        double left = 0.5 * (2 + 0.25 * 4) * (double)q[r], right = 0;
        for (int i = 0; i < 4; i++) {
            bool seen = i == 1 || i == 3;
            const float *v = s->item + i * 3;
            for (int c = 0; c < 3; c++)
                left += (seen ? 1 : 0.25) * (double)v[r] * (double)v[c] * (double)q[c];
            right += seen ? (double)v[r] : 0;
        }
        assert_float_equal(left, right, 1e-5);
    }
    assert_false(stored_from_history(s, s->item, history, 0, scratch, q));
    assert_false(stored_known(q, 3));
    free(scratch);
    stored_free(s);
}

static void without_a_gram_it_is_the_mean(void **state)
{
    (void)state;
    struct stored *s = make(false);
    const uint32_t history[] = {0, 2};
    float q[3];
    assert_true(stored_from_history(s, s->item, history, 2, NULL, q));
    for (int c = 0; c < 3; c++)
        assert_float_equal(q[c], (s->item[c] + s->item[6 + c]) / 2, 1e-6);
    s->item_bias = true;
    assert_true(stored_from_history(s, s->item, history, 2, NULL, q));
    assert_float_equal(q[2], 1, 0); // the bias of every item counts in full
    assert_false(stored_from_history(s, s->item, history, 0, NULL, q));
    assert_float_equal(q[2], 0, 0);
    stored_free(s);
}

static void shapes_out_of_range_are_refused(void **state)
{
    (void)state;
    struct err err = {0};
    assert_null(stored_new(0, 1, 0, 0, false, &err));
    assert_int_equal(err.code, ERR_ARG);
    assert_null(stored_new(8, STORED_INTERESTS_MAX + 1, 0, 0, false, NULL));
}

/* Nothing seen and nothing penalised: no factor, zeros and false instead of numbers out of nowhere. */
static void a_singular_system_is_noticed(void **state)
{
    (void)state;
    const float v[4] = {0}, gram[4] = {0};
    const struct als_side side = {v, 2, 2, gram, 0, 0};
    const uint32_t idx[] = {0};
    float scratch[1024], out[2] = {1, 1};
    assert_true(als_scratch(2) <= 1024);
    assert_false(als_row(&side, idx, 1, scratch, out));
    assert_true(out[0] == 0 && out[1] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_saved_is_loaded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_without_vectors_is_no_checkpoint, set_up, tear_down),
        cmocka_unit_test_setup_teardown(values_that_are_not_finite_are_not_saved, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damaged_files_are_refused, set_up, tear_down),
        cmocka_unit_test(a_history_is_folded_in),
        cmocka_unit_test(without_a_gram_it_is_the_mean),
        cmocka_unit_test(shapes_out_of_range_are_refused),
        cmocka_unit_test(a_singular_system_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
