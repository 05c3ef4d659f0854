/* heap.h - a binary heap of 64-bit keys, the smallest on top; a largest-first heap is one of complemented keys.
 * Filtered search uses two: alg. 2 as written, since what may be walked through and what may be returned differ there
 * (see pool.h). */
#ifndef HNSW_HEAP_H
#define HNSW_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap {
    uint64_t *key; // [room]; key[0] is the smallest
    size_t n, room;
};

void hnsw_heap_fini(struct heap *h);
bool hnsw_heap_push(struct heap *h, uint64_t key);    // false: out of memory
uint64_t hnsw_heap_pop(struct heap *h);               // n > 0
void hnsw_heap_replace(struct heap *h, uint64_t key); // pop, then push; n > 0

#endif
