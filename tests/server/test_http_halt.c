/* If this fails, a stop loses requests that have begun, hangs, or frees a listener that the other one's health still asks about. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/server/tcp.h"
#include "tests/server/toy.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: t\r\n\r\n"

static void answer_of(int fd, const char *request, const char *want)
{
    struct reply r;
    if (request)
        tcp_puts(fd, request);
    tcp_read_reply(fd, &r, 5000, false);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body, want);
    reply_fini(&r);
}

static bool is_open(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool yes = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
    close(fd);
    return yes;
}

static void what_is_halted_may_still_be_asked(void **state)
{
    (void)state;
    struct toy t = {0};
    struct http_params p = toy_params(&t);
    toy_start(&t, &p);
    int busy = tcp_connect(t.port), idle = tcp_connect(t.port);
    answer_of(busy, GET("/echo"), "");
    http_halt(t.http);
    assert_int_equal(t.n_states, 0); // its loops have ended
    assert_int_equal(http_in_flight(t.http), 0);
    assert_int_equal(http_connections(t.http), 0);
    assert_int_equal(http_port(t.http), t.port);
    http_loop_age_ms(t.http);
    http_drain(t.http);
    assert_true(tcp_is_closed(busy, 2000) && tcp_is_closed(idle, 2000));
    assert_false(is_open(t.port));
    http_halt(t.http); // once is enough
    toy_stop(&t);
    close(busy);
    close(idle);
    http_halt(NULL);
    http_stop(NULL);
}

/* The halt waits for the holder of a suspended request, and for an answer that is under way. */
static void what_has_begun_is_answered_first(void **state)
{
    (void)state;
    struct toy t = {0};
    struct http_params p = toy_params(&t);
    toy_start(&t, &p);
    int later = tcp_connect(t.port), sleeping = tcp_connect(t.port);
    tcp_puts(later, "GET /later?ms=400 HTTP/1.1\r\nHost: t\r\nX-Request-Id: x\r\n\r\n");
    tcp_puts(sleeping, GET("/sleep?ms=100"));
    while (http_in_flight(t.http) < 1 || !atomic_load(&t.n_later))
        ;
    http_halt(t.http);
    assert_int_equal(http_in_flight(t.http), 0);
    answer_of(later, NULL, "later x ");
    answer_of(sleeping, NULL, "");
    assert_true(tcp_is_closed(later, 2000));
    close(later);
    close(sleeping);
    toy_stop(&t);
}

struct asker {
    struct http *h;
    _Atomic bool over;
    size_t n;
};

static void *ask(void *arg)
{
    struct asker *a = arg;
    while (!atomic_load(&a->over)) {
        a->n += http_in_flight(a->h) <= 3 && http_connections(a->h) <= 3 && http_loop_age_ms(a->h) < 60000;
    }
    return NULL;
}

/* As the admin listener's probes do, while the data listener goes. */
static void somebody_asks_meanwhile(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct toy t = {0};
        struct http_params p = toy_params(&t);
        pthread_t thread;
        toy_start(&t, &p);
        struct asker a = {.h = t.http};
        assert_int_equal(pthread_create(&thread, NULL, ask, &a), 0);
        int fd[3];
        for (int i = 0; i < 3; i++) {
            fd[i] = tcp_connect(t.port);
            answer_of(fd[i], GET("/echo"), "");
        }
        http_halt(t.http);
        atomic_store(&a.over, true);
        pthread_join(thread, NULL);
        assert_true(a.n > 0);
        for (int i = 0; i < 3; i++)
            close(fd[i]);
        toy_stop(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_halted_may_still_be_asked), cmocka_unit_test(what_has_begun_is_answered_first),
                                       cmocka_unit_test(somebody_asks_meanwhile)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
