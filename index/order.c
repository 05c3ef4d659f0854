/* order.c - numbering the elements of a finished graph for locality. A walk stays in one region of the graph; so should
 * its reads stay in one of memory. */
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

#define AHEAD 4    // elements whose links are asked for before they are needed
#define CLUSTER 64 // elements numbered together: some 70 KB of blocks of the fast layout

/* Two bits an element, asked for at every link, are all that the order depends on: at a million elements they stay in a core's
 * caches, where the 4 MB of numbers do not. */
struct ordering {
    const struct hnsw *h;
    uint32_t *element; // [n] of a number
    uint32_t *queue;   // [n + 1] elements from which clusters may begin, each once, and room for one that is not counted
    uint64_t *mark;    // MARK_BITS an element
    size_t n, tail;
};

enum { NUMBERED = 1, QUEUED = 2, MARK_BITS = 2, MARKS = 64 / MARK_BITS };

static size_t mark_words(size_t n)
{
    return n / MARKS + 1;
}

static unsigned marks(const struct ordering *o, uint32_t element)
{
    return (unsigned)(o->mark[element / MARKS] >> element % MARKS * MARK_BITS) & (NUMBERED | QUEUED);
}

static void set_mark(struct ordering *o, uint32_t element, unsigned mark)
{
    o->mark[element / MARKS] |= (uint64_t)mark << element % MARKS * MARK_BITS;
}

/* Both write first and then count it or not: whether an element is new cannot be predicted, and a wrong guess at each of 32 links
 * costs more than the rest. */
static void number(struct ordering *o, uint32_t element)
{
    o->element[o->n] = element;
    o->n += !(marks(o, element) & NUMBERED);
    set_mark(o, element, NUMBERED);
}

static void enqueue(struct ordering *o, uint32_t element)
{
    o->queue[o->tail] = element;
    o->tail += marks(o, element) == 0;
    set_mark(o, element, QUEUED);
}

/* Number an element and those around it, breadth first, up to CLUSTER of them; those at the edge may begin others. */
static void number_cluster(struct ordering *o, uint32_t from)
{
    size_t begin = o->n, end = o->h->n - begin < CLUSTER ? o->h->n : begin + CLUSTER;
    number(o, from);
    for (size_t i = begin; i < o->n; i++) {
        const uint32_t *link = node_links(o->h, o->element[i], 0);
        if (i + AHEAD < o->n)
            ask_for_links0(o->h, o->element[i + AHEAD]);
        for (unsigned j = 0; j < o->h->m0 && link[j] != NO_ID; j++)
            if (o->n < end)
                number(o, link[j]);
            else
                enqueue(o, link[j]);
    }
}

static void number_all(struct ordering *o)
{
    size_t head = 0;
    number_cluster(o, o->h->entry);
    for (uint32_t i = 0; o->n < o->h->n; i++) { // what the entry point does not reach comes at the end
        for (; head < o->tail; head++) {
            if (head + AHEAD < o->tail)
                ask_for_links0(o->h, o->queue[head + AHEAD]);
            if (!(marks(o, o->queue[head]) & NUMBERED))
                number_cluster(o, o->queue[head]);
        }
        if (!(marks(o, i) & NUMBERED))
            number_cluster(o, i);
    }
}

uint32_t *hnsw_order(const struct hnsw *h, uint32_t *element)
{
    struct ordering o = {.h = h, .element = element};
    uint32_t *at = hnsw_mem_block(h->n, sizeof(*at));
    o.queue = hnsw_mem_block(h->n + 1, sizeof(*o.queue));
    o.mark = hnsw_mem_new(mark_words(h->n), sizeof(*o.mark));
    bool ok = at && o.queue && o.mark;
    if (ok)
        number_all(&o);
    for (size_t i = 0; ok && i < h->n; i++)
        at[element[i]] = (uint32_t)i;
    free(o.queue);
    free(o.mark);
    if (ok)
        return at;
    free(at);
    return NULL;
}
