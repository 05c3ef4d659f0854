/* shadow.c - the queue between loops and the shadow thread, and what that thread does with a request. */
#include "server/shadow.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server/agreement.h"
#include "server/tally.h"
#include "server/ticker.h"

#define TICK_MS 20
#define NICE 19

/* A request that was answered, and by what it is to be answered again. Counted: table, served, shadow. */
struct job {
    struct experiment_table *table;
    size_t experiment, variant;
    struct loaded *served, *shadow;
    char *body; // [n_body], NUL behind it
    size_t n_body, cap_body;
    struct retrieve_hit *hit; // [n_hit], items of `served`
    size_t n_hit, cap_hit, k;
};

struct shadow {
    struct app *app;
    metric_id busy, failed;
    struct ticker *thread;
    pthread_mutex_t lock; // guards queue, head, n, most_body, most_hits
    struct job queue[SHADOW_QUEUE];
    size_t head, n;
    size_t most_body, most_hits; // of any job: a slot that grows takes so much, so that each has grown enough once it was used
    // the thread's
    bool niced;
    struct job job;
    struct query query;
    struct retrieve_ws *ws; // of ws_for, which is counted; both NULL while there is nothing to do
    struct loaded *ws_for;
    struct retrieve_hit *hit;
    size_t cap_hit;
    struct agreement_scratch scratch;
};

// ------------------------------------------------------------------------------------------------------- loops

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static bool fill(struct shadow *s, struct job *j, struct str body, const struct serve_choice *c, const struct serve_state *ss)
{
    s->most_body = larger(s->most_body, body.n + 1);
    s->most_hits = larger(s->most_hits, ss->result.n);
    if (!serve_room((void **)&j->body, &j->cap_body, s->most_body, 1) ||
        !serve_room((void **)&j->hit, &j->cap_hit, s->most_hits, sizeof(*j->hit)))
        return false;
    j->n_body = body.n;
    memcpy(j->body, body.p, body.n);
    j->body[body.n] = '\0';
    j->n_hit = ss->result.n;
    if (j->n_hit)
        memcpy(j->hit, ss->hit, j->n_hit * sizeof(*j->hit));
    j->table = experiment_table_ref(c->g->experiments);
    j->served = loaded_ref(c->loaded);
    return true;
}

/* False: no room, or somebody else is at it. */
static bool put(struct shadow *s, struct str body, const struct serve_choice *c, const struct serve_state *ss, size_t experiment,
                size_t variant, struct loaded *shadow, size_t k)
{
    if (body.n > SHADOW_BODY_MAX || pthread_mutex_trylock(&s->lock) != 0)
        return false;
    struct job *j = &s->queue[(s->head + s->n) % SHADOW_QUEUE];
    bool ok = s->n < SHADOW_QUEUE && fill(s, j, body, c, ss);
    if (ok) {
        j->experiment = experiment;
        j->variant = variant;
        j->shadow = loaded_ref(shadow);
        j->k = k;
        s->n++;
    }
    pthread_mutex_unlock(&s->lock);
    return ok;
}

/* A share of the answers, evenly: multiples of the golden ratio. */
static bool chosen(uint64_t turn, uint32_t share)
{
    uint64_t x = turn * 0x9E3779B97F4A7C15u;
    return (x >> 32) * EXPERIMENT_BUCKETS >> 32 < share;
}

void shadow_offer(struct shadow *s, unsigned shard, struct str body, const struct serve_choice *c, struct serve_state *ss, size_t k)
{
    if (c->a.n == 0 || !experiment_table_has_shadow(c->g->experiments))
        return;
    if (ss->query->full_ef) // there is no capacity to spare, and an answer of less ef would be compared
        return;
    ss->shadow_turn++;
    for (size_t i = 0; i < c->a.n; i++) {
        const struct experiment *e = experiment_table_get(c->g->experiments, i);
        for (size_t v = 0; v < e->n_variants; v++) {
            const struct experiment_variant *x = &e->variant[v];
            if (!x->shadow || c->a.variant[i] == EXPERIMENT_NO_OWNER || c->a.overridden[i] || !chosen(ss->shadow_turn, x->share))
                continue;
            int m = x->model[0] ? generation_find(c->g, x->model, strlen(x->model)) : (int)c->model;
            struct loaded *loaded = m >= 0 ? c->g->model[m].loaded : NULL;
            if (!loaded)
                metrics_add(s->app->metrics, shard, s->failed, 1);
            else if (!put(s, body, c, ss, i, v, loaded, k))
                metrics_add(s->app->metrics, shard, s->busy, 1);
        }
    }
}

// ------------------------------------------------------------------------------------------------------- thread

static void release(struct job *j)
{
    experiment_table_unref(j->table);
    loaded_unref(j->served);
    loaded_unref(j->shadow);
    j->table = NULL;
    j->served = j->shadow = NULL;
}

/* The oldest job, its slot left with our buffers. */
static bool take(struct shadow *s)
{
    pthread_mutex_lock(&s->lock);
    bool any = s->n > 0;
    if (any) {
        struct job empty = s->job;
        s->job = s->queue[s->head];
        s->queue[s->head] = empty;
        s->head = (s->head + 1) % SHADOW_QUEUE;
        s->n--;
    }
    pthread_mutex_unlock(&s->lock);
    return any;
}

