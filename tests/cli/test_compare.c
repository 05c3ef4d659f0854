/* If this fails, `duet replay` says that two versions answer alike when they do not, or the other way round. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "cli/compare.h"

/* "a1 b2": ids of one letter, scores of one digit. */
static json_t *list(const char *text)
{
    json_t *items = json_array();
    for (const char *p = text; *p; p += p[2] ? 3 : 2)
        json_array_append_new(items, json_pack("{s:o, s:f}", "id", json_stringn(p, 1), "score", (double)(p[1] - '0')));
    return items;
}

static struct comparison compare(const char *a, const char *b)
{
    struct comparison c = {0};
    json_t *x = list(a), *y = list(b);
    assert_true(compare_items(x, y, &c, NULL));
    json_decref(x);
    json_decref(y);
    return c;
}

static void near(double found, double want)
{
    if (fabs(found - want) > 1e-12)
        fail_msg("found %.15g, want %.15g", found, want);
}

static void equal_lists(void **state)
{
    (void)state;
    struct comparison c = compare("a3 b2 c1", "a3 b2 c1");
    near(c.overlap, 1);
    near(c.rbo, 1);
    near(c.drift_max, 0);
    assert_true(c.identical && c.same_first);
    c = compare("", "");
    near(c.overlap, 1);
    near(c.rbo, 1);
    assert_true(c.identical && c.same_first);
}

static void different_lists(void **state)
{
    (void)state;
    struct comparison c = compare("a3 b2 c1", "b4 a3 d1");
    near(c.overlap, 2.0 / 3);
    // depth 1: 0 of 1; depth 2: 2 of 2; depth 3: 2 of 3; weights 1, .9, .81
    near(c.rbo, (0.9 + 0.81 * 2 / 3) / (1 + 0.9 + 0.81));
    near(c.drift, (0.0 + 2.0) / 2);
    near(c.drift_max, 2);
    assert_true(!c.identical && !c.same_first);
    c = compare("a3", "b3");
    near(c.overlap, 0);
    near(c.rbo, 0);
    c = compare("a3 b2", "a3");
    near(c.overlap, 0.5);
    assert_true(c.same_first && !c.identical);
    c = compare("a3", "");
    near(c.overlap, 0);
    assert_false(c.same_first);
}

static void an_item_twice_is_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct comparison c;
    json_t *a = list("a1 a1"), *b = list("a1");
    assert_false(compare_items(a, b, &c, &err));
    assert_non_null(strstr(err.msg, "twice"));
    json_decref(a);
    json_decref(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(equal_lists), cmocka_unit_test(different_lists),
                                       cmocka_unit_test(an_item_twice_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
