/* Breaks when damaged requests crash the listener, draw a 5xx that blames us, or leave it deaf. Prints its seed;
 * DUET_FUZZ_RUNS sets how many. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/rng.h"
#include "tests/server/tcp.h"
#include "tests/server/toy.h"

#define BYTES_MAX 4096
#define WAVE 100

static const char *const seeds[] = {
    "GET /echo HTTP/1.1\r\nHost: t\r\n\r\n",
    "GET /who?ms=1&n=%41 HTTP/1.1\r\nHost: t\r\nX-Request-Id: a-b\r\nX-Request-Timeout-Ms: 50\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 11\r\n\r\nhello world",
    "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nT: "
    "r\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    "HEAD /big HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /echo HTTP/1.1\r\nHost: t\r\nConnection: "
    "close\r\n\r\n",
    "PUT /later HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nX: \t folded\r\n  value\r\n\r\nabc",
};

static const char *const parts[] = {"\r\n",
                                    "\n",
                                    "\r",
                                    "\0",
                                    ":",
                                    " ",
                                    "\t",
                                    "Content-Length: 5\r\n",
                                    "Transfer-Encoding: chunked\r\n",
                                    "Host: u\r\n",
                                    "0\r\n\r\n",
                                    "%00",
                                    "%",
                                    "HTTP/1.1",
                                    "-1",
                                    "99999999999999999999",
                                    "\xff",
                                    "//",
                                    "..",
                                    "?",
                                    "#"};

static size_t mutate(struct rng *rng, char *text, size_t n)
{
    for (uint32_t k = 1 + rng_below(rng, 4); k > 0 && n > 1; k--) {
        size_t at = rng_below(rng, (uint32_t)n);
        const char *part = parts[rng_below(rng, sizeof(parts) / sizeof(parts[0]))];
        size_t m = part[0] ? strlen(part) : 1, len = 1 + rng_below(rng, 8);
        switch (rng_below(rng, 5)) {
        case 0: // flip a bit
            text[at] = (char)(text[at] ^ (1 << rng_below(rng, 8)));
            break;
        case 1: // any byte
            text[at] = (char)rng_below(rng, 256);
            break;
        case 2: // insert
            if (n + m < BYTES_MAX) {
                memmove(text + at + m, text + at, n - at);
                memcpy(text + at, part, m);
                n += m;
            }
            break;
        case 3: // remove
            len = len < n - at ? len : n - at;
            memmove(text + at, text + at + len, n - at - len);
            n -= len;
            break;
        case 4: // cut
            n = rng_below(rng, 8) ? n : at + 1;
            break;
        }
    }
    return n;
}

/* Everything the server says on a connection until it closes. */
static void listen_to_end(int fd, char *out, size_t cap, const char *bytes, size_t n)
{
    size_t got = 0;
    uint64_t end = test_now_ms() + 8000, now;
    ssize_t k = 1;
    while (got + 1 < cap && k > 0 && (now = test_now_ms()) < end) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        k = poll(&p, 1, (int)(end - now)) == 1 ? recv(fd, out + got, cap - 1 - got, 0) : 0;
        got += k > 0 ? (size_t)k : 0;
    }
    if (test_now_ms() >= end)
        fail_msg("neither answered nor closed: %.*s", (int)n, bytes);
    out[got] = '\0';
    close(fd);
}

static void expect_no_blame(const char *answer, const char *bytes, size_t n)
{
    for (const char *p = answer; (p = strstr(p, "HTTP/1.1 5")); p++)
        if (strncmp(p + 9, "505", 3) != 0 && strncmp(p + 9, "501", 3) != 0)
            fail_msg("%.60s\nfor %.*s", p, (int)n, bytes);
}

/* WAVE connections at once; the last one carries a good request. */
static void one_wave(uint16_t port, struct rng *rng)
{
    static char text[WAVE][BYTES_MAX + 16], answer[65536];
    size_t n[WAVE];
    int fd[WAVE];
    for (size_t i = 0; i < WAVE; i++) {
        const char *from = seeds[i + 1 < WAVE ? rng_below(rng, sizeof(seeds) / sizeof(seeds[0])) : 0];
        n[i] = strlen(from);
        memcpy(text[i], from, n[i]);
        if (i + 1 < WAVE)
            n[i] = mutate(rng, text[i], n[i]);
        fd[i] = tcp_connect(port);
        tcp_send(fd[i], text[i], n[i]);
        if (rng_below(rng, 2))
            shutdown(fd[i], SHUT_WR);
    }
    for (size_t i = 0; i < WAVE; i++) {
        listen_to_end(fd[i], answer, sizeof(answer), text[i], n[i]);
        expect_no_blame(answer, text[i], n[i]);
    }
    assert_int_equal(strncmp(answer, "HTTP/1.1 200", 12), 0);
}

static void damaged_requests(void **state)
{
    (void)state;
    struct toy toy = {0};
    struct http_params p = toy_params(&toy);
    struct rng rng;
    const char *runs = getenv("DUET_FUZZ_RUNS");
    uint64_t seed = (uint64_t)time(NULL);
    p.header_ms = p.body_ms = p.idle_ms = 100; // what is cut short is not waited for
    print_message("seed %llu\n", (unsigned long long)seed);
    rng_init(&rng, seed);
    toy_start(&toy, &p);
    for (long i = 0; i < (runs ? atol(runs) : 2000); i += WAVE)
        one_wave(toy.port, &rng);
    for (int i = 0; i < 300 && http_connections(toy.http); i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    assert_int_equal(http_connections(toy.http), 0);
    assert_int_equal(http_in_flight(toy.http), 0);
    toy_stop(&toy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(damaged_requests)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
