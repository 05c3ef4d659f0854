/* Breaks when the listener stalls, loses a request, lets a slow client live for ever, or hands a handler the wrong
 * request. */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/priority.h"
#include "tests/server/tcp.h"
#include "tests/server/toy.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: t\r\n\r\n"

static struct toy toy;

static int start(void **state)
{
    (void)state;
    toy = (struct toy){0};
    struct http_params p = toy_params(&toy);
    toy_start(&toy, &p);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    toy_stop(&toy);
    return 0;
}

static void sleep_ms(long ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&ts, NULL);
}

/* An answer is read, or an end seen, a moment before the loop counts the request as done. */
static void expect_none_in_flight(void)
{
    for (int i = 0; i < 200 && http_in_flight(toy.http); i++)
        sleep_ms(10);
    assert_int_equal(http_in_flight(toy.http), 0);
}

// ------------------------------------------------------------------------------------------------ what arrives

static void expect_body(const char *request, unsigned status, const char *body)
{
    struct reply r;
    tcp_exchange(toy.port, request, strlen(request), &r);
    assert_int_equal(r.status, status);
    assert_string_equal(r.body, body);
    reply_fini(&r);
}

static void requests_arrive_whole(void **state)
{
    (void)state;
    struct reply r;
    char v[200];
    expect_body(GET("/who?a=1&b=%41"), 200, "0 /who ?a=1&b=%41 1000");
    expect_body(GET("/who%2f?"), 200, "");
    expect_body("GET /who HTTP/1.1\r\nHost: t\r\nX-Request-Timeout-Ms: 250\r\n\r\n", 200, "0 /who ? 250");
    expect_body("GET /who HTTP/1.1\r\nHost: t\r\nX-Request-Timeout-Ms: 99999999999999999999\r\n\r\n", 200,
                "0 /who ? 1000");
    expect_body("DELETE /who HTTP/1.1\r\nHost: t\r\n\r\n", 200, "4 /who ? 1000");
    expect_body("get /who HTTP/1.1\r\nHost: t\r\n\r\n", 200, "5 /who ? 1000");
    expect_body("PATCH /who HTTP/1.1\r\nHost: t\r\n\r\n", 200, "5 /who ? 1000");
    tcp_post(toy.port, "/echo", "some text", &r);
    assert_string_equal(r.body, "some text");
    assert_string_equal(reply_header(&r, "Content-Type", v, sizeof(v)), "text/plain");
    assert_string_equal(reply_header(&r, "X-Toy", v, sizeof(v)), "data");
    assert_int_equal(strlen(reply_header(&r, "X-Request-Id", v, sizeof(v))), 16);
    reply_fini(&r);
}

static void request_ids(void **state)
{
    (void)state;
    static const char *const bad[] = {"a b", "\xc3\xa4", "", "x;y",
                                      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}; // 65
    char text[300], v[200];
    struct reply r;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int n = snprintf(text, sizeof(text), "GET /echo HTTP/1.1\r\nHost: t\r\nX-Request-Id: %s\r\n\r\n", bad[i]);
        tcp_exchange(toy.port, text, (size_t)n, &r);
        assert_int_equal(r.status, 200);
        reply_header(&r, "X-Request-Id", v, sizeof(v));
        assert_int_equal(strlen(v), 16); // replaced by one of ours
        assert_int_equal(strspn(v, "0123456789abcdef"), 16);
        reply_fini(&r);
    }
}

