/* If this fails, a manifest or checkpoint with a wrong type or a doubled key is read as if it were right. */
#include "tests/core/support.h"

#include "core/base/json.h"

static json_t *parse(const char *text)
{
    struct err e = {0};
    json_t *v = json_parse(text, strlen(text), &e);
    assert_ok(v, &e);
    return v;
}

static void typed_members(void **state)
{
    (void)state;
    struct err e = {0};
    json_t *o = parse("{\"u\":5,\"n\":1.5,\"b\":true,\"s\":\"x\",\"a\":[1],\"o\":{},\"neg\":-1}");
    uint64_t u;
    double d;
    bool b;
    assert_ok(json_need_uint(o, "u", 5, &u, &e), &e);
    assert_int_equal(u, 5);
    assert_ok(json_need_num(o, "n", &d, &e) && d > 1.4 && json_need_num(o, "u", &d, &e), &e);
    assert_ok(json_need_bool(o, "b", &b, &e) && b, &e);
    assert_string_equal(json_need_str(o, "s", &e), "x");
    assert_non_null(json_need_array(o, "a", &e));
    assert_non_null(json_need_object(o, "o", &e));
    assert_err(json_need_uint(o, "u", 4, &u, &e), &e, ERR_FORMAT, "\"u\": found 5, want 0 to 4");
    assert_err(json_need_uint(o, "neg", 4, &u, &e), &e, ERR_FORMAT, "found -1");
    assert_err(json_need_uint(o, "n", 4, &u, &e), &e, ERR_FORMAT, "\"n\": found a real, want a non-negative integer");
    assert_err(json_need_uint(o, "zz", 4, &u, &e), &e, ERR_FORMAT, "\"zz\": found nothing");
    assert_err(json_need_num(o, "s", &d, &e), &e, ERR_FORMAT, "found a string, want a finite number");
    assert_err(json_need_bool(o, "u", &b, &e), &e, ERR_FORMAT, "found an integer, want true or false");
    assert_err(json_need_str(o, "a", &e), &e, ERR_FORMAT, "found an array, want a string");
    assert_err(json_need_array(o, "o", &e), &e, ERR_FORMAT, "found an object, want an array");
    assert_err(json_need_object(o, "b", &e), &e, ERR_FORMAT, "found true, want an object");
    assert_err(json_need_object(NULL, "b", &e), &e, ERR_FORMAT, "found nothing");
    json_decref(o);
}

static void refuses_bad_text(void **state)
{
    struct err e = {0};
    static const char *const bad[] = {"", "{", "{\"a\":1,\"a\":2}", "{\"a\":1}x", "[1e999]", "\"\xff\"", "nul"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_err(json_parse(bad[i], strlen(bad[i]), &e), &e, ERR_FORMAT, "line 1 column");
    put_file(tmp_path(state, "f"), "{\n\"a\": }", 8);
    assert_err(json_read_file(tmp_path(state, "f"), 100, &e), &e, ERR_FORMAT, "f: JSON line 2");
    assert_err(json_read_file(tmp_path(state, "f"), 5, &e), &e, ERR_LIMIT, "8 bytes");
}

static void text_comes_back(void **state)
{
    struct err e = {0};
    json_t *o = parse("{\"z\":1,\"a\":[0.125,\"q\"],\"n\":null}");
    char *text = json_text(o, &e);
    assert_string_equal(text, "{\n  \"z\": 1,\n  \"a\": [\n    0.125,\n    \"q\"\n  ],\n  \"n\": null\n}");
    put_file(tmp_path(state, "f"), text, strlen(text));
    json_t *back = json_read_file(tmp_path(state, "f"), 1000, &e);
    assert_ok(json_equal(o, back), &e);
    json_decref(o);
    json_decref(back);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(typed_members),
        cmocka_unit_test_setup_teardown(refuses_bad_text, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(text_comes_back, tmp_setup, tmp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
