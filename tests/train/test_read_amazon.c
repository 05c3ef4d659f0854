/* If this fails, Amazon's reviews, the data of the paper's second table, cannot be read as they are published. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "prepare_util.h"

static const char old_reviews[] =
    "{\"reviewerID\": \"A1\", \"asin\": \"B1\", \"overall\": 5.0, \"unixReviewTime\": 30, \"reviewText\": \"so "
    "\\\"good\\\"\"}\n"
    "{\"reviewerID\": \"A1\", \"asin\": \"B2\", \"overall\": 2.0, \"unixReviewTime\": 10}\n"
    "\n"
    "{\"reviewerID\": \"A1\", \"asin\": \"B3\", \"overall\": 4.0, \"unixReviewTime\": 20}\n";

static void reads_reviews_of_2014_and_2018(void **state)
{
    (void)state;
    write_gz("Books_5.json.gz", old_reviews);
    write_text("meta_Books.json",
               "{\"asin\": \"B1\", \"title\": \"One\", \"price\": \"$1,299.50\", \"brand\": \"X\", \"category\": "
               "[\"Books\", \"Art\", \"Paint\"]}\n"
               "{\"asin\": \"B2\", \"title\": \"Two\", \"price\": 3.25, \"categories\": [[\"Books\", \"Law\"]]}\n"
               "{\"asin\": \"B3\", \"price\": \"$3 - $5\", \"main_cat\": \"Books\", \"category\": []}\n"
               "{\"asin\": \"B9\", \"title\": \"Nobody reviewed it\"}\n");
    struct prepare_report report;
    struct prepare_params p = params();
    struct dataset *d = prepared_with(&p, &report);
    assert_string_equal(report.layout, "amazon");
    assert_string_equal(report.split, "last");
    assert_int_equal(d->n_items, 3);
    assert_string_equal(items_of(d, &d->train, "A1"), "B2");
    assert_string_equal(items_of(d, &d->valid, "A1"), "B3");
    assert_string_equal(items_of(d, &d->test, "A1"), "B1");
    assert_string_equal(attr_of(d, "B1", "title"), "One");
    assert_string_equal(attr_of(d, "B1", "price"), "1299.50");
    assert_string_equal(attr_of(d, "B2", "price"), "3.25");
    assert_string_equal(attr_of(d, "B3", "price"), "");
    assert_string_equal(attr_of(d, "B1", "brand"), "X");
    assert_string_equal(category_of(d, "B1"), "Art");
    assert_string_equal(category_of(d, "B2"), "Law");
    assert_string_equal(category_of(d, "B3"), "Books");
    dataset_close(d);
}

static void reads_reviews_of_2023(void **state)
{
    (void)state;
    write_text(
        "Gift.jsonl",
        "{\"user_id\": \"U\", \"asin\": \"V1\", \"parent_asin\": \"P1\", \"rating\": 5, \"timestamp\": 1588687728923}\n"
        "{\"user_id\": \"U\", \"asin\": \"V2\", \"parent_asin\": \"P1\", \"rating\": 4, \"timestamp\": "
        "1588687729923}\n");
    write_text("meta_Gift.jsonl", "{\"parent_asin\": \"P1\", \"title\": \"T\", \"store\": \"S\", \"price\": null, "
                                  "\"main_category\": \"Gift\", \"categories\": []}\n");
    struct prepare_report report;
    struct prepare_params p = params();
    struct dataset *d = prepared_with(&p, &report);
    assert_int_equal(report.n_repeated, 1); // two variants of one product
    assert_int_equal(d->train.time[0], 1588687729);
    assert_string_equal(attr_of(d, "P1", "brand"), "S");
    assert_string_equal(category_of(d, "P1"), "Gift");
    dataset_close(d);
}

static void names_bad_lines(void **state)
{
    (void)state;
    struct prepare_params p = params();
    p.layout = "amazon";
    write_text("r.json", "{\"reviewerID\": \"A1\", \"asin\": \"B1\"}\n{\"reviewerID\": \"A1\", \n");
    refused_with(&p, "r.json:2: JSON line 1");
    write_text("r.json", "{\"reviewerID\": \"A1\"}\n");
    refused_with(&p, "r.json:1: no text \"asin\" or \"parent_asin\"");
    write_text("r.json", "{\"asin\": \"A1\", \"reviewerID\": 7}\n");
    refused_with(&p, "r.json:1: no text \"reviewerID\" or \"user_id\"");
    write_text("r.json", "{\"reviewerID\": \"A1\", \"asin\": \"B1\", \"overall\": \"5\"}\n");
    refused_with(&p, "r.json:1: the rating is no number");
    write_text("r.json", "{\"reviewerID\": \"A1\", \"asin\": \"B1\", \"unixReviewTime\": \"5\"}\n");
    refused_with(&p, "r.json:1: unixReviewTime is no whole number");
    write_text("r.json", "[1]\n");
    refused_with(&p, "r.json:1: want one JSON object a line");
    write_text("r.json", "{'reviewerID': 'A1', 'asin': 'B1'}\n");
    refused_with(&p, "r.json:1: a Python literal?");
    assert_int_equal(unlink(in_dir("r.json")), 0);
    refused_with(&p, "no reviews in *.json");
}

static void skips_bad_lines(void **state)
{
    (void)state;
    char text[1024];
    snprintf(text, sizeof(text), "%s{broken\n", old_reviews);
    write_text("r.json", text);
    struct prepare_report report;
    struct prepare_params p = params();
    p.skip_bad = 5;
    struct dataset *d = prepared_with(&p, &report);
    assert_int_equal(report.n_bad, 1);
    assert_int_equal(report.n_read, 3);
    dataset_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_reviews_of_2014_and_2018, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(reads_reviews_of_2023, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(names_bad_lines, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(skips_bad_lines, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