/* The caller's trace with a span of ours, a new one each time; without a valid one, none. */
static void traces_are_answered(void **state)
{
    (void)state;
#define TRACE "00-0af7651916cd43dd8448eb211c80319c-"
#define PARENT "b7ad6b7169203331-01"
    static const struct {
        const char *lines;
        bool answered;
    } cases[] = {{"traceparent: " TRACE PARENT "\r\n", true},
                 {"TraceParent:   " TRACE PARENT " \t\r\n", true},
                 {"traceparent: " TRACE PARENT "\r\ntracestate: a=b\r\nX: ", true}, // and the request is refused
                 {"traceparent: " TRACE PARENT "\r\ntraceparent: " TRACE PARENT "\r\n", false},
                 {"traceparent: " TRACE "0000000000000000-01\r\n", false},
                 {"traceparent: \r\n", false},
                 {"tracestate: a=b\r\n", false}};
    char text[300], v[200], before[200] = "";
    struct reply r;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool refused = i == 2;
        int n = snprintf(text, sizeof(text), "GET /echo HTTP/1.1\r\nHost: t\r\n%s%s\r\n", cases[i].lines, refused ? "\x01\r\n" : "");
        tcp_exchange(toy.port, text, (size_t)n, &r);
        assert_int_equal(r.status, refused ? 400 : 200);
        reply_header(&r, "traceparent", v, sizeof(v));
        assert_int_equal(strlen(v), cases[i].answered ? 55 : 0);
        if (cases[i].answered) {
            assert_memory_equal(v, TRACE, sizeof(TRACE) - 1);
            assert_int_equal(strspn(v + sizeof(TRACE) - 1, "0123456789abcdef"), 16);
            assert_string_equal(v + 52, "-01");
            assert_null(strstr(v, "b7ad6b7169203331"));
            assert_string_not_equal(v, before);
            memcpy(before, v, sizeof(v));
        }
        assert_string_equal(reply_header(&r, "tracestate", v, sizeof(v)), "");
        reply_fini(&r);
    }
    int fd = tcp_connect(toy.port); // what a connection's first request said is not its second's
    tcp_puts(fd, "GET /echo HTTP/1.1\r\nHost: t\r\ntraceparent: " TRACE PARENT "\r\n\r\n" GET("/echo"));
    for (int i = 0; i < 2; i++) {
        tcp_read_reply(fd, &r, 2000, false);
        assert_int_equal(strlen(reply_header(&r, "traceparent", v, sizeof(v))), i ? 0 : 55);
        reply_fini(&r);
    }
    close(fd);
#undef TRACE
#undef PARENT
}

static void query_parameters(void **state)
{
    (void)state;
    char out[8];
    struct http_request r = {.query = "a=1&b=x%20y+z&empty=&flag&a%62=3&dup=1&dup=2&bad=%4&nul=%00&long=123456789"};
    assert_int_equal(http_query_param(&r, "a", out, sizeof(out)), HTTP_PARAM_FOUND);
    assert_string_equal(out, "1");
    assert_int_equal(http_query_param(&r, "b", out, sizeof(out)), HTTP_PARAM_FOUND);
    assert_string_equal(out, "x y z");
    assert_int_equal(http_query_param(&r, "empty", out, sizeof(out)), HTTP_PARAM_FOUND);
    assert_string_equal(out, "");
    assert_int_equal(http_query_param(&r, "flag", out, sizeof(out)), HTTP_PARAM_FOUND);
    assert_int_equal(http_query_param(&r, "none", out, sizeof(out)), HTTP_PARAM_NONE);
    assert_int_equal(http_query_param(&r, "dup", out, sizeof(out)), HTTP_PARAM_REPEATED);
    assert_int_equal(http_query_param(&r, "bad", out, sizeof(out)), HTTP_PARAM_MALFORMED);
    assert_int_equal(http_query_param(&r, "nul", out, sizeof(out)), HTTP_PARAM_MALFORMED);
    assert_int_equal(http_query_param(&r, "long", out, sizeof(out)), HTTP_PARAM_LONG);
    r.query = "";
    assert_int_equal(http_query_param(&r, "a", out, sizeof(out)), HTTP_PARAM_NONE);
    assert_true(http_decode_segment("a%2Eb+", 6, out, sizeof(out)));
    assert_string_equal(out, "a.b+");
    assert_false(http_decode_segment("a%2fb", 5, out, sizeof(out)));
    assert_false(http_decode_segment("%0a", 3, out, sizeof(out)));
    assert_false(http_decode_segment("%", 1, out, sizeof(out)));
    assert_false(http_decode_segment("%a", 2, out, sizeof(out)));
    assert_false(http_decode_segment("12345678", 8, out, sizeof(out)));
    assert_true(http_decode_segment("1234567", 7, out, sizeof(out)));
}

static void handlers_that_forget(void **state)
{
    (void)state;
    struct reply r;
    tcp_get(toy.port, "/empty", &r);
    assert_int_equal(r.status, 500);
    assert_non_null(strstr(r.body, "no_answer"));
    reply_fini(&r);
    tcp_get(toy.port, "/never", &r);
    assert_int_equal(r.status, 500);
    reply_fini(&r);
}

static void head_has_no_body(void **state)
{
    (void)state;
    struct reply r;
    char v[32];
    int fd = tcp_connect(toy.port);
    tcp_puts(fd, "HEAD /big?n=5000 HTTP/1.1\r\nHost: t\r\n\r\n" GET("/who"));
    tcp_read_reply(fd, &r, 2000, true);
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_header(&r, "Content-Length", v, sizeof(v)), "5000");
    reply_fini(&r);
    tcp_read_reply(fd, &r, 2000, false);
    assert_string_equal(r.body, "0 /who ? 1000");
    reply_fini(&r);
    close(fd);
}

