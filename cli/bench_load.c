/* bench_load.c - duet bench load: how many requests a second, and how long each waits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench.h"
#include "cli/cmd.h"
#include "cli/opts.h"

static const char usage[] =
    "duet bench load --url URL [--users FILE | --data FILE | --requests FILE | --get PATH] [options]";
static const char about[] =
    "Without --rate: closed loop, each connection sends its next request when it has its answer. With --rate: open "
    "loop, latency\n"
    "counts from when a request was due, so a stall is charged for all that had to wait for it.\n"
    "Exit status 1 if any request failed.\n";

struct args {
    struct bench_input in;
    uint64_t connections, timeout_ms, seed, pid;
    double rate, seconds, warmup;
    bool json;
};

/* User and system time of a process so far; -1: there is none. */
static double cpu_seconds(uint64_t pid)
{
    char path[64], text[1024];
    unsigned long long user = 0, sys = 0;
    snprintf(path, sizeof(path), "/proc/%llu/stat", (unsigned long long)pid);
    FILE *f = pid ? fopen(path, "r") : NULL;
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    const char *p = strrchr(text, ')'); // the name may hold anything
    if (!p || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &sys) != 2)
        return -1;
    return (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
}

struct progress {
    const struct args *a;
    double cpu_before; // when the warm-up was over
    bool tty;
};

static void on_second(void *ctx, double elapsed, const struct load_result *r)
{
    struct progress *p = ctx;
    char text[32];
    if (p->tty)
        fprintf(stderr, "\r%4.0f s  %llu answers, p99 %s, %llu failed   ", elapsed, (unsigned long long)r->answered,
                bench_ms(histogram_quantile(&r->latency, 0.99), text), (unsigned long long)load_failures(r));
}

static void print_text(const struct args *a, const struct load_target *t, const struct load_result *r, double cpu)
{
    if (a->rate > 0)
        printf("open loop, %g requests/s, %llu connections, %.1f s after %.1f s of warm-up, %s\n", a->rate,
               (unsigned long long)a->connections, r->seconds, a->warmup, t->host);
    else
        printf("closed loop, %llu connections, %.1f s after %.1f s of warm-up, %s\n",
               (unsigned long long)a->connections, r->seconds, a->warmup, t->host);
    printf("answers      %llu, %.1f a second, %.1f MB/s\n", (unsigned long long)r->answered,
           r->seconds > 0 ? (double)r->answered / r->seconds : 0,
           r->seconds > 0 ? (double)r->bytes * 1e-6 / r->seconds : 0);
    bench_print_latency("latency", &r->latency);
    if (a->rate > 0)
        bench_print_latency("once sent", &r->service);
    if (cpu > 0)
        printf("server CPU   %.2f s, %.0f answers a CPU second\n", cpu, (double)r->answered / cpu);
    bench_print_failures(r);
}

static int print_json(const struct args *a, const struct load_result *r, double cpu)
{
    json_t *o = json_pack("{s:s, s:I, s:f, s:f, s:I, s:f, s:I, s:o, s:o, s:o}", "loop", a->rate > 0 ? "open" : "closed",
                          "connections", (json_int_t)a->connections, "rate", a->rate, "seconds", r->seconds, "answers",
                          (json_int_t)r->answered, "answers_per_second",
                          r->seconds > 0 ? (double)r->answered / r->seconds : 0.0, "failed",
                          (json_int_t)load_failures(r), "latency_ms", bench_latency_json(&r->latency), "service_ms",
                          bench_latency_json(&r->service), "failures", bench_failures_json(r));
    if (cpu > 0) {
        json_object_set_new(o, "server_cpu_seconds", json_real(cpu));
        json_object_set_new(o, "answers_per_cpu_second", json_real((double)r->answered / cpu));
    }
    int rc = json_dumpf(o, stdout, JSON_REAL_PRECISION(7)) == 0 && putchar('\n') != EOF ? 0 : 1;
    json_decref(o);
    return rc;
}

