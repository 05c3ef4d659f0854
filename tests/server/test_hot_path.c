/* If this fails, an ordinary request allocates once its loop is warm, or one that finds no memory is not answered by 503 (or not at all),
 * leaks, or spoils the next. */
#include "tests/core/support.h"

#include <unistd.h>

#include "tests/server/live.h"

static char *dir;

#define VECTOR "[0.1,0,0,0,0.5,0,0,0,0,0,0.3,0,0,0,0,-1]"
#define TRACE "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
#define FIFTY "01234567890123456789012345678901234567890123456789"
#define LONG FIFTY FIFTY FIFTY FIFTY FIFTY FIFTY FIFTY FIFTY FIFTY FIFTY FIFTY FIFTY
#define ONE "{\"user_id\":\"u3\",\"k\":40}"

/* What is answered on the event loop. Experiments, an exposure log and a shadow variant are on, every request is written down twice, and
 * none named `model`. */
static const struct shape {
    const char *name, *path, *headers, *body;
    unsigned status;
} shapes[] = {
    {"known user", "/v1/retrieve", "", "{\"user_id\":\"u1\",\"k\":50}", 200},
    {"history", "/v1/retrieve", "", "{\"user_id\":\"x\",\"history\":[\"i5\",\"i6\",7],\"k\":50}", 200},
    {"features", "/v1/retrieve", "", "{\"features\":{\"city\":\"S\\u0048\",\"age\":25,\"likes\":[\"tea\",\"c\\u0061ts\"]},\"k\":50}", 200},
    {"popular", "/v1/retrieve", "", "{\"user_id\":\"stranger\",\"k\":50}", 200},
    {"filter", "/v1/retrieve", "",
     "{\"user_id\":\"u1\",\"k\":50,\"filter\":{\"or\":[{\"field\":\"class\",\"in\":[\"food\"]},{\"not\":{\"field\":\"price\",\"lt\":90,\"gte\":1}}]}}", 200},
    {"narrow filter", "/v1/retrieve", "", "{\"user_id\":\"u2\",\"filter\":{\"field\":\"price\",\"lt\":3}}", 200},
    {"include", "/v1/retrieve", "", "{\"user_id\":\"u1\",\"include_ids\":[\"i1\",\"i2\",\"i3\",\"none\"]}", 200},
    {"exclude", "/v1/retrieve", "", "{\"user_id\":\"u1\",\"exclude_ids\":[\"i1\",2,\"i3\"],\"exclude_seen\":true,\"min_score\":-0.5}", 200},
    {"exact", "/v1/retrieve", "", "{\"user_id\":\"u1\",\"exact\":true}", 200},
    {"recall", "/v1/retrieve", "", "{\"user_id\":\"u1\",\"target_recall\":0.9}", 200},
    {"bounds", "/v1/retrieve", "", "{\"user_id\":\"u1\",\"max_per_category\":4,\"categories\":{\"food\":{\"min\":2,\"max\":3},\"movie\":{\"max\":0}}}", 200},
    {"columns", "/v1/retrieve", "", "{\"user_id\":\"u1\",\"format\":\"columns\",\"fields\":[\"title\",\"category\"]}", 200},
    {"rows", "/v1/retrieve", "X-Request-Id: abc\r\n", "{\"user_id\":\"u1\",\"fields\":[\"title\",\"tags\",\"price\"]}", 200},
    {"trace", "/v1/retrieve", TRACE, "{\"user_id\":\"u1\",\"k\":50}", 200},
    {"binary", "/v1/retrieve", "Accept: application/octet-stream\r\n", "{\"user_id\":\"u1\"}", 200},
    {"model", "/v1/retrieve", "", "{\"user_id\":\"u1\",\"model\":\"dat\"}", 200},
    {"override", "/v1/retrieve", "X-Experiment-Override: main=b\r\n", "{\"user_id\":\"u1\"}", 200},
    {"batch", "/v1/retrieve:batch", TRACE,
     "{\"requests\":[" ONE "," ONE ",{\"k\":3},{\"kk\":1},{\"user_id\":\"x\",\"history\":[\"i1\"]},{\"user_id\":\"u9\",\"max_per_category\":3},{\"features\":{\"city\":\"SH\"}},7]}", 200},
    {"search", "/v1/search", "", "{\"vector\":" VECTOR ",\"k\":20,\"filter\":{\"field\":\"category\",\"not_in\":[\"food\"]}}", 200},
    {"score", "/v1/score", "", "{\"user_id\":\"u1\",\"item_ids\":[\"i1\",\"i2\",3,\"none\"]}", 200},
    {"similar", "/v1/items/i7/similar?k=30", "", "", 200},
    {"long target", "/v1/items/" LONG "/similar", "", "", 404}, // longer than what a connection starts with
    {"embed", "/v1/users:embed", "", "{\"user_id\":\"u1\",\"features\":{\"city\":\"SH\"}}", 200},
    {"fault", "/v1/retrieve", "", "{\"user_id\":\"u1\",\"kk\":1}", 400},
    {"no such model", "/v1/retrieve", "", "{\"model\":\"dot\"}", 404},
    {"no such route", "/v1/nothing", "", "", 404},
};
#define N_SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static int setup(void **state)
{
    tmp_setup(state);
    dir = *state;
    live_publish(dir);
    return 0;
}