static void pipelined_requests_in_order(void **state)
{
    (void)state;
    int fd = tcp_connect(toy.port);
    for (int i = 0; i < 50; i++)
        tcp_puts(fd, i % 2 ? "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nodd" : GET("/big?n=70000"));
    for (int i = 0; i < 50; i++) {
        struct reply r;
        tcp_read_reply(fd, &r, 5000, false);
        assert_int_equal(r.status, 200);
        assert_int_equal(r.body_len, i % 2 ? 3 : 70000);
        reply_fini(&r);
    }
    close(fd);
}

static void bodies_up_to_the_limit(void **state)
{
    (void)state;
    struct reply r;
    char *body = calloc(1, 100002);
    memset(body, 'b', 100000);
    tcp_post(toy.port, "/echo", body, &r);
    assert_int_equal(r.status, 200);
    assert_int_equal(r.body_len, 100000);
    assert_memory_equal(r.body, body, 100000);
    reply_fini(&r);
    // Chunked bodies tell their size only as they come: one byte too many is 413, and the connection closes.
    int fd = tcp_connect(toy.port);
    tcp_puts(fd, "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n186a1\r\n");
    body[100000] = 'b';
    tcp_send(fd, body, 100001);
    tcp_puts(fd, "\r\n0\r\n\r\n");
    tcp_read_reply(fd, &r, 2000, false);
    assert_int_equal(r.status, 413);
    assert_true(tcp_is_closed(fd, 1000));
    reply_fini(&r);
    close(fd);
    free(body);
}

/* Small bodies after large ones must not see the large one's rest. */
static void buffers_are_clean(void **state)
{
    (void)state;
    struct reply r;
    int fd = tcp_connect(toy.port);
    tcp_puts(fd, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n0123456789"
                 "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nab" GET("/echo"));
    static const char *const want[] = {"0123456789", "ab", ""};
    for (int i = 0; i < 3; i++) {
        tcp_read_reply(fd, &r, 2000, false);
        assert_string_equal(r.body, want[i]);
        reply_fini(&r);
    }
    close(fd);
}

// -------------------------------------------------------------------------------------------------------- stalls

/* libmicrohttpd's internal epoll stalls above ~120 busy keep-alive connections on one loop; ours must not. 256, or as many as
 * DUET_CONNECTIONS says. */
static void no_stall_with_many_connections(void **state)
{
    (void)state;
    enum { ROUNDS = 20 };
    const char *given = getenv("DUET_CONNECTIONS");
    const int n = given ? atoi(given) : 256;
    struct toy one = {0};
    struct http_params p = toy_params(&one);
    p.threads = 1;
    p.header_ms = p.idle_ms = 20000;
    p.max_connections = (unsigned)n + 100;
    toy_start(&one, &p);
    int *fd = calloc((size_t)n, sizeof(*fd));
    for (int i = 0; i < n; i++)
        fd[i] = tcp_connect(one.port);
    uint64_t begun = test_now_ms();
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < n; i++)
            tcp_puts(fd[i], GET("/who"));
        for (int i = 0; i < n; i++) {
            struct reply r;
            tcp_read_reply(fd[i], &r, 5000, false);
            assert_int_equal(r.status, 200);
            reply_fini(&r);
        }
    }
    print_message("%d connections: %d requests in %d ms\n", n, n * ROUNDS, (int)(test_now_ms() - begun));
    assert_int_equal(http_connections(one.http), n);
    assert_in_range(test_now_ms() - begun, 0, 20000);
    for (int i = 0; i < n; i++)
        close(fd[i]);
    free(fd);
    toy_stop(&one);
    assert_int_equal(one.n_done, n * ROUNDS);
}

/* A byte now and then resets libmicrohttpd's own timeout for ever; our deadlines are absolute. */
static void drip_is_cut(const char *head, uint64_t least, uint64_t most)
{
    int fd = tcp_connect(toy.port);
    uint64_t begun = test_now_ms();
    tcp_puts(fd, head);
    while (!tcp_is_closed(fd, 100)) {
        tcp_send(fd, "a", 1);
        if (test_now_ms() - begun > 10000)
            break;
    }
    assert_in_range(test_now_ms() - begun, least, most);
    close(fd);
}

static void slow_clients_are_cut(void **state)
{
    (void)state;
    drip_is_cut("", 900, 3000);                                                                // request line
    drip_is_cut("GET /echo HTTP/1.1\r\nX: ", 900, 3000);                                       // headers
    drip_is_cut("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\n", 1400, 4000); // body
    expect_none_in_flight();
}

