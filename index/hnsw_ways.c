/* hnsw_ways.c - a graph in which everything can be found, kept so by every change of a list.
 *
 * Alg. 4 keeps what is best for each list by itself, so an element may lose its last link in: among many equal vectors nearly all do,
 * and after many replacements some; hnswlib leaves it at that. To know who can be reached would take a walk over the whole graph, but
 * two rules that each list can keep alone are enough. On level 0
 *
 *     every element but element 0 has a link in from one before it, and a link out to one before it.
 *
 * By induction element 0 leads to everybody and everybody leads to element 0: a search can get from anywhere to anywhere. A new element
 * comes after all others, so all its links keep the rules, and it has only to be in one list. Later a list may not drop the
 * last link in of a later element (h->ways counts those from earlier ones), nor its own last link to an earlier one. Of twenty
 * links some point back and some forth except for the first and the last few of all elements: one list in twenty holds
 * a link that pruning would have dropped.
 *
 * Counts change by atomic operations, and only under the lock of the list that gains or loses the link; they go down only after looking,
 * and before the link is gone, so none is ever counted too high. */
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

static bool contains(const uint32_t *link, unsigned n, uint32_t id)
{
    unsigned found = 0; // no early exit: the compiler makes it SIMD
    for (unsigned i = 0; i < n; i++)
        found |= link[i] == id;
    return found;
}

/* A bit by hash for each link of a list: most of those that are not in it are known by that. */
struct sketch {
    uint64_t bit[8];
};

static unsigned hash_of(uint32_t id)
{
    return id * 0x9e3779b1u >> 23;
}

static struct sketch sketch_of(const uint32_t *link, unsigned n)
{
    struct sketch s = {{0}};
    for (unsigned i = 0; i < n; i++)
        s.bit[hash_of(link[i]) / 64] |= (uint64_t)1 << hash_of(link[i]) % 64;
    return s;
}

static bool is_in(const struct sketch *s, const uint32_t *link, unsigned n, uint32_t id)
{
    return s->bit[hash_of(id) / 64] >> hash_of(id) % 64 & 1 && contains(link, n, id);
}

static void gain(struct hnsw *h, uint32_t id)
{
    atomic_fetch_add_explicit(&h->ways[id], 1, memory_order_relaxed);
}

/* False if it is the last one. */
static bool lose(struct hnsw *h, uint32_t id)
{
    uint32_t n = atomic_load_explicit(&h->ways[id], memory_order_relaxed);
    while (n > 1)
        if (atomic_compare_exchange_weak_explicit(&h->ways[id], &n, n - 1, memory_order_relaxed, memory_order_relaxed))
            return true;
    return false;
}

static unsigned n_before(const uint32_t *link, unsigned n, uint32_t base)
{
    unsigned before = 0;
    for (unsigned i = 0; i < n; i++)
        before += link[i] < base;
    return before;
}

// --------------------------------------------------------------------------------------------------------- lists

void hnsw_ways_gain(struct hnsw *h, uint32_t from, uint32_t to)
{
    if (to > from)
        gain(h, to);
}

/* Make room for `more` links at the end of want[n]: the last that may go are taken out. Returns how many are left. */
static unsigned make_room(struct hnsw *h, uint32_t base, const uint32_t *old, unsigned n_old, uint32_t *want, unsigned n,
                          unsigned cap, unsigned more)
{
    unsigned before = n_before(want, n, base);
    for (unsigned i = n; i > 0 && n + more > cap; i--) {
        uint32_t id = want[i - 1];
        if (id < base ? before < 2 : contains(old, n_old, id) && !lose(h, id))
            continue;
        before -= id < base;
        memmove(want + i - 1, want + i, (n - i) * sizeof(*want));
        n--;
    }
    return n;
}

void hnsw_ways_rewrite(struct hnsw *h, uint32_t base, uint32_t *link, uint32_t *want, unsigned n)
{
    unsigned cap = h->m0, n_old = links_count(link, cap), n_kept = 0;
    uint32_t kept[ROW_MAX];
    struct sketch wanted = sketch_of(want, n), had = sketch_of(link, n_old);
    bool before = n_before(want, n, base) > 0;
    for (unsigned i = 0; i < n_old; i++) {
        if (link[i] < base ? before : is_in(&wanted, want, n, link[i]) || lose(h, link[i]))
            continue;
        before |= link[i] < base;
        kept[n_kept++] = link[i];
    }
    if (n + n_kept > cap)
        n = make_room(h, base, link, n_old, want, n, cap, n_kept);
    for (unsigned i = 0; i < n; i++)
        if (want[i] > base && !is_in(&had, link, n_old, want[i]))
            gain(h, want[i]);
    memcpy(link, want, n * sizeof(*link));
    memcpy(link + n, kept, n_kept * sizeof(*link));
    for (unsigned i = n + n_kept; i < cap; i++)
        link[i] = NO_ID;
}

// ------------------------------------------------------------------------------------------------------- ways in

/* A place in the list of `from` for `id`, which comes later: a free one, or that of the last link that may go. If all must stay and
 * `force` is set, one that comes after `id` goes all the same, into *homeless. */
