#include "server/record.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/utf8.h"
#include "server/exposure.h"
#include "server/jsonw.h"

struct recorder {
    struct exposure *slow, *all; // NULL = no such file
    _Atomic uint64_t slow_ns, slow_sample, sample;
};

/* What an answer depends on beside its body. Who asked (Authorization, X-Api-Key) is never written. */
static const char *const headers[] = {"Accept", "X-Experiment-Override", "X-Request-Timeout-Ms", "traceparent"};

// ------------------------------------------------------------------------------------------------------- a line

static uint64_t unix_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void put_headers(struct buf *b, const struct http_request *r)
{
    bool first = true;
    JSONW_LIT(b, ",\"headers\":{");
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        const char *v = http_header(r, headers[i]);
        if (!v || !utf8_valid(v, strlen(v)))
            continue;
        if (!first)
            JSONW_LIT(b, ",");
        first = false;
        jsonw_text(b, headers[i]);
        JSONW_LIT(b, ":");
        jsonw_text(b, v);
    }
    JSONW_LIT(b, "}");
}

/* As it came: it has been read, so it is JSON, and its line ends stand between tokens. */
static void put_body(struct buf *b, const struct http_request *r)
{
    JSONW_LIT(b, ",\"body_bytes\":");
    jsonw_uint(b, r->body_len);
    JSONW_LIT(b, ",\"body\":");
    if (r->body_len > RECORD_BODY_MAX || !buf_reserve(b, r->body_len)) {
        JSONW_LIT(b, "null");
        return;
    }
    char *at = b->data + b->len;
    buf_put(b, r->body, r->body_len);
    for (size_t i = 0; i < r->body_len; i++)
        if (at[i] == '\n' || at[i] == '\r')
            at[i] = ' ';
}

/* What a line tells beside the request itself. */
struct about {
    const struct serve_choice *c; // NULL: a batch
    const struct retrieve_result *res;
    size_t n_requests; // of a batch
    unsigned status;
    uint64_t total_ns;
};

static void put_times(struct buf *b, const struct retrieve_result *res)
{
    buf_printf(b, ",\"embed_ms\":%.3f,\"search_ms\":%.3f", (double)res->embed_ns / 1e6, (double)res->search_ns / 1e6);
}

static void put_result(struct buf *b, const struct retrieve_result *res)
{
    JSONW_LIT(b, ",\"ef_used\":");
    if (res->ef_used)
        jsonw_uint(b, res->ef_used);
    else
        JSONW_LIT(b, "null");
    JSONW_LIT(b, ",\"fallback\":");
    jsonw_text(b, retrieve_fallback_name(res->fallback));
    JSONW_LIT(b, ",\"returned\":");
    jsonw_uint(b, res->n);
}

static void put_model(struct buf *b, const struct serve_choice *c)
{
    JSONW_LIT(b, ",\"model\":");
    jsonw_text(b, c->g->model[c->model].name);
    JSONW_LIT(b, ",\"version\":");
    jsonw_uint(b, c->loaded->bundle->manifest.version);
}

static void put_line(struct buf *b, const char *why, const struct http_request *r, const struct about *x)
{
    buf_reset(b);
    JSONW_LIT(b, "{\"ts_ms\":");
    jsonw_uint(b, unix_ms());
    JSONW_LIT(b, ",\"why\":");
    jsonw_text(b, why);
    JSONW_LIT(b, ",\"request_id\":");
    jsonw_text(b, r->id);
    JSONW_LIT(b, ",");
    trace_put(b, &r->trace);
    JSONW_LIT(b, "\"path\":");
    jsonw_text(b, r->path);
    buf_printf(b, ",\"status\":%u,\"ms\":%.3f,\"lag_ms\":%.3f", x->status, (double)x->total_ns / 1e6, (double)r->lag_ns / 1e6);
    if (x->c) {
        put_model(b, x->c);
    } else {
        JSONW_LIT(b, ",\"requests\":");
        jsonw_uint(b, x->n_requests);
    }
    if (x->status == 200)
        put_times(b, x->res);
    if (x->status == 200 && x->c)
        put_result(b, x->res);
    put_headers(b, r);
    put_body(b, r);
    JSONW_LIT(b, "}\n");
}

