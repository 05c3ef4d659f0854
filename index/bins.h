/* bins.h - the candidates of a walk by upper bytes (compact_walk.c): a bucket queue.
 *
 * pool.h and shelf.h keep candidates sorted to the last bit, though scores by bytes are only good to some thousandths; most of the time of
 * a walk over bytes went into that. Here a candidate goes into one of 8,192 bins and its order within is of no account: putting it in
 * costs the same for an ef of 10 and of 10,000, with no search and nothing moved.
 *
 *   bin 0 is the best. Two cuts, at the `best` so many and at the `most` there may be: a cut's `last` is the worst bin that belongs to
 *   it, whole, so somewhat more than asked for may. What is `margin` bins behind the first at most is worth expanding, what is `reach`
 *   behind it at most worth keeping, both if within the second.
 *
 * Entries of a bin form a list, the latest first, and those to be expanded another. An id that comes again has the same score, so the
 * same bin, and is found there if it is among its latest BIN_LOOK, or that bin is behind the cut: only where many scores are equal an
 * id may be in the queue more than once. */
#ifndef HNSW_BINS_H
#define HNSW_BINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define N_BINS 8192
#define BIN_NONE UINT32_MAX
#define BIN_LOOK 16

struct bin_entry {
    uint32_t id, next, next_open;
};

struct bin {
    uint32_t head, open_head, count; // lists; entries
};

struct bin_cut {
    size_t want, n; // n in bins up to `last`
    uint32_t last;
};

struct bins {
    struct bin_cut best, most;
    uint32_t margin, reach;
    uint64_t any[N_BINS / 64], open[N_BINS / 64]; // bins that are not empty; that have an entry to be expanded
    uint64_t open_words[N_BINS / 64 / 64];      // words of `open` that are not 0
    struct bin bin[N_BINS];                       // those that are empty hold anything
    struct bin_entry *entry, *spare; // [room]
    size_t n_entries, room;
};

bool hnsw_bins_fit(struct bins *b, size_t most); // false: out of memory
void hnsw_bins_fini(struct bins *b);
/* 1 <= best <= most, margin <= reach <= N_BINS */
void hnsw_bins_begin(struct bins *b, size_t best, size_t most, uint32_t margin, uint32_t reach);
void hnsw_bins_sweep(struct bins *b); // make room: forget what is behind the cut
size_t hnsw_bins_best(const struct bins *b, size_t n, uint32_t *id); // ids of the best n, best bin first, into id; how many
uint32_t hnsw_bins_bin(const struct bins *b, size_t n); // that of the n-th best, from 1; the last if there are fewer

/* The worst bin that is not empty, from `at` on toward the better ones; there is one. */
static inline uint32_t bins_worst(const struct bins *b, uint32_t at)
{
    size_t word = at / 64;
    uint64_t bits = b->any[word] & (UINT64_MAX >> (63 - at % 64));
    while (!bits)
        bits = b->any[--word];
    return (uint32_t)(word * 64 + 63 - (unsigned)__builtin_clzll(bits));
}

/* The worst bin that is not too far behind, and within what there may be. */
static inline uint32_t bins_within(const struct bins *b, uint32_t behind)
{
    uint32_t last = b->best.last + behind;
    return last < b->most.last ? last : b->most.last;
}

/* The worst bin that is kept. */
static inline uint32_t bins_last(const struct bins *b)
{
    return bins_within(b, b->reach);
}

/* One more in bin `at`. The worst bin goes once enough are in better ones. */
static inline void bins_cut(const struct bins *b, struct bin_cut *c, uint32_t at)
{
    if (at > c->last || ++c->n <= c->want)
        return;
    c->last = bins_worst(b, c->last);
    if (c->n - b->bin[c->last].count >= c->want) {
        c->n -= b->bin[c->last].count;
        c->last--;
    }
}

/* An entry of a bin up to bins_last; nothing happens if it is there. A bin that holds all that is kept takes no more. */
static inline void bins_put(struct bins *b, uint32_t at, uint32_t id)
{
    struct bin *bin = &b->bin[at];
    uint64_t bit = (uint64_t)1 << at % 64;
    if (b->n_entries == b->room)
        hnsw_bins_sweep(b);
    if (!(b->any[at / 64] & bit)) {
        b->any[at / 64] |= bit;
        *bin = (struct bin){BIN_NONE, BIN_NONE, 0};
    }
    if (bin->count >= b->most.want)
        return;
    unsigned look = BIN_LOOK;
    for (uint32_t e = bin->head; e != BIN_NONE && look > 0; e = b->entry[e].next, look--)
        if (b->entry[e].id == id)
            return;
    b->entry[b->n_entries] = (struct bin_entry){id, bin->head, bin->open_head};
    bin->head = bin->open_head = (uint32_t)b->n_entries++;
    bin->count++;
    b->open[at / 64] |= bit;
    b->open_words[at / 4096] |= (uint64_t)1 << at / 64 % 64;
    bins_cut(b, &b->best, at);
    bins_cut(b, &b->most, at);
}

/* An entry to be expanded, of the best bin that has one, now taken; false if there is none. */
static inline bool bins_take(struct bins *b, uint32_t *id)
{
    size_t group = b->open_words[0] ? 0 : 1;
    if (!b->open_words[group])
        return false;
    size_t word = 64 * group + (unsigned)__builtin_ctzll(b->open_words[group]);
    uint32_t bin = (uint32_t)(64 * word + (unsigned)__builtin_ctzll(b->open[word]));
    if (bin > bins_within(b, b->margin))
        return false;
    const struct bin_entry *e = &b->entry[b->bin[bin].open_head];
    *id = e->id;
    b->bin[bin].open_head = e->next_open;
    if (e->next_open == BIN_NONE) {
        b->open[word] &= b->open[word] - 1;
        if (!b->open[word])
            b->open_words[group] &= b->open_words[group] - 1;
    }
    return true;
}

#endif
