/* seen.c - see struct seen in compact.h. */
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

bool hnsw_seen_begin(struct seen *s, size_t n, unsigned bits)
{
    uint32_t next = s->walk + ((uint32_t)1 << bits);
    bool anew = n != (size_t)s->mask + 1 || bits != s->bits || next < s->walk; // or all numbers were had
    if (!hnsw_grow_array((void **)&s->tag, &s->room, n, sizeof(*s->tag)))
        return false;
    s->mask = (uint32_t)n - 1;
    s->bits = bits;
    s->walk = anew ? 0 : next;
    if (anew)
        memset(s->tag, 0xff, n * sizeof(*s->tag)); // no id is all ones
    return true;
}

void hnsw_seen_fini(struct seen *s)
{
    free(s->tag);
    *s = (struct seen){0};
}