/* Request and end of stream in one go: the answer comes, and the connection does not stay for the whole idle time. */
static void half_closed_clients_are_let_go(void **state)
{
    (void)state;
    struct reply r;
    int fd = tcp_connect(toy.port);
    tcp_puts(fd, GET("/who"));
    shutdown(fd, SHUT_WR);
    tcp_read_reply(fd, &r, 2000, false);
    assert_int_equal(r.status, 200);
    reply_fini(&r);
    assert_true(tcp_is_closed(fd, 2500)); // idle_ms is 5 s
    close(fd);
}

static void idle_and_stuck_connections_are_cut(void **state)
{
    (void)state;
    struct toy t = {0};
    struct http_params p = toy_params(&t);
    struct reply r;
    p.idle_ms = 300;
    p.body_ms = 500;
    toy_start(&t, &p);
    int fd = tcp_connect(t.port);
    tcp_puts(fd, GET("/echo"));
    tcp_read_reply(fd, &r, 2000, false);
    reply_fini(&r);
    uint64_t begun = test_now_ms();
    assert_true(tcp_is_closed(fd, 3000));
    assert_in_range(test_now_ms() - begun, 200, 2000);
    close(fd);
    // One who asks for much and does not read.
    fd = tcp_connect(t.port);
    int small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    tcp_puts(fd, GET("/big?n=30000000"));
    for (begun = test_now_ms(); http_connections(t.http) && test_now_ms() - begun < 8000;)
        sleep_ms(20);
    assert_int_equal(http_connections(t.http), 0);
    assert_int_equal(http_in_flight(t.http), 0);
    close(fd);
    toy_stop(&t);
}

// ----------------------------------------------------------------------------------------------- suspend, resume

static void completes_from_another_thread(void **state)
{
    (void)state;
    enum { N = 100 };
    int fd[N];
    struct reply r;
    char text[200], want[100];
    for (int i = 0; i < N; i++) {
        fd[i] = tcp_connect(toy.port);
        int n = snprintf(text, sizeof(text),
                         "POST /later?ms=%d HTTP/1.1\r\nHost: t\r\nX-Request-Id: r%d\r\nContent-Length: 1\r\n\r\n%d",
                         i % 7 * 20, i, i % 10);
        tcp_send(fd[i], text, (size_t)n);
    }
    uint64_t begun = test_now_ms();
    tcp_get(toy.port, "/echo", &r); // nothing else waits for them
    assert_int_equal(r.status, 200);
    assert_in_range(test_now_ms() - begun, 0, 2000);
    reply_fini(&r);
    for (int i = 0; i < N; i++) {
        tcp_read_reply(fd[i], &r, 5000, false);
        snprintf(want, sizeof(want), "later r%d %d", i, i % 10);
        assert_int_equal(r.status, 200);
        assert_string_equal(r.body, want);
        reply_fini(&r);
        tcp_puts(fd[i], GET("/who")); // the connection goes on
        tcp_read_reply(fd[i], &r, 5000, false);
        assert_int_equal(r.status, 200);
        reply_fini(&r);
        close(fd[i]);
    }
}

static void client_leaves_while_suspended(void **state)
{
    (void)state;
    int fd = tcp_connect(toy.port);
    struct reply r;
    tcp_puts(fd, GET("/later?ms=200"));
    sleep_ms(50);
    close(fd);
    sleep_ms(300);
    tcp_get(toy.port, "/echo", &r);
    assert_int_equal(r.status, 200);
    reply_fini(&r);
    expect_none_in_flight();
}

// ------------------------------------------------------------------------------------------------- drain and stop

/* Everything that was sent before the stop is answered, also what waits in the accept queue or is suspended. */
static void stop_answers_what_has_begun(void **state)
{
    (void)state;
    enum { N = 40 };
    struct toy t = {0};
    struct http_params p = toy_params(&t);
    int fd[N];
    toy_start(&t, &p);
    for (int i = 0; i < N; i++) {
        fd[i] = tcp_connect(t.port);
        tcp_puts(fd[i], i % 2 ? GET("/sleep?ms=20") : GET("/later?ms=300"));
    }
    toy_stop(&t);
    for (int i = 0; i < N; i++) {
        struct reply r;
        char v[32];
        tcp_read_reply(fd[i], &r, 2000, false);
        assert_int_equal(r.status, 200);
        if (i > 10)
            assert_string_equal(reply_header(&r, "Connection", v, sizeof(v)), "close");
        reply_fini(&r);
        close(fd[i]);
    }
}

