/* shelf.h - the candidates of one walk over the fast layout: pool.h's sorted list, in blocks.
 *
 * pool.h moves what is worse than an arrival by one place, half of 1,500 entries where ef is 1,500: there that took more
 * time than scoring. Here entries stand in blocks of at most SHELF_BLOCK, best block first, and an arrival moves those
 * of its block. A block that is full is cut in half, so all but the last stay at least half full.
 *
 * Keys are those of pool.h, with its `open` bit. */
#ifndef HNSW_SHELF_H
#define HNSW_SHELF_H

#include "index/pool.h"

#define SHELF_BLOCK 128

struct shelf {
    size_t n, cap;
    size_t n_blocks;              // in use, best first
    size_t next_block, next;      // no open entry before this one
    uint64_t *key;                // [blocks][SHELF_BLOCK] descending within a block
    uint64_t *top;                // [blocks] first key of each, in the order of blocks, as `count` and `at`
    uint32_t *count, *at;         // entries; where its keys are: key + at * SHELF_BLOCK
    size_t room;                  // blocks that there are
};

bool hnsw_shelf_fit(struct shelf *s, size_t cap); // false: out of memory
void hnsw_shelf_fini(struct shelf *s);
void hnsw_shelf_split(struct shelf *s, size_t b);        // a full block
size_t hnsw_shelf_keys(const struct shelf *s, uint64_t *key); // all, best first, into key[n]; returns n

static inline void shelf_begin(struct shelf *s, size_t cap)
{
    s->n = s->next_block = s->next = 0;
    s->cap = cap;
    s->n_blocks = 1;
    s->count[0] = 0;
    for (uint32_t i = 0; i < s->room; i++)
        s->at[i] = i;
}

static inline uint64_t *shelf_keys(const struct shelf *s, size_t block)
{
    return s->key + (size_t)s->at[block] * SHELF_BLOCK;
}

/* Of a shelf that is not empty. */
static inline uint64_t shelf_worst(const struct shelf *s)
{
    return shelf_keys(s, s->n_blocks - 1)[s->count[s->n_blocks - 1] - 1];
}

static inline void shelf_drop_worst(struct shelf *s)
{
    size_t last = s->n_blocks - 1;
    s->n--;
    s->n_blocks -= --s->count[last] == 0 && last > 0; // its place in `at` is the next free one
}

/* Keep an entry that may be there already, with this score; then nothing happens. There is room, or it beats the worst. */
static inline void shelf_insert_new(struct shelf *s, float score, uint32_t id)
{
    uint64_t key = pool_key(score, id), closed = key & ~(uint64_t)1; // stops behind itself, be it open or done
    size_t b = s->n_blocks - 1;
    while (b > 0 && s->top[b] < closed)
        b--;
    if (s->count[b] == SHELF_BLOCK) {
        hnsw_shelf_split(s, b);
        b += s->top[b + 1] >= closed;
    }
    uint64_t *keys = shelf_keys(s, b);
    size_t n = s->count[b], i = n;
    while (i >= 8 && keys[i - 8] < closed)
        i -= 8;
    while (i > 0 && keys[i - 1] < closed)
        i--;
    if (i > 0 && keys[i - 1] >> 1 == key >> 1)
        return;
    memmove(keys + i + 1, keys + i, (n - i) * sizeof(*keys));
    keys[i] = key;
    s->count[b]++;
    s->top[b] = keys[0];
    if (b < s->next_block || (b == s->next_block && i < s->next)) {
        s->next_block = b;
        s->next = i;
    }
    if (++s->n > s->cap)
        shelf_drop_worst(s);
}

/* The best open entry, now done, if it is among the best `ef`; false if not. */
static inline bool shelf_take(struct shelf *s, size_t ef, uint32_t *id)
{
    size_t before = 0;
    for (;; s->next_block++, s->next = 0) {
        if (s->next_block >= s->n_blocks)
            return false;
        const uint64_t *keys = shelf_keys(s, s->next_block);
        while (s->next < s->count[s->next_block] && !(keys[s->next] & 1))
            s->next++;
        if (s->next < s->count[s->next_block])
            break;
        if (s->next_block + 1 == s->n_blocks)
            return false; // an arrival may still come behind it
    }
    for (size_t b = 0; s->cap > ef && b < s->next_block; b++)
        before += s->count[b];
    if (before + s->next >= ef)
        return false;
    uint64_t *key = &shelf_keys(s, s->next_block)[s->next];
    *id = key_id(*key);
    *key &= ~(uint64_t)1;
    return true;
}

#endif