static bool lead(struct hnsw *h, hnsw_lock *lock, uint32_t from, uint32_t id, bool force, uint32_t *homeless)
{
    uint32_t *link = node_links(h, from, 0);
    if (lock)
        hnsw_lock_take(&lock[from]);
    unsigned n = links_count(link, h->m0), at = n, before = n_before(link, n, from);
    bool ok = contains(link, n, id); // while others build it may have come in by itself
    if (!ok && n == h->m0) {
        while (at > 0 && !(link[at - 1] < from ? before > 1 : lose(h, link[at - 1])))
            at--;
        at = at > 0 ? at - 1 : n;
    }
    for (unsigned i = n; force && !ok && at == h->m0 && i > 0; i--)
        if (link[i - 1] > id) {
            at = i - 1;
            *homeless = link[at];
            atomic_fetch_sub_explicit(&h->ways[*homeless], 1, memory_order_relaxed);
        }
    if (!ok && at < h->m0) {
        link[at] = id;
        gain(h, id);
        ok = true;
    }
    if (lock)
        hnsw_lock_drop(&lock[from]);
    return ok;
}

/* From the best that is found for it, else from anyone before it, the last first; else for somebody after it, who is homeless then. Among
 * all before the last element there are more places than links that must stay, so this ends. */
static uint32_t find_way_in(struct hnsw *h, hnsw_lock *lock, uint32_t id, const struct pool *near)
{
    uint32_t homeless = NO_ID;
    for (size_t i = 0; i < near->n; i++)
        if (key_id(near->key[i]) < id && lead(h, lock, key_id(near->key[i]), id, false, NULL))
            return NO_ID;
    for (int force = 0; force < 2; force++)
        for (uint32_t from = id; from-- > 0;)
            if (lead(h, lock, from, id, force, &homeless))
                return homeless;
    return NO_ID;
}

static void search_near(const struct hnsw *h, hnsw_lock *lock, uint32_t id, struct hnsw_ws *ws)
{
    struct scored from = hnsw_descend(h, lock, node_vec(h, id), 0, ws, h->entry);
    hnsw_walk(h, lock, node_vec(h, id), from, 0, build_ef(h), ws);
}

/* A new element has chosen among those before it, but for one that was overtaken by others while several threads build. */
static uint32_t find_way_out(struct hnsw *h, hnsw_lock *lock, uint32_t id, const struct pool *near)
{
    uint32_t *link = node_links(h, id, 0), to = 0, homeless = NO_ID; // element 0 was there before all others
    if (lock)
        hnsw_lock_take(&lock[id]);
    unsigned n = links_count(link, h->m0), at = n;
    if (n_before(link, n, id) == 0) {
        for (size_t i = near->n; i > 0; i--)
            to = key_id(near->key[i - 1]) < id ? key_id(near->key[i - 1]) : to;
        if (n == h->m0 && !lose(h, link[--at])) {
            homeless = link[at];
            atomic_fetch_sub_explicit(&h->ways[homeless], 1, memory_order_relaxed);
        }
        link[at] = to;
    }
    if (lock)
        hnsw_lock_drop(&lock[id]);
    return homeless;
}

static void settle_in(struct hnsw *h, hnsw_lock *lock, uint32_t id, struct hnsw_ws *ws)
{
    while (id != NO_ID && id != 0 && atomic_load_explicit(&h->ways[id], memory_order_relaxed) == 0) {
        id = find_way_in(h, lock, id, &ws->pool);
        if (id != NO_ID)
            search_near(h, lock, id, ws);
    }
}

void hnsw_ways_settle(struct hnsw *h, hnsw_lock *lock, uint32_t id, struct hnsw_ws *ws)
{
    uint32_t homeless = id == 0 ? NO_ID : find_way_out(h, lock, id, &ws->pool);
    settle_in(h, lock, id, ws);
    if (homeless != NO_ID) {
        search_near(h, lock, homeless, ws);
        settle_in(h, lock, homeless, ws);
    }
}

// ---------------------------------------------------------------------------------------------- of a finished graph

static void count_ways(struct hnsw *h)
{
    for (uint32_t id = 0; id < h->n; id++) {
        const uint32_t *link = node_links(h, id, 0);
        for (unsigned i = 0; i < h->m0 && link[i] != NO_ID; i++)
            hnsw_ways_gain(h, id, link[i]);
    }
}

/* From those that it leads to itself: most of the time one has a place, and nothing needs to be searched. */
static bool has_way_in(struct hnsw *h, uint32_t id)
{
    const uint32_t *link = node_links(h, id, 0);
    bool ok = atomic_load_explicit(&h->ways[id], memory_order_relaxed) > 0;
    for (unsigned i = 0; !ok && i < h->m0 && link[i] != NO_ID; i++)
        ok = link[i] < id && lead(h, NULL, link[i], id, false, NULL);
    return ok;
}

static void establish(struct hnsw *h, struct hnsw_ws *ws)
{
    count_ways(h);
    for (uint32_t id = 1; id < h->n; id++) {
        const uint32_t *link = node_links(h, id, 0);
        if (has_way_in(h, id) && n_before(link, links_count(link, h->m0), id) > 0)
            continue;
        search_near(h, NULL, id, ws);
        hnsw_ways_settle(h, NULL, id, ws);
    }
}

bool hnsw_ways_fit(struct hnsw *h, struct hnsw_ws *ws)
{
    if (h->ways && h->capacity <= h->ways_cap)
        return true;
    atomic_uint *ways = hnsw_mem_new(h->capacity, sizeof(*ways));
    if (!ways)
        return false;
    for (size_t i = 0; h->ways && i < h->n; i++)
        atomic_init(&ways[i], atomic_load(&h->ways[i]));
    bool fresh = !h->ways;
    free(h->ways);
    h->ways = ways;
    h->ways_cap = h->capacity;
    if (fresh && h->n > 0)
        establish(h, ws);
    return true;
}