static void drain_goes_on_serving(void **state)
{
    (void)state;
    struct toy t = {0};
    struct http_params p = toy_params(&t);
    struct reply r;
    char v[32];
    toy_start(&t, &p);
    int kept = tcp_connect(t.port);
    tcp_puts(kept, GET("/echo"));
    tcp_read_reply(kept, &r, 2000, false);
    assert_string_equal(reply_header(&r, "Connection", v, sizeof(v)), "");
    reply_fini(&r);
    http_drain(t.http);
    for (int i = 0; i < 10; i++) { // new connections are served, and told to go
        int fd = i ? tcp_connect(t.port) : kept;
        tcp_puts(fd, GET("/echo"));
        tcp_read_reply(fd, &r, 2000, false);
        assert_int_equal(r.status, 200);
        assert_string_equal(reply_header(&r, "Connection", v, sizeof(v)), "close");
        reply_fini(&r);
        assert_true(tcp_is_closed(fd, 1000));
        close(fd);
    }
    toy_stop(&t);
}

// -------------------------------------------------------------------------------------------------- limits, start

static void crowded_below_the_hard_limit(void **state)
{
    (void)state;
    struct toy t = {0};
    struct http_params p = toy_params(&t);
    struct reply r;
    int fd[8];
    p.max_connections = 5;
    toy_start(&t, &p);
    for (int i = 0; i < 8; i++) {
        fd[i] = tcp_connect(t.port);
        tcp_puts(fd[i], GET("/crowded"));
        tcp_read_reply(fd[i], &r, 2000, false);
        assert_string_equal(r.body, i < 5 ? "0" : "1");
        reply_fini(&r);
    }
    for (int i = 0; i < 8; i++)
        close(fd[i]);
    toy_stop(&t);
}

static void start_says_why_not(void **state)
{
    (void)state;
    struct err err = {0};
    struct http_params p = toy_params(&toy);
    p.port = toy.port;
    assert_null(http_start(&p, &err)); // SO_REUSEPORT alone would let this pass in silence
    assert_non_null(strstr(err.msg, "cannot listen on 127.0.0.1 port"));
    assert_non_null(strstr(err.msg, "Address already in use"));
    err = (struct err){0};
    p.address = "localhost";
    assert_null(http_start(&p, &err));
    assert_non_null(strstr(err.msg, "no numeric IPv4 or IPv6 address"));
}

static void loops_keep_turning(void **state)
{
    (void)state;
    sleep_ms(1200);
    assert_in_range(http_loop_age_ms(toy.http), 0, 1600);
    int fd = tcp_connect(toy.port);
    tcp_puts(fd, GET("/sleep?ms=900"));
    sleep_ms(700);
    assert_in_range(http_loop_age_ms(toy.http), 500, 5000);
    assert_int_equal(http_in_flight(toy.http), 1);
    struct reply r;
    tcp_read_reply(fd, &r, 3000, false);
    reply_fini(&r);
    close(fd);
}

/* Handlers run with the shortest slice, and nobody else does, where the kernel knows slices (Linux 6.12). */
static void loops_need_not_wait_for_slices(void **state)
{
    (void)state;
    uint64_t usual = priority_slice_ns();
    char want[24];
    if (!usual)
        skip();
    snprintf(want, sizeof(want), "%u", PRIORITY_SLICE_NS);
    expect_body(GET("/slice"), 200, want);
    assert_int_equal(priority_slice_ns(), usual);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_arrive_whole),
        cmocka_unit_test(request_ids),
        cmocka_unit_test(traces_are_answered),
        cmocka_unit_test(query_parameters),
        cmocka_unit_test(handlers_that_forget),
        cmocka_unit_test(head_has_no_body),
        cmocka_unit_test(pipelined_requests_in_order),
        cmocka_unit_test(bodies_up_to_the_limit),
        cmocka_unit_test(buffers_are_clean),
        cmocka_unit_test(no_stall_with_many_connections),
        cmocka_unit_test(slow_clients_are_cut),
        cmocka_unit_test(half_closed_clients_are_let_go),
        cmocka_unit_test(idle_and_stuck_connections_are_cut),
        cmocka_unit_test(completes_from_another_thread),
        cmocka_unit_test(client_leaves_while_suspended),
        cmocka_unit_test(stop_answers_what_has_begun),
        cmocka_unit_test(drain_goes_on_serving),
        cmocka_unit_test(crowded_below_the_hard_limit),
        cmocka_unit_test(start_says_why_not),
        cmocka_unit_test(loops_keep_turning),
        cmocka_unit_test(loops_need_not_wait_for_slices),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
