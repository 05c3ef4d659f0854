/* Breaks when health lies, an admin route answers without its token, overload reaches health, or a configuration is
 * half taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/access.h"
#include "server/admission.h"
#include "server/app.h"
#include "server/problem.h"
#include "server/route.h"
#include "tests/server/metrics_text.h"
#include "tests/server/tcp.h"

// ----------------------------------------------------------------------------------------------- a service of toys

static _Atomic bool toy_ready, toy_started, toy_refuses;
static _Atomic int n_threads_alive, n_stops;

static bool hello(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    (void)app;
    resp->status = 200;
    buf_printf(&resp->body, "{\"hello\":\"%s\",\"bytes\":%zu}", m->n ? m->value[0] : "", r->body_len);
    return true;
}

/* Blocks its loop, as nothing real should: so that lag can be seen. */
static bool slow(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
    return hello(app, r, m, resp);
}

static const struct route toy_routes[] = {
    {.method = HTTP_POST, .pattern = "/v1/hello", .on = ROUTE_DATA, .name = "hello", .sheds = true, .handler = hello},
    {.method = HTTP_GET, .pattern = "/v1/slow", .on = ROUTE_DATA, .name = "slow", .sheds = true, .handler = slow},
    {.method = HTTP_GET,
     .pattern = "/v1/admin/hello/{x}",
     .on = ROUTE_ADMIN,
     .name = "admin_hello",
     .needs_token = true,
     .handler = hello},
    {.handler = NULL},
};

static bool ready(struct app *app, struct buf *why)
{
    (void)app;
    buf_puts(why, toy_ready ? "serving toys" : "loading toys: 40 %");
    return toy_ready;
}

static bool started(struct app *app, struct buf *why)
{
    (void)app, (void)why;
    return toy_started;
}

static bool check(const struct config *c, struct err *err)
{
    return c->limits.k != 13 || err_set(err, ERR_ARG, "limits.k is 13, which brings bad luck");
}

static bool apply(struct app *app, const struct config *next, struct err *err)
{
    (void)app, (void)next;
    return !toy_refuses || err_set(err, ERR_STATE, "not now");
}

static struct serve_state *thread_new(struct app *app)
{
    (void)app;
    n_threads_alive++;
    return malloc(1);
}

static void thread_free(struct app *app, struct serve_state *s)
{
    (void)app;
    n_threads_alive--;
    free(s);
}

static void note_stop(struct app *app)
{
    (void)app;
    n_stops++;
}

static const struct service toys = {.routes = toy_routes,
                                    .check = check,
                                    .apply = apply,
                                    .ready = ready,
                                    .started = started,
                                    .stop_accepting = note_stop,
                                    .stop = note_stop,
                                    .thread_new = thread_new,
                                    .thread_free = thread_free};

// ------------------------------------------------------------------------------------------------------ the daemon

static struct app app;

static struct config *parse(const char *text)
{
    struct err err = {0};
    struct config *c = config_parse(text, strlen(text), "t.yaml", NULL, NULL, 0, &err);
    if (!c)
        fail_msg("%s", err.msg);
    return c;
}

#define BASE "data: {port: 0, threads: 1}\nadmin: {port: 0}\nlog: {level: error}\n"

static void start_with(const char *text, bool with_service)
{
    struct err err = {0};
    toy_ready = toy_started = true;
    toy_refuses = false;
    n_stops = 0;
    if (!app_init(&app, parse(text), &toys, &err) || !app_listen(&app, &err) ||
        (with_service && !app_start_service(&app, &err)))
        fail_msg("%s", err.msg);
}

static int stop(void **state)
{
    (void)state;
    app_fini(&app);
    return n_threads_alive != 0;
}

static uint16_t port(bool admin)
{
    return http_port(app_listener(&app, admin));
}

static void expect_get(bool admin, const char *path, unsigned status, const char *text)
{
    struct reply r;
    tcp_get(port(admin), path, &r);
    if (r.status != status || (text && !strstr(r.body, text)))
        fail_msg("%s: %u %s", path, r.status, r.body ? r.body : "");
    reply_fini(&r);
}

static void health_of_a_starting_service(void **state)
{
    (void)state;
    struct reply r;
    char v[32];
    start_with(BASE, false); // listening, service.start not called yet
    for (int admin = 0; admin < 2; admin++) {
        expect_get(admin, "/livez", 200, "ok\n");
        expect_get(admin, "/readyz", 503, "[-] models: starting");
        expect_get(admin, "/startupz", 503, "[-] loaded: starting");
    }
    tcp_post(port(false), "/v1/hello", "{}", &r);
    assert_int_equal(r.status, 503);
    assert_non_null(strstr(r.body, "\"starting\""));
    assert_string_not_equal(reply_header(&r, "Retry-After", v, sizeof(v)), "");
    reply_fini(&r);
}

