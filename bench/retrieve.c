/* Question: what does the work itself cost that duetd does for a request - the user's tower and the walk through the
 * index - in a loop in one process? What the service is measured against (bench/service.sh), and how many of the true
 * top k it finds.
 *
 *     bench_retrieve BUNDLE [k=100] [ef=150] [seconds=3] [layout=fast|compact|plain] [users=200]
 *
 * Prints one JSON object: `bare` is tower_forward and hnsw_search alone, `topk` is retrieve_topk, which finds the user
 * by id and drops what is excluded; both in requests a second of the thread's CPU time, taking turns; `recall` is over
 * `users` of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/util.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/blas.h"
#include "core/retrieve.h"

#define TURN 500 // requests between two looks at the clock
#define HIT_TOLERANCE 1e-5f

struct bench {
    struct bundle *b;
    struct tower_ws *tower;
    struct hnsw_ws *search;
    struct retrieve_ws *ws;
    struct hnsw_hit *found;
    struct retrieve_hit *hit, *exact;
    size_t k, ef;
    struct rng r;
    double sum; // of scores, so that no work can be left out
};

static void die(const char *what)
{
    fprintf(stderr, "bench_retrieve: %s\n", what);
    exit(1);
}

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void bare(struct bench *x, uint32_t u)
{
    const struct bundle *b = x->b;
    const struct tower *t = &b->model->user;
    const struct hnsw_query query = {.k = x->k, .ef = x->ef};
    float p[HNSW_DIM_MAX];
    struct hnsw_err e = {0};
    tower_forward(t, b->users->x + (size_t)u * t->shape.n_slots, b->users->aug + (size_t)u * t->shape.d_aug, 1,
                  x->tower, p);
    if (hnsw_search(b->hnsw, p, &query, x->search, x->found, &e) == 0)
        die(e.msg);
    x->sum += (double)x->found[0].score;
}

static void topk(struct bench *x, uint32_t u, bool exact, struct retrieve_hit *hit, struct retrieve_result *r)
{
    struct err e = {0};
    const struct retrieve_query q = {
        .user_id = strtab_get(&x->b->users->ids, u), .k = x->k, .ef = x->ef, .exact = exact};
    if (!retrieve_topk(x->b, &q, x->ws, hit, r, &e))
        die(e.msg);
    x->sum += (double)hit[0].score;
}

static double recall(struct bench *x, uint32_t n_users)
{
    size_t hits = 0;
    struct retrieve_result r;
    for (uint32_t i = 0; i < n_users; i++) {
        uint32_t u = rng_below(&x->r, x->b->users->n);
        topk(x, u, true, x->exact, &r);
        topk(x, u, false, x->hit, &r);
        for (size_t j = 0; j < r.n; j++)
            hits += x->hit[j].score >= x->exact[x->k - 1].score - HIT_TOLERANCE;
    }
    return (double)hits / ((double)n_users * (double)x->k);
}

int main(int argc, char **argv)
{
    struct err e = {0};
    struct retrieve_result r;
    struct bundle_load_params p = {.threads = 2};
    if (argc < 2 || !bundle_layout_parse(bench_option(argc, argv, "layout", "compact"), &p.layout))
        die("usage: bench_retrieve BUNDLE [k=N] [ef=N] [seconds=N] [layout=fast|compact|plain] [users=N]");
    struct bench x = {.k = strtoul(bench_option(argc, argv, "k", "100"), NULL, 10),
                      .ef = strtoul(bench_option(argc, argv, "ef", "150"), NULL, 10)};
    double seconds = strtod(bench_option(argc, argv, "seconds", "3"), NULL);
    blas_set_threads(1);
    if (!(x.b = bundle_load(argv[1], &p, &e)))
        die(e.msg);
    if (x.b->model->stored || !x.b->users->aug || x.b->users->n == 0)
        die("the bundle has no users with a_u and a tower");
    x.tower = tower_ws_new(&x.b->model->user, 1, &e);
    x.search = hnsw_ws_new();
    x.ws = retrieve_ws_new(x.b, &e);
    x.found = mem_array(x.k, sizeof(*x.found), &e);
    x.hit = mem_array(x.k, sizeof(*x.hit), &e);
    x.exact = mem_array(x.k, sizeof(*x.exact), &e);
    if (!x.tower || !x.search || !x.ws || !x.found || !x.hit || !x.exact)
        die("out of memory");
    rng_init(&x.r, 1);
    double found = recall(&x, (uint32_t)strtoul(bench_option(argc, argv, "users", "200"), NULL, 10)), spent[2] = {0};
    size_t n = 0;
    for (; spent[0] + spent[1] < seconds; n += TURN) {
        double from = cpu_s();
        for (int i = 0; i < TURN; i++)
            bare(&x, rng_below(&x.r, x.b->users->n));
        double to = cpu_s();
        for (int i = 0; i < TURN; i++)
            topk(&x, rng_below(&x.r, x.b->users->n), false, x.hit, &r);
        spent[0] += to - from;
        spent[1] += cpu_s() - to;
    }
    printf("{\"k\": %zu, \"ef\": %zu, \"layout\": \"%s\", \"recall\": %.5f, \"bare\": %.1f, \"topk\": %.1f}\n", x.k,
           x.ef, bundle_layout_name(x.b->layout), found, (double)n / spent[0], (double)n / spent[1]);
    tower_ws_free(x.tower);
    hnsw_ws_free(x.search);
    retrieve_ws_free(x.ws);
    free(x.found);
    free(x.hit);
    free(x.exact);
    bundle_free(x.b);
    return x.sum > 0 ? 0 : 1;
}
