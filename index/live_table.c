/* live_table.c - open addressing that readers walk while one writer adds: an entry's label is stored before its word,
 * and the word makes it one. Growing copies to a new table; who is still in the old one finds all that was there when
 * it looked up the table. */
#include <stdlib.h>

#include "index/live_priv.h"

struct live_table *live_table_new(size_t capacity)
{
    size_t size = 64;
    while (2 * size < 3 * (capacity + 1))
        size *= 2;
    struct live_table *t = hnsw_mem_new(1, sizeof(*t) + size * sizeof(t->entry[0]));
    if (!t)
        return NULL;
    t->mask = size - 1;
    hnsw_label_key(t->key, t);
    return t;
}

void live_table_free(struct live_table *t)
{
    while (t) {
        struct live_table *next = t->outgrown;
        free(t);
        t = next;
    }
}

size_t live_table_bytes(const struct live_table *t)
{
    size_t n = 0;
    for (; t; t = t->outgrown)
        n += sizeof(*t) + (t->mask + 1) * sizeof(t->entry[0]);
    return n;
}

/* The entry of a label, or the free one where it would be; its word goes to *word. */
static size_t place(const struct live_table *t, uint64_t label, uint64_t *word)
{
    size_t i = (size_t)hnsw_label_hash(t->key, label) & t->mask;
    for (;; i = (i + 1) & t->mask) {
        *word = atomic_load_explicit(&t->entry[i].word, memory_order_acquire);
        if (*word == 0 || atomic_load_explicit(&t->entry[i].label, memory_order_relaxed) == label)
            return i;
    }
}

uint64_t live_table_find(const struct live_table *t, uint64_t label)
{
    uint64_t word;
    place(t, label, &word);
    return word;
}

void live_table_set(struct live_table *t, uint64_t label, uint64_t word)
{
    uint64_t was;
    struct live_entry *e = &t->entry[place(t, label, &was)];
    if (was == 0) {
        atomic_store_explicit(&e->label, label, memory_order_relaxed);
        t->n++;
    }
    atomic_store_explicit(&e->word, word, memory_order_release);
}

struct live_table *live_table_grown(struct live_table *t)
{
    struct live_table *big = live_table_new(t->mask + 1);
    if (!big)
        return NULL;
    for (size_t i = 0; i <= t->mask; i++) {
        uint64_t word = atomic_load_explicit(&t->entry[i].word, memory_order_relaxed);
        if (word)
            live_table_set(big, atomic_load_explicit(&t->entry[i].label, memory_order_relaxed), word);
    }
    big->outgrown = t;
    return big;
}
