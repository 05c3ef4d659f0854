/* bench_swap.c - duet bench swap: is a reload felt?
 *
 * One thread keeps a load on the daemon; this one asks the admin listener, again and again, to reload the model to
 * another of its versions, with a pause between. Requests that begin or end while a reload is under way (and for a
 * moment after it, while the old version is taken apart) are one group, those in the pauses the other: taking turns, so
 * that whatever else the machine does meets both. Every answer's items are also compared with what the same request got
 * from the same version before: an answer made of two versions would differ from both. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/bench.h"
#include "cli/client.h"
#include "cli/cmd.h"
#include "cli/opts.h"
#include "core/base/hash.h"

static const char usage[] = "duet bench swap --url URL --admin URL --model NAME [--users FILE | --data FILE] [options]";
static const char about[] = "Reloads the model to another version and back while a load is on. Exit status 1 if an "
                            "answer failed or was mixed, or if\n"
                            "p99 during reloads is above --limit times p99 between them.\n";

#define VERSIONS_MAX 8
#define REQUESTS 300 // so that each is asked often, of either version

enum { QUIET, RELOADING, WARMING };

struct args {
    struct bench_input in;
    const char *admin, *token_file;
    uint64_t connections, rounds, timeout_ms, seed;
    double rate, pause, limit;
    bool json;
};

struct seen {
    uint64_t version, hash;
};

struct swap {
    const struct args *a;
    struct load_target target;
    struct load_requests requests;
    struct client *admin;
    uint64_t version[2]; // what is reloaded in turn
    _Atomic int phase;
    atomic_bool stop;
    struct load_result *result;
    struct err load_err;
    bool load_ok;
    // of the load's thread
    struct histogram quiet, during;
    struct seen *seen; // [requests][VERSIONS_MAX]
    uint64_t compared, mixed, degraded;
    // of this thread
    double reload_s, reload_max_s;
};

// ------------------------------------------------------------------------------------------- what the load's thread
// does

static const char *find(const char *p, size_t n, const char *text)
{
    return n ? memmem(p, n, text, strlen(text)) : NULL;
}

/* The answer's version and a hash of its items; false for answers that may rightly differ (degraded) or are none. */
static bool take_apart(struct swap *s, const struct load_answer *a, uint64_t *version, uint64_t *hash)
{
    const char *v = find(a->body, a->body_n, "\"version\":"), *items = find(a->body, a->body_n, "\"items\":");
    if (!v || !items)
        return false;
    if (!find(a->body, (size_t)(items - a->body), "\"degraded\":[]")) {
        s->degraded++;
        return false;
    }
    *version = strtoull(v + 10, NULL, 10);
    *hash = hash64(items, a->body_n - (size_t)(items - a->body));
    return true;
}

static void compare(struct swap *s, const struct load_answer *a)
{
    uint64_t version, hash;
    if (!take_apart(s, a, &version, &hash))
        return;
    struct seen *row = s->seen + (size_t)a->request * VERSIONS_MAX;
    for (int i = 0; i < VERSIONS_MAX; i++) {
        if (row[i].version == version) {
            s->compared++;
            s->mixed += row[i].hash != hash;
            return;
        }
        if (row[i].version == 0) {
            row[i] = (struct seen){version, hash};
            return;
        }
    }
}

static void on_answer(void *ctx, const struct load_answer *a)
{
    struct swap *s = ctx;
    if (a->status != 200)
        return;
    int now = atomic_load(&s->phase);
    compare(s, a);
    if (a->mark == RELOADING || now == RELOADING)
        histogram_add(&s->during, a->latency_ns);
    else if (a->mark == QUIET && now == QUIET)
        histogram_add(&s->quiet, a->latency_ns);
}

static void *load_main(void *ctx)
{
    struct swap *s = ctx;
    struct load_params p = {.target = &s->target,
                            .requests = &s->requests,
                            .connections = (unsigned)s->a->connections,
                            .rate = s->a->rate,
                            .seconds = 86400,
                            .timeout_ms = s->a->timeout_ms,
                            .seed = s->a->seed,
                            .on_answer = on_answer,
                            .ctx = s,
                            .mark = &s->phase,
                            .stop = &s->stop};
    s->load_ok = load_run(&p, s->result, &s->load_err);
    atomic_store(&s->stop, true);
    return NULL;
}

// ------------------------------------------------------------------------------------------------------------ reloads

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void sleep_s(double s)
{
    nanosleep(&(struct timespec){.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)}, NULL);
}

static json_t *find_model(const json_t *answer, const char *name)
{
    json_t *m;
    size_t i;
    json_array_foreach(json_object_get(answer, "models"), i, m)
    {
        const char *it = json_string_value(json_object_get(m, "name"));
        if (it && strcmp(it, name) == 0)
            return m;
    }
    return NULL;
}