static void health_of_a_running_service(void **state)
{
    (void)state;
    start_with(BASE, true);
    toy_ready = toy_started = false;
    expect_get(true, "/readyz", 503, "[-] models: loading toys: 40 %");
    expect_get(true, "/startupz", 503, "[-] loaded");
    expect_get(true, "/livez", 200, "ok\n"); // loading is no reason to be restarted
    toy_ready = toy_started = true;
    expect_get(false, "/readyz", 200, "ok\n");
    expect_get(false, "/readyz?verbose", 200, "[+] models: serving toys\nok\n");
    expect_get(false, "/startupz", 200, "ok\n");
    expect_get(true, "/livez?verbose", 200, "[+] data loops: turned ");
    app_begin_drain(&app);
    expect_get(true, "/readyz", 503, "[-] accepting: draining");
    expect_get(true, "/livez", 200, "ok\n");
    struct reply r;
    char v[32];
    tcp_post(port(false), "/v1/hello", "{}", &r); // goes on serving
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_header(&r, "Connection", v, sizeof(v)), "close");
    reply_fini(&r);
    assert_false(app_is_quiet(&app, 60000));
    nanosleep(&(struct timespec){.tv_nsec = 60000000}, NULL);
    expect_get(true, "/readyz", 503, NULL); // probes do not keep a drain going
    assert_true(app_is_quiet(&app, 50));
}

static void routes_answer_by_listener_and_method(void **state)
{
    (void)state;
    struct reply r;
    char v[64];
    start_with(BASE, true);
    tcp_post(port(false), "/v1/hello", "{}", &r);
    assert_string_equal(r.body, "{\"hello\":\"\",\"bytes\":2}");
    assert_string_equal(reply_header(&r, "Content-Type", v, sizeof(v)), "application/json");
    reply_fini(&r);
    expect_get(true, "/v1/admin/hello/x%20y", 200, "x y"); // loopback without a token file: open
    expect_get(false, "/v1/admin/hello/x", 404, "unknown_route");
    expect_get(false, "/metrics", 404, NULL);
    tcp_get(port(false), "/v1/hello", &r);
    assert_int_equal(r.status, 405);
    assert_string_equal(reply_header(&r, "Allow", v, sizeof(v)), "POST");
    assert_non_null(strstr(r.body, "\"code\":\"method_not_allowed\""));
    reply_fini(&r);
}

static void admin_wants_its_token(void **state)
{
    (void)state;
    char path[] = "/tmp/duet-token-XXXXXX", text[512];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "0123456789abcdef-secret\n", 24), 24);
    close(fd);
    snprintf(text, sizeof(text),
             "data: {port: 0, threads: 1}\nadmin: {port: 0, address: 0.0.0.0, token_file: %s}\nlog: {level: error}\n",
             path);
    start_with(text, true);
    unlink(path);
    static const struct {
        const char *authorization;
        unsigned status;
    } cases[] = {{"", 401},
                 {"Authorization: Bearer 0123456789abcdef-secret\r\n", 200},
                 {"Authorization: bearer 0123456789abcdef-secret\r\n", 200},
                 {"Authorization: Bearer 0123456789abcdef-secreT\r\n", 401},
                 {"Authorization: Bearer 0123456789abcdef-secret0123456789abcdef-secret\r\n", 401},
                 {"Authorization: Bearer 0123456789abcdef\r\n", 401},
                 {"Authorization: Bearer \r\n", 401},
                 {"Authorization: Basic 0123456789abcdef-secret\r\n", 401}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct reply r;
        char v[64];
        int n =
            snprintf(text, sizeof(text), "GET /v1/admin/hello/x HTTP/1.1\r\nHost: t\r\n%s\r\n", cases[i].authorization);
        tcp_exchange(port(true), text, (size_t)n, &r);
        if (r.status != cases[i].status)
            fail_msg("%s: %u", cases[i].authorization, r.status);
        assert_int_equal(r.status == 401, reply_header(&r, "WWW-Authenticate", v, sizeof(v))[0] != '\0');
        reply_fini(&r);
    }
    expect_get(true, "/livez", 200, NULL); // health and metrics need none
    expect_get(true, "/metrics", 200, NULL);
}

static void tokens_that_will_not_do(void **state)
{
    (void)state;
    struct err err = {0};
    assert_false(app_init(&app, parse("admin: {address: 0.0.0.0}\n"), &toys, &err));
    assert_non_null(strstr(err.msg, "set admin.token_file"));
    app_fini(&app);
    err = (struct err){0};
    assert_false(app_init(&app, parse("admin: {token_file: /nowhere/at/all}\n"), &toys, &err));
    assert_non_null(strstr(err.msg, "admin.token_file: "));
    app_fini(&app);
    err = (struct err){0};
    assert_false(app_init(&app, parse("admin: {token_file: /etc/hostname}\n"), &toys, &err)); // too short
    assert_non_null(strstr(err.msg, "want at least 16"));
    app_fini(&app);
    err = (struct err){0};
    assert_true(app_init(&app, parse("admin: {address: \"::1\"}\n"), &toys, &err));
}

