/* live_compact.c - a new graph of what lives: the old one without its dead, and what came since added.
 *
 * Taking an element out leaves its neighbours with a link less, and those that only it led to without a way in. So who
 * linked to it may link to what it linked to (FreshDiskANN alg. 4):
 *
 *     x --> dead --> a, b, c        x's list without `dead`, and the best of a, b, c that alg. 4 would take beside the
 * others
 *
 * One for each that is lost, tested against the links that stay. Choosing the whole list again, as that paper does,
 * costs twenty times as much: of 2 % dead, half of all lists have one. At the end hnsw_repair finds who is still
 * left out. Lists are read from the old graph and written to the new one, so threads need no locks.
 *
 * With more than a quarter dead there is too little left to choose from, and all is built anew: the new graph is
 * smaller, too. */
#include <stdlib.h>
#include <string.h>

#include "index/live_priv.h"

#define MANY_DEAD 4  // one in so many: build anew
#define PIECE 1024   // elements that a thread takes at a time
#define NEAR ROW_MAX // candidates kept for one list
#define MAX_THREADS 256

struct compacting {
    const struct live_view *view;
    const struct hnsw *old;
    struct hnsw *h;   // the new one
    uint32_t *number; // [old->n] in the new one, or NO_ID: dead
    size_t n_old, n_more;
    float *more_vec;      // [n_more][dim] what is added
    uint64_t *more_label; // [n_more]
    atomic_size_t next;
};

// ------------------------------------------------------------------------------------------------- what there is

static void number_living(struct compacting *c)
{
    for (uint32_t i = 0; i < c->old->n; i++)
        c->number[i] = !c->old->removed[i] && live_view_main(c->view, c->old->label[i]) ? (uint32_t)c->n_old++ : NO_ID;
    if (c->n_old < c->old->n - c->old->n / MANY_DEAD) { // none is copied, all are added
        c->n_more = c->n_old;
        c->n_old = 0;
    }
}

static void take(struct compacting *c, size_t *n, uint64_t label, const float *vec)
{
    memcpy(c->more_vec + *n * c->old->dim, vec, c->old->dim * sizeof(*vec));
    c->more_label[(*n)++] = label;
}

static bool gather_more(struct compacting *c)
{
    bool anew = c->n_more > 0;
    for (uint32_t i = 0; i < c->view->n; i++)
        c->n_more += live_view_slot(c->view, i);
    c->more_vec = hnsw_mem_block(c->n_more, c->old->dim * sizeof(float));
    c->more_label = hnsw_mem_new(c->n_more, sizeof(*c->more_label));
    if (!c->more_vec || !c->more_label)
        return false;
    size_t n = 0;
    for (uint32_t i = 0; anew && i < c->old->n; i++)
        if (c->number[i] != NO_ID)
            take(c, &n, c->old->label[i], node_vec(c->old, i));
    for (uint32_t i = 0; i < c->view->n; i++)
        if (live_view_slot(c->view, i))
            take(c, &n, c->view->gen->label[i], c->view->gen->vec + i * c->old->dim);
    return true;
}

// ---------------------------------------------------------------------------------------------------------- copying

/* Storage of those that stay, in their order, and the entry point: the old one, or else one of the highest. */
static bool place_living(struct compacting *c)
{
    struct hnsw *h = c->h;
    size_t lists = 0;
    for (uint32_t i = 0; i < c->old->n; i++)
        lists += c->number[i] != NO_ID ? c->old->level[i] : 0;
    if (!hnsw_graph_reserve_upper(h, lists))
        return false;
    for (uint32_t i = 0; i < c->old->n; i++) {
        uint32_t id = c->number[i];
        if (id == NO_ID)
            continue;
        hnsw_graph_place(h, id, c->old->label[i], c->old->level[i]);
        hnsw_label_map_put(&h->map, h->label, id);
        if (h->level[id] > h->max_level || i == c->old->entry) {
            h->max_level = h->level[id];
            h->entry = id;
        }
    }
    h->n = c->n_old;
    return true;
}

/* Neighbours of the dead in link[n], scored against `id`, into `near`; those that stay are marked as visited. */
static void gather_near(const struct compacting *c, struct hnsw_ws *ws, uint32_t id, int level, const uint32_t *dead,
                        unsigned n_dead)
{
    pool_begin(&ws->pool, NEAR);
    for (unsigned d = 0; d < n_dead; d++) {
        const uint32_t *link = node_links(c->old, dead[d], level);
        unsigned n = 0;
        for (unsigned i = 0; i < links_cap(c->old, level) && link[i] != NO_ID; i++)
            if (c->number[link[i]] != NO_ID && visited_mark(&ws->visited, link[i]))
                ws->id[n++] = link[i];
        score_ids(c->old, node_vec(c->old, id), ws->id, n, ws->score);
        for (unsigned i = 0; i < n; i++)
            pool_insert(&ws->pool, ws->score[i], ws->id[i]);
    }
}

/* Up to n_dead of the pool to the n links: first those that point elsewhere than all others, then, as in choose() of
 * hnsw_add.c, the best of the rest while a quarter of the list stays free. Returns how many links there are. */
