/* duet replay: recorded requests against two versions: how far apart are the answers, and how fast are they? */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/bench.h"
#include "cli/cmd.h"
#include "cli/compare.h"
#include "cli/opts.h"
#include "cli/source.h"
#include "core/base/fio.h"
#include "core/base/mem.h"
#include "core/blas.h"

static const char usage[] = "duet replay --requests FILE --a URL|DIR --b URL|DIR [options]";
static const char about[] = "FILE: one JSON object a line, a body of POST /v1/retrieve or /v1/search, or a logged record that holds "
                            "one as \"body\";\n"
                            "of a recorded batch each request by itself. Each goes to both sides, "
                            "daemons (http://...) or bundles (folders). Exit status 1 if an answer failed, or if "
                            "--min-overlap is not reached.\n";

#define FILE_MAX ((size_t)1 << 30)

struct args {
    const char *requests, *a, *b;
    uint64_t k, limit;
    double min_overlap;
    struct client_tls tls;
    bool json;
};

struct side {
    struct source *source;
    struct histogram latency;
    uint64_t failed;
    struct err first; // of its failures
};

struct replay {
    const struct args *args;
    struct side side[2];
    uint64_t n, skipped, compared, identical, same_first;
    double overlap, overlap_min, rbo, drift, drift_abs, drift_max;
    struct histogram overlap_bp; // basis points: for the worst percent
};

// --------------------------------------------------------------------------------------------------------- requests

static bool is_path(const char *path)
{
    return !path || strcmp(path, "/v1/retrieve") == 0 || strcmp(path, "/v1/search") == 0;
}

/* The requests in a line: itself, or its member "body", as an object or as text, or those of a batch there. New reference, an array;
 * empty: nothing to replay. */
static json_t *requests_of(const char *line, size_t n)
{
    json_t *v = json_parse(line, n, NULL), *body = json_object_get(v, "body"), *out = json_array(), *one = NULL;
    const char *path = json_string_value(json_object_get(v, "path"));
    if (json_is_string(body))
        one = json_parse(json_string_value(body), json_string_length(body), NULL);
    else
        one = json_incref(body ? body : v);
    if (path && strcmp(path, "/v1/retrieve:batch") == 0)
        json_array_extend(out, json_object_get(one, "requests"));
    else if (is_path(path) && json_is_object(one))
        json_array_append(out, one);
    json_decref(one);
    json_decref(v);
    return out;
}

static void adjust(json_t *request, const struct args *a)
{
    if (a->k)
        json_object_set_new(request, "k", json_integer((json_int_t)a->k));
    json_object_set_new(request, "format", json_string("rows")); // the two are compared by rows
    json_object_del(request, "fields");
}

// ---------------------------------------------------------------------------------------------------------- compare

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static json_t *ask(struct side *s, const json_t *request)
{
    struct err err = {0};
    uint64_t begun = now_ns();
    json_t *answer = source_ask(s->source, request, NULL, &err);
    histogram_add(&s->latency, now_ns() - begun);
    if (!answer && s->failed++ == 0)
        s->first = err;
    return answer;
}

static bool add(struct replay *r, const json_t *a, const json_t *b, struct err *err)
{
    struct comparison c;
    if (!compare_items(json_object_get(a, "items"), json_object_get(b, "items"), &c, err))
        return false;
    r->compared++;
    r->identical += c.identical;
    r->same_first += c.same_first;
    r->overlap += c.overlap;
    r->overlap_min = fmin(r->overlap_min, c.overlap);
    r->rbo += c.rbo;
    r->drift += c.drift;
    r->drift_abs += c.drift_abs;
    r->drift_max = fmax(r->drift_max, c.drift_max);
    histogram_add(&r->overlap_bp, (uint64_t)((1 - c.overlap) * 10000 + 0.5));
    return true;
}

static bool replay_one(struct replay *r, json_t *request, struct err *err)
{
    unsigned first = r->n++ % 2; // taking turns, so that neither side always finds warm caches
    json_t *answer[2];
    adjust(request, r->args);
    answer[first] = ask(&r->side[first], request);
    answer[!first] = ask(&r->side[!first], request);
    bool ok = !answer[0] || !answer[1] || add(r, answer[0], answer[1], err);
    json_decref(answer[0]);
    json_decref(answer[1]);
    return ok;
}

static bool is_enough(const struct replay *r)
{
    return r->args->limit && r->n >= r->args->limit;
}

static bool replay_line(struct replay *r, const char *line, size_t n, struct err *err)
{
    json_t *requests = requests_of(line, n), *one;
    bool ok = true;
    size_t i;
    r->skipped += n > 0 && json_array_size(requests) == 0;
    json_array_foreach(requests, i, one)
    {
        if (!ok || is_enough(r))
            break;
        if (json_is_object(one))
            ok = replay_one(r, one, err);
    }
    json_decref(requests);
    return ok;
}

