/* compact_walk.c - the walk by upper bytes of compact.h: alg. 5 over packed links, scores by products of bytes.
 *
 * Differences from hnsw_walk:
 * - Candidates are kept in bins (bins.h), not sorted.
 * - There is no table of visited elements. `seen`, some KB in the first-level cache, spares most of the scores of what was met before; the
 *   others end in the bin where the element is already.
 * - Five hops are under way: one is scored while the vectors of the next come from memory, and the links of those after it.
 * - Where ef is well above k, it does not end at the best ef, but at what is farther behind the best 1.25 k + 16 than ef is with usual
 *   queries of this index: one whose neighbours are many and alike goes on longer (to 1.5 ef), one whose are few ends earlier. Where the
 *   number of vectors grows as the D-th power of the radius, whose square bins count in 512 steps per power of two, each doubling of it
 *   is 1,024 / D bins: a margin in proportion to the logarithm of ef, by a factor that each index learns (hnsw_compact_spread).
 * - Somewhat more than k are kept even where ef does not, so that the bytes' errors cost no recall; those are scored by
 *   whole codes at the end. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

#define IN_FLIGHT 4    // candidates whose links were asked for and not read yet
#define SEEN_MIN 4096  // ids that are remembered as met
#define SEEN_MAX 65536

struct hop {
    uint32_t id[HOP_ROOM]; // neighbours not seen before
    size_t n;
};

struct walk {
    const struct compact *c;
    const struct compact_hop *kernel;
    const int8_t *q;
    struct lack lack;
    struct seen *seen;
    struct bins *bins;
    struct limit *limit;
};

float hnsw_compact_codes(const struct compact *c, const float *q, int8_t *code)
{
    float most = 0;
    for (size_t j = 0; j < c->dim; j++)
        most = fmaxf(most, fabsf(q[j]));
    memset(code, 0, (c->dim + COMPACT_PAST - 1) / COMPACT_PAST * COMPACT_PAST);
    for (size_t j = 0; j < c->dim; j++)
        code[j] = (int8_t)(most > 0 ? lrintf(q[j] / most * 127) : 0);
    return most * 256 / 127;
}

/* Round the query to bytes, and see what its scores lack at most. q is what hnsw_compact_query made, code j of a vector about
 * 256 (hi - 128) + 127.5. A score is that of `mid` and at most |q| times the greatest distance from there more or less, and that of what all
 * vectors have in common and at most |q| times the greatest length, |q| being of the dimensions that differ. In doubles: the square of
 * a small query is no float, and what all have in common may be far more than what differs. */
static void begin_query(struct walk *w, const float *q, int8_t *code)
{
    const struct compact *c = w->c;
    double norm2 = 0, mid = (double)q[c->dim], score = mid, common = mid;
    long sum = 0;
    w->lack.scale = hnsw_compact_codes(c, q, code);
    for (size_t j = 0; j < c->dim; j++) {
        double x = c->step[j] > 0 ? (double)q[j] / (double)c->step[j] : 0;
        sum += code[j];
        score += 127.5 * (double)q[j];
        norm2 += x * x;
        common -= x * (double)c->mid[j];
    }
    w->q = code;
    double by_radius = sqrt(norm2) * (double)c->radius, by_top = sqrt(norm2) * (double)c->top;
    double best = fmin(mid + by_radius, common + by_top), least = fmax(mid - by_radius, common - by_top);
    w->lack.top = (float)(best - score + (double)w->lack.scale * 128 * (double)sum);
    int32_t worst = lack_bits((float)fmax(best - least, 0));
    w->lack.first = worst > N_BINS ? worst - N_BINS : 0;
}

static void ask_for_links(const struct compact *c, uint32_t id)
{
    const unsigned char *row = c->link + (size_t)id * c->row;
    for (size_t i = 0; i < c->row; i += HNSW_ALIGN)
        __builtin_prefetch(row + i);
    __builtin_prefetch(row + c->row - 1);
}

static void read_hop(struct walk *w, uint32_t id, struct hop *hop)
{
    const struct compact *c = w->c;
    size_t n = w->kernel->fresh(c, id, w->seen, hop->id);
    hop->n = limit_take(w->limit, n);
    for (size_t i = 0; i < hop->n; i++) {
        const uint8_t *row = c->code.hi + (size_t)hop->id[i] * c->dim;
        __builtin_prefetch(row);
        if (c->dim > HNSW_ALIGN / 2)
            __builtin_prefetch(row + c->dim - 1);
    }
}