/* The serving version and the newest other one. */
static bool choose_versions(struct swap *s, struct err *err)
{
    json_t *answer = client_json(s->admin, "GET", "/v1/admin/models", NULL, NULL, err), *v;
    if (!answer)
        return false;
    json_t *m = find_model(answer, s->a->in.model);
    size_t i;
    bool ok = m != NULL || err_set(err, ERR_NOT_FOUND, "the daemon has no model \"%s\"", s->a->in.model);
    s->version[0] = (uint64_t)json_integer_value(json_object_get(json_object_get(m, "serving"), "version"));
    json_array_foreach(json_object_get(m, "available"), i, v) if ((uint64_t)json_integer_value(v) != s->version[0] &&
                                                                  (uint64_t)json_integer_value(v) > s->version[1])
        s->version[1] = (uint64_t)json_integer_value(v);
    json_decref(answer);
    if (ok && (!s->version[0] || !s->version[1]))
        return err_set(err, ERR_STATE,
                       "model \"%s\" needs two versions to go back and forth between; publish it once more",
                       s->a->in.model);
    return ok;
}

static bool reload(struct swap *s, uint64_t version, struct err *err)
{
    struct buf path = {0};
    buf_puts(&path, "/v1/admin/models/");
    client_escape(&path, s->a->in.model);
    buf_puts(&path, ":reload?wait=true");
    json_t *body = json_pack("{s:I}", "version", (json_int_t)version);
    double begun = now_s();
    atomic_store(&s->phase, RELOADING);
    json_t *answer = path.failed || !body ? NULL : client_json(s->admin, "POST", path.data, body, NULL, err);
    double took = now_s() - begun;
    sleep_s(0.1); // the old version is taken apart
    atomic_store(&s->phase, QUIET);
    s->reload_s += took;
    s->reload_max_s = took > s->reload_max_s ? took : s->reload_max_s;
    bool ok = answer != NULL || err_set(err, ERR_NOMEM, "out of memory");
    json_decref(answer);
    json_decref(body);
    buf_fini(&path);
    return ok;
}

static bool rounds(struct swap *s, struct err *err)
{
    bool tty = isatty(2) && !s->a->json;
    sleep_s(s->a->pause < 1 ? 1 : s->a->pause); // warm-up: every request seen from the first version
    atomic_store(&s->phase, QUIET);
    for (uint64_t i = 0; i < 2 * s->a->rounds && !atomic_load(&s->stop); i++) {
        sleep_s(s->a->pause);
        if (!reload(s, s->version[(i + 1) % 2], err))
            return false;
        if (tty)
            fprintf(stderr, "\r%llu reloads   ", (unsigned long long)(i + 1));
    }
    sleep_s(s->a->pause);
    if (tty)
        fprintf(stderr, "\r%40s\r", "");
    return true;
}

// ------------------------------------------------------------------------------------------------------------ verdict

static double ratio(const struct swap *s)
{
    uint64_t quiet = histogram_quantile(&s->quiet, 0.99);
    return quiet ? (double)histogram_quantile(&s->during, 0.99) / (double)quiet : 0;
}

static bool passed(const struct swap *s)
{
    return s->during.n > 0 && s->quiet.n > 0 && s->compared > 0 && s->mixed == 0 && load_failures(s->result) == 0 &&
           ratio(s) <= s->a->limit;
}

static void print_text(const struct swap *s)
{
    uint64_t n = 2 * s->a->rounds;
    printf("%llu reloads of %s between versions %llu and %llu, %.0f ms each on average, %.0f ms the longest\n",
           (unsigned long long)n, s->a->in.model, (unsigned long long)s->version[0], (unsigned long long)s->version[1],
           s->reload_s * 1000 / (double)n, s->reload_max_s * 1000);
    bench_print_latency("between", &s->quiet);
    bench_print_latency("during", &s->during);
    printf("p99 ratio    %.2f (limit %.2f)\n", ratio(s), s->a->limit);
    printf("failures     %llu of %llu\n", (unsigned long long)load_failures(s->result),
           (unsigned long long)s->result->answered);
    bench_print_failures(s->result);
    printf("mixed        %llu of %llu compared\n", (unsigned long long)s->mixed, (unsigned long long)s->compared);
    if (s->degraded)
        printf("degraded     %llu, not compared\n", (unsigned long long)s->degraded);
    printf("verdict      %s\n", passed(s) ? "pass" : "fail");
}

