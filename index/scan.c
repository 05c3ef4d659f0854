/* scan.c - see scan.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

#define SAMPLE 16 // one block in so many is scanned first: a good bar early spares most of the rest
#define KEEP_MORE 1024
#define ROWS 64        // of the compact layout in a block
#define DENORMAL 1e-36 // of a dimension with less range, step is denormal and its inverse infinite: a code may be off by all of the range
#define BLOCK_MAX (ROW_MAX + FAST_GROUP > ROWS ? ROW_MAX + FAST_GROUP : ROWS)

struct scan {
    const struct hnsw *h;
    const struct hnsw_query *p;
    struct scan_room *room;
    const float *q;
    hnsw_fast_hop_fn *hop;
    const struct compact_hop *compact;
    float scale, error, above; // scores by code: s <t, c>, of L2 2 s <t, c> - |v|^2
    size_t n, full;            // keys in the room; more than that: make room
    bool any;                  // all may be returned
};

// ---------------------------------------------------------------------------------------------------------- the error

/* Sums over the dimensions of scan.h's w and r. */
struct folded {
    double sum_r, abs_r, abs_w;
};

static void fold(struct folded *f, double w, double rounded)
{
    double r = w - rounded;
    f->sum_r += r;
    f->abs_r += fabs(r);
    f->abs_w += fabs(w);
}

static double error_of(const struct folded *f, double k, size_t dim, double biggest)
{
    double e = 127.5 * f->abs_r + 0.501 * f->abs_w;
    return e + (double)(dim + 8) * 1.2e-7 * (biggest + 255 * f->abs_w + fabs(k));
}

/* What scores by code of this query may be off by, and what they lack to be scores. */
static void begin_fast(struct scan *s, float *lacking)
{
    const struct fast *p = s->h->fast;
    const float *q = s->q;
    s->scale = hnsw_fast_encode_query(s->h, q, s->room->code);
    bool l2 = s->h->metric == HNSW_L2;
    double scale = (double)s->scale / (l2 ? 2 : 1), abs_q = 0, low = 0, q2 = 0;
    struct folded f = {0};
    for (size_t j = 0; j < s->h->dim; j++) {
        fold(&f, (double)q[j] * (double)p->step[j], scale * s->room->code[j]);
        abs_q += fabs((double)q[j]);
        low += (double)q[j] * (double)p->low[j];
        q2 += (double)q[j] * (double)q[j];
    }
    double k = low + 127.5 * f.sum_r, q_len = sqrt(q2), v_len = sqrt(p->most_norm2);
    double e = error_of(&f, k, s->h->dim, l2 ? (q_len + v_len) * (q_len + v_len) : q_len * v_len) + DENORMAL * (abs_q + 1);
    *lacking = (float)(l2 ? 2 * k - q2 : k);
    s->error = (float)((l2 ? 2 * e : e) * 1.0001);
}

/* The same; q is what hnsw_compact_query made: the steps are in it, and whole codes count from 32,768. */
static void begin_compact(struct scan *s, float *lacking)
{
    const struct compact *c = s->h->compact;
    s->scale = hnsw_compact_codes(c, s->q, s->room->code);
    double low = (double)s->q[c->dim];
    struct folded f = {0};
    for (size_t j = 0; j < c->dim; j++) {
        fold(&f, 256 * (double)s->q[j], (double)s->scale * s->room->code[j]);
        low += (double)s->q[j] * (127.5 - 32768);
    }
    double k = low + 127.5 * f.sum_r;
    *lacking = (float)k;
    s->error = (float)(error_of(&f, k, c->dim, 0) * 1.0001);
}

// ------------------------------------------------------------------------------------------------------------ the bar

/* A score that at least k of the n keys reach, not far below the k-th best: by counting in BINS steps between the least and the most. */
static float bar_of(const uint64_t *key, size_t n, size_t k)
{
    enum { BINS = 512 };
    uint32_t count[BINS + 1] = {0};
    uint64_t least = UINT64_MAX, most = 0;
    for (size_t i = 0; i < n; i++) {
        least = key[i] < least ? key[i] : least;
        most = key[i] > most ? key[i] : most;
    }
    float lo = key_score(least), hi = key_score(most), per = hi > lo ? BINS / (hi - lo) : 0;
    if (!(per < INFINITY))
        return lo;
    for (size_t i = 0; i < n; i++)
        count[(int)((key_score(key[i]) - lo) * per)]++; // BINS itself only for the most
    size_t bin = BINS, above = count[BINS];
    while (above < k && bin > 0)
        above += count[--bin];
    float bar = lo + (float)bin / per;
    return bin == 0 ? lo : bar - 1e-5f * (hi - lo) - 1e-6f * fabsf(bar); // what rounding may have moved across
}