static void metrics_count_what_happened(void **state)
{
    (void)state;
    struct reply r;
    char message[200];
    start_with(BASE, true);
    for (int i = 0; i < 3; i++) {
        tcp_post(port(false), "/v1/hello", "{}", &r);
        reply_fini(&r);
    }
    expect_get(false, "/nowhere/at/all", 404, NULL);
    tcp_exchange(port(false), "GET /v1/hello HTTP/1.1\r\n\r\n", 26, &r); // refused by the guard
    assert_int_equal(r.status, 400);
    reply_fini(&r);
    tcp_get(port(true), "/metrics", &r);
    assert_int_equal(r.status, 200);
    static const char *const lines[] = {"duet_http_request_duration_seconds_count{route=\"hello\",code=\"200\"} 3\n",
                                        "duet_http_request_duration_seconds_count{route=\"none\",code=\"404\"} 1\n",
                                        "duet_http_request_duration_seconds_count{route=\"none\",code=\"400\"} 1\n",
                                        "duet_http_requests_in_flight{listener=\"admin\"} 1\n",
                                        "process_resident_memory_bytes "};
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        if (!strstr(r.body, lines[i]))
            fail_msg("missing %s in\n%s", lines[i], r.body);
    if (!metrics_text_is_valid(r.body, message, sizeof(message)))
        fail_msg("%s", message);
    if (access("/usr/bin/promtool", X_OK) == 0) {
        FILE *p = popen("promtool check metrics", "w");
        fputs(r.body, p);
        assert_int_equal(pclose(p), 0);
    }
    reply_fini(&r);
}

/* Thirty clients on a loop that serves thirty requests a second: some are refused, health never. */
static void overload_is_shed_and_health_is_not(void **state)
{
    (void)state;
    enum { N = 30, ROUNDS = 4 };
    int fd[N];
    unsigned ok = 0, shed = 0;
    struct reply r;
    start_with("data: {port: 0, threads: 1}\nadmin: {port: 0}\nlog: {level: error}\nadmission: {max_lag_ms: 50}\nhttp: "
               "{deadline_ms: 60000}\n",
               true);
    for (int i = 0; i < N; i++)
        fd[i] = tcp_connect(port(false));
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < N; i++)
            tcp_puts(fd[i], "GET /v1/slow HTTP/1.1\r\nHost: t\r\n\r\n");
        expect_get(false, "/livez", 200, NULL);
        for (int i = 0; i < N; i++) {
            tcp_read_reply(fd[i], &r, 10000, false);
            ok += r.status == 200;
            shed += r.status == 503 && strstr(r.body, "\"overloaded\"") != NULL;
            reply_fini(&r);
        }
    }
    assert_int_equal(ok + shed, N * ROUNDS);
    assert_true(shed > 0);
    assert_true(ok > 5);
    for (int i = 0; i < N; i++)
        close(fd[i]);
}

static void reconfigures_whole_or_not(void **state)
{
    (void)state;
    struct err err = {0};
    struct buf frozen = {0}, dump = {0};
    start_with(BASE, true);
    assert_true(
        app_reconfigure(&app, parse("data: {port: 0, threads: 2}\nadmin: {port: 0}\nlog: {level: warn, slow_ms: 77}\n"),
                        &frozen, &err));
    assert_string_equal(frozen.data, "data.threads");
    assert_int_equal(app.log.level, LOG_WARN);
    app_config_dump(&app, &dump);
    assert_non_null(strstr(dump.data, "slow_ms: 77  # t.yaml:3\n"));
    assert_non_null(strstr(dump.data, "threads: 1  # t.yaml:1\n")); // what is in force, not what was asked for
    buf_reset(&frozen);
    toy_refuses = true;
    assert_false(app_reconfigure(&app, parse(BASE), &frozen, &err));
    assert_string_equal(err.msg, "not now");
    assert_int_equal(app.log.level, LOG_WARN);
    buf_reset(&dump);
    app_config_dump(&app, &dump);
    assert_non_null(strstr(dump.data, "slow_ms: 77  # t.yaml:3\n"));
    buf_fini(&frozen);
    buf_fini(&dump);
}

static void stop_tells_the_service_twice(void **state)
{
    (void)state;
    start_with(BASE, true);
    assert_int_equal(n_threads_alive, 2);
    app_fini(&app);
    assert_int_equal(n_stops, 2);
    struct err err = {0};
    assert_true(app_init(&app, parse(BASE), &toys, &err)); // for stop()
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(health_of_a_starting_service, stop),
        cmocka_unit_test_teardown(health_of_a_running_service, stop),
        cmocka_unit_test_teardown(routes_answer_by_listener_and_method, stop),
        cmocka_unit_test_teardown(admin_wants_its_token, stop),
        cmocka_unit_test_teardown(tokens_that_will_not_do, stop),
        cmocka_unit_test_teardown(metrics_count_what_happened, stop),
        cmocka_unit_test_teardown(overload_is_shed_and_health_is_not, stop),
        cmocka_unit_test_teardown(reconfigures_whole_or_not, stop),
        cmocka_unit_test_teardown(stop_tells_the_service_twice, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