/* The warm-up is a run of its own, so that the server's CPU time can be read between the two. */
static bool measure(const struct args *a, const struct load_target *t, const struct load_requests *q,
                    struct load_result *r, double *cpu, struct err *err)
{
    struct progress progress = {.a = a, .tty = isatty(2) && !a->json};
    struct load_params p = {.target = t,
                            .requests = q,
                            .connections = (unsigned)a->connections,
                            .rate = a->rate,
                            .seconds = a->warmup,
                            .timeout_ms = a->timeout_ms,
                            .seed = a->seed + 1};
    bool ok = a->warmup <= 0 || load_run(&p, r, err);
    memset(r, 0, sizeof(*r));
    p.seconds = a->seconds;
    p.seed = a->seed;
    p.on_second = on_second;
    p.ctx = &progress;
    double before = cpu_seconds(a->pid);
    ok = ok && load_run(&p, r, err);
    double after = cpu_seconds(a->pid);
    *cpu = before >= 0 && after > before ? after - before : 0;
    if (progress.tty)
        fprintf(stderr, "\r%60s\r", "");
    return ok;
}

static int run(const struct args *a)
{
    struct err err = {0};
    struct load_target t = {0};
    struct load_requests q = {0};
    struct load_result *r = mem_array(1, sizeof(*r), &err);
    double cpu = 0;
    int rc = 1;
    if (r && bench_read(&a->in, &t, &q, &err) && measure(a, &t, &q, r, &cpu, &err)) {
        if (a->json)
            print_json(a, r, cpu);
        else
            print_text(a, &t, r, cpu);
        rc = load_failures(r) > 0 || r->answered == 0;
    } else {
        cmd_fail("bench load", &err);
    }
    load_requests_fini(&q);
    load_target_fini(&t);
    free(r);
    return rc;
}

int bench_load(int argc, char **argv)
{
    struct args a = {.in.k = 100, .connections = 16, .timeout_ms = 10000, .seconds = 10, .warmup = 1, .seed = 1};
    const struct opt opts[] = {
        {"url", OPT_STR, &a.in.url, "URL", "the daemon's data listener, as http://127.0.0.1:8080", 0, 0},
        CLIENT_TLS_OPTIONS(&a.in.tls),
        {"users", OPT_STR, &a.in.users, "FILE", "user ids, one a line", 0, 0},
        {"data", OPT_STR, &a.in.data, "FILE", "a dataset's users", 0, 0},
        {"requests", OPT_STR, &a.in.requests, "FILE", "request bodies, one JSON object a line", 0, 0},
        {"get", OPT_STR, &a.in.get, "PATH", "GET this path instead", 0, 0},
        {"path", OPT_STR, &a.in.path, "PATH", "POST there instead of /v1/retrieve", 0, 0},
        {"model", OPT_STR, &a.in.model, "NAME", "ask this model, not what experiments say", 0, 0},
        {"k", OPT_UINT, &a.in.k, "N", "items of an answer", 1, 10000},
        {"ef", OPT_UINT, &a.in.ef, "N", "breadth of the search; 0 = the bundle's own", 0, 1e6},
        {"connections", OPT_UINT, &a.connections, "N", "kept-alive connections", 1, 60000},
        {"rate", OPT_NUM, &a.rate, "N", "requests a second, all connections together; 0 = closed loop", 0, 1e7},
        {"seconds", OPT_NUM, &a.seconds, "N", "measured time", 0.1, 86400},
        {"warmup", OPT_NUM, &a.warmup, "N", "seconds before that, not counted", 0, 3600},
        {"timeout-ms", OPT_UINT, &a.timeout_ms, "N", "an answer that takes longer is a failure", 1, 600000},
        {"seed", OPT_UINT, &a.seed, "N", "order of the requests", 0, 0},
        {"pid", OPT_UINT, &a.pid, "PID", "the server's process on this machine: also say answers a CPU second", 1,
         4194304},
        {"json", OPT_FLAG, &a.json, NULL, "print JSON", 0, 0},
        {0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    if (!a.in.url) {
        fprintf(stderr, "duet bench load: --url is needed\nusage: %s\n", usage);
        return 2;
    }
    return run(&a);
}
