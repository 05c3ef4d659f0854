/* scan.c - see scan.h. */
#include <math.h>
#include <string.h>

#include "index/hnsw_priv.h"

#define SAMPLE 16 // one block in so many is scanned first: a good bar early spares most of the rest
#define KEEP_MORE 1024
#define DENORMAL 1e-36 // of a dimension with less range, step is denormal and its inverse infinite: a code may be off by all of the range

struct scan {
    const struct hnsw *h;
    const struct hnsw_query *p;
    struct hnsw_ws *ws;
    hnsw_fast_hop_fn *hop;
    float scale, error, above; // hop's scores: s <t, c>, of L2 2 s <t, c> - |v|^2
    uint64_t *key;             // [n] what may be among the best
    size_t n, full;
    bool any; // all may be returned
};

/* What hop's scores of this query may be off by, and what they lack to be scores. */
static float error_of(const struct hnsw *h, const float *q, const int8_t *t, float scale, float *lacking)
{
    const struct fast *p = h->fast;
    bool l2 = h->metric == HNSW_L2;
    double s = (double)scale / (l2 ? 2 : 1), sum_r = 0, abs_r = 0, abs_w = 0, abs_q = 0, low = 0, q2 = 0;
    for (size_t j = 0; j < h->dim; j++) {
        double w = (double)q[j] * (double)p->step[j], r = w - s * t[j];
        sum_r += r;
        abs_r += fabs(r);
        abs_w += fabs(w);
        abs_q += fabs((double)q[j]);
        low += (double)q[j] * (double)p->low[j];
        q2 += (double)q[j] * (double)q[j];
    }
    double k = low + 127.5 * sum_r, e = 127.5 * abs_r + 0.501 * abs_w + DENORMAL * (abs_q + 1);
    double q_len = sqrt(q2), v_len = sqrt(p->most_norm2), biggest = l2 ? (q_len + v_len) * (q_len + v_len) : q_len * v_len;
    e += (double)(h->dim + 8) * 1.2e-7 * (biggest + 255 * abs_w + fabs(k));
    *lacking = (float)(l2 ? 2 * k - q2 : k);
    return (float)((l2 ? 2 * e : e) * 1.0001);
}

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
    if (s->n <= k)
        return;
    float bar = bar_of(s->key, s->n, k) - 2 * s->error;
    if (!(bar > s->above))
        return;
    s->above = nextafterf(bar, -INFINITY); // hop keeps what is above
    for (size_t i = 0; i < s->n; i++) {
        s->key[n] = s->key[i];
        n += key_score(s->key[i]) > s->above;
    }
    s->n = n;
}

static bool make_room(struct scan *s)
{
    raise_bar(s);
    if (s->n + ROW_MAX + FAST_GROUP <= s->ws->scan_cap / 4 * 3)
        return true;
    size_t want = 2 * s->ws->scan_cap;
    uint64_t *grown = hnsw_mem_grow(s->ws->scan, want, sizeof(*grown));
    if (!grown)
        return false;
    s->key = s->ws->scan = grown;
    s->ws->scan_cap = want;
    s->full = want - ROW_MAX - FAST_GROUP;
    return true;
}

static bool scan_block(struct scan *s, const unsigned char *block)
{
    static const uint32_t none_seen = NO_ID;
    uint32_t id[ROW_MAX + FAST_GROUP];
    float score[ROW_MAX + FAST_GROUP];
    const struct fast *p = s->h->fast;
    if (!limit_take_all(&s->ws->limit, p->width))
        return true;
    size_t n = s->hop(p, block, s->ws->code, s->scale, s->above, &none_seen, 0, id, score);
    for (size_t i = 0; i < n; i++)
        if (s->any || eligible(s->h, s->p, p->element[id[i]]))
            s->key[s->n++] = pool_key(score[i], id[i]);
    return s->n <= s->full || make_room(s);
}

static bool scan_all(struct scan *s)
{
    const struct fast *p = s->h->fast;
    const unsigned char *flat = fast_flat(p);
    size_t n = fast_blocks(p);
    for (size_t b = 0; b < n; b += SAMPLE)
        if (!scan_block(s, flat + b * p->stride))
            return false;
    raise_bar(s);
    for (size_t b = 0; b < n && !s->ws->limit.cut; b++)
        if (b % SAMPLE != 0 && !scan_block(s, flat + b * p->stride))
            return false;
    raise_bar(s);
    return true;
}

/* The best k of what is left, by their vectors. */
static size_t score_left(struct scan *s, const float *q, struct hnsw_hit *hit)
{
    struct hnsw_ws *ws = s->ws;
    size_t found = 0;
    ws->rescored += s->n;
    for (size_t i = 0; i < s->n; i++)
        __builtin_prefetch(&s->h->fast->element[key_id(s->key[i])]);
    for (size_t i = 0, some; i < s->n; i += some) {
        some = s->n - i < ROW_MAX ? s->n - i : ROW_MAX;
        for (size_t j = 0; j < some; j++) {
            ws->id[j] = s->h->fast->element[key_id(s->key[i + j])];
            ask_for_vector(s->h, ws->id[j]);
        }
        score_ids(s->h, q, ws->id, some, ws->score);
        for (size_t j = 0; j < some; j++)
            if (!s->p->has_min_score || ws->score[j] >= s->p->min_score)
                found = hnsw_hits_keep(hit, found, s->p->k, (struct hnsw_hit){label_of(s->h, ws->id[j]), ws->score[j]});
    }
    hnsw_hits_sort(hit, found);
    return found;
}

bool hnsw_scan(const struct hnsw *h, const float *q, const struct hnsw_query *p, struct hnsw_ws *ws, struct hnsw_hit *hit, size_t *found)
{
    struct scan s = {.h = h, .p = p, .ws = ws, .hop = hnsw_fast_hop_get(), .above = -INFINITY};
    size_t k = p->k < h->n ? p->k : h->n, want = 2 * k + KEEP_MORE + ROW_MAX + FAST_GROUP;
    float lacking;
    if (!hnsw_grow_array((void **)&ws->scan, &ws->scan_cap, want, sizeof(*ws->scan)) ||
        !hnsw_grow_array((void **)&ws->code, &ws->code_cap, 4 * (size_t)h->fast->words, 1))
        return false;
    s.key = ws->scan;
    s.full = ws->scan_cap - ROW_MAX - FAST_GROUP;
    s.any = !p->filter && !p->allow && h->n_removed == 0;
    s.scale = hnsw_fast_encode_query(h, q, ws->code);
    s.error = error_of(h, q, ws->code, s.scale, &lacking);
    if (p->has_min_score)
        s.above = nextafterf(p->min_score - lacking - s.error, -INFINITY);
    if (!scan_all(&s))
        return false;
    *found = score_left(&s, q, hit);
    return true;
}
