/* If this fails, published data sets come out with other counts than their publishers give. Needs DUET_TEST_DATA. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "prepare_util.h"

/* A folder under DUET_TEST_DATA; the test is skipped where it lacks that one. */
static const char *real(const char *name)
{
    static char path[PATH_MAX];
    const char *root = getenv("DUET_TEST_DATA");
    if (!root)
        skip();
    snprintf(path, sizeof(path), "%s/%s", root, name);
    if (!fio_is_dir(path))
        skip();
    return path;
}

struct want {
    const char *split;
    uint32_t n_users, n_items;
    uint64_t train, valid, test;
};

static struct dataset *counts(const char *name, struct want w)
{
    struct prepare_params p = params();
    struct prepare_report report;
    p.in = real(name);
    struct dataset *d = prepared_with(&p, &report);
    assert_string_equal(report.split, w.split);
    assert_int_equal(d->n_users, w.n_users);
    assert_int_equal(d->n_items, w.n_items);
    assert_int_equal(d->train.off[d->n_users], w.train);
    assert_int_equal(d->valid.off[d->n_users], w.valid);
    assert_int_equal(d->test.off[d->n_users], w.test);
    return d;
}

static void reads_ml_1m(void **state)
{
    (void)state;
    struct dataset *d = counts("ml-1m", (struct want){"given", 6040, 3706, 988129, 6040, 6040});
    assert_null(d->train.time); // known for the test rows only
    assert_string_equal(items_of(d, &d->test, "1"), "48");
    assert_string_equal(attr_of(d, "1", "title"), "Toy Story (1995)");
    assert_int_equal(field_of(&d->schema->user, "age")->n_rows, 8);
    assert_int_equal(field_of(&d->schema->user, "occupation")->n_rows, 22);
    assert_int_equal(field_of(&d->schema->item, "genres")->n_rows, 19);
    dataset_close(d);
    struct prepare_params p = params();
    p.in = real("ml-1m");
    p.all_items = true;
    d = prepared_with(&p, NULL);
    assert_int_equal(d->n_items, 3883);
    dataset_close(d);
}

static void reads_ml_100k(void **state)
{
    (void)state;
    struct dataset *d = counts("ml-100k", (struct want){"last", 943, 1682, 98114, 943, 943});
    assert_int_equal(field_of(&d->schema->user, "age")->kind, FIELD_NUMERIC);
    assert_int_equal(field_of(&d->schema->item, "year")->kind, FIELD_NUMERIC);
    assert_string_equal(attr_of(d, "543", "title"), "Mis\xc3\xa9rables, Les (1995)"); // Latin-1 in the archive
    dataset_close(d);
}

static void reads_ml_latest_small(void **state)
{
    (void)state;
    dataset_close(counts("ml-latest-small", (struct want){"last", 671, 9066, 98662, 671, 671}));
}

static void reads_amazon_book(void **state)
{
    (void)state;
    dataset_close(counts("amazon-book-kgat", (struct want){"given", 70679, 24915, 581835, 70679, 193920}));
}

static void reads_book_crossing(void **state)
{
    (void)state;
    dataset_close(counts("book-crossing", (struct want){"given", 2946, 17384, 266786, 2946, 2946}));
}

int main(void)
{
    if (!getenv("DUET_TEST_DATA")) {
        fprintf(stderr, "skipped: DUET_TEST_DATA is not set\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_ml_1m, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(reads_ml_100k, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(reads_ml_latest_small, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(reads_amazon_book, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(reads_book_crossing, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
