/* Breaks when a request that two parties could read differently (smuggling), or one past a limit, reaches a handler. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/server/tcp.h"
#include "tests/server/toy.h"

#define H "Host: t\r\n"
#define RAW(s) s, sizeof(s) - 1

static const struct {
    const char *what, *bytes;
    size_t n;
    unsigned status; // 0: closed without an answer is right
} cases[] = {
    {"plain", RAW("GET /echo HTTP/1.1\r\n" H "\r\n"), 200},
    {"HTTP/1.0 needs no Host", RAW("GET /echo HTTP/1.0\r\n\r\n"), 200},
    {"query", RAW("GET /echo?a=1&b=%20 HTTP/1.1\r\n" H "\r\n"), 200},
    {"body", RAW("POST /echo HTTP/1.1\r\n" H "Content-Length: 2\r\n\r\nhi"), 200},
    {"chunked", RAW("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"), 200},
    {"chunked, other case", RAW("POST /echo HTTP/1.1\r\n" H "transfer-encoding: Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
     200},
    {"PUT", RAW("PUT /echo HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n"), 200},
    {"no Host", RAW("GET /echo HTTP/1.1\r\n\r\n"), 400},
    {"two Hosts", RAW("GET /echo HTTP/1.1\r\n" H "Host: u\r\n\r\n"), 400},
    {"length and encoding",
     RAW("POST /echo HTTP/1.1\r\n" H "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400},
    {"encoding and length",
     RAW("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"), 400},
    {"two lengths", RAW("POST /echo HTTP/1.1\r\n" H "Content-Length: 2\r\nContent-Length: 3\r\n\r\nhix"), 400},
    {"two equal lengths", RAW("POST /echo HTTP/1.1\r\n" H "Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi"), 400},
    {"space before the colon", RAW("POST /echo HTTP/1.1\r\n" H "Content-Length : 3\r\n\r\nGET"), 400},
    {"space in a name", RAW("GET /echo HTTP/1.1\r\n" H "X Y: 1\r\n\r\n"), 400},
    {"length with sign", RAW("POST /echo HTTP/1.1\r\n" H "Content-Length: +2\r\n\r\nhi"), 400},
    {"negative length", RAW("POST /echo HTTP/1.1\r\n" H "Content-Length: -2\r\n\r\nhi"), 400},
    {"hexadecimal length", RAW("POST /echo HTTP/1.1\r\n" H "Content-Length: 0x2\r\n\r\nhi"), 400},
    {"list of lengths", RAW("POST /echo HTTP/1.1\r\n" H "Content-Length: 2, 2\r\n\r\nhi"), 400},
    {"empty length", RAW("POST /echo HTTP/1.1\r\n" H "Content-Length:\r\n\r\n"), 400},
    {"length above 2^64", RAW("POST /echo HTTP/1.1\r\n" H "Content-Length: 99999999999999999999999\r\n\r\n"), 413},
    {"unknown encoding", RAW("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\n"), 400},
    {"gzip, chunked", RAW("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 400},
    {"two encodings",
     RAW("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400},
    {"tab before chunked", RAW("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n"), 400},
    {"encoding in HTTP/1.0", RAW("POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400},
    {"absolute form", RAW("GET http://t/echo HTTP/1.1\r\n" H "\r\n"), 400},
    {"asterisk", RAW("OPTIONS * HTTP/1.1\r\n" H "\r\n"), 400},
    {"authority form", RAW("CONNECT t:80 HTTP/1.1\r\n" H "\r\n"), 400},
    {"fragment", RAW("GET /echo#x HTTP/1.1\r\n" H "\r\n"), 400},
    {"NUL in the target", RAW("GET /echo\0x HTTP/1.1\r\n" H "\r\n"), 400},
    {"NUL in the query", RAW("GET /echo?a\0=x HTTP/1.1\r\n" H "\r\n"), 400},
    {"UTF-8 in the target", RAW("GET /\xc3\xa4 HTTP/1.1\r\n" H "\r\n"), 400},
    {"control byte in the target", RAW("GET /e\x01 HTTP/1.1\r\n" H "\r\n"), 400},
    {"space in the target", RAW("GET /a b HTTP/1.1\r\n" H "\r\n"), 400},
    {"control byte in a value", RAW("GET /echo HTTP/1.1\r\n" H "X: a\x01z\r\n\r\n"), 400},
    {"HTTP/1.9", RAW("GET /echo HTTP/1.9\r\n" H "\r\n"), 505},
    {"HTTP/2.0", RAW("GET /echo HTTP/2.0\r\n" H "\r\n"), 505},
    {"lower-case version", RAW("GET /echo http/1.1\r\n" H "\r\n"), 400},
    {"bad expectation", RAW("POST /echo HTTP/1.1\r\n" H "Expect: banana\r\nContent-Length: 2\r\n\r\nhi"), 417},
    {"100-continue", RAW("POST /echo HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"), 200},
    {"timeout of words", RAW("GET /echo HTTP/1.1\r\n" H "X-Request-Timeout-Ms: soon\r\n\r\n"), 400},
    {"timeout of nothing", RAW("GET /echo HTTP/1.1\r\n" H "X-Request-Timeout-Ms: 0\r\n\r\n"), 400},
    {"declared too long", RAW("POST /echo HTTP/1.1\r\n" H "Content-Length: 100001\r\n\r\n"), 413},
};

static struct toy toy;

static int start(void **state)
{
    (void)state;
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

/* Each case must get its status, and, when refused, one answer alone on a connection that closes: no byte after the
 * refused request may be read as another one. */