static void print_json(const struct swap *s)
{
    json_t *o = json_pack("{s:I, s:f, s:f, s:o, s:o, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:o, s:b}", "reloads",
                          (json_int_t)(2 * s->a->rounds), "reload_ms", s->reload_s * 1000 / (double)(2 * s->a->rounds),
                          "reload_max_ms", s->reload_max_s * 1000, "between_ms", bench_latency_json(&s->quiet),
                          "during_ms", bench_latency_json(&s->during), "p99_ratio", ratio(s), "limit", s->a->limit,
                          "answers", (json_int_t)s->result->answered, "failed", (json_int_t)load_failures(s->result),
                          "mixed", (json_int_t)s->mixed, "compared", (json_int_t)s->compared, "degraded",
                          (json_int_t)s->degraded, "failures", bench_failures_json(s->result), "pass", (int)passed(s));
    json_dumpf(o, stdout, JSON_REAL_PRECISION(7));
    putchar('\n');
    json_decref(o);
}

static bool measure(struct swap *s, struct err *err)
{
    pthread_t thread;
    atomic_store(&s->phase, WARMING);
    if (pthread_create(&thread, NULL, load_main, s) != 0)
        return err_set(err, ERR_IO, "no thread for the load");
    bool ok = rounds(s, err);
    atomic_store(&s->stop, true);
    pthread_join(thread, NULL);
    if (!s->load_ok)
        return err_set(err, s->load_err.code, "%s", s->load_err.msg);
    return ok;
}

static bool prepare(struct swap *s, struct err *err)
{
    const struct args *a = s->a;
    return (s->result = mem_array(1, sizeof(*s->result), err)) && bench_read(&a->in, &s->target, &s->requests, err) &&
           (s->seen = mem_array((size_t)s->requests.n * VERSIONS_MAX, sizeof(*s->seen), err)) && client_setup(err) &&
           (s->admin = client_new(a->admin, &a->in.tls, err)) &&
           (!a->token_file || client_read_token(s->admin, a->token_file, err)) && choose_versions(s, err);
}

static int run(const struct args *a)
{
    struct err err = {0};
    struct swap *s = mem_array(1, sizeof(*s), &err);
    int rc = 1;
    if (!s)
        return cmd_fail("bench swap", &err);
    s->a = a;
    if (prepare(s, &err) && measure(s, &err)) {
        if (a->json)
            print_json(s);
        else
            print_text(s);
        rc = passed(s) ? 0 : 1;
    } else {
        cmd_fail("bench swap", &err);
    }
    client_free(s->admin);
    load_requests_fini(&s->requests);
    load_target_fini(&s->target);
    free(s->seen);
    free(s->result);
    free(s);
    return rc;
}

int bench_swap(int argc, char **argv)
{
    struct args a = {.in.k = 100,
                     .in.most = REQUESTS,
                     .connections = 16,
                     .rate = 500,
                     .rounds = 10,
                     .pause = 0.5,
                     .limit = 1.2,
                     .timeout_ms = 10000,
                     .seed = 1};
    const struct opt opts[] = {
        {"url", OPT_STR, &a.in.url, "URL", "the daemon's data listener", 0, 0},
        {"admin", OPT_STR, &a.admin, "URL", "its admin listener", 0, 0},
        CLIENT_TLS_OPTIONS(&a.in.tls),
        {"token-file", OPT_STR, &a.token_file, "FILE", "the admin's bearer token", 0, 0},
        {"model", OPT_STR, &a.in.model, "NAME", "model to ask and to reload; it needs two versions", 0, 0},
        {"users", OPT_STR, &a.in.users, "FILE", "user ids, one a line", 0, 0},
        {"data", OPT_STR, &a.in.data, "FILE", "a dataset's users", 0, 0},
        {"k", OPT_UINT, &a.in.k, "N", "items of an answer", 1, 10000},
        {"ef", OPT_UINT, &a.in.ef, "N", "breadth of the search; 0 = the bundle's own", 0, 1e6},
        {"connections", OPT_UINT, &a.connections, "N", "kept-alive connections", 1, 60000},
        {"rate", OPT_NUM, &a.rate, "N", "requests a second; 0 = closed loop", 0, 1e7},
        {"rounds", OPT_UINT, &a.rounds, "N", "times to the other version and back", 1, 100000},
        {"pause", OPT_NUM, &a.pause, "N", "seconds between reloads", 0.05, 3600},
        {"limit", OPT_NUM, &a.limit, "N", "p99 during reloads over p99 between them that passes", 0.0001, 1e6},
        {"timeout-ms", OPT_UINT, &a.timeout_ms, "N", "an answer that takes longer is a failure", 1, 600000},
        {"seed", OPT_UINT, &a.seed, "N", "order of the requests", 0, 0},
        {"json", OPT_FLAG, &a.json, NULL, "print JSON", 0, 0},
        {0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    if (!a.in.url || !a.admin || !a.in.model) {
        fprintf(stderr, "duet bench swap: --url, --admin and --model are needed\nusage: %s\n", usage);
        return 2;
    }
    return run(&a);
}