static void drop_ws(struct shadow *s)
{
    retrieve_ws_free(s->ws);
    loaded_unref(s->ws_for);
    s->ws = NULL;
    s->ws_for = NULL;
}

/* Of our own: the pool's are for loops, and its lock is not for a thread that may be kept waiting while it holds it. */
static bool need_ws(struct shadow *s, struct err *err)
{
    if (s->ws_for == s->job.shadow)
        return true;
    drop_ws(s);
    if (!(s->ws = retrieve_ws_new(s->job.shadow->bundle, err)))
        return false;
    s->ws_for = loaded_ref(s->job.shadow);
    return true;
}

/* The request as if its user had got the shadow variant. */
static bool ask(struct shadow *s, struct retrieve_query *rq, struct err *err)
{
    const struct job *j = &s->job;
    const struct experiment *e = experiment_table_get(j->table, j->experiment);
    char override[2 * EXPERIMENT_NAME_MAX + 2];
    struct experiment_assignment a;
    struct wire_error wrong = {0};
    snprintf(override, sizeof(override), "%s=%s", e->name, e->variant[j->variant].name);
    if (!serve_parse(s->app, QUERY_RETRIEVE, j->body, j->n_body, &s->query, &wrong) ||
        !experiment_assign(j->table, s->query.user_id.p, s->query.user_id.n, override, &a, err))
        return false;
    a.k = (uint32_t)j->k;
    return serve_resolve_as(s->app, &s->query, &a, j->shadow, rq, &wrong);
}

/* Items of the served bundle by the numbers that the shadow's gives them. */
static void translate(struct job *j)
{
    const struct items *from = j->served->bundle->items, *to = j->shadow->bundle->items;
    if (from == to)
        return;
    for (size_t i = 0; i < j->n_hit; i++) {
        struct str id = strtab_get(&from->ids, j->hit[i].item_idx);
        j->hit[i].item_idx = items_find(to, id.p, id.n);
    }
}

static bool compare(struct shadow *s, struct agreement *g)
{
    struct job *j = &s->job;
    struct retrieve_query rq;
    struct retrieve_result res = {0};
    struct err err = {0};
    if (!ask(s, &rq, &err) || !need_ws(s, &err) || !serve_room((void **)&s->hit, &s->cap_hit, rq.k, sizeof(*s->hit)) ||
        !retrieve_topk(j->shadow->bundle, &rq, s->ws, s->hit, &res, &err))
        return false;
    translate(j);
    return agreement_of(j->hit, j->n_hit, s->hit, res.n, &s->scratch, g);
}

static void tell(struct shadow *s, const struct agreement *g)
{
    static const char gauge_help[] = "Mean over the comparisons of a shadow variant, the last thousand weighing most.";
    const struct experiment *e = experiment_table_get(s->job.table, s->job.experiment);
    struct metrics *m = s->app->metrics;
    struct tally_shadow mean;
    char labels[2 * EXPERIMENT_NAME_MAX + 40];
    tally_shadow_add(e->tally, s->job.variant, g, &mean);
    snprintf(labels, sizeof(labels), "experiment=\"%s\",variant=\"%s\"", e->name, e->variant[s->job.variant].name);
    metrics_add(m, 0, metrics_counter(m, "duet_shadow_compared_total", "Answers that were compared with a shadow variant's.", labels), 1);
    metrics_set(m, metrics_gauge(m, "duet_shadow_overlap", gauge_help, labels), mean.overlap);
    metrics_set(m, metrics_gauge(m, "duet_shadow_rbo", gauge_help, labels), mean.rbo);
    metrics_set(m, metrics_gauge(m, "duet_shadow_score_drift", gauge_help, labels), mean.drift);
}

static void turn(void *ctx)
{
    struct shadow *s = ctx;
    struct agreement g;
    if (!s->niced)
        s->niced = setpriority(PRIO_PROCESS, (id_t)gettid(), NICE) == 0; // Linux: of this thread
    while (take(s)) {
        if (compare(s, &g))
            tell(s, &g);
        else
            metrics_add(s->app->metrics, 0, s->failed, 1);
        release(&s->job);
    }
    drop_ws(s); // or a bundle that was replaced would stay
}

// ------------------------------------------------------------------------------------------------------- life

struct shadow *shadow_new(struct app *app, struct err *err)
{
    static const char name[] = "duet_shadow_dropped_total", help[] = "Comparisons with shadow variants that were not made, by reason.";
    struct shadow *s = mem_array(1, sizeof(*s), err);
    if (!s)
        return NULL;
    s->app = app;
    s->busy = metrics_counter(app->metrics, name, help, "reason=\"busy\"");
    s->failed = metrics_counter(app->metrics, name, help, "reason=\"failed\"");
    pthread_mutex_init(&s->lock, NULL);
    query_init(&s->query);
    if ((s->thread = ticker_new(TICK_MS, turn, s, "shadow variants", err)) != NULL)
        return s;
    shadow_free(s);
    return NULL;
}

static void free_job(struct job *j)
{
    release(j);
    free(j->body);
    free(j->hit);
}

void shadow_free(struct shadow *s)
{
    if (!s)
        return;
    ticker_free(s->thread);
    free_job(&s->job);
    for (size_t i = 0; i < SHADOW_QUEUE; i++)
        free_job(&s->queue[i]);
    drop_ws(s);
    query_fini(&s->query);
    free(s->hit);
    agreement_scratch_fini(&s->scratch);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