// ------------------------------------------------------------------------------------------------------- loops

/* The first, and then one in so many. */
static bool turn_of(uint64_t *turn, const _Atomic uint64_t *sample)
{
    return (*turn)++ % atomic_load_explicit(sample, memory_order_relaxed) == 0;
}

static void record(struct recorder *rec, unsigned shard, const struct http_request *r, struct serve_state *s, struct about *x)
{
    x->total_ns = app_now_ns() - r->start_ns;
    bool slow = rec->slow && x->total_ns > atomic_load_explicit(&rec->slow_ns, memory_order_relaxed) &&
                turn_of(&s->slow_turn, &rec->slow_sample);
    bool sampled = rec->all && x->status == 200 && turn_of(&s->record_turn, &rec->sample);
    struct exposure *to[2] = {slow ? rec->slow : NULL, sampled ? rec->all : NULL};
    for (int i = 0; i < 2; i++) {
        if (!to[i])
            continue;
        put_line(&s->line, i ? "sample" : "slow", r, x);
        if (!s->line.failed)
            exposure_put(to[i], shard, s->line.data, s->line.len);
    }
}

void record_request(struct recorder *rec, unsigned shard, const struct http_request *r, const struct serve_choice *c,
                    struct serve_state *s, const struct http_response *resp)
{
    struct about x = {.c = c, .res = &s->result, .status = resp->status};
    if (rec)
        record(rec, shard, r, s, &x);
}

void record_batch(struct recorder *rec, unsigned shard, const struct http_request *r, size_t n, const struct retrieve_result *sum,
                  struct serve_state *s, const struct http_response *resp)
{
    struct about x = {.res = sum, .n_requests = n, .status = resp->status};
    if (rec)
        record(rec, shard, r, s, &x);
}

// ------------------------------------------------------------------------------------------------------- life

static bool open_log(struct exposure **out, const struct record_params *p, const struct record_file *f, const struct exposure_names *names,
                     struct err *err)
{
    struct exposure_params x = {.names = names, .path = f->path, .max_bytes = f->max_bytes, .keep = f->keep, .kafka = {"", "", ""},
                                .n_rings = p->n_rings, .sample = 1, .metrics = p->metrics, .log = p->log};
    return !f->path[0] || (*out = exposure_new(&x, err)) != NULL;
}

#define NAMES(key, label)                                                                                              \
    {                                                                                                                  \
        .path_key = key ".path", .failed = key "_failed", .works = key "_works", .labels = "log=\"" label "\",",       \
        .lines = "duet_recorded_requests_total", .lines_help = "Requests that were written down for replay.",          \
        .dropped = "duet_recorded_requests_dropped_total",                                                             \
        .dropped_help = "Requests that were to be written down and were lost, by reason.", .thread = "recorded requests" \
    }

struct recorder *recorder_new(const struct record_params *p, struct err *err)
{
    static const struct exposure_names slow = NAMES("slow_log", "slow"), all = NAMES("record", "sample");
    struct recorder *rec = mem_array(1, sizeof(*rec), err);
    if (!rec)
        return NULL;
    record_tune(rec, &p->rates);
    if (open_log(&rec->slow, p, &p->slow, &slow, err) && open_log(&rec->all, p, &p->all, &all, err))
        return rec;
    recorder_free(rec);
    return NULL;
}

void recorder_free(struct recorder *rec)
{
    if (!rec)
        return;
    exposure_free(rec->slow);
    exposure_free(rec->all);
    free(rec);
}

void record_tune(struct recorder *rec, const struct record_rates *rates)
{
    if (!rec)
        return;
    atomic_store_explicit(&rec->slow_ns, rates->slow_ms * 1000000, memory_order_relaxed);
    atomic_store_explicit(&rec->slow_sample, rates->slow_sample, memory_order_relaxed);
    atomic_store_explicit(&rec->sample, rates->sample, memory_order_relaxed);
}

void record_reopen(struct recorder *rec)
{
    if (!rec)
        return;
    exposure_reopen(rec->slow);
    exposure_reopen(rec->all);
}
