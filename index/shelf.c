/* shelf.c - see shelf.h. */
#include "index/shelf.h"

#include <stdlib.h>

#include "index/hnsw_priv.h"

bool hnsw_shelf_fit(struct shelf *s, size_t cap)
{
    size_t want = 2 * (cap + 1) / SHELF_BLOCK + 4; // half full, the last two perhaps emptier
    if (want <= s->room)
        return true;
    hnsw_shelf_fini(s);
    s->key = hnsw_mem_block(want, SHELF_BLOCK * sizeof(*s->key));
    s->top = hnsw_mem_new(want, sizeof(*s->top));
    s->count = hnsw_mem_new(want, sizeof(*s->count));
    s->at = hnsw_mem_new(want, sizeof(*s->at));
    if (!s->key || !s->top || !s->count || !s->at) {
        hnsw_shelf_fini(s);
        return false;
    }
    s->room = want;
    return true;
}

void hnsw_shelf_fini(struct shelf *s)
{
    free(s->key);
    free(s->top);
    free(s->count);
    free(s->at);
    *s = (struct shelf){0};
}

void hnsw_shelf_split(struct shelf *s, size_t b)
{
    enum { HALF = SHELF_BLOCK / 2 };
    size_t after = s->n_blocks - b - 1;
    uint32_t free_at = s->at[s->n_blocks];
    memmove(s->top + b + 2, s->top + b + 1, after * sizeof(*s->top));
    memmove(s->count + b + 2, s->count + b + 1, after * sizeof(*s->count));
    memmove(s->at + b + 2, s->at + b + 1, after * sizeof(*s->at));
    s->at[b + 1] = free_at;
    s->n_blocks++;
    memcpy(shelf_keys(s, b + 1), shelf_keys(s, b) + HALF, HALF * sizeof(*s->key));
    s->count[b] = s->count[b + 1] = HALF;
    s->top[b + 1] = shelf_keys(s, b + 1)[0];
    if (s->next_block > b)
        s->next_block++;
    else if (s->next_block == b && s->next >= HALF) {
        s->next_block++;
        s->next -= HALF;
    }
}

size_t hnsw_shelf_keys(const struct shelf *s, uint64_t *key)
{
    size_t n = 0;
    for (size_t b = 0; b < s->n_blocks; n += s->count[b++])
        memcpy(key + n, shelf_keys(s, b), s->count[b] * sizeof(*key));
    return n;
}
