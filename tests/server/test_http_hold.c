/* If this fails, answers of one turn are sent one by one, wait too long for each other, or are lost, or one that is alone waits. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/server/tcp.h"
#include "tests/server/toy.h"

#define MANY 30
#define CROWD 320
#define HOLD_MAX 8       // HTTP_HOLD_MAX
#define LONG_US 60000000 // no test takes so long

static struct toy toy;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER; // held: GET /gate stands still
static _Atomic unsigned n_at_gate, n_handled;
static int fd[CROWD + 1], n_fd;     // the last one is for the gate
static unsigned sent_before[CROWD]; // answers that their clients had when the handler of request i began
static uint64_t lag_ns[CROWD];
static unsigned spin_ms;           // of each handler
static void (*at_request)(unsigned i); // in its handler

static bool has_answer(int client)
{
    char byte;
    return client >= 0 && recv(client, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
}

static void *complete(void *pending)
{
    struct http_response resp = {.status = 200};
    buf_puts(&resp.body, http_pending_request(pending)->body);
    http_complete(pending, &resp);
    atomic_fetch_sub(&toy.n_later, 1);
    return NULL;
}

static bool on_request(void *ctx, struct http_request *r, struct http_response *resp)
{
    pthread_t thread;
    (void)ctx;
    resp->status = 200;
    buf_puts(&resp->body, r->body);
    if (strcmp(r->path, "/gate") == 0) {
        atomic_fetch_add(&n_at_gate, 1);
        pthread_mutex_lock(&gate);
        pthread_mutex_unlock(&gate);
    }
    if (strcmp(r->path, "/later") == 0) {
        atomic_fetch_add(&toy.n_later, 1);
        assert_int_equal(pthread_create(&thread, NULL, complete, http_suspend(r)), 0);
        pthread_detach(thread);
        return false;
    }
    if (strcmp(r->path, "/look") != 0)
        return true;
    unsigned i = (unsigned)atoi(r->body);
    sent_before[i] = 0;
    for (int j = 0; j < n_fd - 1; j++)
        sent_before[i] += has_answer(fd[j]);
    lag_ns[i] = r->lag_ns;
    if (at_request)
        at_request(i);
    for (uint64_t begun = test_now_ms(); spin_ms && test_now_ms() <= begun + spin_ms;)
        ;
    atomic_fetch_add(&n_handled, 1);
    return true;
}

static void say(int to, const char *path, int i)
{
    char text[200];
    int n = snprintf(text, sizeof(text), "POST %s HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n%03d", path, i);
    tcp_send(to, text, (size_t)n);
}

static void expect(int from, int i)
{
    struct reply r;
    char want[16];
    snprintf(want, sizeof(want), "%03d", i);
    tcp_read_reply(from, &r, 30000, false);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body, want);
    reply_fini(&r);
}

static void start_with(int n, unsigned hold_us)
{
    memset(&toy, 0, sizeof(toy));
    struct http_params p = toy_params(&toy);
    n_at_gate = n_handled = spin_ms = 0;
    at_request = NULL;
    p.threads = 1;
    p.handler = on_request;
    p.hold_us = hold_us;
    p.header_ms = p.body_ms = p.idle_ms = 60000;
    toy_start(&toy, &p);
    n_fd = n + 1;
    for (int i = 0; i < n_fd; i++) {
        fd[i] = tcp_connect(toy.port);
        say(fd[i], "/hello", i);
        expect(fd[i], i);
    }
}

static void start(unsigned hold_us)
{
    start_with(MANY, hold_us);
}

static void stop(void)
{
    toy_stop(&toy);
    for (int i = 0; i < n_fd; i++)
        close(fd[i]);
}

/* The first n clients ask at once: the loop stands at a gate meanwhile. */
static void ask(int n, const char *path)
{
    unsigned before = atomic_load(&n_at_gate);
    pthread_mutex_lock(&gate);
    say(fd[n_fd - 1], "/gate", 0);
    while (atomic_load(&n_at_gate) == before)
        ;
    for (int i = 0; i < n; i++)
        say(fd[i], path, i);
    pthread_mutex_unlock(&gate);
    expect(fd[n_fd - 1], 0);
}

static void answers_of_a_turn_are_sent_together(void **state)
{
    (void)state;
    start(LONG_US);
    ask(MANY, "/look");
    while (atomic_load(&n_handled) < MANY) // handlers look for answers that nobody has read
        ;
    for (int i = 0; i < MANY; i++)
        expect(fd[i], i);
    for (unsigned i = 0; i < MANY; i++) { // the first by itself, then HOLD_MAX each time
        unsigned want = i == 0 ? 0 : 1 + (i - 1) / HOLD_MAX * HOLD_MAX;
        if (sent_before[i] != want)
            fail_msg("before request %u %u answers were sent, want %u", i, sent_before[i], want);
    }
    for (int i = 0; i < 3; i++) { // nobody is left to wait for
        say(fd[i], "/look", i);
        expect(fd[i], i);
    }
    stop();
}

