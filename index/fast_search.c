/* fast_search.c - walking the fast layout of fast.h: alg. 5 with codes.
 *
 * Differences from hnsw_walk: instead of coming down through the levels, the codes of all elements of a high level are
 * scanned and the best begin; the pool keeps more than it expands, so that the codes' errors cost no recall, and at the
 * end what it kept is scored exactly. There is no table of visited elements: an element's score by code is the same
 * whenever it is met, so the pool's binary search finds it if it is there, and if it has been pushed out it is not
 * above the worst. `seen`, a few KB in the first-level cache, only spares most of those searches. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

/* Keys as in pool.h, but with a second flag: score (32 bits) | ~id (30 bits) | asked for | open. */
#define OPEN 1u
#define ASKED 2u
#define FLAGS (OPEN | ASKED)
#define AHEAD 3 // blocks asked for before they are needed

static inline uint64_t fast_key(float score, uint32_t id)
{
    return ((uint64_t)score_to_bits(score) << 32) | ((uint64_t)(FAST_ID_MAX - id) << 2) | OPEN;
}

static inline uint32_t fast_key_id(uint64_t key)
{
    return FAST_ID_MAX - ((uint32_t)key >> 2);
}

struct walk {
    const struct fast *p;
    fast_hop_fn *hop;
    const int8_t *q;
    float scale;
    uint64_t *key; // [cap + 1] descending
    size_t n, cap;
    size_t next; // no open entry before this one
    float above; // score of the worst of a full pool
    uint32_t *seen, mask;
    uint32_t *id; // [width + 16] of one hop
    float *score;
};

/* Fold the query with the steps of the codes and round it to int8; returns what turns sums of products back into
 * scores. */
static float encode_query(const struct hnsw *h, const float *q, int8_t *code)
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

/* Insert from the worse end, eight entries a step: most arrivals end up not far from it, so this costs less than a
 * binary search. */
static inline void offer(struct walk *w, uint32_t id, float score)
{
    uint64_t key = fast_key(score, id), low = key & ~(uint64_t)FLAGS, *at;
    w->seen[id & w->mask] = id;
    bool grows = w->n < w->cap;
    uint64_t last = grows ? 0 : w->key[w->n - 1];
    w->n += grows;
    at = w->key + w->n - 1; // free, or the worst, which goes
    for (uint64_t some[8]; at - w->key >= 8 && at[-8] < low; at -= 8) {
        memcpy(some, at - 8, sizeof(some)); // not memmove: two copies that the compiler keeps in registers
        memcpy(at - 7, some, sizeof(some));
    }
    for (; at > w->key && at[-1] < low; at--)
        *at = at[-1];
    if (at > w->key && at[-1] - low <= FLAGS) { // it is there already
        memmove(at, at + 1, (size_t)(w->key + w->n - 1 - at) * sizeof(*at));
        w->key[w->n - 1] = last;
        w->n -= grows;
        return;
    }
    *at = key;
    if ((size_t)(at - w->key) < w->next)
        w->next = (size_t)(at - w->key);
    if (w->n == w->cap)
        w->above = score_from_bits((uint32_t)(w->key[w->n - 1] >> 32));
}

static inline void score_block(struct walk *w, const unsigned char *block)
{
    size_t n = w->hop(w->p, block, w->q, w->scale, w->above, w->seen, w->mask, w->id, w->score);
    for (size_t i = 0; i < n; i++)
        if (w->score[i] > w->above)
            offer(w, w->id[i], w->score[i]);
}

static inline void ask_for(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i += 64)
        __builtin_prefetch(p + i);
}

/* The best open entries' blocks come to the cache while others are scored. */
static inline void ask_ahead(struct walk *w, size_t limit)
{
    unsigned left = AHEAD;
    for (size_t i = w->next; i < limit && left > 0; i++)
        if (w->key[i] & OPEN) {
            if (!(w->key[i] & ASKED))
                ask_for(w->p->block + (size_t)fast_key_id(w->key[i]) * w->p->stride, w->p->stride);
            w->key[i] |= ASKED;
            left--;
        }
}