static void start(void)
{
    static char yaml[3 * PATH_MAX + 640];
    snprintf(yaml, sizeof(yaml),
             "exposure: {path: %s/exposures}\nslow_log: {path: %s/slow, threshold_ms: 0}\nrecord: {path: %s/recorded, sample: 1}\nexperiments: [{name: main, salt: s, variants: [{name: a, weight: 50}, {name: b, weight: 50, ef: 90},"
             "{name: s, weight: 0, ef: 200, shadow: true}]}, {name: other, salt: t, variants: [{name: x, weight: 100, filter: {field: price, lt: 500}}]}]\n",
             dir, dir, dir);
    live_start(dir, yaml);
    atomic_store(&live_app.log.level, LOG_ERROR + 1); // hundreds of lines that memory is short
}

static void ask(int fd, const struct shape *s, unsigned want)
{
    struct reply r;
    live_call(fd, s->path, s->headers, s->body, &r);
    if (r.status != want)
        fail_msg("%s: %u, want %u: %s", s->name, r.status, want, r.body ? r.body : "");
    reply_fini(&r);
}

static void a_warm_loop_allocates_nothing(void **state)
{
    (void)state;
    start();
    int fd = live_connect();
    for (int round = 0; round < 40; round++) // all in turn, until the shadow's queue has met them too
        for (size_t i = 0; i < N_SHAPES; i++)
            ask(fd, &shapes[i], shapes[i].status);
    for (size_t i = 0; i < N_SHAPES; i++) {
        alloc_watch_reset();
        for (int n = 0; n < 20; n++)
            ask(fd, &shapes[i], shapes[i].status);
        if (alloc_watch_seen())
            fail_msg("%s: %zu allocations in 20 requests", shapes[i].name, alloc_watch_seen());
    }
    close(fd);
    live_stop();
}

/* One request on a cold loop whose n-th allocation fails. True: it came to that. */
static bool starved(const struct shape *s, size_t n)
{
    static const struct shape first = {"models", "/v1/models/dat/ready", "", "", 200}; // from here on the loop is watched
    struct reply r;
    start();
    int fd = live_connect();
    ask(fd, &first, 200);
    alloc_watch_fail_at(n);
    live_call(fd, s->path, s->headers, s->body, &r);
    bool failed = alloc_watch_failed();
    alloc_watch_fail_at(0);
    // what is only beside the answer - exposures, shadows - is lost without a word; a connection without a buffer closes
    if (r.status != s->status && !(failed && (r.status == 503 || r.status == 0)))
        fail_msg("%s, allocation %zu: %u %s", s->name, n, r.status, r.body ? r.body : "");
    char wait[16];
    if (r.status == 503 && (!strstr(r.body, "\"out_of_memory\"") || !reply_header(&r, "Retry-After", wait, sizeof(wait))[0]))
        fail_msg("%s, allocation %zu: %s", s->name, n, r.body);
    reply_fini(&r);
    close(fd);
    fd = live_connect();
    ask(fd, s, s->status);
    close(fd);
    live_stop();
    return failed;
}

static void lack_of_memory_is_an_answer(void **state)
{
    (void)state;
#ifdef DUET_SANITIZED // a start takes its time there
    static const char *const some[] = {"binary", "bounds", "batch"};
#else
    static const char *const some[] = {"rows", "binary", "bounds", "batch", "score", "similar", "long target", "embed", "override"};
#endif
    size_t n_failed = 0;
    for (size_t i = 0; i < N_SHAPES; i++) {
        bool chosen = false;
        for (size_t j = 0; j < sizeof(some) / sizeof(some[0]); j++)
            chosen = chosen || strcmp(shapes[i].name, some[j]) == 0;
        for (size_t n = 1; chosen && starved(&shapes[i], n); n++)
            n_failed++;
    }
    print_message("%zu allocations failed\n", n_failed);
    assert_true(n_failed > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_warm_loop_allocates_nothing), cmocka_unit_test(lack_of_memory_is_an_answer)};
    return cmocka_run_group_tests(tests, setup, tmp_teardown);
}