static void score_hop(struct walk *w, struct hop *hop)
{
    int32_t sum[HOP_ROOM];
    uint32_t bin[HOP_ROOM];
    w->kernel->sums(w->c->code.hi, w->c->dim, hop->id, hop->n, w->q, sum);
    size_t n = w->kernel->near(&w->lack, sum, hop->n, bins_last(w->bins), hop->id, bin);
    for (size_t i = 0; i < n; i++)
        if (bin[i] <= bins_last(w->bins))
            bins_put(w->bins, bin[i], hop->id[i]);
}

/* Begin with the best of the elements spread over the numbers, by their upper bytes. */
static void begin_with_seed(struct walk *w)
{
    const struct compact *c = w->c;
    uint32_t row[64 + 8] = {0};
    int32_t sum[64 + 8], most = INT32_MIN;
    size_t best = 0;
    for (size_t i = 0, n; i < c->n_seed && !w->limit->cut; i += n) {
        n = limit_take(w->limit, c->n_seed - i < 64 ? c->n_seed - i : 64);
        for (size_t j = 0; j < n; j++)
            row[j] = (uint32_t)(i + j);
        w->kernel->sums(c->seed.hi, c->dim, row, n, w->q, sum);
        for (size_t j = 0; j < n; j++)
            if (sum[j] > most) {
                most = sum[j];
                best = i + j;
            }
    }
    if (most == INT32_MIN) // cut before
        return;
    uint32_t id = (uint32_t)(best * c->seed_step);
    w->seen->tag[id & w->seen->mask] = id | w->seen->walk;
    bins_put(w->bins, compact_bin(&w->lack, most), id);
}

static void walk_links(struct walk *w)
{
    struct hop hop[2]; // the one whose vectors were asked for, and the one before it
    uint32_t flying[IN_FLIGHT];
    size_t n = 0, now = 0;
    hop[now].n = 0;
    for (;; now ^= 1) {
        struct hop *next = &hop[now ^ 1];
        while (n < IN_FLIGHT && !w->limit->cut && bins_take(w->bins, &flying[n]))
            ask_for_links(w->c, flying[n++]);
        if (n == 0 && hop[now].n == 0)
            return;
        next->n = 0;
        if (n > 0) {
            read_hop(w, flying[0], next);
            n--;
            for (size_t i = 0; i < n; i++)
                flying[i] = flying[i + 1];
        }
        score_hop(w, &hop[now]);
    }
}

/* Inlined whatever the compiler would do: a call of a function that only prefetches has no effect that it can see, and is left out. */
static inline __attribute__((always_inline)) void ask_for_rest(const struct compact *c, uint32_t id, bool codes)
{
    if (codes) {
        __builtin_prefetch(c->code.lo + (size_t)id * c->dim);
        __builtin_prefetch(c->code.hi + (size_t)id * c->dim);
    }
    if (c->label32)
        __builtin_prefetch(c->label32 + id);
    else
        __builtin_prefetch(c->label64 + id);
}

static void score_by_caller(const struct compact *c, const struct hnsw_query *p, const uint32_t *id, size_t n, float *score)
{
    uint64_t label[ROW_MAX];
    for (size_t i = 0; i < n; i++)
        label[i] = compact_label(c, id[i]);
    p->score(p->score_ctx, label, n, score);
}

/* Score the best n by whole codes, or as the caller does, and sort them; one that is there twice stands side by side then, and stays
 * once. */
static void rescore(const struct hnsw *h, const float *q, const struct hnsw_query *p, size_t n, struct hnsw_ws *ws)
{
    uint64_t *key = ws->pool.key;
    size_t found = 0;
    ws->rescored = n = hnsw_bins_best(&ws->bins, n, ws->best_id);
    for (size_t i = 0; i < n && i < ROW_MAX; i++)
        ask_for_rest(h->compact, ws->best_id[i], !p->score);
    for (size_t i = 0, some; i < n; i += some) {
        some = n - i < ROW_MAX ? n - i : ROW_MAX;
        for (size_t j = i + some; j < n && j < i + 2 * some; j++)
            ask_for_rest(h->compact, ws->best_id[j], !p->score);
        if (p->score)
            score_by_caller(h->compact, p, ws->best_id + i, some, ws->score);
        else
            score_ids(h, q, ws->best_id + i, some, ws->score);
        for (size_t j = 0; j < some; j++)
            key[i + j] = pool_key(ws->score[j], ws->best_id[i + j]);
    }
    hnsw_keys_sort(key, n);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || key[i] != key[i - 1])
            key[found++] = key[i];
    ws->pool.n = found;
}

