/* Breaks when a path reaches the wrong handler, an admin route shows on the data listener, or Allow is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/route.h"

static bool nothing(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    (void)app, (void)r, (void)m, (void)resp;
    return true;
}

static const struct route first[] = {
    {.method = HTTP_POST, .pattern = "/v1/retrieve", .on = ROUTE_DATA, .name = "retrieve", .handler = nothing},
    {.method = HTTP_POST, .pattern = "/v1/retrieve:batch", .on = ROUTE_DATA, .name = "batch", .handler = nothing},
    {.method = HTTP_GET, .pattern = "/v1/items/{id}/similar", .on = ROUTE_DATA, .name = "similar", .handler = nothing},
    {.method = HTTP_GET, .pattern = "/v1/models", .on = ROUTE_BOTH, .name = "models", .handler = nothing},
    {.method = HTTP_GET, .pattern = "/v1/models/{m}", .on = ROUTE_BOTH, .name = "model", .handler = nothing},
    {.method = HTTP_POST,
     .pattern = "/v1/admin/models/{m}:reload",
     .on = ROUTE_ADMIN,
     .name = "reload",
     .handler = nothing},
    {.method = HTTP_POST,
     .pattern = "/v1/admin/models/{m}:verify",
     .on = ROUTE_ADMIN,
     .name = "verify",
     .handler = nothing},
    {.method = HTTP_GET, .pattern = "/v1/admin/experiments", .on = ROUTE_ADMIN, .name = "get", .handler = nothing},
    {.method = HTTP_PUT, .pattern = "/v1/admin/experiments", .on = ROUTE_ADMIN, .name = "put", .handler = nothing},
    {.method = HTTP_GET, .pattern = "/a/{x}/{y}/{z}", .on = ROUTE_DATA, .name = "three", .handler = nothing},
    {.handler = NULL},
};
static const struct route second[] = {
    {.method = HTTP_GET, .pattern = "/livez", .on = ROUTE_BOTH, .name = "live", .handler = nothing},
    {.method = HTTP_DELETE,
     .pattern = "/v1/admin/experiments",
     .on = ROUTE_ADMIN,
     .name = "delete",
     .handler = nothing},
    {.handler = NULL},
};

static enum route_found find(enum http_method method, const char *path, bool admin, struct route_match *m, char *allow)
{
    const struct route *const tables[] = {first, second};
    struct http_request r = {.method = method, .path = path, .query = "", .is_admin = admin};
    return route_find(tables, 2, &r, m, allow, 64);
}

static void finds(void **state)
{
    (void)state;
    static const struct {
        enum http_method method;
        const char *path;
        bool admin;
        const char *name, *value; // name NULL: no such path
    } cases[] = {
        {HTTP_POST, "/v1/retrieve", false, "retrieve", NULL},
        {HTTP_POST, "/v1/retrieve:batch", false, "batch", NULL},
        {HTTP_POST, "/v1/retrieve/", false, NULL, NULL},
        {HTTP_POST, "/v1/retriev", false, NULL, NULL},
        {HTTP_POST, "//v1/retrieve", false, NULL, NULL},
        {HTTP_POST, "/v1/retrieve", true, NULL, NULL}, // not on this listener
        {HTTP_GET, "/v1/items/31/similar", false, "similar", "31"},
        {HTTP_HEAD, "/v1/items/31/similar", false, "similar", "31"},
        {HTTP_GET, "/v1/items/a%20b%3A%25/similar", false, "similar", "a b:%"},
        {HTTP_GET, "/v1/items/%C3%A4/similar", false, "similar", "\xc3\xa4"},
        {HTTP_GET, "/v1/items//similar", false, NULL, NULL},
        {HTTP_GET, "/v1/items/a%2Fb/similar", false, NULL, NULL},
        {HTTP_GET, "/v1/items/a%00/similar", false, NULL, NULL},
        {HTTP_GET, "/v1/items/a%zz/similar", false, NULL, NULL},
        {HTTP_GET, "/v1/items/a/b/similar", false, NULL, NULL},
        {HTTP_GET, "/v1/models", false, "models", NULL},
        {HTTP_GET, "/v1/models/dat", true, "model", "dat"},
        {HTTP_GET, "/v1/models/", false, NULL, NULL},
        {HTTP_POST, "/v1/admin/models/dat:reload", true, "reload", "dat"},
        {HTTP_POST, "/v1/admin/models/a:b:reload", true, "reload", "a:b"},
        {HTTP_POST, "/v1/admin/models/dat:verify", true, "verify", "dat"},
        {HTTP_POST, "/v1/admin/models/dat:reload", false, NULL, NULL},
        {HTTP_POST, "/v1/admin/models/:reload", true, NULL, NULL},
        {HTTP_POST, "/v1/admin/models/dat:reload/x", true, NULL, NULL},
        {HTTP_GET, "/livez", true, "live", NULL},
        {HTTP_GET, "/a/1/2/3", false, "three", "1"},
        {HTTP_GET, "/a/1/2", false, NULL, NULL},
        {HTTP_GET, "", false, NULL, NULL},
        {HTTP_GET, "/", false, NULL, NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct route_match m;
        char allow[64];
        enum route_found f = find(cases[i].method, cases[i].path, cases[i].admin, &m, allow);
        if (f != (cases[i].name ? ROUTE_FOUND : ROUTE_NO_PATH))
            fail_msg("%s: %d", cases[i].path, (int)f);
        if (cases[i].name)
            assert_string_equal(m.route->name, cases[i].name);
        if (cases[i].value)
            assert_string_equal(m.value[0], cases[i].value);
    }
}

static void long_segments_do_not_fit(void **state)
{
    (void)state;
    struct route_match m;
    char allow[64], path[4096] = "/v1/models/";
    size_t n = strlen(path);
    memset(path + n, 'a', ROUTE_VALUE_MAX);
    assert_int_equal(find(HTTP_GET, path, false, &m, allow), ROUTE_FOUND);
    assert_int_equal(strlen(m.value[0]), ROUTE_VALUE_MAX);
    path[n + ROUTE_VALUE_MAX] = 'a';
    assert_int_equal(find(HTTP_GET, path, false, &m, allow), ROUTE_NO_PATH);
}

static void allow_lists_the_methods(void **state)
{
    (void)state;
    struct route_match m;
    char allow[64];
    assert_int_equal(find(HTTP_POST, "/v1/admin/experiments", true, &m, allow), ROUTE_NO_METHOD);
    assert_string_equal(allow, "GET, HEAD, PUT, DELETE");
    assert_int_equal(find(HTTP_OTHER, "/v1/retrieve", false, &m, allow), ROUTE_NO_METHOD);
    assert_string_equal(allow, "POST");
    assert_int_equal(find(HTTP_HEAD, "/v1/retrieve", false, &m, allow), ROUTE_NO_METHOD);
    assert_int_equal(find(HTTP_GET, "/v1/admin/experiments", false, &m, allow), ROUTE_NO_PATH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds),
        cmocka_unit_test(long_segments_do_not_fit),
        cmocka_unit_test(allow_lists_the_methods),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