static void table(void **state)
{
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct reply r, second = {0};
        bool closed = true;
        int fd = tcp_connect(toy.port);
        tcp_send(fd, cases[i].bytes, cases[i].n);
        tcp_read_reply(fd, &r, 2000, false);
        if (r.status != 200 && r.status != 0) {
            tcp_puts(fd, "GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n");
            tcp_read_reply(fd, &second, 1000, false);
            closed = second.status == 0 && second.closed;
        }
        if (r.status != cases[i].status || !closed) {
            print_error("%s: status %u, want %u%s; head: %.200s\n", cases[i].what, r.status, cases[i].status,
                        closed ? "" : ", and the connection stayed open", r.head);
            wrong++;
        }
        close(fd);
        reply_fini(&r);
        reply_fini(&second);
    }
    assert_int_equal(wrong, 0);
}

static void many_headers(void **state)
{
    (void)state;
    char *text = calloc(1, 70000);
    struct reply r;
    size_t n = (size_t)sprintf(text, "GET /echo HTTP/1.1\r\n" H);
    for (int i = 0; i < 70; i++)
        n += (size_t)sprintf(text + n, "X-%d: 1\r\n", i);
    n += (size_t)sprintf(text + n, "\r\n");
    tcp_exchange(toy.port, text, n, &r);
    assert_int_equal(r.status, 431);
    assert_non_null(strstr(r.body, "too_many_headers"));
    reply_fini(&r);

    n = (size_t)sprintf(text, "GET /echo HTTP/1.1\r\n" H "X: ");
    memset(text + n, 'a', 40000);
    n += 40000;
    n += (size_t)sprintf(text + n, "\r\n\r\n");
    tcp_exchange(toy.port, text, n, &r);
    assert_int_equal(r.status, 431);
    reply_fini(&r);

    n = (size_t)sprintf(text, "GET /");
    memset(text + n, 'a', 9000);
    n += 9000;
    n += (size_t)sprintf(text + n, " HTTP/1.1\r\n" H "\r\n");
    tcp_exchange(toy.port, text, n, &r);
    assert_int_equal(r.status, 414);
    reply_fini(&r);
    free(text);
}

/* Within the listener's conn_memory: the same headers are fine where it is larger. Targets and bodies have room in the least. */
static void headers_have_the_memory_that_was_given(void **state)
{
    (void)state;
    static const struct {
        size_t memory, header;
        unsigned status;
    } given[] = {{0, 12000, 200}, {0, 20000, 431}, {32768, 20000, 200}, {32768, 40000, 431}, {65536, 40000, 200}};
    char *text = calloc(1, 70000), *body = calloc(1, 60000);
    memset(body, 'b', 60000);
    for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++) {
        struct toy t = {0};
        struct http_params p = toy_params(&t);
        struct reply r;
        p.conn_memory = given[i].memory;
        toy_start(&t, &p);
        size_t n = (size_t)sprintf(text, "GET /echo HTTP/1.1\r\n" H "X: ");
        memset(text + n, 'a', given[i].header);
        n += given[i].header;
        n += (size_t)sprintf(text + n, "\r\n\r\n");
        tcp_exchange(t.port, text, n, &r);
        if (r.status != given[i].status)
            fail_msg("memory %zu, a header of %zu: status %u, want %u", given[i].memory, given[i].header, r.status, given[i].status);
        reply_fini(&r);
        n = (size_t)sprintf(text, "POST /echo?");
        memset(text + n, 'q', 8000);
        n += 8000;
        n += (size_t)sprintf(text + n, " HTTP/1.1\r\n" H "Content-Length: 60000\r\n\r\n");
        memcpy(text + n, body, 60000);
        tcp_exchange(t.port, text, n + 60000, &r);
        assert_int_equal(r.status, 200);
        reply_fini(&r);
        toy_stop(&t);
    }
    free(text);
    free(body);
}

/* Refusals carry the same kind of answer as everything else. */
static void refusal_is_a_problem(void **state)
{
    (void)state;
    struct reply r;
    char v[200];
    const char text[] = "GET /echo HTTP/1.1\r\nX-Request-Id: abc-1\r\n\r\n";
    tcp_exchange(toy.port, text, sizeof(text) - 1, &r);
    assert_int_equal(r.status, 400);
    assert_string_equal(reply_header(&r, "Content-Type", v, sizeof(v)), "application/problem+json");
    assert_string_equal(reply_header(&r, "Connection", v, sizeof(v)), "close");
    assert_string_equal(reply_header(&r, "X-Request-Id", v, sizeof(v)), "abc-1");
    assert_non_null(strstr(r.body, "\"code\":\"bad_request\""));
    assert_non_null(strstr(r.body, "\"request_id\":\"abc-1\""));
    reply_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),
        cmocka_unit_test(many_headers),
        cmocka_unit_test(headers_have_the_memory_that_was_given),
        cmocka_unit_test(refusal_is_a_problem),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
