/* If this fails, a refused file or request is reported without its cause, or with the wrong one. */
#include "tests/core/support.h"

#include <errno.h>

#include "core/base/utf8.h"

static void first_cause_wins(void **state)
{
    (void)state;
    struct err e = {0};
    assert_false(err_set(&e, ERR_FORMAT, "found %d, want %d", 1, 2));
    assert_false(err_set(&e, ERR_IO, "later"));
    errno = EACCES;
    assert_false(err_errno(&e, "later"));
    assert_int_equal(e.code, ERR_FORMAT);
    assert_string_equal(e.msg, "found 1, want 2");
}

static void levels_add_where(void **state)
{
    (void)state;
    struct err e = {0};
    assert_false(err_prefix(&e, "no cause yet"));
    assert_string_equal(e.msg, "");
    err_set(&e, ERR_ARG, "cause");
    err_prefix(&e, "inner %d", 1);
    err_prefix(&e, "outer");
    assert_string_equal(e.msg, "outer: inner 1: cause");
    assert_int_equal(e.code, ERR_ARG);
}

static void errno_becomes_code_and_text(void **state)
{
    (void)state;
    static const struct {
        int no;
        enum err_code code;
        const char *msg;
    } cases[] = {{ENOENT, ERR_NOT_FOUND, "f: No such file or directory"},
                 {ENOMEM, ERR_NOMEM, "f: Cannot allocate memory"},
                 {EACCES, ERR_IO, "f: Permission denied"}};
    for (size_t i = 0; i < 3; i++) {
        struct err e = {0};
        errno = cases[i].no;
        assert_false(err_errno(&e, "%s", "f"));
        assert_int_equal(e.code, cases[i].code);
        assert_string_equal(e.msg, cases[i].msg);
    }
}

/* Null errors and overlong parts must be harmless: the cause's end may be cut, never its beginning. */
static void survives_null_and_long(void **state)
{
    (void)state;
    assert_false(err_set(NULL, ERR_IO, "x"));
    assert_false(err_errno(NULL, "x"));
    assert_false(err_prefix(NULL, "x"));
    char a[2000];
    memset(a, 'a', sizeof(a) - 1);
    a[sizeof(a) - 1] = '\0';
    struct err e = {0};
    err_set(&e, ERR_IO, "cause %s", a);
    assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
    for (int i = 0; i < 5; i++)
        err_prefix(&e, "%s", a);
    assert_true(strlen(e.msg) < sizeof(e.msg));
    struct err f = {0};
    errno = EACCES;
    err_errno(&f, "%s", a);
    assert_int_equal(strlen(f.msg), sizeof(f.msg) - 1);
    struct err g = {0};
    err_set(&g, ERR_IO, "cause");
    err_prefix(&g, "%s", a);
    assert_non_null(strstr(g.msg, ": cause"));
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(err_name(ERR_OK), "ok");
    assert_string_equal(err_name(ERR_STATE), "state");
    assert_string_equal(err_name((enum err_code)99), "unknown");
}

/* Else an answer cannot repeat a message that was too long, or of a file whose name is not UTF-8. */
static void messages_are_text_wherever_they_are_cut(void **state)
{
    (void)state;
    char wide[1001] = "", latin[] = "caf\xe9";
    for (size_t i = 0; i < 1000; i += 2)
        memcpy(wide + i, "\xc3\xa9", 2);
    for (size_t at = 0; at < 2; at++) { // one of the two cuts falls into a character
        struct err e = {0}, f = {0};
        err_set(&e, ERR_ARG, "%s%s", at ? "x" : "", wide);
        assert_true(utf8_valid(e.msg, strlen(e.msg)) && strlen(e.msg) >= sizeof(e.msg) - 2);
        err_prefix(&e, "%s%s", at ? "x" : "", wide);
        assert_true(utf8_valid(e.msg, strlen(e.msg)) && strlen(e.msg) > 490 && !strchr(e.msg, '?'));
        errno = EACCES;
        err_errno(&f, "%.*s%s", (int)(sizeof(f.msg) - 10 - at), at ? "" : "x", wide);
        assert_true(utf8_valid(f.msg, strlen(f.msg)) && !strchr(f.msg, '?'));
    }
    struct err e = {0};
    err_set(&e, ERR_ARG, "%s: no such file", latin);
    assert_string_equal(e.msg, "caf?: no such file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_cause_wins),
        cmocka_unit_test(levels_add_where),
        cmocka_unit_test(errno_becomes_code_and_text),
        cmocka_unit_test(survives_null_and_long),
        cmocka_unit_test(messages_are_text_wherever_they_are_cut),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
