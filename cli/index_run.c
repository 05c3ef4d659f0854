/* index_run.c - every query of a file against an index, by several threads. */
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cli/index_cmd.h"
#include "cli/progress.h"
#include "core/base/mem.h"
#include "train/pool.h"

unsigned index_cores(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > POOL_THREADS_MAX ? POOL_THREADS_MAX : (unsigned)n;
}

#define GROUP 32 // queries that a thread takes at a time where they are answered together

struct worker {
    struct hnsw_ws *ws;
    struct histogram latency;
    struct hnsw_err err;
    size_t found[GROUP];
};

struct running {
    struct index_run *r;
    struct worker *worker; // [threads]
    atomic_size_t next;    // query
    struct progress progress;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The queries i .. i + n - 1, whose latency nobody asks for. */
static void scan_together(struct index_run *r, struct worker *w, size_t i, size_t n)
{
    struct hnsw_query p = r->p;
    p.plan = HNSW_PLAN_SCAN;
    (void)hnsw_search_batch(r->h, hnsw_vecs_row(r->query, i), n, &p, w->ws, r->hit + i * p.k, w->found, &w->err);
}

static void search_one(struct index_run *r, struct worker *w, size_t i)
{
    uint64_t before = now_ns();
    (r->exact ? hnsw_search_exact : hnsw_search)(r->h, hnsw_vecs_row(r->query, i), &r->p, w->ws, r->hit + i * r->p.k, &w->err);
    histogram_add(&w->latency, now_ns() - before);
}

static void work(void *ctx, unsigned t)
{
    struct running *s = ctx;
    struct index_run *r = s->r;
    struct worker *w = &s->worker[t];
    size_t n = hnsw_vecs_n(r->query), some = r->together ? GROUP : 1, i;
    while ((i = atomic_fetch_add_explicit(&s->next, some, memory_order_relaxed)) < n && w->err.code == HNSW_OK) {
        if (r->together)
            scan_together(r, w, i, n - i < some ? n - i : some);
        else
            search_one(r, w, i);
        if (t == 0 && r->stage)
            progress_show(&s->progress, r->stage, (double)i / (double)n);
    }
}

bool index_run(struct index_run *r, struct err *err)
{
    struct running s = {.r = r, .progress = progress_start("index")};
    size_t n = hnsw_vecs_n(r->query);
    if (r->p.k > hnsw_count(r->h))
        return err_set(err, ERR_ARG, "-k: found %zu, want at most the index's %zu elements", r->p.k, hnsw_count(r->h));
    r->hit = mem_array(n, r->p.k * sizeof(*r->hit), err);
    s.worker = mem_array(r->threads, sizeof(*s.worker), err);
    struct pool *pool = r->hit && s.worker ? pool_new(r->threads, err) : NULL;
    bool ok = pool != NULL;
    for (unsigned t = 0; ok && t < r->threads; t++)
        ok = (s.worker[t].ws = hnsw_ws_new()) || err_set(err, ERR_NOMEM, "out of memory");
    if (ok) {
        uint64_t start = now_ns();
        pool_run(pool, work, &s);
        r->seconds = (double)(now_ns() - start) * 1e-9;
        if (r->stage)
            progress_show(&s.progress, r->stage, 1);
    }
    for (unsigned t = 0; s.worker && t < r->threads; t++) {
        if (s.worker[t].err.code != HNSW_OK)
            ok = index_err(&s.worker[t].err, err);
        histogram_merge(&r->latency, &s.worker[t].latency);
        hnsw_ws_free(s.worker[t].ws);
    }
    pool_free(pool);
    free(s.worker);
    return ok;
}
