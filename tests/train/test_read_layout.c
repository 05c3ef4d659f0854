/* If this fails, a folder is read as something that it is not, or a good one is not recognised. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "prepare_util.h"
#include "train/read.h"

static const char *found(void)
{
    static char text[600];
    struct err err = {0};
    const struct read_layout *l = read_layout_find(dir, NULL, &err);
    snprintf(text, sizeof(text), "%s", l ? l->name : err.msg);
    return text;
}

static void tells_by_files(void **state)
{
    (void)state;
    static const struct {
        const char *file, *text, *layout;
    } cases[] = {
        {"interactions.csv", "", "generic"},
        {"interactions.csv.gz", "", "generic"},
        {"ratings.dat", "", "ml-1m"},
        {"u.data", "", "ml-100k"},
        {"ratings.csv", "", "ml-latest"},
        {"ratings.csv.gz", "", "ml-latest"},
        {"train.txt", "", "lightgcn"},
        {"x.json", "{\"reviewerID\":\"a\",\"asin\":\"b\"}\n", "amazon"},
        {"x.jsonl", "{\"user_id\":\"a\",\"parent_asin\":\"b\"}\n", "amazon"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_text(cases[i].file, cases[i].text);
        assert_string_equal(found(), cases[i].layout);
        assert_int_equal(unlink(in_dir(cases[i].file)), 0);
    }
}

static void does_not_guess(void **state)
{
    (void)state;
    write_text("package.json", "{\"name\": \"not reviews\"}\n");
    assert_non_null(strstr(found(), "want the files of one of"));
    write_text("u.data", "");
    write_text("ratings.csv", "");
    assert_non_null(strstr(found(), "has files of the layouts ml-100k and ml-latest; choose one with --layout"));
    struct err err = {0};
    assert_string_equal(read_layout_find(dir, "ml-latest", &err)->name, "ml-latest");
    assert_null(read_layout_find(dir, "ml-2m", &err));
    assert_non_null(
        strstr(err.msg, "unknown layout \"ml-2m\"; want one of generic, ml-1m, ml-100k, ml-latest, lightgcn, amazon"));
    err = (struct err){0};
    assert_null(read_layout_find("/no/such/folder", NULL, &err));
    assert_non_null(strstr(err.msg, "/no/such/folder: no such folder"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tells_by_files, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(does_not_guess, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
