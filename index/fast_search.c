/* fast_search.c - walking the fast layout of fast.h: alg. 5 with codes.
 *
 * Differences from hnsw_walk:
 * - Instead of coming down through the levels, the codes of all elements of a high level are scanned and the best
 * begin.
 * - A candidate is not expanded at once: its block is asked for, and while it comes, others that were asked for before
 * are scored. What a block would have changed in the choice of the next two comes two steps late; nearly all would be
 * expanded anyway.
 * - The pool keeps somewhat more than k even where ef does not, so that the codes' errors cost no recall; those are
 *   scored exactly at the end.
 * - There is no table of visited elements. An element's score by code is the same whenever it is met, so its place in
 * the pool is where it is if it is there, and if it has been pushed out it is not above the worst. `seen`, a few KB in
 * the first-level cache, only spares most of those attempts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

#define IN_FLIGHT 4 // blocks asked for and not scored yet: one iteration is shorter than memory takes, two are not
#define STARTS 8    // best of the scan, where the walk begins

struct walk {
    const struct fast *p;
    hnsw_fast_hop_fn *hop;
    const int8_t *q;
    float scale;
    struct limit *limit;
    struct shelf *pool;
    float above; // score of the worst of a full pool
    uint32_t *seen, mask;
    const unsigned char *asking; // rest of the block that is being asked for
    size_t left;
    uint32_t id[ROW_MAX + FAST_GROUP]; // of one hop
    float score[ROW_MAX + FAST_GROUP];
};

float hnsw_fast_encode_query(const struct hnsw *h, const float *q, int8_t *code)
{
    const struct fast *p = h->fast;
    float most = 0;
    for (size_t j = 0; j < h->dim; j++)
        most = fmaxf(most, fabsf(q[j] * p->step[j]));
    float inv = most > 0 ? 127 / most : 0;
    memset(code, 0, 4 * (size_t)p->words);
    for (size_t j = 0; j < h->dim; j++)
        code[j] = (int8_t)lrintf(q[j] * p->step[j] * inv);
    return most / 127 * (h->metric == HNSW_L2 ? 2 : 1);
}

static inline void ask_some(struct walk *w, size_t lines)
{
    for (; lines > 0 && w->left > 0; lines--, w->left--, w->asking += HNSW_ALIGN)
        __builtin_prefetch(w->asking);
}

static inline void offer_all(struct walk *w, size_t n)
{
    struct shelf *pool = w->pool;
    for (size_t i = 0; i < n; i++)
        if (w->score[i] > w->above) {
            w->seen[w->id[i] & w->mask] = w->id[i];
            shelf_insert_new(pool, w->score[i], w->id[i]);
            if (pool->n == pool->cap)
                w->above = key_score(shelf_worst(pool));
        }
}

/* Score a block; the requests for another one are spread over the work, since memory takes only so many at a time. */
static inline void expand(struct walk *w, const unsigned char *block)
{
    size_t third = w->left / 3 + 1;
    ask_some(w, third);
    size_t n = w->hop(w->p, block, w->q, w->scale, w->above, w->seen, w->mask, w->id, w->score);
    ask_some(w, third);
    offer_all(w, n);
    ask_some(w, w->left);
}

/* The best open candidate among the first ef, its block being asked for from now on. */
static inline bool take(struct walk *w, size_t ef, uint32_t *id)
{
    if (!shelf_take(w->pool, ef, id))
        return false;
    w->asking = w->p->block + (size_t)*id * w->p->stride;
    w->left = w->p->stride / HNSW_ALIGN;
    return true;
}

static void walk_blocks(struct walk *w, size_t ef)
{
    uint32_t flying[IN_FLIGHT];
    size_t n = 0;
    for (;;) {
        while (n < IN_FLIGHT && take(w, ef, &flying[n]))
            if (++n < IN_FLIGHT) // at the beginning and the end; the last one's requests are spread
                ask_some(w, w->left);
        if (n == 0 || !limit_take_all(w->limit, w->p->width))
            return;
        const unsigned char *block = w->p->block + (size_t)flying[0] * w->p->stride;
        memmove(flying, flying + 1, --n * sizeof(*flying));
        expand(w, block);
    }
}

