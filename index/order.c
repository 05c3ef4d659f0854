/* order.c - numbering the elements of a finished graph for locality. A walk stays in one region of the graph; so should
 * its reads stay in one of memory. */
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

#define AHEAD 4    // elements whose links are asked for before they are needed
#define CLUSTER 64 // elements numbered together: some 70 KB of blocks of the fast layout

struct ordering {
    const struct hnsw *h;
    uint32_t *number;  // [n] of an element, or NO_ID
    uint32_t *element; // [n] of a number
    uint32_t *queue;   // [n] elements from which clusters may begin, each once
    uint8_t *queued;   // [n]
    size_t n, tail;
};

/* Number an element and those around it, breadth first, up to CLUSTER of them; those at the edge may begin others. */
static void number_cluster(struct ordering *o, uint32_t from)
{
    size_t begin = o->n;
    o->number[from] = (uint32_t)o->n;
    o->element[o->n++] = from;
    for (size_t i = begin; i < o->n; i++) {
        const uint32_t *link = node_links(o->h, o->element[i], 0);
        if (i + AHEAD < o->n)
            ask_for_links0(o->h, o->element[i + AHEAD]);
        for (unsigned j = 0; j < o->h->m0 && link[j] != NO_ID; j++) {
            uint32_t to = link[j];
            if (o->number[to] != NO_ID)
                continue;
            if (o->n - begin < CLUSTER) {
                o->number[to] = (uint32_t)o->n;
                o->element[o->n++] = to;
            } else if (!o->queued[to]) {
                o->queued[to] = 1;
                o->queue[o->tail++] = to;
            }
        }
    }
}

static void number_all(struct ordering *o)
{
    size_t head = 0;
    memset(o->number, 0xff, o->h->n * sizeof(*o->number));
    number_cluster(o, o->h->entry);
    for (uint32_t i = 0; o->n < o->h->n; i++) { // what the entry point does not reach comes at the end
        for (; head < o->tail; head++) {
            if (head + AHEAD < o->tail)
                ask_for_links0(o->h, o->queue[head + AHEAD]);
            if (o->number[o->queue[head]] == NO_ID)
                number_cluster(o, o->queue[head]);
        }
        if (o->number[i] == NO_ID)
            number_cluster(o, i);
    }
}

uint32_t *hnsw_order(const struct hnsw *h, uint32_t *element)
{
    struct ordering o = {.h = h, .element = element};
    o.number = hnsw_mem_block(h->n, sizeof(*o.number));
    o.queue = hnsw_mem_block(h->n, sizeof(*o.queue));
    o.queued = hnsw_mem_new(h->n, 1);
    bool ok = o.number && o.queue && o.queued;
    if (ok)
        number_all(&o);
    else
        free(o.number);
    free(o.queue);
    free(o.queued);
    return ok ? o.number : NULL;
}
