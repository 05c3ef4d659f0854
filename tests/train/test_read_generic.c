/* If this fails, data in our own layout loses rows, columns or meaning on the way in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "prepare_util.h"

static const char log_text[] =
    "user_id,item_id,value,timestamp,split\nu1,a,5,10,train\nu1,b,,20,test\nu2,a,3,30,train\nu2,c,1,5,train\n";

static void reads_all_tables(void **state)
{
    (void)state;
    write_text("interactions.csv", log_text);
    write_text("users.csv", "user_id,city\nu1,SH\nu9,BJ\n");
    write_text("items.csv", "title,item_id,price\n\"A, the first\",a,1.5\nB,b,\n");
    struct prepare_report report;
    struct prepare_params p = params();
    struct dataset *d = prepared_with(&p, &report);
    assert_string_equal(report.layout, "generic");
    assert_string_equal(report.split, "given");
    assert_int_equal(report.n_read, 4);
    assert_int_equal(d->n_users, 2); // u9 has no interaction, u2 no row
    assert_int_equal(d->n_items, 3);
    assert_string_equal(attr_of(d, "a", "title"), "A, the first");
    assert_string_equal(attr_of(d, "b", "price"), "");
    assert_string_equal(attr_of(d, "c", "title"), "");
    assert_string_equal(items_of(d, &d->test, "u1"), "b");
    assert_int_equal(d->train.time[0], 10);
    dataset_close(d);
}

static void needs_only_the_log(void **state)
{
    (void)state;
    write_gz("interactions.csv.gz", "item_id,extra,user_id\na,x,u1\nb,x,u1\nc,x,u1\nd,x,u1\n");
    struct prepare_report report;
    struct prepare_params p = params();
    struct dataset *d = prepared_with(&p, &report);
    assert_string_equal(report.split, "random");
    assert_int_equal(d->train.off[1], 2);
    assert_int_equal(d->valid.off[1], 1);
    assert_int_equal(d->test.off[1], 1);
    assert_null(d->train.time);
    assert_int_equal(d->n_attrs, 0);
    dataset_close(d);
}

/* Ids are text: no number is made of them, nothing is trimmed or folded. */
static void ids_are_text(void **state)
{
    (void)state;
    write_text("interactions.csv", "user_id,item_id\n007,01\n7,1\n\"a \"\"b\"\"\",1e3\n\xe5\x94\x90,1000\n");
    struct dataset *d = prepared();
    assert_int_equal(d->n_users, 4);
    assert_int_equal(d->n_items, 4);
    find_id(&d->user_id, "007");
    find_id(&d->user_id, "a \"b\"");
    find_id(&d->user_id, "\xe5\x94\x90");
    dataset_close(d);
}

static void names_bad_lines(void **state)
{
    (void)state;
    write_text("interactions.csv", "user,item_id\nu1,a\n");
    refused("interactions.csv:1: no column \"user_id\"; the header has user,item_id");
    write_text("interactions.csv", "user_id,item_id,value\nu1,a,1\nu1,b,good\n");
    refused("interactions.csv:3: value is \"good\", want a number");
    write_text("interactions.csv", "user_id,item_id,value\nu1,a,nan\n");
    refused("interactions.csv:2: value is \"nan\", want a number");
    write_text("interactions.csv", "user_id,item_id,timestamp\nu1,a,yesterday\n");
    refused("interactions.csv:2: timestamp is \"yesterday\", want seconds since 1970");
    write_text("interactions.csv", "user_id,item_id,split\nu1,a,training\n");
    refused("interactions.csv:2: split is \"training\", want train, valid or test");
    write_text("interactions.csv", "user_id,item_id\n,a\n");
    refused("interactions.csv:2: user id of 0 bytes, want 1 to 256");
    write_text("interactions.csv", "user_id,item_id\nu1,\"a\tb\"\n");
    refused("interactions.csv:2: item id has a control character");
    write_text("interactions.csv", "user_id,item_id\n");
    refused("no interactions");
    write_text("interactions.csv", "user_id,item_id\nu1,a\n");
    write_text("items.csv", "item_id,title\na,x\na,y\n");
    refused("items.csv:3: item \"a\" appears twice");
    write_text("items.csv", "id,title\na,x\n");
    refused("items.csv:1: no column \"item_id\"; the header has id,title");
}

static void long_ids_are_refused(void **state)
{
    (void)state;
    char text[400] = "user_id,item_id\nu1,";
    memset(text + strlen(text), 'x', 257);
    write_text("interactions.csv", text);
    refused("item id of 257 bytes, want 1 to 256");
}

static void skips_bad_lines_up_to_a_limit(void **state)
{
    (void)state;
    write_text("interactions.csv", "user_id,item_id,value\nu1,a,1\nu1,b\nu1,c,x\nu1,d,2\n");
    struct prepare_report report;
    struct prepare_params p = params();
    p.skip_bad = 2;
    struct dataset *d = prepared_with(&p, &report);
    assert_int_equal(report.n_bad, 2);
    assert_int_equal(report.n_read, 2);
    dataset_close(d);
    p.skip_bad = 1;
    refused_with(&p, "more than 1 bad lines");
    refused_with(&p, "interactions.csv:4");
    p.skip_bad = 0;
    refused_with(&p, "interactions.csv:3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_all_tables, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(needs_only_the_log, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(ids_are_text, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(names_bad_lines, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(long_ids_are_refused, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(skips_bad_lines_up_to_a_limit, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
