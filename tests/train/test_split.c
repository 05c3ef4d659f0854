/* If this fails, training sees what the test asks for, or figures are about another split than the one that is named.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <cmocka.h>

#include "core/base/rng.h"
#include "prepare_util.h"

#define DAY 86400

/* n_users x n_each interactions over n_items, distinct within a user, at random times that repeat now and then. */
static void write_random(uint32_t n_users, uint32_t n_each, uint32_t n_items, bool timed, const char *splits)
{
    struct rng rng;
    rng_init(&rng, 11);
    FILE *f = fopen(in_dir("interactions.csv"), "w");
    assert_non_null(f);
    fprintf(f, "user_id,item_id%s%s\n", timed ? ",timestamp" : "", splits ? ",split" : "");
    for (uint32_t k = 0; k < n_users * n_each; k++) {
        uint32_t u = k % n_users, i = k / n_users;
        fprintf(f, "%u,%u", u, (u * 7 + i * 3) % n_items);
        if (timed)
            fprintf(f, ",%u", rng_below(&rng, 40) * DAY / 4);
        if (splits)
            fprintf(f, ",%s", i == 0 ? "test" : i == 1 ? splits : "train");
        fprintf(f, "\n");
    }
    assert_int_equal(fclose(f), 0);
}

static struct dataset *split_by(enum split_how how, uint64_t seed)
{
    struct prepare_params p = params();
    p.log.how = how;
    p.log.seed = seed;
    return prepared_with(&p, NULL);
}

static uint64_t n_of(const struct dataset *d, const struct interactions *x)
{
    return x->off[d->n_users];
}

/* Every split is leak-free by construction: dataset_save refuses a user's pair in two splits (test_dataset.c). Here:
 * times. */
static void last_is_last_in_time(void **state)
{
    (void)state;
    write_random(50, 12, 101, true, NULL);
    struct dataset *d = split_by(SPLIT_LAST, 1);
    assert_int_equal(n_of(d, &d->test), 50);
    assert_int_equal(n_of(d, &d->valid), 50);
    assert_int_equal(n_of(d, &d->train), 500);
    for (uint32_t u = 0; u < d->n_users; u++) {
        int64_t test = d->test.time[d->test.off[u]], valid = d->valid.time[d->valid.off[u]];
        assert_true(valid <= test);
        for (uint64_t i = d->train.off[u]; i < d->train.off[u + 1]; i++)
            assert_true(d->train.time[i] <= valid);
    }
    dataset_close(d);
}

static void short_histories_only_train(void **state)
{
    (void)state;
    write_text("interactions.csv", "user_id,item_id,timestamp\na,1,1\na,2,2\nb,1,3\nb,2,2\nb,3,1\nc,1,5\n");
    static const enum split_how how[] = {SPLIT_LAST, SPLIT_RANDOM};
    for (int i = 0; i < 2; i++) {
        struct dataset *d = split_by(how[i], 1);
        assert_string_equal(items_of(d, &d->train, "a"), "1 2");
        assert_string_equal(items_of(d, &d->train, "c"), "1");
        assert_int_equal(n_of(d, &d->test), 1);
        assert_int_equal(n_of(d, &d->valid), 1);
        dataset_close(d);
    }
}

/* The order of lines in published logs is arbitrary; the place in the catalogue is not. */
static void equal_times_go_by_the_catalogue(void **state)
{
    (void)state;
    write_text("items.csv", "item_id\n1\n2\n3\n");
    write_text("interactions.csv", "user_id,item_id,timestamp\na,3,1\na,2,1\na,1,1\n");
    struct dataset *d = split_by(SPLIT_AUTO, 1);
    assert_string_equal(items_of(d, &d->test, "a"), "3");
    assert_string_equal(items_of(d, &d->valid, "a"), "2");
    dataset_close(d);
}

static void days_cut_the_whole_log(void **state)
{
    (void)state;
    write_random(50, 12, 101, true, NULL); // days 0 to 9
    struct prepare_params p = params();
    p.log.how = SPLIT_DAY;
    p.log.days = 2;
    struct dataset *d = prepared_with(&p, NULL);
    for (uint64_t i = 0; i < n_of(d, &d->test); i++)
        assert_true(d->test.time[i] >= 8 * DAY);
    for (uint64_t i = 0; i < n_of(d, &d->valid); i++)
        assert_true(d->valid.time[i] >= 6 * DAY && d->valid.time[i] < 8 * DAY);
    for (uint64_t i = 0; i < n_of(d, &d->train); i++)
        assert_true(d->train.time[i] < 6 * DAY);
    assert_int_equal(n_of(d, &d->test) + n_of(d, &d->valid) + n_of(d, &d->train), 600);
    assert_true(n_of(d, &d->test) > 50 && n_of(d, &d->valid) > 50);
    dataset_close(d);
}

