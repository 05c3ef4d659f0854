/* pool.h - the candidates of one walk: the `cap` best seen, sorted, best first, each open (still to be expanded) or
 * done.
 *
 * HNSW alg. 2 keeps two heaps, candidates and results. A candidate worse than the worst of a full result is never
 * expanded, so one sorted array of ef entries holds both: the results are the array, the next candidate is its first
 * open entry. An entry is one 64-bit number; inserting is a binary search and a memmove of at most 8 ef bytes, cheaper
 * than a heap up to thousands of entries.
 *
 *   key = score, mapped to an unsigned that orders the same (32 bits) | ~id (31 bits) | open (1 bit): equal scores,
 * lower id first */
#ifndef HNSW_POOL_H
#define HNSW_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct pool {
    uint64_t *key; // [room] descending
    size_t n, cap, room;
    size_t next; // no open entry before this one
};

bool hnsw_pool_fit(struct pool *p, size_t cap); // false: out of memory
void hnsw_keys_sort(uint64_t *key, size_t n);   // descending; fast where they nearly are
void hnsw_pool_fini(struct pool *p);

static inline uint32_t score_to_bits(float s)
{
    s += 0.0f; // -0 and 0 are one score
    uint32_t u;
    memcpy(&u, &s, sizeof(u));
    return u ^ ((u >> 31) ? 0xffffffffu : 0x80000000u);
}

static inline float score_from_bits(uint32_t u)
{
    u ^= (u >> 31) ? 0x80000000u : 0xffffffffu;
    float s;
    memcpy(&s, &u, sizeof(s));
    return s;
}

static inline uint64_t pool_key(float score, uint32_t id)
{
    return ((uint64_t)score_to_bits(score) << 32) | ((uint64_t)(0x7fffffffu - id) << 1) | 1;
}

static inline uint32_t key_id(uint64_t key)
{
    return 0x7fffffffu - ((uint32_t)key >> 1);
}

static inline float key_score(uint64_t key)
{
    return score_from_bits((uint32_t)(key >> 32));
}

static inline void pool_begin(struct pool *p, size_t cap)
{
    p->n = 0;
    p->next = 0;
    p->cap = cap;
}

/* Make room for `key` before the first entry that is worse, from the worse end, eight entries a step: most arrivals end up not far from
 * there, so this costs less than a binary search. Returns its place, which is free or holds the worst, which goes. */
static inline uint64_t *pool_make_room(struct pool *p, uint64_t key)
{
    uint64_t *at, some[8];
    p->n += p->n < p->cap;
    for (at = p->key + p->n - 1; at - p->key >= 8 && at[-8] < key; at -= 8) {
        memcpy(some, at - 8, sizeof(some)); // not memmove: two copies that the compiler keeps in registers
        memcpy(at - 7, some, sizeof(some));
    }
    for (; at > p->key && at[-1] < key; at--)
        *at = at[-1];
    return at;
}

static inline void pool_put(struct pool *p, uint64_t *at, uint64_t key)
{
    *at = key;
    if ((size_t)(at - p->key) < p->next)
        p->next = (size_t)(at - p->key);
}

/* Keep the entry if there is room or it beats the worst. `id` is not in the pool. */
static inline void pool_insert(struct pool *p, float score, uint32_t id)
{
    uint64_t key = pool_key(score, id);
    if (p->n < p->cap || key > p->key[p->n - 1])
        pool_put(p, pool_make_room(p, key), key);
}

static inline bool pool_has_open(struct pool *p)
{
    while (p->next < p->n && !(p->key[p->next] & 1))
        p->next++;
    return p->next < p->n;
}

/* The best open entry, now done; false when there is none. */
static inline bool pool_take(struct pool *p, uint32_t *id)
{
    if (!pool_has_open(p))
        return false;
    *id = key_id(p->key[p->next]);
    p->key[p->next] &= ~(uint64_t)1;
    return true;
}

#endif