static unsigned replace_dead(const struct compacting *c, struct hnsw_ws *ws, uint32_t *link, unsigned n,
                             unsigned n_dead, unsigned cap)
{
    unsigned most = n + n_dead, n_other = 0, fill = cap - cap / 4;
    for (size_t i = 0; i < ws->pool.n && n < most; i++) {
        uint32_t id = key_id(ws->pool.key[i]);
        if (hnsw_diverse(c->old, id, key_score(ws->pool.key[i]), link, n))
            link[n++] = id;
        else
            ws->id[n_other++] = id;
    }
    most = most < fill ? most : fill;
    for (unsigned i = 0; i < n_other && n < most; i++)
        link[n++] = ws->id[i];
    return n;
}

static void copy_links(const struct compacting *c, struct hnsw_ws *ws, uint32_t id, int level)
{
    const uint32_t *from = node_links(c->old, id, level);
    uint32_t *to = node_links(c->h, c->number[id], level), link[ROW_MAX], dead[ROW_MAX];
    unsigned cap = links_cap(c->old, level), n = 0, n_dead = 0;
    for (unsigned i = 0; i < cap && from[i] != NO_ID; i++)
        if (c->number[from[i]] != NO_ID)
            link[n++] = from[i];
        else
            dead[n_dead++] = from[i];
    if (n_dead > 0) {
        hnsw_visited_begin(&ws->visited);
        visited_mark(&ws->visited, id);
        for (unsigned i = 0; i < n; i++)
            visited_mark(&ws->visited, link[i]);
        gather_near(c, ws, id, level, dead, n_dead);
        n = replace_dead(c, ws, link, n, n_dead, cap);
    }
    for (unsigned i = 0; i < n; i++)
        to[i] = c->number[link[i]];
}

struct copier {
    struct compacting *c;
    struct hnsw_ws *ws;
    pthread_t thread;
    bool started;
};

static void *copy_pieces(void *arg)
{
    const struct copier *w = arg;
    struct compacting *c = w->c;
    for (size_t at; (at = atomic_fetch_add(&c->next, PIECE)) < c->old->n;)
        for (size_t i = at; i < at + PIECE && i < c->old->n; i++) {
            uint32_t id = (uint32_t)i;
            if (c->number[id] == NO_ID)
                continue;
            memcpy(node_vec(c->h, c->number[id]), node_vec(c->old, id), c->old->dim * sizeof(float));
            for (int level = 0; level <= c->old->level[id]; level++)
                copy_links(c, w->ws, id, level);
        }
    return NULL;
}

static bool copy_living(struct compacting *c, unsigned threads)
{
    struct copier w[MAX_THREADS];
    bool ok = place_living(c);
    for (unsigned i = 0; i < threads; i++) {
        w[i] = (struct copier){.c = c, .ws = ok ? hnsw_ws_new() : NULL};
        ok = w[i].ws && hnsw_ws_fit(w[i].ws, c->old->n, NEAR, c->old->dim);
    }
    for (unsigned i = 1; ok && i < threads; i++) // one that cannot start leaves its share to the others
        w[i].started = pthread_create(&w[i].thread, NULL, copy_pieces, &w[i]) == 0;
    if (ok)
        copy_pieces(&w[0]);
    for (unsigned i = 0; i < threads; i++) {
        if (w[i].started)
            pthread_join(w[i].thread, NULL);
        hnsw_ws_free(w[i].ws);
    }
    return ok;
}

// ------------------------------------------------------------------------------------------------------------ making

/* Vectors that the fast layout cannot hold are searched in the plain one, or no merge would ever be made of them. */
static bool make_fast(struct hnsw *h, unsigned threads, struct hnsw_err *err)
{
    struct hnsw_err own = {0};
    return hnsw_optimize(h, HNSW_FAST, threads, &own) || own.code == HNSW_ARG || hnsw_fail(err, own.code, "%s", own.msg);
}

static struct hnsw *make(struct compacting *c, bool optimize, unsigned threads, struct hnsw_err *err)
{
    const struct hnsw *old = c->old;
    struct hnsw_params p = {.metric = old->metric,
                            .dim = old->dim,
                            .m = old->m,
                            .ef_construction = old->ef_construction,
                            .seed = old->seed};
    p.capacity = c->n_old + c->n_more;
    if (p.capacity > ID_MAX) {
        hnsw_fail(err, HNSW_FULL, "%zu elements, wanted at most %u", p.capacity, ID_MAX);
        return NULL;
    }
    if (!(c->h = hnsw_graph_new(&p, err)))
        return NULL;
    if (c->n_old > 0 && !copy_living(c, threads))
        return NULL;
    if (c->n_more > 0 && !hnsw_add_batch(c->h, c->more_vec, c->more_label, c->n_more, threads, NULL, NULL, err))
        return NULL;
    return hnsw_repair(c->h, NULL, err) && (!optimize || make_fast(c->h, threads, err)) ? c->h : NULL;
}

struct hnsw *live_compact(const struct live_view *v, bool optimize, unsigned threads, struct hnsw_err *err)
{
    struct compacting c = {.view = v, .old = v->gen->main};
    struct hnsw *made = NULL;
    threads = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
    if ((c.number = hnsw_mem_block(c.old->n, sizeof(*c.number)))) {
        number_living(&c);
        if (gather_more(&c))
            made = make(&c, optimize, threads, err);
    }
    if (!made) {
        hnsw_free(c.h);
        hnsw_fail(err, HNSW_NOMEM, "merge: no memory for %zu elements", c.n_old + c.n_more);
    }
    free(c.number);
    free(c.more_vec);
    free(c.more_label);
    return made;
}
