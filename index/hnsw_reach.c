/* hnsw_reach.c - a graph in which everything can be found: who leads nowhere is given a way in.
 *
 * Additions keep their graph so that all of it can be reached (hnsw_ways.c). A graph from elsewhere, of hnswlib above all, is only
 * looked at: one walk from the entry point, breadth first, that remembers who brought
 * whom:
 *
 *     entry --> a --> b       parent[a] = entry, parent[b] = a; the link a --> b carries b, a --> entry carries nobody
 *
 * Whoever is left out is linked from a close element that is reached, in a free place or in place of a link that
 * carries nobody, so no other element is lost by it.
 *
 * A search begins where the upper levels lead it, not at the entry point. So everyone must lead to the entry point too;
 * of more equal vectors than ef_construction, the ones inside know only each other. Who does not gets a link to the
 * closest of parent, parent's parent, ... that does.
 *
 * All this reads every list a few times and scores next to nothing: a percent of what adding costs. */
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

/* Of one repair. */
struct reach {
    uint32_t *parent, *queue; // [n]
    uint8_t *back;            // [n]
    size_t n, done, spare;
};

static void visit(struct reach *r, uint32_t id, uint32_t parent)
{
    r->parent[id] = parent;
    r->queue[r->n++] = id;
}

static void spread(struct reach *r, const struct hnsw *h)
{
    while (r->done < r->n) {
        uint32_t from = r->queue[r->done++];
        const uint32_t *link = node_links(h, from, 0);
        for (unsigned i = 0; i < h->m0 && link[i] != NO_ID; i++)
            if (r->parent[link[i]] == NO_ID)
                visit(r, link[i], from);
    }
}

/* The first free place in a list, else the last that carries nobody (the last are the ones it can best spare), or NULL.
 */
static uint32_t *place(const struct reach *r, const struct hnsw *h, uint32_t id)
{
    uint32_t *link = node_links(h, id, 0);
    unsigned n = links_count(link, h->m0);
    if (n < h->m0)
        return link + n;
    while (n > 0 && r->parent[link[n - 1]] == id)
        n--;
    return n > 0 ? link + n - 1 : NULL;
}

/* Let `from`, if it is reached, lead to `to`, which is not. */
static bool lead(struct reach *r, struct hnsw *h, uint32_t from, uint32_t to)
{
    uint32_t *link = r->parent[from] == NO_ID ? NULL : place(r, h, from);
    if (!link)
        return false;
    *link = to;
    visit(r, to, from);
    return true;
}

/* From one of those that it chose as its own neighbours, or that they chose. */
static bool lead_from_neighbour(struct reach *r, struct hnsw *h, uint32_t id)
{
    const uint32_t *near = node_links(h, id, 0);
    unsigned n = links_count(near, h->m0);
    for (unsigned i = 0; i < n; i++)
        if (lead(r, h, near[i], id))
            return true;
    for (unsigned i = 0; i < n; i++) {
        const uint32_t *link = node_links(h, near[i], 0);
        for (unsigned j = 0; j < h->m0 && link[j] != NO_ID; j++)
            if (lead(r, h, link[j], id))
                return true;
    }
    return false;
}

static bool lead_from_found(struct reach *r, struct hnsw *h, uint32_t id, struct hnsw_ws *ws)
{
    struct scored from = hnsw_descend(h, NULL, node_vec(h, id), 0, ws, h->entry);
    hnsw_walk(h, NULL, node_vec(h, id), from, 0, build_ef(h), ws);
    for (size_t i = 0; i < ws->pool.n; i++)
        if (lead(r, h, key_id(ws->pool.key[i]), id))
            return true;
    return false;
}

/* From anywhere. There is always a place: n reached elements have n - 1 links that carry somebody, and room for 4 n. */
static void lead_from_any(struct reach *r, struct hnsw *h, uint32_t id)
{
    while (!lead(r, h, r->queue[r->spare], id))
        r->spare++;
}

static bool leads_back(const struct reach *r, const struct hnsw *h, uint32_t id)
{
    const uint32_t *link = node_links(h, id, 0);
    for (unsigned i = 0; i < h->m0 && link[i] != NO_ID; i++)
        if (r->back[link[i]])
            return true;
    return false;
}

/* In the order of the walk most neighbours towards the entry point come first, so two rounds are usual. */
static void find_back(struct reach *r, const struct hnsw *h)
{
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < r->n; i++)
            if (!r->back[r->queue[i]] && leads_back(r, h, r->queue[i])) {
                r->back[r->queue[i]] = 1;
                more = true;
            }
    }
}

static size_t lead_back(struct reach *r, struct hnsw *h, size_t *linked)
{
    size_t left = 0;
    for (size_t i = 0; i < r->n; i++) {
        uint32_t id = r->queue[i], to = r->parent[id], *link;
        if (r->back[id] || (r->back[id] = leads_back(r, h, id)))
            continue;
        while (!r->back[to])
            to = r->parent[to];
        if ((link = place(r, h, id))) {
            *link = to;
            r->back[id] = 1;
            ++*linked;
        } else
            left++; // it carries others with every link, and the last of those have places
    }
    return left;
}

/* How many links that took. */
static size_t reach_all(struct hnsw *h, struct reach *r, struct hnsw_ws *ws)
{
    size_t linked = 0;
    r->n = r->done = r->spare = 0;
    for (size_t i = 0; i < h->n; i++)
        r->parent[i] = NO_ID;
    visit(r, h->entry, h->entry);
    spread(r, h);
    for (uint32_t id = 0; id < h->n; id++) {
        if (r->parent[id] != NO_ID)
            continue;
        if (!lead_from_neighbour(r, h, id) && !lead_from_found(r, h, id, ws))
            lead_from_any(r, h, id);
        spread(r, h);
        linked++;
    }
    memset(r->back, 0, h->n);
    r->back[h->entry] = 1;
    do
        find_back(r, h);
    while (lead_back(r, h, &linked) > 0);
    return linked;
}

bool hnsw_repair(struct hnsw *h, size_t *linked, struct hnsw_err *err)
{
    size_t none;
    linked = linked ? linked : &none;
    *linked = 0;
    if (h->n == 0 || h->ways)
        return true;
    if (hnsw_compact_refuses(h, "repair", err) || !hnsw_graph_own(h, err))
        return false;
    struct hnsw_ws *ws = hnsw_ws_new();
    struct reach r = {.parent = hnsw_mem_new(h->n, sizeof(*r.parent)), .queue = hnsw_mem_new(h->n, sizeof(*r.queue))};
    r.back = hnsw_mem_new(h->n, sizeof(*r.back));
    bool ok = ws && r.parent && r.queue && r.back && hnsw_ws_fit(ws, h->n, build_ef(h), h->dim);
    if (ok && (*linked = reach_all(h, &r, ws)) > 0) {
        hnsw_fast_free(h->fast);
        h->fast = NULL;
    }
    free(r.parent);
    free(r.queue);
    free(r.back);
    hnsw_ws_free(ws);
    return ok || hnsw_fail(err, HNSW_NOMEM, "repair: no memory for %zu elements", h->n);
}
