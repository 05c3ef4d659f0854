/* visited.h - which elements a walk has seen: one byte an element, compared with the walk's own number, so that
 * starting a walk clears nothing (255 walks share one clearing). 1M elements are 1 MB and stay in the second-level
 * cache. */
#ifndef HNSW_VISITED_H
#define HNSW_VISITED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct visited {
    uint8_t *tag; // [cap]
    size_t cap;
    uint8_t now; // the walk's number, never 0
};

bool hnsw_visited_fit(struct visited *v, size_t n); // false: out of memory
void hnsw_visited_fini(struct visited *v);
void hnsw_visited_begin(struct visited *v); // a new walk: nothing is seen

/* Mark; true if it was not seen before. */
static inline bool visited_mark(struct visited *v, uint32_t id)
{
    bool fresh = v->tag[id] != v->now;
    v->tag[id] = v->now;
    return fresh;
}

#endif
