/* heap.c - see heap.h. */
#include <stdlib.h>

#include "index/hnsw_priv.h"

void hnsw_heap_fini(struct heap *h)
{
    free(h->key);
    *h = (struct heap){0};
}

static void sift_down(struct heap *h, size_t at, uint64_t key)
{
    for (size_t child; (child = 2 * at + 1) < h->n; at = child) {
        if (child + 1 < h->n && h->key[child + 1] < h->key[child])
            child++;
        if (h->key[child] >= key)
            break;
        h->key[at] = h->key[child];
    }
    h->key[at] = key;
}

bool hnsw_heap_push(struct heap *h, uint64_t key)
{
    if (h->n == h->room) {
        size_t room = h->room ? 2 * h->room : 256;
        uint64_t *p = hnsw_mem_grow(h->key, room, sizeof(*p));
        if (!p)
            return false;
        h->key = p;
        h->room = room;
    }
    size_t at = h->n++;
    for (size_t up; at > 0 && h->key[up = (at - 1) / 2] > key; at = up)
        h->key[at] = h->key[up];
    h->key[at] = key;
    return true;
}

uint64_t hnsw_heap_pop(struct heap *h)
{
    uint64_t top = h->key[0];
    if (--h->n > 0)
        sift_down(h, 0, h->key[h->n]);
    return top;
}

void hnsw_heap_replace(struct heap *h, uint64_t key)
{
    sift_down(h, 0, key);
}
