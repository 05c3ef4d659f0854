/* live.c - the index that changes: making, ending, changing, asking, and the thread that merges. */
#include <stdlib.h>
#include <string.h>

#include "index/live_priv.h"

#define DELTA_MOST ((size_t)1 << 30) // slots and times have 32 bits

// ------------------------------------------------------------------------------------------------------- merging

/* Half full: the other half is for what comes during the merge. Dead elements cost a search what the delta costs when
 * there are as many; beyond a tenth of the graph they cost it more. write_lock is held. */
static bool wants_merge(const struct hnsw_live *l)
{
    const struct live_gen *g = atomic_load(&l->gen);
    uint64_t head = atomic_load_explicit(&g->head, memory_order_relaxed);
    size_t dead = atomic_load_explicit(&g->n_dead, memory_order_relaxed), many = g->main->n / 10;
    bool due = live_head_n(head) >= (g->cap + 1) / 2 || dead > (many > g->cap / 2 ? many : g->cap / 2);
    return l->n_waiting > 0 || (due && live_head_time(head) >= l->not_before);
}

static void *merge_when_wanted(void *arg)
{
    struct hnsw_live *l = arg;
    for (;;) {
        pthread_mutex_lock(&l->write_lock);
        while (!l->stop && !wants_merge(l))
            pthread_cond_wait(&l->wake, &l->write_lock);
        bool stop = l->stop;
        pthread_mutex_unlock(&l->write_lock);
        if (stop)
            return NULL;
        hnsw_live_merge(l, l->params.merge_threads, NULL); // a failure is kept in l->failure
    }
}

static void wake_merger(struct hnsw_live *l)
{
    if (l->has_merger && wants_merge(l))
        pthread_cond_signal(&l->wake);
}

static bool has_room(const struct live_gen *g)
{
    return live_head_n(atomic_load_explicit(&g->head, memory_order_relaxed)) < g->cap;
}

/* The generation that has a free slot, write_lock held; or NULL. */
static struct live_gen *wait_for_room(struct hnsw_live *l, struct hnsw_err *err)
{
    size_t failed = l->n_failed;
    struct live_gen *g;
    while (!has_room(g = atomic_load(&l->gen))) {
        if (!l->has_merger || l->n_failed != failed) {
            hnsw_fail(err, HNSW_FULL, "the delta is full with %zu elements; %s", g->cap,
                      l->has_merger ? l->failure.msg : "merge it first");
            return NULL;
        }
        l->n_waiting++;
        pthread_cond_signal(&l->wake);
        pthread_cond_wait(&l->merged, &l->write_lock);
        l->n_waiting--;
    }
    return g;
}

// ------------------------------------------------------------------------------------------------- making, ending

static bool params_ok(const struct hnsw_live_params *p, struct hnsw_err *err)
{
    return p->delta_max <= DELTA_MOST ||
           hnsw_fail(err, HNSW_ARG, "delta_max is %zu, wanted at most %zu", p->delta_max, DELTA_MOST);
}

/* All but the generation; NULL: out of memory. */
static struct hnsw_live *live_alloc(const struct hnsw_live_params *p)
{
    struct hnsw_live *l = hnsw_mem_new(1, sizeof(*l));
    if (!l)
        return NULL;
    l->params = *p;
    if (!(l->epoch = live_epoch_new())) {
        free(l);
        return NULL;
    }
    pthread_mutex_init(&l->merge_lock, NULL);
    pthread_mutex_init(&l->write_lock, NULL);
    pthread_cond_init(&l->wake, NULL);
    pthread_cond_init(&l->merged, NULL);
    return l;
}

static void live_release(struct hnsw_live *l)
{
    pthread_mutex_destroy(&l->merge_lock);
    pthread_mutex_destroy(&l->write_lock);
    pthread_cond_destroy(&l->wake);
    pthread_cond_destroy(&l->merged);
    free(l->epoch);
    free(l);
}