/* Raise the bar to what the k-th best so far allows, and let go what is below. */
static void raise_bar(struct scan *s)
{
    size_t k = s->p->k, n = 0;
    uint64_t *key = s->room->key;
    if (s->n <= k)
        return;
    float bar = bar_of(key, s->n, k) - 2 * s->error;
    if (!(bar > s->above))
        return;
    s->above = nextafterf(bar, -INFINITY); // what is above is kept
    for (size_t i = 0; i < s->n; i++) {
        key[n] = key[i];
        n += key_score(key[i]) > s->above;
    }
    s->n = n;
}

static bool make_room(struct scan *s)
{
    raise_bar(s);
    if (s->n + BLOCK_MAX <= s->room->cap / 4 * 3)
        return true;
    size_t want = 2 * s->room->cap;
    uint64_t *grown = hnsw_mem_grow(s->room->key, want, sizeof(*grown));
    if (!grown)
        return false;
    s->room->key = grown;
    s->room->cap = want;
    s->full = want - BLOCK_MAX;
    return true;
}

// --------------------------------------------------------------------------------------------------------- scanning

static uint32_t element_of(const struct hnsw *h, uint32_t number)
{
    return h->fast ? h->fast->element[number] : number;
}

/* The fast layout scores whole blocks. */
static size_t rows_of_block(const struct hnsw *h, size_t b)
{
    if (h->fast)
        return h->fast->width;
    return h->n - b * ROWS < ROWS ? h->n - b * ROWS : ROWS;
}

static size_t blocks_of(const struct hnsw *h)
{
    return h->fast ? fast_blocks(h->fast) : (h->n + ROWS - 1) / ROWS;
}

static size_t score_fast(const struct scan *s, size_t b, uint32_t *id, float *score)
{
    static const uint32_t none_seen = NO_ID;
    const struct fast *p = s->h->fast;
    return s->hop(p, fast_flat(p) + b * p->stride, s->room->code, s->scale, s->above, &none_seen, 0, id, score);
}

/* The least sum of products whose score is above the bar. */
static int32_t least_sum(const struct scan *s)
{
    float least = s->scale > 0 ? floorf(s->above / s->scale) - 1 : -INFINITY; // past what the division rounds; `above` is compared again
    return least < -2e9f ? INT32_MIN : least > 2e9f ? INT32_MAX : (int32_t)least;
}

static size_t score_compact(const struct scan *s, size_t b, uint32_t *id, float *score)
{
    const struct compact *c = s->h->compact;
    size_t n = rows_of_block(s->h, b), found = 0;
    uint32_t row[ROWS + 8] = {0};
    int32_t sum[ROWS + 8], least = least_sum(s);
    for (size_t i = 0; i < n; i++)
        row[i] = (uint32_t)i;
    s->compact->sums(c->code.hi + b * ROWS * c->dim, c->dim, row, n, s->room->code, sum);
    for (size_t i = 0, end; i < n; i = end) {
        int any = 0;
        end = i + 16 < n ? i + 16 : n;
        for (size_t j = i; j < end; j++)
            any |= sum[j] >= least;
        for (size_t j = i; any && j < end; j++) {
            id[found] = (uint32_t)(b * ROWS + j);
            score[found] = s->scale * (float)sum[j];
            found += score[found] > s->above;
        }
    }
    return found;
}

static bool scan_block(struct scan *s, size_t b)
{
    uint32_t id[BLOCK_MAX];
    float score[BLOCK_MAX];
    size_t n = s->h->fast ? score_fast(s, b, id, score) : score_compact(s, b, id, score);
    for (size_t i = 0; i < n; i++)
        if (s->any || eligible(s->h, s->p, element_of(s->h, id[i])))
            s->room->key[s->n++] = pool_key(score[i], id[i]);
    return s->n <= s->full || make_room(s);
}

static bool scan_blocks(struct scan *s, size_t nq, size_t b, struct limit *limit)
{
    if (!limit_take_all(limit, rows_of_block(s->h, b)))
        return true;
    for (size_t i = 0; i < nq; i++)
        if (!scan_block(&s[i], b))
            return false;
    return true;
}

