/* bins.c - see bins.h. */
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

/* What is within the cut is at most twice `most`, as the worst bin of it holds no more than that. */
static size_t room_for(size_t most)
{
    return 4 * most + 256;
}

bool hnsw_bins_fit(struct bins *b, size_t most)
{
    size_t room = room_for(most), spare = b->room;
    if (room <= b->room)
        return true;
    b->room = 0;
    return hnsw_grow_array((void **)&b->spare, &spare, room, sizeof(*b->spare)) &&
           hnsw_grow_array((void **)&b->entry, &b->room, room, sizeof(*b->entry));
}

void hnsw_bins_fini(struct bins *b)
{
    free(b->entry);
    free(b->spare);
    b->entry = b->spare = NULL;
    b->room = 0;
}

void hnsw_bins_begin(struct bins *b, size_t best, size_t most, uint32_t margin, uint32_t reach)
{
    b->best = (struct bin_cut){best, 0, N_BINS - 1};
    b->most = (struct bin_cut){most, 0, N_BINS - 1};
    b->margin = margin;
    b->reach = reach;
    memset(b->any, 0, sizeof(b->any));
    memset(b->open, 0, sizeof(b->open));
    memset(b->open_words, 0, sizeof(b->open_words));
    b->n_entries = 0;
}

/* Move the entries of a bin to `spare`, from place n on, in their order; where they end. */
static size_t move_bin(struct bins *b, struct bin *bin, size_t n)
{
    uint32_t from = bin->head, open = bin->open_head;
    uint32_t *next = &bin->head, *next_open = &bin->open_head;
    for (; from != BIN_NONE; from = b->entry[from].next) {
        struct bin_entry *to = &b->spare[n];
        to->id = b->entry[from].id;
        *next = (uint32_t)n;
        next = &to->next;
        if (from == open) {
            open = b->entry[from].next_open;
            *next_open = (uint32_t)n;
            next_open = &to->next_open;
        }
        n++;
    }
    *next = *next_open = BIN_NONE;
    return n;
}

void hnsw_bins_sweep(struct bins *b)
{
    size_t n = 0, last = bins_last(b);
    for (size_t word = 0; word < N_BINS / 64; word++) {
        uint64_t within = word < last / 64 ? UINT64_MAX : word > last / 64 ? 0 : UINT64_MAX >> (63 - last % 64);
        b->any[word] &= within;
        b->open[word] &= within;
        if (!b->open[word])
            b->open_words[word / 64] &= ~((uint64_t)1 << word % 64);
        for (uint64_t left = b->any[word]; left; left &= left - 1)
            n = move_bin(b, &b->bin[64 * word + (unsigned)__builtin_ctzll(left)], n);
    }
    struct bin_entry *old = b->entry;
    b->entry = b->spare;
    b->spare = old;
    b->n_entries = n;
}

size_t hnsw_bins_best(const struct bins *b, size_t n, uint32_t *id)
{
    size_t found = 0;
    for (size_t word = 0; word < N_BINS / 64 && found < n; word++)
        for (uint64_t left = b->any[word]; left && found < n; left &= left - 1) {
            uint32_t e = b->bin[64 * word + (unsigned)__builtin_ctzll(left)].head;
            for (; e != BIN_NONE && found < n; e = b->entry[e].next)
                id[found++] = b->entry[e].id;
        }
    return found;
}

uint32_t hnsw_bins_bin(const struct bins *b, size_t n)
{
    size_t found = 0;
    for (size_t word = 0; word < N_BINS / 64; word++)
        for (uint64_t left = b->any[word]; left; left &= left - 1) {
            uint32_t at = (uint32_t)(64 * word + (unsigned)__builtin_ctzll(left));
            if ((found += b->bin[at].count) >= n)
                return at;
        }
    return N_BINS - 1;
}