/* Scan the codes of a high level, with at most half of what a limit allows; the best few are where the walk begins. */
static void start(struct walk *w)
{
    size_t cap = w->pool->cap, half = w->limit->max / w->p->width / 2 + 1;
    size_t n_seed = w->p->n_seed < half ? w->p->n_seed : half;
    w->pool->cap = STARTS < cap ? STARTS : cap;
    for (size_t i = 0; i < n_seed && limit_take_all(w->limit, w->p->width); i++)
        expand(w, w->p->seed + i * w->p->stride);
    w->pool->cap = cap;
    w->above = w->pool->n == cap ? w->above : -INFINITY;
    memset(w->seen, 0xff, ((size_t)w->mask + 1) * sizeof(*w->seen)); // what was pushed out here may yet come in
}

/* Score the first n of the pool exactly and sort them. */
static void rescore(const struct hnsw *h, const float *q, struct hnsw_ws *ws, size_t n)
{
    uint64_t *key = ws->pool.key;
    size_t all = hnsw_shelf_keys(&ws->shelf, key);
    n = n < all ? n : all;
    for (size_t i = 0; i < n; i++)
        __builtin_prefetch(&h->fast->element[key_id(key[i])]);
    for (size_t i = 0, some; i < n; i += some) {
        some = n - i < ROW_MAX ? n - i : ROW_MAX;
        for (size_t j = 0; j < some; j++) {
            ws->id[j] = h->fast->element[key_id(key[i + j])];
            ask_for_vector(h, ws->id[j]);
        }
        score_ids(h, q, ws->id, some, ws->score);
        for (size_t j = 0; j < some; j++)
            key[i + j] = pool_key(ws->score[j], ws->id[j]);
    }
    ws->pool.n = ws->rescored = n;
    hnsw_keys_sort(key, n);
}

/* What is scored exactly for an answer of k: a rank by codes is off by a few places, at most some tenths of it. */
size_t hnsw_fast_rescored(size_t k)
{
    return k + k / 4 + 16;
}

size_t hnsw_fast_keep(size_t k, size_t ef)
{
    return ef > hnsw_fast_rescored(k) ? ef : hnsw_fast_rescored(k);
}

bool hnsw_fast_ws_fit(struct hnsw_ws *ws, const struct fast *p, size_t k, size_t ef)
{
    ws->n_seen = 1024;
    while (ws->n_seen < 16 * ef && ws->n_seen < 16384)
        ws->n_seen *= 2;
    return hnsw_pool_fit(&ws->pool, hnsw_fast_keep(k, ef)) && hnsw_shelf_fit(&ws->shelf, hnsw_fast_keep(k, ef)) &&
           hnsw_grow_array((void **)&ws->seen, &ws->seen_cap, ws->n_seen, sizeof(*ws->seen)) &&
           hnsw_grow_array((void **)&ws->code, &ws->code_cap, 4 * (size_t)p->words, 1);
}

void hnsw_fast_search(const struct hnsw *h, const float *q, size_t k, size_t ef, struct hnsw_ws *ws)
{
    struct walk w; // the buffers of a hop need no initial value
    w.p = h->fast;
    w.hop = hnsw_fast_hop_get();
    w.q = ws->code;
    w.scale = hnsw_fast_encode_query(h, q, ws->code);
    w.limit = &ws->limit;
    w.pool = &ws->shelf;
    w.above = -INFINITY;
    w.seen = ws->seen;
    w.mask = (uint32_t)ws->n_seen - 1;
    w.asking = NULL;
    w.left = 0;
    shelf_begin(w.pool, hnsw_fast_keep(k, ef));
    memset(w.seen, 0xff, ws->n_seen * sizeof(*w.seen));
    start(&w);
    walk_blocks(&w, ef);
    rescore(h, q, ws, hnsw_fast_rescored(k));
}