struct hnsw_live *hnsw_live_open(struct hnsw *main, const struct hnsw_live_params *p, struct hnsw_err *err)
{
    if (!params_ok(p, err) || hnsw_compact_refuses(main, "changing", err))
        return NULL;
    struct hnsw_live *l = live_alloc(p);
    struct live_gen *g = l ? live_gen_new(main, live_delta_max(l, main), err) : NULL;
    if (g) {
        atomic_init(&l->gen, g);
        l->metric = main->metric;
        l->dim = main->dim;
        l->has_merger = p->merge_threads > 0;
        if (!l->has_merger || pthread_create(&l->merger, NULL, merge_when_wanted, l) == 0)
            return l;
        g->main = NULL; // stays the caller's
        live_gen_free(g);
    }
    if (l)
        live_release(l);
    hnsw_fail(err, HNSW_NOMEM, "no memory, or no thread, for an index that changes");
    return NULL;
}

struct hnsw_live *hnsw_live_new(const struct hnsw_params *index, const struct hnsw_live_params *p, struct hnsw_err *err)
{
    struct hnsw_params empty = *index;
    empty.capacity = 0;
    struct hnsw *main = hnsw_new(&empty, err);
    struct hnsw_live *l = main ? hnsw_live_open(main, p, err) : NULL;
    if (!l)
        hnsw_free(main);
    return l;
}

void hnsw_live_free(struct hnsw_live *l)
{
    if (!l)
        return;
    if (l->has_merger) {
        pthread_mutex_lock(&l->write_lock);
        l->stop = true;
        pthread_cond_signal(&l->wake);
        pthread_mutex_unlock(&l->write_lock);
        pthread_join(l->merger, NULL);
    }
    live_gen_free(atomic_load(&l->gen));
    live_release(l);
}

// ------------------------------------------------------------------------------------------------------- changing

bool hnsw_live_put(struct hnsw_live *l, uint64_t label, const float *vec, struct hnsw_err *err)
{
    if (!hnsw_finite(vec, l->dim))
        return hnsw_fail(err, HNSW_ARG, "the vector of label %llu has a value that is not finite, or beyond %g",
                         (unsigned long long)label, (double)HNSW_VALUE_MAX);
    pthread_mutex_lock(&l->write_lock);
    struct live_gen *g = wait_for_room(l, err);
    bool ok = g && live_gen_put(g, label, vec, err);
    wake_merger(l);
    pthread_mutex_unlock(&l->write_lock);
    return ok;
}

bool hnsw_live_remove(struct hnsw_live *l, uint64_t label, struct hnsw_err *err)
{
    pthread_mutex_lock(&l->write_lock);
    bool ok = live_gen_remove(atomic_load(&l->gen), label, err);
    wake_merger(l);
    pthread_mutex_unlock(&l->write_lock);
    return ok;
}

// --------------------------------------------------------------------------------------------------------- asking

bool hnsw_live_get_vector(const struct hnsw_live *l, uint64_t label, float *vec)
{
    atomic_size_t *inside = live_epoch_enter(l->epoch);
    struct live_view v = live_gen_view(atomic_load(&l->gen));
    const float *found = live_view_vector(&v, label);
    if (found)
        memcpy(vec, found, v.gen->main->dim * sizeof(*vec));
    live_epoch_leave(inside);
    return found != NULL;
}

size_t hnsw_live_count(const struct hnsw_live *l)
{
    atomic_size_t *inside = live_epoch_enter(l->epoch);
    size_t n = atomic_load(&atomic_load(&l->gen)->n_alive);
    live_epoch_leave(inside);
    return n;
}

size_t hnsw_live_dim(const struct hnsw_live *l)
{
    return l->dim;
}

enum hnsw_metric hnsw_live_metric(const struct hnsw_live *l)
{
    return l->metric;
}

void hnsw_live_get_stats(struct hnsw_live *l, struct hnsw_live_stats *s)
{
    pthread_mutex_lock(&l->write_lock);
    const struct live_gen *g = atomic_load(&l->gen);
    *s = (struct hnsw_live_stats){
        .count = atomic_load(&g->n_alive), .n_main = g->main->n, .n_dead = atomic_load(&g->n_dead)};
    s->n_delta = live_head_n(atomic_load(&g->head));
    s->delta_max = g->cap;
    s->n_merges = l->n_merges;
    s->n_failed = l->n_failed;
    s->merging = l->merging;
    s->last_merge_s = l->last_merge_s;
    s->bytes = sizeof(*l) + sizeof(*l->epoch) + live_gen_bytes(g);
    pthread_mutex_unlock(&l->write_lock);
}
