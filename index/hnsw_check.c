/* hnsw_check.c - a graph that can check itself: every rule that searching relies on, and reachability.
 * Loading applies the same rules, so whatever loads also passes here. */
#include <math.h>
#include <stdlib.h>

#include "index/hnsw_priv.h"

// ---------------------------------------------------------------------------------------------------- one element

static bool check_vector(const struct hnsw *h, uint32_t id, const float *vec, struct hnsw_err *err)
{
    if (!hnsw_finite(vec, h->dim))
        return hnsw_fail(err, HNSW_FORMAT, "element %u: vector has a value that is not finite, or beyond %g", id,
                         (double)HNSW_VALUE_MAX);
    if (h->metric != HNSW_COSINE)
        return true;
    double len2 = hnsw_metric_norm2(vec, h->dim);
    if (len2 != 0 && fabs(len2 - 1) > 1e-3)
        return hnsw_fail(err, HNSW_FORMAT, "element %u: vector of length %g in a cosine index, wanted 1", id,
                         sqrt(len2));
    return true;
}

/* Each link sets a bit by its hash; only a list with two on one bit (one in nine at 32 links) is compared pair by pair. */
#define HASH_BITS 12

static bool may_be_twice(const uint32_t *link, unsigned n)
{
    uint64_t bit[(1 << HASH_BITS) / 64];
    uint64_t met = 0;
    for (unsigned i = 0; i < n; i++) // cheaper than clearing all of it
        bit[link[i] * 0x9e3779b1u >> (32 - HASH_BITS) >> 6] = 0;
    for (unsigned i = 0; i < n; i++) {
        uint32_t hash = link[i] * 0x9e3779b1u >> (32 - HASH_BITS);
        met |= bit[hash >> 6] >> (hash & 63) & 1;
        bit[hash >> 6] |= (uint64_t)1 << (hash & 63);
    }
    return met;
}

/* Links in range and not to `id`, nothing after them. Loading asks this of every list: no early exit, so that it becomes SIMD. */
static bool all_in_order(const uint32_t *link, unsigned n, unsigned cap, uint32_t id, size_t n_elements)
{
    uint32_t wrong = 0, end = (uint32_t)n_elements;
    for (unsigned i = 0; i < n; i++)
        wrong |= (uint32_t)(link[i] >= end) | (uint32_t)(link[i] == id);
    for (unsigned i = n; i < cap; i++)
        wrong |= ~link[i];
    return !wrong;
}

static bool twice(const uint32_t *link, unsigned n, unsigned *at)
{
    for (unsigned i = 1; i < n; i++) {
        unsigned same = 0; // no early exit inside: the compiler makes it SIMD
        for (unsigned j = 0; j < i; j++)
            same |= link[j] == link[i];
        if (same) {
            *at = i;
            return true;
        }
    }
    return false;
}

bool hnsw_check_list(const struct hnsw *h, uint32_t id, int level, const uint32_t *link, struct hnsw_err *err)
{
    unsigned cap = links_cap(h, level), n = links_count(link, cap), at;
    if (level == 0 && all_in_order(link, n, cap, id, h->n) && !may_be_twice(link, n))
        return true;
    for (unsigned i = 0; i < n; i++) {
        if (link[i] >= h->n)
            return hnsw_fail(err, HNSW_FORMAT, "element %u, level %d, link %u: found %u, wanted below %zu", id, level,
                             i, link[i], h->n);
        if (link[i] == id)
            return hnsw_fail(err, HNSW_FORMAT, "element %u, level %d, link %u: found a link to itself", id, level, i);
        if (level > 0 && h->level[link[i]] < level)
            return hnsw_fail(err, HNSW_FORMAT,
                             "element %u, level %d, link %u: found element %u, which ends at level %u", id, level, i,
                             link[i], h->level[link[i]]);
    }
    if (twice(link, n, &at))
        return hnsw_fail(err, HNSW_FORMAT, "element %u, level %d, link %u: found %u twice", id, level, at, link[at]);
    for (unsigned i = n; i < cap; i++)
        if (link[i] != NO_ID)
            return hnsw_fail(err, HNSW_FORMAT, "element %u, level %d, link %u: found %u after the end of the list", id,
                             level, i, link[i]);
    return true;
}

