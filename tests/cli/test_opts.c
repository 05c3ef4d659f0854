/* If this fails, a mistyped option changes what a command does instead of stopping it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "cli/opts.h"

static struct values {
    bool fast, cal;
    const char *out;
    uint64_t k;
    double rate;
    struct opt_list model, positional;
} v;

static int parse(bool takes_positional, int argc, const char *const *argv)
{
    const struct opt opts[] = {
        {"fast", OPT_FLAG, &v.fast, NULL, "a flag", 0, 0},  {"cal", OPT_FLAG, &v.cal, NULL, "a flag that is on", 0, 0},
        {"out", OPT_STR, &v.out, "FILE", "a text", 0, 0},   {"k", OPT_UINT, &v.k, "N", "a whole number", 1, 100},
        {"rate", OPT_NUM, &v.rate, "X", "a number", -1, 1}, {"model", OPT_LIST, &v.model, "NAME", "a list", 0, 0},
        {NULL, OPT_FLAG, NULL, NULL, NULL, 0, 0},
    };
    char *copy[16];
    for (int i = 0; i < argc; i++)
        copy[i] = (char *)(uintptr_t)argv[i];
    v = (struct values){.cal = true, .k = 7, .rate = 0.5};
    return opts_parse("duet test", "About.\n", opts, argc, copy, takes_positional ? &v.positional : NULL);
}

#define PARSE(...)                                                                                                     \
    parse(false, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *), (const char *const[]){__VA_ARGS__})

static void keeps_defaults(void **state)
{
    (void)state;
    assert_int_equal(parse(false, 0, NULL), -1);
    assert_false(v.fast);
    assert_true(v.cal);
    assert_null(v.out);
    assert_int_equal(v.k, 7);
    assert_true(v.rate == 0.5);
    assert_int_equal(v.model.n, 0);
}

static void takes_both_forms(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--fast", "--out", "a", "-k", "10", "--rate=-0.25", "--model", "x", "--model=y"), -1);
    assert_true(v.fast);
    assert_string_equal(v.out, "a");
    assert_int_equal(v.k, 10);
    assert_true(v.rate == -0.25);
    assert_int_equal(v.model.n, 2);
    assert_string_equal(v.model.v[1], "y");
    assert_int_equal(PARSE("--out=a=b", "--no-cal"), -1);
    assert_string_equal(v.out, "a=b");
    assert_false(v.cal);
    assert_int_equal(PARSE("--rate", "-1"), -1); // a value may begin with a dash
    assert_true(v.rate == -1);
    assert_int_equal(PARSE("--out="), -1);
    assert_string_equal(v.out, "");
}

static void refuses_bad_values(void **state)
{
    (void)state;
    assert_int_equal(PARSE("-k", "0"), 2);
    assert_int_equal(PARSE("-k", "101"), 2);
    assert_int_equal(PARSE("-k", "-1"), 2);
    assert_int_equal(PARSE("-k", " 1"), 2);
    assert_int_equal(PARSE("-k", "1x"), 2);
    assert_int_equal(PARSE("-k", "1.5"), 2);
    assert_int_equal(PARSE("-k", ""), 2);
    assert_int_equal(PARSE("-k", "99999999999999999999"), 2);
    assert_int_equal(PARSE("--rate", "1.01"), 2);
    assert_int_equal(PARSE("--rate", "nan"), 2);
    assert_int_equal(PARSE("--rate", "inf"), 2);
    assert_int_equal(PARSE("--rate", "x"), 2);
    assert_int_equal(PARSE("--fast=yes"), 2);
    assert_int_equal(PARSE("--out"), 2);
}

static void refuses_unknown_options(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--fats"), 2);
    assert_int_equal(PARSE("--no-out"), 2);
    assert_int_equal(PARSE("--no-fats"), 2);
    assert_int_equal(PARSE("-x"), 2);
}

static void positional_only_where_wanted(void **state)
{
    (void)state;
    assert_int_equal(PARSE("file"), 2);
    assert_int_equal(parse(true, 3, (const char *const[]){"a", "--fast", "-"}), -1);
    assert_int_equal(v.positional.n, 2);
    assert_string_equal(v.positional.v[0], "a");
    assert_string_equal(v.positional.v[1], "-");
    assert_true(v.fast);
}

static void help_ends_well(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--help"), 0);
    assert_int_equal(PARSE("--fast", "-h", "--unknown"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_defaults),
        cmocka_unit_test(takes_both_forms),
        cmocka_unit_test(refuses_bad_values),
        cmocka_unit_test(refuses_unknown_options),
        cmocka_unit_test(positional_only_where_wanted),
        cmocka_unit_test(help_ends_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