static bool same_test(const struct dataset *a, const struct dataset *b)
{
    return n_of(a, &a->test) == n_of(b, &b->test) &&
           memcmp(a->test.item, b->test.item, n_of(a, &a->test) * sizeof(uint32_t)) == 0;
}

static void random_follows_the_seed(void **state)
{
    (void)state;
    write_random(50, 12, 101, false, NULL);
    struct dataset *a = split_by(SPLIT_AUTO, 1), *b = split_by(SPLIT_RANDOM, 1), *c = split_by(SPLIT_RANDOM, 2);
    assert_int_equal(n_of(a, &a->test), 50);
    assert_int_equal(n_of(a, &a->valid), 50);
    assert_true(same_test(a, b));
    assert_false(same_test(a, c));
    dataset_close(a);
    dataset_close(b);
    dataset_close(c);
}

static void given_is_kept(void **state)
{
    (void)state;
    write_random(50, 12, 101, true, "valid");
    struct dataset *d = split_by(SPLIT_AUTO, 1);
    assert_int_equal(n_of(d, &d->test), 50);
    assert_int_equal(n_of(d, &d->valid), 50);
    assert_string_equal(items_of(d, &d->test, "1"), "7");
    assert_string_equal(items_of(d, &d->valid, "1"), "10");
    dataset_close(d);
}

static void given_without_validation_makes_one(void **state)
{
    (void)state;
    write_random(50, 12, 101, false, "train");
    struct dataset *a = split_by(SPLIT_AUTO, 1), *b = split_by(SPLIT_AUTO, 2);
    assert_int_equal(n_of(a, &a->test), 50);
    assert_int_equal(n_of(a, &a->valid), 50);
    assert_int_equal(n_of(a, &a->train), 500);
    for (uint32_t u = 0; u < 50; u++)
        assert_int_equal(a->valid.off[u + 1] - a->valid.off[u], 1);
    assert_true(same_test(a, b));
    assert_int_not_equal(memcmp(a->valid.item, b->valid.item, 50 * sizeof(uint32_t)), 0);
    dataset_close(a);
    dataset_close(b);
}

static void refuses_splits_without_ground(void **state)
{
    (void)state;
    struct prepare_params p = params();
    write_text("interactions.csv", "user_id,item_id,timestamp\na,1,1\na,2,\na,3,3\n");
    p.log.how = SPLIT_LAST;
    refused_with(&p, "--split last: 1 of 3 interactions have no time");
    p.log.how = SPLIT_DAY;
    refused_with(&p, "--split day: 1 of 3 interactions have no time");
    p.log.how = SPLIT_GIVEN;
    refused_with(&p, "--split given: the source has no test rows");
    write_text("interactions.csv", "user_id,item_id,split\na,1,test\n");
    refused_with(&p, "no training interactions are left");
}

static void repeated_pairs_keep_the_last(void **state)
{
    (void)state;
    write_text("interactions.csv", "user_id,item_id,timestamp\na,1,9\na,2,2\na,1,1\na,3,3\na,2,2\n");
    struct prepare_report report;
    struct prepare_params p = params();
    struct dataset *d = prepared_with(&p, &report);
    assert_int_equal(report.n_repeated, 2);
    assert_string_equal(items_of(d, &d->train, "a"), "2");
    assert_string_equal(items_of(d, &d->valid, "a"), "3");
    assert_string_equal(items_of(d, &d->test, "a"), "1"); // at 9, not at 1
    dataset_close(d);
}

/* A pair that a given split has both in training and in the test stays in the test only. */
static void repeated_pairs_do_not_leak(void **state)
{
    (void)state;
    write_text("interactions.csv", "user_id,item_id,split\na,1,test\na,1,train\na,2,valid\na,2,train\na,3,train\n");
    struct dataset *d = split_by(SPLIT_GIVEN, 1);
    assert_string_equal(items_of(d, &d->train, "a"), "3");
    assert_string_equal(items_of(d, &d->valid, "a"), "2");
    assert_string_equal(items_of(d, &d->test, "a"), "1");
    dataset_close(d);
}

static void minimum_value_makes_positives(void **state)
{
    (void)state;
    write_text("interactions.csv", "user_id,item_id,value\na,1,4\na,2,3.5\na,3,\nb,1,1\n");
    struct prepare_report report;
    struct prepare_params p = params();
    p.log.has_min_value = true;
    p.log.min_value = 3.5;
    struct dataset *d = prepared_with(&p, &report);
    assert_int_equal(report.n_low, 2);
    assert_int_equal(d->n_users, 1);
    assert_int_equal(d->n_items, 2);
    dataset_close(d);
    p.log.min_value = 9;
    refused_with(&p, "no interaction has a value of at least 9");
}

