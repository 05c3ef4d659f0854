/* flat.c - exact search: every element is scored. The truth that recall is measured against, and what completes a
 * search that found too few. The best k are kept in the caller's own array, as a heap with the worst on top. */
#include "index/hnsw_priv.h"

#define CHUNK 256
#define EXAMINED 4096 // elements looked at, eligible or not, between two looks at the clock

/* a before b: higher score, ties to the lower label. */
bool hnsw_hit_better(struct hnsw_hit a, struct hnsw_hit b)
{
    return a.score > b.score || (a.score == b.score && a.label < b.label);
}

static void sift_down(struct hnsw_hit *hit, size_t n, size_t at, struct hnsw_hit x)
{
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && hnsw_hit_better(hit[child], hit[child + 1]))
            child++;
        if (!hnsw_hit_better(x, hit[child]))
            break;
        hit[at] = hit[child];
    }
    hit[at] = x;
}

static void sift_up(struct hnsw_hit *hit, size_t at, struct hnsw_hit x)
{
    for (size_t up; at > 0 && hnsw_hit_better(hit[up = (at - 1) / 2], x); at = up)
        hit[at] = hit[up];
    hit[at] = x;
}

/* Heap sort: take the worst to the end, again and again. */
static void heap_to_sorted(struct hnsw_hit *hit, size_t n)
{
    while (n > 1) {
        struct hnsw_hit worst = hit[0];
        n--;
        sift_down(hit, n, 0, hit[n]);
        hit[n] = worst;
    }
}

void hnsw_hits_sort(struct hnsw_hit *hit, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(hit, n, i, hit[i]);
    heap_to_sorted(hit, n);
}

size_t hnsw_hits_keep(struct hnsw_hit *hit, size_t n, size_t k, struct hnsw_hit x)
{
    if (n < k) {
        sift_up(hit, n, x);
        return n + 1;
    }
    if (hnsw_hit_better(x, hit[0]))
        sift_down(hit, n, 0, x);
    return n;
}

/* Up to CHUNK eligible elements from *at on, of the next EXAMINED. */
static size_t gather(const struct hnsw *h, const struct hnsw_query *p, size_t *at, uint32_t *id)
{
    size_t n = 0, i = *at, end = h->n - i < EXAMINED ? h->n : i + EXAMINED;
    for (; i < end && n < CHUNK; i++) {
        id[n] = (uint32_t)i;
        n += eligible(h, p, (uint32_t)i);
    }
    *at = i;
    return n;
}

/* The same from label *at on, by the bits that are set. */
static size_t gather_allowed(const struct hnsw *h, const struct hnsw_query *p, size_t *at, uint32_t *id)
{
    size_t n = 0, l = *at, end = p->n_allow - l < EXAMINED * 64 ? p->n_allow : l + EXAMINED * 64;
    while (l < end && n < CHUNK) {
        uint64_t rest = p->allow[l / 64] >> l % 64;
        if (!rest) {
            l = (l / 64 + 1) * 64;
            continue;
        }
        l += (size_t)__builtin_ctzll(rest);
        if (l < end) {
            id[n] = hnsw_place_of(h, l);
            n += id[n] != NO_ID && !is_removed(h, id[n]) && (!p->filter || p->filter(p->filter_ctx, l));
        }
        l++;
    }
    *at = l < end ? l : end;
    return n;
}

size_t hnsw_flat(const struct hnsw *h, const float *q, const struct hnsw_query *p, bool by_allowed, struct limit *l,
                 struct hnsw_hit *hit)
{
    uint32_t id[CHUNK];
    float score[CHUNK];
    size_t found = 0, at = 0, end = by_allowed ? p->n_allow : h->n;
    while (at < end && !hnsw_limit_late(l)) { // a filter takes time too, scores or not
        size_t n = limit_take(l, (by_allowed ? gather_allowed : gather)(h, p, &at, id));
        score_ids(h, q, id, n, score);
        for (size_t i = 0; i < n; i++) {
            if ((found == p->k && score[i] < hit[0].score) || (p->has_min_score && score[i] < p->min_score))
                continue;
            found = hnsw_hits_keep(hit, found, p->k, (struct hnsw_hit){label_of(h, id[i]), score[i]});
        }
    }
    heap_to_sorted(hit, found);
    return found;
}
