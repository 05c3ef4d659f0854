/* Breaks when a configuration or schema file is misread, or when a hostile one costs more than a moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "config/yaml.h"

static struct ynode *parse(const char *text, struct err *err)
{
    *err = (struct err){0};
    return ynode_parse(text, strlen(text), 1 << 16, "t.yaml", err);
}

static void reads_a_tree(void **state)
{
    (void)state;
    struct err err;
    struct ynode *root = parse("a: 1\nb: [x, \"2\"]\nc: {d: true, e: 1.5}\n", &err);
    assert_non_null(root);
    uint64_t u;
    double d;
    bool b;
    assert_true(ynode_uint(ynode_get(root, "a"), "t", &u, &err));
    assert_int_equal(u, 1);
    const struct ynode *list = ynode_get(root, "b");
    assert_int_equal(list->kind, YNODE_SEQ);
    assert_int_equal(list->n, 2);
    assert_true(list->child[1].quoted);
    assert_int_equal(list->line, 2);
    assert_true(ynode_bool(ynode_get(ynode_get(root, "c"), "d"), "t", &b, &err) && b);
    assert_true(ynode_double(ynode_get(ynode_get(root, "c"), "e"), "t", &d, &err));
    assert_true(d == 1.5);
    assert_null(ynode_get(root, "z"));
    assert_false(ynode_uint(list, "t", &u, &err));
    assert_non_null(strstr(err.msg, "t:2:4: found a list"));
    ynode_free(root);
    root = parse("# nothing\n", &err);
    assert_non_null(root);
    assert_int_equal(root->n, 0);
    ynode_free(root);
}

static void refuses_what_it_must(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"a: 1\na: 2\n", "t.yaml:2:1: key \"a\" stands here for the second time"},
        {"a: &x 1\nb: *x\n", "anchors and tags"},
        {"a: [&x [1], *x]\n", "anchors and tags"},
        {"b: *x\n", "aliases"},
        {"a: !!str 1\n", "anchors and tags"},
        {"a: 1\n---\nb: 2\n", "a second document"},
        {"[a, b]: 1\n", "a key must be"},
        {"a: [1, 2\n", "t.yaml:"},
        {"a: \"x\\0y\"\n", "NUL"},
        {"a: [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]\n", "nested too deeply"},
        {"\tb: 1\n", "t.yaml:1"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err;
        struct ynode *root = parse(cases[i].text, &err);
        if (root || !strstr(err.msg, cases[i].message))
            fail_msg("case %zu: %s", i, root ? "accepted" : err.msg);
    }
}

static void a_bomb_is_cheap(void **state)
{
    (void)state;
    size_t n = 60000;
    char *text = malloc(n + 1);
    assert_non_null(text);
    memset(text, '[', n);
    text[n] = '\0';
    struct err err;
    clock_t before = clock();
    assert_null(parse(text, &err));
    assert_true(clock() - before < CLOCKS_PER_SEC / 2);
    assert_int_equal(err.code, ERR_LIMIT);
    err = (struct err){0};
    assert_null(ynode_parse(text, n, 1000, "t.yaml", &err));
    assert_non_null(strstr(err.msg, "60000 bytes, at most 1000"));
    free(text);
}

static void names_the_nearest(void **state)
{
    (void)state;
    static const char *const known[] = {"models", "experiments", "data"};
    assert_string_equal(ynode_nearest("modles", known, 3), "models");
    assert_string_equal(ynode_nearest("experiment", known, 3), "experiments");
    assert_null(ynode_nearest("zzzzzz", known, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_tree),
        cmocka_unit_test(refuses_what_it_must),
        cmocka_unit_test(a_bomb_is_cheap),
        cmocka_unit_test(names_the_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