static bool replay_all(struct replay *r, const char *text, struct err *err)
{
    bool ok = true, tty = isatty(2) && !r->args->json;
    for (const char *p = text; ok && *p && !is_enough(r);) {
        size_t n = strcspn(p, "\n");
        ok = replay_line(r, p, n, err);
        if (tty && r->n % 100 == 0)
            fprintf(stderr, "\r%llu requests", (unsigned long long)r->n);
        p += n + (p[n] == '\n');
    }
    if (tty)
        fprintf(stderr, "\r%30s\r", "");
    return ok && (r->n > 0 || err_set(err, ERR_FORMAT, "%s: no line holds a request", r->args->requests));
}

// ----------------------------------------------------------------------------------------------------------- answer

static double share(double sum, const struct replay *r)
{
    return r->compared ? sum / (double)r->compared : 0;
}

static int verdict(const struct replay *r)
{
    return r->side[0].failed || r->side[1].failed || r->compared == 0 || share(r->overlap, r) < r->args->min_overlap;
}

static void print_text(const struct replay *r)
{
    printf("%llu requests, %llu compared", (unsigned long long)r->n, (unsigned long long)r->compared);
    printf(r->skipped ? ", %llu lines skipped\n" : "\n", (unsigned long long)r->skipped);
    printf("overlap@k    mean %.4f, worst %.4f, one in a hundred below %.4f\n", share(r->overlap, r), r->overlap_min,
           1 - (double)histogram_quantile(&r->overlap_bp, 0.99) / 10000);
    printf("rank-biased  %.4f (p = 0.9)\n", share(r->rbo, r));
    printf("identical    %.1f %%, same first item %.1f %%\n", 100 * share((double)r->identical, r),
           100 * share((double)r->same_first, r));
    printf("score drift  mean %+.3g, mean absolute %.3g, largest %.3g (b - a, items in both)\n", share(r->drift, r),
           share(r->drift_abs, r), r->drift_max);
    for (int i = 0; i < 2; i++) {
        bench_print_latency(i ? "latency b" : "latency a", &r->side[i].latency);
        if (r->side[i].failed)
            printf("failed %c     %llu, first: %s\n", 'a' + i, (unsigned long long)r->side[i].failed,
                   r->side[i].first.msg);
    }
}

static void print_json(const struct replay *r)
{
    json_t *o = json_pack("{s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "requests", (json_int_t)r->n,
                          "compared", (json_int_t)r->compared, "skipped", (json_int_t)r->skipped, "overlap",
                          share(r->overlap, r), "overlap_min", r->overlap_min, "rbo", share(r->rbo, r), "identical",
                          share((double)r->identical, r), "same_first", share((double)r->same_first, r), "drift",
                          share(r->drift, r), "drift_abs", share(r->drift_abs, r), "drift_max", r->drift_max);
    for (int i = 0; i < 2; i++)
        json_object_set_new(o, i ? "b" : "a",
                            json_pack("{s:o, s:I, s:s}", "latency_ms", bench_latency_json(&r->side[i].latency),
                                      "failed", (json_int_t)r->side[i].failed, "first_failure", r->side[i].first.msg));
    json_dumpf(o, stdout, JSON_REAL_PRECISION(7));
    putchar('\n');
    json_decref(o);
}

static int run(const struct args *a)
{
    struct err err = {0};
    size_t n;
    int rc = 1;
    char *text = fio_read_all(a->requests, FILE_MAX, &n, &err);
    struct replay *r = text ? mem_array(1, sizeof(*r), &err) : NULL;
    if (r) {
        r->args = a;
        r->overlap_min = 1;
    }
    if (r && (r->side[0].source = source_open(a->a, &a->tls, &err)) && (r->side[1].source = source_open(a->b, &a->tls, &err)) &&
        replay_all(r, text, &err)) {
        (a->json ? print_json : print_text)(r);
        rc = verdict(r);
    } else {
        cmd_fail("replay", &err);
    }
    if (r) {
        source_free(r->side[0].source);
        source_free(r->side[1].source);
    }
    free(r);
    free(text);
    return rc;
}

int cmd_replay(int argc, char **argv)
{
    struct args a = {0};
    const struct opt opts[] = {
        {"requests", OPT_STR, &a.requests, "FILE", "recorded requests, one JSON object a line", 0, 0},
        {"a", OPT_STR, &a.a, "URL|DIR", "one side", 0, 0},
        {"b", OPT_STR, &a.b, "URL|DIR", "the other", 0, 0},
        CLIENT_TLS_OPTIONS(&a.tls),
        {"k", OPT_UINT, &a.k, "N", "instead of the requests' own; 0 = those", 0, 10000},
        {"limit", OPT_UINT, &a.limit, "N", "stop after so many requests; 0 = all", 0, 0},
        {"min-overlap", OPT_NUM, &a.min_overlap, "X", "exit status 1 if the mean overlap is below", 0, 1},
        {"json", OPT_FLAG, &a.json, NULL, "print JSON", 0, 0},
        {0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    if (!a.requests || !a.a || !a.b) {
        fprintf(stderr, "duet replay: --requests, --a and --b are needed\nusage: %s\n", usage);
        return 2;
    }
    blas_set_threads(1);
    return run(&a);
}