/* Who waits is asked in every turn, so a crowd in groups of HOLD_MAX costs more the larger it is. */
static void a_crowd_is_sent_in_larger_groups(void **state)
{
    (void)state;
    unsigned n_groups = 0;
    start_with(CROWD, LONG_US);
    ask(CROWD, "/look");
    while (atomic_load(&n_handled) < CROWD) // handlers look for answers that nobody has read
        ;
    for (int i = 0; i < CROWD; i++)
        expect(fd[i], i);
    for (unsigned i = 0; i < CROWD; i++)
        n_groups += i == 0 || sent_before[i] != sent_before[i - 1];
    assert_in_range(n_groups, 10, 25); // 41 of HOLD_MAX
    stop();
}

/* Not for longer than hold_us and a handler, and the lag counts that wait. */
static void slow_handlers_hold_nothing_up(void **state)
{
    (void)state;
    start(0);
    spin_ms = 2;
    ask(MANY, "/look");
    while (atomic_load(&n_handled) < MANY) // handlers look for answers that nobody has read
        ;
    for (int i = 0; i < MANY; i++)
        expect(fd[i], i);
    for (unsigned i = 3; i < MANY; i++) {
        assert_true(sent_before[i] + 2 >= i); // but for the last two
        assert_true(lag_ns[i] > lag_ns[i - 1]);
    }
    assert_true(lag_ns[MANY - 1] > UINT64_C(2000000) * (MANY - 1));
    stop();
}

static void another_asks(unsigned i)
{
    if (i == 2)
        say(fd[3], "/look", 3);
}

/* What comes while held answers are under way is handled after they are sent, however few they are. */
static void nobody_comes_between(void **state)
{
    (void)state;
    start(LONG_US);
    at_request = another_asks;
    ask(3, "/look");
    while (atomic_load(&n_handled) < 4)
        ;
    assert_int_equal(sent_before[3], 3);
    for (int i = 0; i < 4; i++)
        expect(fd[i], i);
    stop();
}

static void suspended_ones_are_completed(void **state)
{
    (void)state;
    start(LONG_US);
    for (int round = 0; round < 5; round++) {
        ask(MANY, round % 2 ? "/look" : "/later");
        for (int i = 0; i < MANY; i++)
            expect(fd[i], i);
    }
    stop();
}

/* In the handler of request 5: some whose answers are held, and some that no handler has seen. */
static void some_hang_up(unsigned i)
{
    static const int who[] = {2, 4, 7, 12, MANY - 1};
    struct linger now = {.l_onoff = 1};
    for (size_t j = 0; i == 5 && j < sizeof(who) / sizeof(who[0]); j++) {
        setsockopt(fd[who[j]], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        close(fd[who[j]]);
        fd[who[j]] = -1;
    }
}

static void clients_may_leave_meanwhile(void **state)
{
    (void)state;
    start(LONG_US);
    at_request = some_hang_up;
    ask(MANY, "/look");
    for (int i = 0; i < MANY; i++)
        if (fd[i] >= 0)
            expect(fd[i], i);
    while (http_connections(toy.http) != MANY + 1 - 5 || http_in_flight(toy.http))
        ;
    say(fd[0], "/hello", 0);
    expect(fd[0], 0);
    assert_int_equal(toy.n_done, MANY + 1 + 1 + n_handled + 1); // whoever a handler has answered is counted
    stop();
}

static void *halt(void *http)
{
    http_halt(http);
    return NULL;
}

static void stop_while_all_wait(unsigned hold_us, unsigned ms)
{
    pthread_t thread;
    start(hold_us);
    spin_ms = ms;
    pthread_mutex_lock(&gate);
    say(fd[MANY], "/gate", 0);
    while (atomic_load(&n_at_gate) == 0)
        ;
    for (int i = 0; i < MANY; i++)
        say(fd[i], "/look", i);
    assert_int_equal(pthread_create(&thread, NULL, halt, toy.http), 0);
    pthread_mutex_unlock(&gate);
    expect(fd[MANY], 0);
    for (int i = 0; i < MANY; i++)
        expect(fd[i], i);
    pthread_join(thread, NULL);
    assert_int_equal(http_in_flight(toy.http), 0);
    assert_int_equal(http_connections(toy.http), 0);
    stop();
}

static void a_stop_answers_all(void **state)
{
    (void)state;
    stop_while_all_wait(LONG_US, 0);
    stop_while_all_wait(0, 100); // three seconds: longer than answers that are being written are waited for
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(answers_of_a_turn_are_sent_together), cmocka_unit_test(a_crowd_is_sent_in_larger_groups),
                                       cmocka_unit_test(slow_handlers_hold_nothing_up), cmocka_unit_test(nobody_comes_between), cmocka_unit_test(suspended_ones_are_completed),
                                       cmocka_unit_test(clients_may_leave_meanwhile),
                                       cmocka_unit_test(a_stop_answers_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
