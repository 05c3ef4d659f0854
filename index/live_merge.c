/* live_merge.c - a new generation in place of the old one, while searches and changes go on.
 *
 *   view (T, S)      the new graph is made of what lived at T; nothing is locked
 *   write_lock       what has changed since is put and removed again in the new generation, at most a delta full: about
 * a millisecond gen = new        searches that begin now are in it; those under way finish in the old one
 *   live_epoch_wait  then the old one is freed
 *
 * A failure anywhere before `gen = new` leaves the old generation as it is. */
#include <stdlib.h>
#include <time.h>

#include "index/live_priv.h"

#define DELTA_LEAST 4096 // a scan of so many takes about a tenth of a search: bench/results.md
#define DELTA_SHARE 100  // one in so many of the graph

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

size_t live_delta_max(const struct hnsw_live *l, const struct hnsw *main)
{
    size_t n = l->params.delta_max ? l->params.delta_max : main->n / DELTA_SHARE;
    return n > DELTA_LEAST || l->params.delta_max ? n : DELTA_LEAST;
}

/* One label of the old generation's table, into the new one: only what the view did not show. */
static bool replay_label(const struct live_gen *old, const struct live_view *made_of, uint64_t label, uint32_t slot,
                         struct live_gen *new, struct hnsw_err *err)
{
    if (slot != LIVE_NO_SLOT && atomic_load_explicit(&old->dead_at[slot], memory_order_relaxed) == LIVE_ALIVE)
        return slot < made_of->n || live_gen_put(new, label, old->vec + (size_t)slot * old->main->dim, err);
    return !hnsw_vector(new->main, label) || live_gen_remove(new, label, err);
}

static bool replay(const struct live_gen *old, const struct live_view *made_of, struct live_gen *new,
                   struct hnsw_err *err)
{
    const struct live_table *t = atomic_load(&old->table);
    for (size_t i = 0; i <= t->mask; i++) {
        uint64_t word = atomic_load_explicit(&t->entry[i].word, memory_order_relaxed);
        uint64_t label = atomic_load_explicit(&t->entry[i].label, memory_order_relaxed);
        if (word && !replay_label(old, made_of, label, live_word_slot(word), new, err))
            return false;
    }
    return true;
}

static struct live_gen *make(const struct hnsw_live *l, const struct live_view *v, unsigned threads,
                             struct hnsw_err *err)
{
    struct hnsw *main = live_compact(v, l->params.optimize, threads, err);
    if (!main)
        return NULL;
    size_t cap = live_delta_max(l, main), left = v->gen->cap - v->n; // so much may come meanwhile
    struct live_gen *g = live_gen_new(main, cap > left ? cap : left, err);
    if (!g)
        hnsw_free(main);
    return g;
}

/* write_lock is held. */
static void note_end(struct hnsw_live *l, bool ok, double seconds, const struct hnsw_err *failure)
{
    l->merging = false;
    l->n_merges += ok;
    l->n_failed += !ok;
    l->not_before = 0;
    if (ok)
        l->last_merge_s = seconds;
    else {
        const struct live_gen *g = atomic_load(&l->gen);
        l->failure = *failure;
        l->not_before = live_head_time(atomic_load(&g->head)) + (uint32_t)(g->cap / 8) + 1;
    }
    pthread_cond_broadcast(&l->merged);
}

static bool anything_to_do(const struct live_gen *g)
{
    return live_head_time(atomic_load(&g->head)) > 0 || g->main->n_removed > 0;
}

bool live_merge_locked(struct hnsw_live *l, unsigned threads, struct hnsw_err *err)
{
    struct hnsw_err failure = {0};
    double start = now_s();
    pthread_mutex_lock(&l->write_lock);
    struct live_gen *old = atomic_load(&l->gen);
    struct live_view v = live_gen_view(old);
    l->merging = anything_to_do(old);
    pthread_mutex_unlock(&l->write_lock);
    if (!l->merging) // only who holds merge_lock writes it
        return true;

    struct live_gen *new = make(l, &v, threads, &failure);
    pthread_mutex_lock(&l->write_lock);
    bool ok = new &&replay(old, &v, new, &failure);
    if (ok)
        atomic_store(&l->gen, new);
    note_end(l, ok, now_s() - start, &failure);
    pthread_mutex_unlock(&l->write_lock);
    if (ok)
        live_epoch_wait(l->epoch);
    live_gen_free(ok ? old : new);
    return ok || hnsw_fail(err, failure.code, "%s", failure.msg);
}

bool hnsw_live_merge(struct hnsw_live *l, unsigned threads, struct hnsw_err *err)
{
    pthread_mutex_lock(&l->merge_lock);
    bool ok = live_merge_locked(l, threads, err);
    pthread_mutex_unlock(&l->merge_lock);
    return ok;
}

/* The graph of the merged generation is complete, and no other takes its place while merge_lock is held. */
bool hnsw_live_save(struct hnsw_live *l, const char *path, unsigned threads, struct hnsw_err *err)
{
    pthread_mutex_lock(&l->merge_lock);
    bool ok = live_merge_locked(l, threads, err) && hnsw_save(atomic_load(&l->gen)->main, path, err);
    pthread_mutex_unlock(&l->merge_lock);
    return ok;
}