static bool scan_all(struct scan *s, size_t nq, struct limit *limit)
{
    size_t n = blocks_of(s->h);
    for (size_t b = 0; b < n; b += SAMPLE)
        if (!scan_blocks(s, nq, b, limit))
            return false;
    for (size_t i = 0; i < nq; i++)
        raise_bar(&s[i]);
    for (size_t b = 0; b < n && !limit->cut; b++)
        if (b % SAMPLE != 0 && !scan_blocks(s, nq, b, limit))
            return false;
    for (size_t i = 0; i < nq; i++)
        raise_bar(&s[i]);
    return true;
}

/* The best k of what is left, exactly scored. */
static size_t score_left(struct scan *s, struct hnsw_ws *ws, struct hnsw_hit *hit)
{
    const struct hnsw *h = s->h;
    const uint64_t *key = s->room->key;
    size_t found = 0;
    s->room->rescored = s->n;
    for (size_t i = 0; h->fast && i < s->n; i++)
        __builtin_prefetch(&h->fast->element[key_id(key[i])]);
    for (size_t i = 0, some; i < s->n; i += some) {
        some = s->n - i < ROW_MAX ? s->n - i : ROW_MAX;
        for (size_t j = 0; j < some; j++) {
            ws->id[j] = element_of(h, key_id(key[i + j]));
            ask_for_vector(h, ws->id[j]);
        }
        score_ids(h, s->q, ws->id, some, ws->score);
        for (size_t j = 0; j < some; j++)
            if (!s->p->has_min_score || ws->score[j] >= s->p->min_score)
                found = hnsw_hits_keep(hit, found, s->p->k, (struct hnsw_hit){label_of(h, ws->id[j]), ws->score[j]});
    }
    hnsw_hits_sort(hit, found);
    return found;
}

static bool begin(struct scan *s)
{
    const struct hnsw *h = s->h;
    size_t k = s->p->k < h->n ? s->p->k : h->n, size = h->fast ? 4 * (size_t)h->fast->words : h->dim + COMPACT_PAST;
    float lacking;
    if (!hnsw_grow_array((void **)&s->room->key, &s->room->cap, 2 * k + KEEP_MORE + BLOCK_MAX, sizeof(*s->room->key)) ||
        !hnsw_grow_array((void **)&s->room->code, &s->room->code_cap, size, 1))
        return false;
    s->full = s->room->cap - BLOCK_MAX;
    s->any = !s->p->filter && !s->p->allow && h->n_removed == 0;
    s->above = -INFINITY;
    s->hop = hnsw_fast_hop_get();
    s->compact = hnsw_compact_hop_get();
    if (h->fast)
        begin_fast(s, &lacking);
    else
        begin_compact(s, &lacking);
    if (s->p->has_min_score)
        s->above = nextafterf(s->p->min_score - lacking - s->error, -INFINITY);
    return true;
}

// ------------------------------------------------------------------------------------------------------------ public

void hnsw_scan_room_fini(struct scan_room *r)
{
    free(r->query);
    free(r->code);
    free(r->key);
}

bool hnsw_scan_has_codes(const struct hnsw *h)
{
    return h->fast || (h->compact && h->compact->coarse);
}

const float *hnsw_scan_query(const struct hnsw *h, struct hnsw_ws *ws, size_t i, const float *q)
{
    struct scan_room *r = &ws->scan[i];
    if (!hnsw_grow_array((void **)&r->query, &r->query_cap, h->dim + 1, sizeof(*r->query)))
        return NULL;
    memcpy(r->query, q, (h->dim + (h->compact ? 1 : 0)) * sizeof(*q));
    return r->query;
}

bool hnsw_scan(const struct hnsw *h, const float *const *q, size_t nq, const struct hnsw_query *p, struct hnsw_ws *ws,
               struct hnsw_hit *hit, size_t *found)
{
    struct scan s[SCAN_GROUP];
    for (size_t i = 0; i < nq; i++) {
        s[i] = (struct scan){.h = h, .p = p, .room = &ws->scan[i], .q = q[i]};
        if (!begin(&s[i]))
            return false;
    }
    if (!scan_all(s, nq, &ws->limit))
        return false;
    for (size_t i = 0; i < nq; i++)
        found[i] = score_left(&s[i], ws, hit + i * p->k);
    return true;
}
