/* compact_search.c - searching the compact layout of compact.h: alg. 5 over packed links and 16-bit codes.
 * The filtered walk and the exact scan are those of the plain graph (hnsw_search.c, flat.c), which reach links and
 * scores through hnsw_priv.h. The walk without a filter is here: it works on three hops at once. While one candidate's
 * neighbours are scored, the vectors of the next one's are on their way to the cache, and the links of the one after.
 */
#include <math.h>

#include "index/hnsw_priv.h"

#define IN_FLIGHT 3 // candidates whose links were asked for and not read yet

void hnsw_compact_query(const struct hnsw *h, const float *q, float *out)
{
    const struct compact *c = h->compact;
    float shared = 0;
    for (size_t j = 0; j < c->dim; j++) {
        shared += q[j] * c->mid[j];
        out[j] = h->metric == HNSW_L2 ? q[j] - c->mid[j] : q[j] * c->step[j];
    }
    out[c->dim] = h->metric == HNSW_L2 ? 0 : shared;
}

struct scored hnsw_compact_start(const struct hnsw *h, const float *q, struct hnsw_ws *ws)
{
    const struct compact *c = h->compact;
    size_t best = 0, n;
    float most = -INFINITY;
    for (size_t i = 0; i < c->n_seed && !ws->limit.cut; i += n) {
        n = c->n_seed - i < ROW_MAX ? c->n_seed - i : ROW_MAX;
        n = limit_take(&ws->limit, n);
        struct planes seed = {c->seed.hi + i * c->dim, c->seed.lo + i * c->dim};
        compact_scores(h, q, seed, NULL, n, ws->score);
        for (size_t j = 0; j < n; j++)
            if (ws->score[j] > most) {
                most = ws->score[j];
                best = i + j;
            }
    }
    return (struct scored){(uint32_t)(best * c->seed_step), most};
}

// ---------------------------------------------------------------------------------------------------------- walking

struct hop {
    uint32_t id[ROW_MAX]; // neighbours not seen before
    size_t n;
};

static void ask_for_links(const struct compact *c, uint32_t id)
{
    const unsigned char *row = c->link + (size_t)id * c->row;
    for (size_t i = 0; i < c->row; i += HNSW_ALIGN)
        __builtin_prefetch(row + i);
    __builtin_prefetch(row + c->row - 1);
}

static void ask_for_vectors(const struct compact *c, const uint32_t *id, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t at = (size_t)id[i] * c->dim;
        __builtin_prefetch(c->code.hi + at);
        __builtin_prefetch(c->code.lo + at);
    }
}

static void read_hop(const struct compact *c, uint32_t id, struct visited *v, struct hop *hop)
{
    unsigned all = compact_links(c, id, hop->id);
    hop->n = 0;
    for (unsigned i = 0; i < all; i++)
        __builtin_prefetch(v->tag + hop->id[i], 1);
    for (unsigned i = 0; i < all; i++) {
        uint32_t to = hop->id[i];
        hop->id[hop->n] = to;
        hop->n += visited_mark(v, to);
    }
    ask_for_vectors(c, hop->id, hop->n);
}

void hnsw_compact_walk(const struct hnsw *h, const float *q, struct scored from, size_t ef, struct hnsw_ws *ws)
{
    const struct compact *c = h->compact;
    struct pool *pool = &ws->pool;
    struct hop hop[2];
    uint32_t flying[IN_FLIGHT];
    size_t n = 0, now = 0;
    hop[0].n = hop[1].n = 0;
    hnsw_visited_begin(&ws->visited);
    visited_mark(&ws->visited, from.id);
    pool_begin(pool, ef);
    pool_insert(pool, from.score, from.id);
    for (;; now ^= 1) {
        while (n < IN_FLIGHT && !ws->limit.cut && pool_take(pool, &flying[n]))
            ask_for_links(c, flying[n++]);
        if (n == 0 && hop[now].n == 0)
            return;
        struct hop *next = &hop[now ^ 1];
        next->n = 0;
        if (n > 0) {
            read_hop(c, flying[0], &ws->visited, next);
            n--;
            for (size_t i = 0; i < n; i++)
                flying[i] = flying[i + 1];
        }
        hop[now].n = limit_take(&ws->limit, hop[now].n);
        score_ids(h, q, hop[now].id, hop[now].n, ws->score);
        for (size_t i = 0; i < hop[now].n; i++)
            pool_insert(pool, ws->score[i], hop[now].id[i]);
        hop[now].n = 0;
    }
}