static void walk_blocks(struct walk *w, size_t ef)
{
    for (;;) {
        size_t limit = w->n < ef ? w->n : ef;
        while (w->next < limit && !(w->key[w->next] & OPEN))
            w->next++;
        if (w->next >= limit)
            return;
        ask_ahead(w, limit);
        w->key[w->next] &= ~(uint64_t)OPEN;
        score_block(w, w->p->block + (size_t)fast_key_id(w->key[w->next]) * w->p->stride);
    }
}

/* Scan the codes of a high level; the best few are where the walk begins. */
static void start(struct walk *w, size_t n_start)
{
    size_t cap = w->cap;
    w->cap = n_start < cap ? n_start : cap;
    for (size_t i = 0; i < w->p->n_seed; i++)
        score_block(w, w->p->seed + i * w->p->stride);
    w->cap = cap;
    w->above = w->n == cap ? w->above : -INFINITY;
    memset(w->seen, 0xff, ((size_t)w->mask + 1) * sizeof(*w->seen)); // what was pushed out here may yet come in
}

/* Score what was kept by the exact vectors, as keys of pool.h, best first. */
static void rescore(const struct hnsw *h, const float *q, const struct walk *w, size_t n_best, struct hnsw_ws *ws)
{
    size_t n = w->n < n_best ? w->n : n_best;
    uint64_t *key = ws->pool.key;
    for (size_t i = 0, some; i < n; i += some) {
        some = n - i < ROW_MAX ? n - i : ROW_MAX;
        for (size_t j = 0; j < some; j++)
            ws->id[j] = fast_key_id(w->key[i + j]);
        score_ids(h, q, ws->id, some, ws->score);
        for (size_t j = 0; j < some; j++)
            key[i + j] = pool_key(ws->score[j], ws->id[j]);
    }
    ws->pool.n = n;
    hnsw_keys_sort(key, n);
}

size_t hnsw_fast_keep(size_t ef)
{
    return ef + ef / 4 + 8;
}

bool hnsw_fast_ws_fit(struct hnsw_ws *ws, const struct fast *p, size_t ef)
{
    size_t mask_cap = 1024;
    while (mask_cap < 16 * ef && mask_cap < 16384)
        mask_cap *= 2;
    ws->n_seen = mask_cap;
    return hnsw_pool_fit(&ws->pool, hnsw_fast_keep(ef)) &&
           hnsw_grow_array((void **)&ws->seen, &ws->seen_cap, mask_cap, sizeof(*ws->seen)) &&
           hnsw_grow_array((void **)&ws->walk_key, &ws->walk_cap, hnsw_fast_keep(ef) + 1, sizeof(*ws->walk_key)) &&
           hnsw_grow_array((void **)&ws->code, &ws->code_cap, 4 * (size_t)p->words, 1);
}

void hnsw_fast_search(const struct hnsw *h, const float *q, size_t k, size_t ef, struct hnsw_ws *ws)
{
    struct walk w = {.p = h->fast,
                     .hop = hnsw_fast_hop_get(),
                     .q = ws->code,
                     .key = ws->walk_key,
                     .cap = hnsw_fast_keep(ef),
                     .above = -INFINITY};
    uint32_t id[ROW_MAX + FAST_GROUP];
    float score[ROW_MAX + FAST_GROUP];
    w.scale = encode_query(h, q, ws->code);
    w.seen = ws->seen;
    w.mask = (uint32_t)ws->n_seen - 1;
    w.id = id;
    w.score = score;
    memset(w.seen, 0xff, ws->n_seen * sizeof(*w.seen));
    start(&w, 8);
    walk_blocks(&w, ef);
    rescore(h, q, &w, k + k / 4 + 16, ws);
}
