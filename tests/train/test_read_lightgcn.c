/* If this fails, the splits that LightGCN, KGAT and their successors publish cannot be compared with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "prepare_util.h"

static void reads_both_files(void **state)
{
    (void)state;
    write_text("train.txt", "0 10 11 12\n1 11 13 \n2\n");
    write_text("test.txt", "0 14\n1 \n2 10\n");
    struct prepare_report report;
    struct prepare_params p = params();
    struct dataset *d = prepared_with(&p, &report);
    assert_string_equal(report.layout, "lightgcn");
    assert_string_equal(report.split, "given");
    assert_int_equal(d->n_users, 3);
    assert_int_equal(d->n_items, 5);
    assert_int_equal(d->train.off[3] + d->valid.off[3], 5);
    assert_int_equal(d->valid.off[3], 2); // one training row of 0 and of 1; 2 has none
    assert_string_equal(items_of(d, &d->test, "0"), "14");
    assert_string_equal(items_of(d, &d->test, "1"), "");
    assert_string_equal(items_of(d, &d->test, "2"), "10");
    dataset_close(d);
}

static void takes_validation_and_names(void **state)
{
    (void)state;
    write_text("train.txt", "0 1 2\n");
    write_text("valid.txt", "0 3\n");
    write_gz("test.txt.gz", "0 4\n");
    write_text("item_list.txt",
               "org_id remap_id freebase_id\nB001 1 m.1\nB002 2 m.2\nB003 3 m.3\nB004 4 m.4\nB005 5 m.5\n");
    struct dataset *d = prepared();
    assert_int_equal(d->n_items, 4);
    assert_string_equal(items_of(d, &d->valid, "0"), "3");
    assert_string_equal(attr_of(d, "4", "org_id"), "B004");
    assert_int_equal(field_of(&d->schema->item, "org_id")->kind, FIELD_DISPLAY);
    dataset_close(d);
}

static void training_alone_is_split(void **state)
{
    (void)state;
    write_text("train.txt", "0 1 2 3\n");
    struct prepare_report report;
    struct prepare_params p = params();
    struct dataset *d = prepared_with(&p, &report);
    assert_string_equal(report.split, "random");
    assert_int_equal(d->test.off[1], 1);
    dataset_close(d);
}

static void names_bad_lines(void **state)
{
    (void)state;
    write_text("train.txt", "0 1 2\n1 \xe9\n");
    refused("train.txt:2: an id that is not ASCII");
    write_text("train.txt", "0 1 2\n");
    write_text("item_list.txt", "org_id remap_id\nB001\n");
    refused("item_list.txt:2: found 1 field, want org_id and remap_id");
    write_text("item_list.txt", "org_id remap_id\nB001 1\nB002 1\n");
    refused("item_list.txt:3: remap_id 1 appears twice");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_both_files, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(takes_validation_and_names, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(training_alone_is_split, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(names_bad_lines, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