bool hnsw_check_element(const struct hnsw *h, uint32_t id, const unsigned char *block, struct hnsw_err *err)
{
    const float *vec = (const float *)(const void *)block;
    const uint32_t *link = (const uint32_t *)(const void *)(block + h->dim * sizeof(float));
    int level = h->level[id];
    if (!check_vector(h, id, vec, err) || !hnsw_check_list(h, id, 0, link, err))
        return false;
    if (level > LEVEL_MAX || level > h->max_level)
        return hnsw_fail(err, HNSW_FORMAT, "element %u: found level %d, wanted at most %d", id, level, h->max_level);
    if (level > 0 && (size_t)h->upper_at[id] + (size_t)level > h->upper_n)
        return hnsw_fail(err, HNSW_FORMAT, "element %u: lists up to %zu, wanted at most %zu", id,
                         (size_t)h->upper_at[id] + (size_t)level, h->upper_n);
    for (int l = 1; l <= level; l++)
        if (!hnsw_check_list(h, id, l, node_links(h, id, l), err))
            return false;
    return true;
}

// ------------------------------------------------------------------------------------------------------ the whole

bool hnsw_check_entry(const struct hnsw *h, struct hnsw_err *err)
{
    if (h->n == 0) {
        if (h->entry != NO_ID || h->max_level != -1)
            return hnsw_fail(err, HNSW_FORMAT, "empty index with entry point %u, level %d", h->entry, h->max_level);
        return true;
    }
    if (h->entry >= h->n)
        return hnsw_fail(err, HNSW_FORMAT, "entry point: found %u, wanted below %zu", h->entry, h->n);
    if (!h->compact && h->level[h->entry] != h->max_level)
        return hnsw_fail(err, HNSW_FORMAT, "entry point %u: found level %u, wanted the highest, %d", h->entry,
                         h->level[h->entry], h->max_level);
    return true;
}

bool hnsw_check_marks(const struct hnsw *h, struct hnsw_err *err)
{
    size_t n = 0;
    for (size_t i = 0; h->removed && i < h->n; i++) { // a compact index without any has no marks
        if (h->removed[i] > 1)
            return hnsw_fail(err, HNSW_FORMAT, "element %zu: found mark %u, wanted 0 or 1", i, h->removed[i]);
        if (h->removed[i] && i < h->removed_low)
            return hnsw_fail(err, HNSW_FORMAT, "element %zu is removed, but none below %zu should be", i,
                             h->removed_low);
        n += h->removed[i];
    }
    if (n != h->n_removed)
        return hnsw_fail(err, HNSW_FORMAT, "removed elements: found %zu, wanted %zu", n, h->n_removed);
    return true;
}

static bool check_shape(const struct hnsw *h, struct hnsw_err *err)
{
    if ((unsigned)h->metric > HNSW_L2 || h->dim < 1 || h->dim > HNSW_DIM_MAX || h->m < 2 || h->m > HNSW_M_MAX ||
        h->m0 != 2 * h->m || h->ef_construction < 1)
        return hnsw_fail(err, HNSW_FORMAT, "metric %d, dim %zu, m %u, on level 0 %u, ef_construction %u: out of range",
                         (int)h->metric, h->dim, h->m, h->m0, h->ef_construction);
    if (!h->compact && (h->stride < h->dim * sizeof(float) + h->m0 * sizeof(uint32_t) || h->stride % sizeof(float) != 0))
        return hnsw_fail(err, HNSW_FORMAT, "blocks of %zu bytes, wanted room for %zu floats and %u links", h->stride,
                         h->dim, h->m0);
    return true;
}

/* Each list above level 0 belongs to one element. */
static bool check_upper(const struct hnsw *h, struct hnsw_err *err)
{
    uint8_t *taken = hnsw_mem_new(h->upper_n, 1);
    bool ok = taken || hnsw_fail(err, HNSW_NOMEM, "check: no memory for %zu lists", h->upper_n);
    size_t total = 0;
    for (uint32_t i = 0; ok && i < h->n; i++)
        for (size_t l = 0; ok && l < h->level[i]; l++, total++)
            if (taken[h->upper_at[i] + l]++) // within bounds: hnsw_check_element
                ok = hnsw_fail(err, HNSW_FORMAT, "element %u, level %zu: its list is another's too", i, l + 1);
    if (ok && total != h->upper_n)
        ok = hnsw_fail(err, HNSW_FORMAT, "levels: found lists for %zu, wanted %zu", total, h->upper_n);
    free(taken);
    return ok;
}

