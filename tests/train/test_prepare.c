/* If this fails, the same data gives another file each time, or a failed run spoils a good one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "prepare_util.h"
#include "train/synth.h"

static void same_input_same_bytes(void **state)
{
    (void)state;
    struct synth_params small = {.n_users = 200, .n_items = 300, .n_interactions = 4000, .seed = 3};
    assert_true(synth_write(dir, &small, NULL));
    struct prepare_params p = params();
    p.log.how = SPLIT_RANDOM;
    p.log.hold_out = 0.05;
    p.log.k_core_user = p.log.k_core_item = 3;
    struct dataset *d = prepared_with(&p, NULL);
    char first[33];
    memcpy(first, d->hash, sizeof(first));
    dataset_close(d);
    p.out = in_dir("again.duet");
    d = prepared_with(&p, NULL);
    assert_string_equal(d->hash, first);
    dataset_close(d);
    p.log.seed = 2;
    d = prepared_with(&p, NULL);
    assert_string_not_equal(d->hash, first);
    dataset_close(d);
}

/* A run that fails leaves the file of the run before, and nothing beside it. */
static void failure_leaves_the_old_file(void **state)
{
    (void)state;
    write_text("interactions.csv", "user_id,item_id\na,1\n");
    struct dataset *d = prepared();
    char first[33];
    memcpy(first, d->hash, sizeof(first));
    dataset_close(d);
    write_text("interactions.csv", "user_id,item_id\na\n");
    refused("found 1 fields");
    d = dataset_open(in_dir("out.duet"), NULL);
    assert_non_null(d);
    assert_string_equal(d->hash, first);
    dataset_close(d);
    struct prepare_params p = params();
    p.out = in_dir("no/such/folder.duet");
    write_text("interactions.csv", "user_id,item_id\na,1\n");
    refused_with(&p, "no/such/folder.duet");
}

static void info_tells_how(void **state)
{
    (void)state;
    write_text("interactions.csv", "user_id,item_id,value\na,1,1\na,2,5\n");
    struct prepare_params p = params();
    p.log.has_min_value = true;
    p.log.min_value = 4;
    struct dataset *d = prepared_with(&p, NULL);
    struct str info = dataset_info(d);
    json_t *v = json_parse(info.p, info.n, NULL);
    assert_non_null(v);
    assert_string_equal(json_string_value(json_object_get(v, "layout")), "generic");
    assert_string_equal(json_string_value(json_object_get(v, "split")), "random");
    assert_int_equal(json_integer_value(json_object_get(v, "value_too_small")), 1);
    assert_true(json_real_value(json_object_get(v, "min_value")) == 4);
    json_decref(v);
    dataset_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(same_input_same_bytes, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(failure_leaves_the_old_file, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(info_tells_how, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
