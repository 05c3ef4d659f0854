/* If this fails, heavy requests hold up an event loop, wait without bound, are computed though their time is up, or are lost when the daemon
 * stops. */
#include "tests/core/support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "core/base/mem.h"
#include "server/app.h"
#include "server/route.h"
#include "server/workers.h"
#include "tests/server/tcp.h"

static struct app app;
static struct workers *pool;
static _Atomic unsigned n_submitted, n_begun;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER; // held: workers stand still
static size_t queue = 2;

/* On a worker: waits at the gate, then tells what it got. */
static bool heavy(struct app *a, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    const struct thread_state *t = r->thread_state;
    (void)a, (void)m;
    atomic_fetch_add(&n_begun, 1);
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    resp->status = 200;
    buf_printf(&resp->body, "%s %s %s", r->id, r->body, t->is_worker && t->shard ? "worker" : "loop");
    return true;
}

static bool submit(struct app *a, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    (void)a, (void)m;
    bool answered = workers_submit(pool, heavy, r, resp);
    atomic_fetch_add(&n_submitted, 1);
    return answered;
}

static bool start_pool(struct app *a, struct err *err)
{
    return (pool = workers_new(a, queue, err)) != NULL;
}

static void stop_accepting(struct app *a)
{
    (void)a;
    if (pool)
        workers_stop_accepting(pool);
}

static void stop_pool(struct app *a)
{
    (void)a;
    workers_free(pool);
    pool = NULL;
}

static const struct route routes[] = {{.method = HTTP_POST, .pattern = "/v1/heavy", .on = ROUTE_DATA, .name = "heavy", .handler = submit}, {.handler = NULL}};
static const struct service service = {.routes = routes, .start = start_pool, .stop_accepting = stop_accepting, .stop = stop_pool};

static void start(void)
{
    static const char text[] = "data: {port: 0, threads: 1}\nadmin: {port: 0}\nlog: {level: error}\nworkers: {threads: 1}\nhttp: {deadline_ms: 60000}\n";
    struct err e = {0};
    struct config *c = config_parse(text, strlen(text), "t.yaml", NULL, NULL, 0, &e);
    assert_ok(c, &e);
    n_submitted = n_begun = 0;
    assert_ok(app_init(&app, c, &service, &e), &e);
    assert_ok(app_listen(&app, &e), &e);
    assert_ok(app_start_service(&app, &e), &e);
}

/* Sends one and waits until the loop has taken it. */
static int send_one(const char *headers, char name)
{
    char text[256];
    unsigned before = atomic_load(&n_submitted);
    int fd = tcp_connect(http_port(app_listener(&app, false)));
    int n = snprintf(text, sizeof(text), "POST /v1/heavy HTTP/1.1\r\nHost: t\r\nX-Request-Id: id-%c\r\n%sContent-Length: 1\r\n\r\n%c", name, headers, name);
    tcp_send(fd, text, (size_t)n);
    while (atomic_load(&n_submitted) == before)
        ;
    return fd;
}

static void expect(int fd, unsigned status, const char *says)
{
    struct reply r;
    char wait[16];
    tcp_read_reply(fd, &r, 10000, false);
    if (r.status != status || !strstr(r.body, says))
        fail_msg("%u %s, want %u %s", r.status, r.body ? r.body : "", status, says);
    assert_int_equal(status == 503, reply_header(&r, "Retry-After", wait, sizeof(wait))[0] != '\0');
    reply_fini(&r);
    close(fd);
}

static void expect_metric(const char *line)
{
    struct reply r;
    tcp_get(http_port(app_listener(&app, true)), "/metrics", &r);
    if (!strstr(r.body, line))
        fail_msg("no %s in /metrics", line);
    reply_fini(&r);
}

/* The one worker stands at the gate with the first of these. */
static int occupy(void)
{
    unsigned before = atomic_load(&n_begun);
    pthread_mutex_lock(&gate);
    int fd = send_one("", '0');
    while (atomic_load(&n_begun) == before)
        ;
    return fd;
}

static void requests_run_on_workers_in_turn(void **state)
{
    (void)state;
    start();
    expect(send_one("", 'a'), 200, "id-a a worker");
    int first = occupy(), second = send_one("", 'b'), third = send_one("", 'c');
    expect_metric("\nduet_workers_queue_length 2\n");
    pthread_mutex_unlock(&gate);
    expect(first, 200, "id-0 0 worker");
    expect(second, 200, "id-b b worker");
    expect(third, 200, "id-c c worker");
    expect_metric("\nduet_workers_queue_length 0\n");
    expect_metric("\nduet_workers_wait_seconds_count 4\n");
    app_fini(&app);
}

static void a_full_queue_refuses(void **state)
{
    (void)state;
    start();
    int first = occupy(), second = send_one("", 'b'), third = send_one("", 'c');
    expect(send_one("", 'd'), 503, "\"queue_full\"");
    expect_metric("duet_requests_refused_total{reason=\"queue_full\"} 1\n");
    pthread_mutex_unlock(&gate);
    expect(first, 200, "0 worker");
    expect(second, 200, "b worker");
    expect(third, 200, "c worker");
    expect(send_one("", 'e'), 200, "e worker");
    app_fini(&app);
}

static void what_comes_too_late_is_not_computed(void **state)
{
    (void)state;
    start();
    int first = occupy(), late = send_one("X-Request-Timeout-Ms: 1\r\n", 'b');
    uint64_t begun = test_now_ms();
    while (test_now_ms() < begun + 5) // its millisecond passes
        ;
    pthread_mutex_unlock(&gate);
    expect(first, 200, "0 worker");
    expect(late, 504, "\"deadline_exceeded\"");
    assert_int_equal(n_begun, 1);
    expect_metric("duet_requests_refused_total{reason=\"deadline\"} 1\n");
    app_fini(&app);
}

static void a_stop_answers_all(void **state)
{
    (void)state;
    start();
    int first = occupy(), second = send_one("", 'b'), third = send_one("", 'c');
    workers_stop_accepting(pool);
    expect(second, 503, "\"draining\"");
    expect(third, 503, "\"draining\"");
    expect(send_one("", 'd'), 503, "\"draining\"");
    pthread_mutex_unlock(&gate);
    expect(first, 200, "0 worker"); // what had begun is done
    app_fini(&app);
    assert_null(pool);
}

static void lack_of_memory_is_an_error(void **state)
{
    (void)state;
    start();
    size_t n = 1;
    for (struct workers *w = NULL; !w; n++) {
        struct err e = {0};
        alloc_fail_at(n);
        w = workers_new(&app, 3, &e);
        bool failed = alloc_failed();
        alloc_fail_at(0);
        assert_int_equal(failed, w == NULL); // but for metrics: they are there already
        assert_int_equal(e.code, w ? ERR_OK : ERR_NOMEM);
        workers_free(w);
        if (n > 50)
            fail_msg("it never worked");
    }
    assert_true(n > 4);
    workers_free(NULL);
    app_fini(&app);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(requests_run_on_workers_in_turn), cmocka_unit_test(a_full_queue_refuses),
                                       cmocka_unit_test(what_comes_too_late_is_not_computed), cmocka_unit_test(a_stop_answers_all),
                                       cmocka_unit_test(lack_of_memory_is_an_error)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