/* The counts that keep the graph connected (hnsw_ways.c). */
static bool check_ways(const struct hnsw *h, struct hnsw_err *err)
{
    if (!h->ways)
        return true;
    uint32_t *n = hnsw_mem_new(h->n, sizeof(*n));
    bool ok = n || hnsw_fail(err, HNSW_NOMEM, "check: no memory for %zu elements", h->n);
    for (uint32_t i = 0; ok && i < h->n; i++)
        for (unsigned j = 0; j < h->m0 && node_links(h, i, 0)[j] != NO_ID; j++)
            n[node_links(h, i, 0)[j]] += node_links(h, i, 0)[j] > i;
    for (uint32_t i = 0; ok && i < h->n; i++) {
        uint32_t kept = atomic_load_explicit(&h->ways[i], memory_order_relaxed);
        if (kept != n[i] || (kept == 0 && i > 0))
            ok = hnsw_fail(err, HNSW_FORMAT, "element %u: %u links in from elements before it, %u counted", i, n[i], kept);
    }
    free(n);
    return ok;
}

static bool check_labels(const struct hnsw *h, struct hnsw_err *err)
{
    size_t n = hnsw_label_map_count(&h->map);
    if (n != h->n)
        return hnsw_fail(err, HNSW_FORMAT, "labels: found %zu in the map, wanted %zu", n, h->n);
    for (uint32_t i = 0; i < h->n; i++) {
        uint32_t found = hnsw_label_map_find(&h->map, h->label, h->label[i]);
        if (found != i)
            return hnsw_fail(err, HNSW_FORMAT, "label %llu of element %u leads to element %u",
                             (unsigned long long)h->label[i], i, found);
    }
    return true;
}

/* Breadth first from the entry point; `queue` holds everyone reached. */
static size_t reach(const struct hnsw *h, uint8_t *seen, uint32_t *queue)
{
    uint32_t link[ROW_MAX];
    size_t n = 0, done = 0;
    seen[h->entry] = 1;
    queue[n++] = h->entry;
    while (done < n) {
        unsigned n_links = links0(h, queue[done++], link);
        for (unsigned i = 0; i < n_links; i++)
            if (!seen[link[i]]) {
                seen[link[i]] = 1;
                queue[n++] = link[i];
            }
    }
    return n;
}

static bool count_unreachable(const struct hnsw *h, size_t *unreachable, struct hnsw_err *err)
{
    if (h->n == 0)
        return true;
    uint8_t *seen = hnsw_mem_new(h->n, 1);
    uint32_t *queue = hnsw_mem_new(h->n, sizeof(*queue));
    bool ok = seen && queue;
    if (ok)
        *unreachable = h->n - reach(h, seen, queue);
    else
        hnsw_fail(err, HNSW_NOMEM, "check: no memory for %zu elements", h->n);
    free(seen);
    free(queue);
    return ok;
}

/* The fast layout must lead where the graph leads. */
static bool check_fast(const struct hnsw *h, struct hnsw_err *err)
{
    for (uint32_t i = 0; h->fast && i < h->n; i++) {
        const uint32_t *to = (const uint32_t *)(const void *)(h->fast->block + i * h->fast->stride);
        const uint32_t *link = node_links(h, h->fast->element[i], 0);
        for (unsigned j = 0; j < h->m0; j++)
            if (to[j] == NO_ID ? link[j] != NO_ID : to[j] >= h->n || h->fast->element[to[j]] != link[j])
                return hnsw_fail(err, HNSW_FORMAT, "element %u: the fast layout has other links than the graph",
                                 h->fast->element[i]);
    }
    return true;
}

bool hnsw_check(const struct hnsw *h, size_t *unreachable, struct hnsw_err *err)
{
    size_t none = 0;
    if (!unreachable)
        unreachable = &none;
    *unreachable = 0;
    if (h->n > h->capacity)
        return hnsw_fail(err, HNSW_FORMAT, "%zu elements in an index of %zu", h->n, h->capacity);
    if (!check_shape(h, err) || !hnsw_check_entry(h, err) || !hnsw_check_marks(h, err))
        return false;
    if (h->compact)
        return hnsw_compact_check(h, err) && count_unreachable(h, unreachable, err);
    if (!check_labels(h, err))
        return false;
    for (uint32_t i = 0; i < h->n; i++)
        if (!hnsw_check_element(h, i, (const unsigned char *)node_vec(h, i), err))
            return false;
    return check_upper(h, err) && check_ways(h, err) && check_fast(h, err) && count_unreachable(h, unreachable, err);
}
