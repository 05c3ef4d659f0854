/* If this fails, people who unpack a MovieLens archive get an error, broken titles, or wrong columns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "prepare_util.h"

static void write_ml_1m(void)
{
    write_text("users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n");
    write_text("movies.dat", "1::Toy Story (1995)::Animation|Children's|Comedy\n"
                             "2::Mis\xe9rables, Les (1995)::Drama\n" // Latin-1
                             "3::Unseen (2000)::Drama\n");
    write_text("ratings.dat", "1::1::5::978300760\n1::2::3::978302109\n2::1::4::978299000\n");
}

static void reads_ml_1m(void **state)
{
    (void)state;
    write_ml_1m();
    struct prepare_report report;
    struct prepare_params p = params();
    struct dataset *d = prepared_with(&p, &report);
    assert_string_equal(report.layout, "ml-1m");
    assert_int_equal(d->n_users, 2);
    assert_int_equal(d->n_items, 2); // nobody rated the third
    assert_string_equal(attr_of(d, "2", "title"), "Mis\xc3\xa9rables, Les (1995)");
    assert_string_equal(attr_of(d, "2", "year"), "1995");
    assert_string_equal(attr_of(d, "1", "genres"), "Animation|Children's|Comedy");
    assert_string_equal(category_of(d, "1"), "Animation");
    assert_string_equal(items_of(d, &d->train, "1"), "1 2");
    assert_int_equal(field_of(&d->schema->item, "genres")->kind, FIELD_MULTI);
    assert_int_equal(field_of(&d->schema->item, "genres")->n_slots, 3);
    assert_int_equal(field_of(&d->schema->item, "title")->kind, FIELD_DISPLAY);
    assert_int_equal(field_of(&d->schema->user, "zip")->kind, FIELD_DISPLAY);
    assert_true(field_of(&d->schema->item, "category")->category);
    dataset_close(d);
}

static void keeps_unrated_items_when_asked(void **state)
{
    (void)state;
    write_ml_1m();
    struct prepare_params p = params();
    p.all_items = true;
    struct dataset *d = prepared_with(&p, NULL);
    assert_int_equal(d->n_items, 3);
    assert_int_equal(d->item_count[2], 0);
    assert_int_equal(d->item_x[2 * d->schema->item.n_slots], 0); // never trained: out of vocabulary
    dataset_close(d);
}

/* An archive that somebody has converted to UTF-8 already must not be converted again. */
static void takes_converted_archives(void **state)
{
    (void)state;
    write_ml_1m();
    write_text("movies.dat", "1::Toy Story (1995)::Comedy\n2::Mis\xc3\xa9rables, Les (1995)::Drama\n");
    struct dataset *d = prepared();
    assert_string_equal(attr_of(d, "2", "title"), "Mis\xc3\xa9rables, Les (1995)");
    dataset_close(d);
}

static void names_bad_lines_of_ml_1m(void **state)
{
    (void)state;
    write_ml_1m();
    write_text("ratings.dat", "1::1::5::978300760\n1::2::3\n");
    refused("ratings.dat:2: found 3 fields, want 4 separated by \"::\"");
    write_text("ratings.dat", "1::1::five::978300760\n");
    refused("ratings.dat:1: rating is \"five\", want a number");
    write_text("ratings.dat", "1::1::5::soon\n");
    refused("ratings.dat:1: timestamp is \"soon\"");
    write_text("ratings.dat", "::1::5::1\n");
    refused("ratings.dat:1: user id of 0 bytes, want 1 to 256");
    write_text("users.dat", "1::F::1::10::48067\n1::M::56::16::70072\n");
    refused("users.dat:2: user is \"1\", want each id once");
    assert_int_equal(unlink(in_dir("users.dat")), 0);
    refused("no users.dat");
}

static void write_ml_100k(void)
{
    write_text("u.user", "1|24|M|technician|85711\n");
    write_text("u.item", "1|Toy Story (1995)|01-Jan-1995||http://x|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
                         "267|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
                         "3|Pi\xf1"
                         "ata (1990)|02-Feb-1991||http://y|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|1\n");
    write_text("u.data", "1\t1\t3\t30\n1\t267\t3\t10\n1\t3\t1\t20\n");
}

static void reads_ml_100k(void **state)
{
    (void)state;
    write_ml_100k();
    struct dataset *d = prepared();
    assert_string_equal(items_of(d, &d->train, "1"), "267"); // by time: 267, 3, 1
    assert_string_equal(items_of(d, &d->valid, "1"), "3");
    assert_string_equal(items_of(d, &d->test, "1"), "1");
    assert_string_equal(attr_of(d, "1", "genres"), "Animation|Children's|Comedy");
    assert_string_equal(category_of(d, "1"), "Animation");
    assert_string_equal(category_of(d, "267"), "");
    assert_string_equal(attr_of(d, "267", "year"), "");
    assert_string_equal(attr_of(d, "3", "genres"), "Action|Western");
    assert_string_equal(attr_of(d, "3", "year"), "1991");
    assert_string_equal(attr_of(d, "3", "title"), "Pi\xc3\xb1"
                                                  "ata (1990)");
    dataset_close(d);
    write_text("u.item", "1|Toy Story (1995)|01-Jan-1995||http://x|0|0|0|2|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n");
    refused("u.item:1: genre flag is \"2\", want 0 or 1");
}

static void reads_ml_latest(void **state)
{
    (void)state;
    write_text("ratings.csv", "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n1,1029,3,1260759179\n2,31,,1\n");
    write_text("movies.csv",
               "movieId,title,genres\n31,\"Minds, \"\"Dangerous\"\" (1995)\",Drama\n1029,,(no genres listed)\n");
    struct prepare_report report;
    struct prepare_params p = params();
    struct dataset *d = prepared_with(&p, &report);
    assert_string_equal(report.layout, "ml-latest");
    assert_string_equal(attr_of(d, "31", "title"), "Minds, \"Dangerous\" (1995)");
    assert_string_equal(attr_of(d, "31", "year"), "1995");
    assert_string_equal(attr_of(d, "1029", "title"), "");
    assert_string_equal(attr_of(d, "1029", "year"), "");
    assert_string_equal(category_of(d, "1029"), "");
    dataset_close(d);
    p.log.has_min_value = true;
    p.log.min_value = 3;
    d = prepared_with(&p, &report);
    assert_int_equal(report.n_low, 2); // 2.5 and the missing one
    assert_string_equal(items_of(d, &d->train, "1"), "1029");
    dataset_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_ml_1m, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(keeps_unrated_items_when_asked, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(takes_converted_archives, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(names_bad_lines_of_ml_1m, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(reads_ml_100k, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(reads_ml_latest, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