/* Item 4 has one row; without it user d has two; without d item 3 has one; then c ... a chain that one round does not
 * end. */
static void k_core_is_iterated(void **state)
{
    (void)state;
    write_text("interactions.csv", "user_id,item_id\na,1\na,2\nb,1\nb,2\nc,1\nc,3\nd,3\nd,4\n");
    struct prepare_report report;
    struct prepare_params p = params();
    p.log.k_core_user = p.log.k_core_item = 2;
    struct dataset *d = prepared_with(&p, &report);
    assert_int_equal(d->n_users, 2);
    assert_int_equal(d->n_items, 2);
    assert_int_equal(report.n_thin, 4);
    dataset_close(d);
    p.log.k_core_user = 0;
    d = prepared_with(&p, &report); // items only: 4 goes, nothing follows
    assert_int_equal(report.n_thin, 1);
    assert_int_equal(d->n_users, 4);
    dataset_close(d);
    p.log.k_core_user = 3;
    refused_with(&p, "the k-core leaves no interaction");
}

static void k_core_holds_for_what_is_left(void **state)
{
    (void)state;
    write_random(200, 6, 97, true, NULL);
    struct prepare_params p = params();
    p.log.k_core_user = 5;
    p.log.k_core_item = 12;
    struct dataset *d = prepared_with(&p, NULL);
    uint32_t *n = calloc(d->n_items, sizeof(*n));
    assert_non_null(n);
    for (uint32_t u = 0; u < d->n_users; u++) {
        uint64_t of_user = 0;
        const struct interactions *x[] = {&d->train, &d->valid, &d->test};
        for (int s = 0; s < 3; s++) {
            of_user += x[s]->off[u + 1] - x[s]->off[u];
            for (uint64_t i = x[s]->off[u]; i < x[s]->off[u + 1]; i++)
                n[x[s]->item[i]]++;
        }
        assert_true(of_user >= 5);
    }
    for (uint32_t i = 0; i < d->n_items; i++)
        assert_true(n[i] >= 12);
    free(n);
    dataset_close(d);
}

/* Nothing of a held-out user or item is left in training or validation; the test keeps them, and their ids are unknown.
 */
static void hold_out_withholds(void **state)
{
    (void)state;
    write_random(100, 12, 101, true, NULL);
    struct prepare_params p = params();
    p.log.hold_out = 0.1;
    struct dataset *d = prepared_with(&p, NULL);
    uint32_t users = 0, items = 0, user_id = field_of(&d->schema->user, "user_id")->slot;
    for (uint32_t u = 0; u < d->n_users; u++) {
        users += d->user_held_out[u];
        assert_int_equal(d->user_x[u * d->schema->user.n_slots + user_id], d->user_held_out[u] ? 0 : u + 1);
        if (d->user_held_out[u])
            assert_int_equal(d->train.off[u + 1] - d->train.off[u] + d->valid.off[u + 1] - d->valid.off[u], 0);
    }
    for (uint32_t i = 0; i < d->n_items; i++)
        items += d->item_held_out[i];
    assert_int_equal(users, 10);
    assert_int_equal(items, 10);
    for (uint64_t i = 0; i < n_of(d, &d->train); i++)
        assert_false(d->item_held_out[d->train.item[i]]);
    for (uint64_t i = 0; i < n_of(d, &d->valid); i++)
        assert_false(d->item_held_out[d->valid.item[i]]);
    assert_int_equal(n_of(d, &d->test), 100);
    assert_int_equal(n_of(d, &d->train) + n_of(d, &d->valid) + n_of(d, &d->held), 1100);
    assert_true(n_of(d, &d->held) >= 110);
    dataset_close(d);
}

static void names_parse(void **state)
{
    (void)state;
    enum split_how how;
    for (int i = SPLIT_AUTO; i <= SPLIT_RANDOM; i++) {
        assert_true(split_parse(split_name((enum split_how)i), &how));
        assert_int_equal(how, i);
    }
    assert_false(split_parse("latest", &how));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(last_is_last_in_time, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(short_histories_only_train, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(equal_times_go_by_the_catalogue, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(days_cut_the_whole_log, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(random_follows_the_seed, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(given_is_kept, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(given_without_validation_makes_one, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(refuses_splits_without_ground, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(repeated_pairs_keep_the_last, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(repeated_pairs_do_not_leak, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(minimum_value_makes_positives, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(k_core_is_iterated, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(k_core_holds_for_what_is_left, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(hold_out_withholds, make_dir, remove_dir),
        cmocka_unit_test(names_parse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