/* Does the walk end by how far behind a candidate is? With an ef of about k nothing is gained, and without a spread all are alike. */
static bool by_margin(const struct compact *c, size_t k, size_t ef)
{
    return c->spread > 0 && ef > hnsw_fast_rescored(k);
}

/* A query may need more than ef, but not without end. */
static size_t most_of(const struct compact *c, size_t k, size_t ef)
{
    return hnsw_fast_keep(k, by_margin(c, k, ef) ? ef + ef / 2 : ef);
}

bool hnsw_compact_ws_fit(struct hnsw_ws *ws, const struct compact *c, size_t k, size_t ef)
{
    size_t most = most_of(c, k, ef), n_seen = SEEN_MIN;
    while (n_seen < 64 * ef && n_seen < SEEN_MAX)
        n_seen *= 2;
    return hnsw_pool_fit(&ws->pool, most) && hnsw_bins_fit(&ws->bins, most) &&
           hnsw_grow_array((void **)&ws->best_id, &ws->best_id_cap, most, sizeof(*ws->best_id)) &&
           hnsw_seen_begin(&ws->met, n_seen, c->bits) &&
           hnsw_grow_array((void **)&ws->code, &ws->code_cap, c->dim + COMPACT_PAST, 1);
}

static void begin_bins(const struct compact *c, size_t k, size_t ef, struct bins *b)
{
    size_t most = most_of(c, k, ef), best = hnsw_fast_rescored(k);
    if (!by_margin(c, k, ef)) {
        hnsw_bins_begin(b, ef, most, 0, N_BINS);
        return;
    }
    uint32_t margin = (uint32_t)fminf(c->spread * log2f((float)ef / (float)best), N_BINS);
    hnsw_bins_begin(b, best, most, margin, margin);
}

void hnsw_compact_coarse(const struct hnsw *h, const float *q, const struct hnsw_query *p, size_t ef, struct hnsw_ws *ws)
{
    size_t k = p->k < h->n ? p->k : h->n;
    struct walk w = {.c = h->compact, .kernel = hnsw_compact_hop_get(), .seen = &ws->met};
    w.bins = &ws->bins;
    w.limit = &ws->limit;
    begin_query(&w, q, ws->code);
    begin_bins(w.c, k, ef, w.bins);
    begin_with_seed(&w);
    walk_links(&w);
    rescore(h, q, p, hnsw_fast_rescored(k), ws);
}

/* By how many bins the FAR-th is behind the NEAR-th with vectors of the index itself, for each doubling. The harmonic mean: a margin is to
 * let as many through on average as `ef` would. 0: too few elements to tell, products that tell none of them apart (of tiny vectors they
 * are 0, and the graph was built with them), or no memory. */
float hnsw_compact_spread(const struct hnsw *h, struct hnsw_ws *ws)
{
    enum { TRIES = 32, NEAR = 50, FAR = 200 };
    struct hnsw_hit hit[NEAR];
    float v[HNSW_DIM_MAX], narrow = 0;
    const struct hnsw_query far = {.k = NEAR, .ef = FAR, .plan = HNSW_PLAN_WALK};
    bool apart = false;
    if (h->n < 2 * FAR)
        return 0;
    for (size_t i = 0; i < TRIES; i++) {
        hnsw_compact_vector(h->compact, (uint32_t)(i * h->n / TRIES), v);
        size_t n = hnsw_search(h, v, &far, ws, hit, NULL);
        if (n == 0)
            return 0;
        apart |= hit[0].score > hit[n - 1].score;
        uint32_t behind = hnsw_bins_bin(&ws->bins, FAR) - hnsw_bins_bin(&ws->bins, NEAR);
        narrow += 1 / ((float)behind + 0.5f);
    }
    return apart ? TRIES / narrow / log2f((float)FAR / NEAR) : 0;
}
