/* If this fails, clients cannot read our errors by their codes, or see details of our own faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/json.h"
#include "server/problem.h"

static json_t *parsed(const struct http_response *resp)
{
    json_t *o = json_parse(resp->body.data, resp->body.len, NULL);
    assert_non_null(o);
    assert_string_equal(resp->content_type, "application/problem+json");
    return o;
}

#define TEXT(o, key) json_string_value(json_object_get((o), (key)))

static void has_all_members(void **state)
{
    (void)state;
    struct http_request r = {.id = "abc"};
    struct http_response resp = {0};
    buf_puts(&resp.body, "half an answer");
    assert_true(problem_write(&resp, &r, 400, "unknown_field", "/k\"k", "unknown field '%s'", "k\"k"));
    assert_int_equal(resp.status, 400);
    json_t *o = parsed(&resp), *e = json_array_get(json_object_get(o, "errors"), 0);
    assert_string_equal(TEXT(o, "type"), "about:blank");
    assert_string_equal(TEXT(o, "title"), "Bad Request");
    assert_int_equal(json_integer_value(json_object_get(o, "status")), 400);
    assert_string_equal(TEXT(o, "code"), "unknown_field");
    assert_string_equal(TEXT(o, "detail"), "unknown field 'k\"k'");
    assert_string_equal(TEXT(o, "request_id"), "abc");
    assert_string_equal(TEXT(e, "pointer"), "/k\"k");
    json_decref(o);
    buf_fini(&resp.body);
}

static void errors_of_ours_are_withheld(void **state)
{
    (void)state;
    struct http_request r = {.id = "x"};
    struct http_response resp = {0};
    const struct {
        enum err_code code;
        unsigned status;
        bool shown;
    } c[] = {{ERR_ARG, 422, true},   {ERR_NOT_FOUND, 404, true}, {ERR_STATE, 409, true}, {ERR_MISMATCH, 409, true},
             {ERR_LIMIT, 422, true}, {ERR_NOMEM, 503, true},     {ERR_IO, 500, false},   {ERR_FORMAT, 500, false}};
    for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        struct err err = {0};
        err_set(&err, c[i].code, "/secret/path");
        problem_from_err(&resp, &r, &err, NULL);
        assert_int_equal(resp.status, c[i].status);
        assert_int_equal(strstr(resp.body.data, "secret") != NULL, c[i].shown);
        json_decref(parsed(&resp));
    }
    buf_fini(&resp.body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(has_all_members),
                                       cmocka_unit_test(errors_of_ours_are_withheld)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
