/* visited.c - growing and turning over the marks of visited.h. */
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

bool hnsw_visited_fit(struct visited *v, size_t n)
{
    if (n <= v->cap)
        return true;
    if (!hnsw_grow_array((void **)&v->tag, &v->cap, n, 1))
        return false;
    memset(v->tag, 0, v->cap);
    v->now = 0;
    return true;
}

void hnsw_visited_fini(struct visited *v)
{
    free(v->tag);
    *v = (struct visited){0};
}

void hnsw_visited_begin(struct visited *v)
{
    if (++v->now == 0) {
        memset(v->tag, 0, v->cap);
        v->now = 1;
    }
}
