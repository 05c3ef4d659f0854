/* label_map.c - linear probing, at most two thirds full; a deletion closes the gap it leaves, so there are no
 * tombstones. */
#include <assert.h>
#include <stdlib.h>
#include <sys/random.h>

#include "index/hnsw_priv.h"

static size_t home(const struct label_map *m, uint64_t label)
{
    return (size_t)hnsw_label_hash(m->key, label) & m->mask;
}

void hnsw_label_key(uint64_t key[2], const void *owner)
{
    if (getrandom(key, 2 * sizeof(*key), GRND_NONBLOCK) != 2 * (ssize_t)sizeof(*key))
        key[0] = (uint64_t)(uintptr_t)owner; // early in boot: an address is better than nothing
}

void hnsw_label_map_plain(struct label_map *m, size_t n)
{
    *m = (struct label_map){.n_plain = n};
}

bool hnsw_label_map_init(struct label_map *m, size_t capacity)
{
    size_t size = 16;
    hnsw_label_map_plain(m, 0);
    while (size < capacity + capacity / 2)
        size *= 2;
    m->slot = hnsw_mem_new(size, sizeof(*m->slot));
    m->mask = size - 1;
    hnsw_label_key(m->key, m->slot);
    return m->slot != NULL;
}

void hnsw_label_map_fini(struct label_map *m)
{
    free(m->slot);
    m->slot = NULL;
}

bool hnsw_label_map_hash(struct label_map *m, const uint64_t *label, size_t n, size_t capacity)
{
    struct label_map hashed;
    if (!hnsw_label_map_init(&hashed, capacity))
        return false;
    for (uint32_t i = 0; i < n; i++)
        hnsw_label_map_put(&hashed, label, i);
    hnsw_label_map_fini(m);
    *m = hashed;
    return true;
}

uint32_t hnsw_label_map_find(const struct label_map *m, const uint64_t *label, uint64_t want)
{
    if (!m->slot)
        return want < m->n_plain ? (uint32_t)want : UINT32_MAX;
    for (size_t i = home(m, want); m->slot[i]; i = (i + 1) & m->mask)
        if (label[m->slot[i] - 1] == want)
            return m->slot[i] - 1;
    return UINT32_MAX;
}

bool hnsw_label_map_put(struct label_map *m, const uint64_t *label, uint32_t place)
{
    if (!m->slot) {
        assert(label[place] == place && place <= m->n_plain);
        return place == m->n_plain && ++m->n_plain;
    }
    size_t i = home(m, label[place]);
    for (; m->slot[i]; i = (i + 1) & m->mask)
        if (label[m->slot[i] - 1] == label[place])
            return false;
    m->slot[i] = place + 1;
    return true;
}

/* Close the gap: an entry further on in the run moves back if its home is not after the gap. */
static void close_gap(struct label_map *m, const uint64_t *label, size_t gap)
{
    for (size_t i = (gap + 1) & m->mask; m->slot[i]; i = (i + 1) & m->mask) {
        size_t h = home(m, label[m->slot[i] - 1]);
        if (((i - h) & m->mask) >= ((i - gap) & m->mask)) {
            m->slot[gap] = m->slot[i];
            gap = i;
        }
    }
    m->slot[gap] = 0;
}

void hnsw_label_map_del(struct label_map *m, const uint64_t *label, uint32_t place)
{
    for (size_t i = home(m, label[place]); m->slot[i]; i = (i + 1) & m->mask)
        if (m->slot[i] == place + 1) {
            close_gap(m, label, i);
            return;
        }
}

size_t hnsw_label_map_count(const struct label_map *m)
{
    size_t n = m->n_plain;
    for (size_t i = 0; m->slot && i <= m->mask; i++)
        n += m->slot[i] != 0;
    return n;
}

size_t hnsw_label_map_bytes(const struct label_map *m)
{
    return m->slot ? (m->mask + 1) * sizeof(*m->slot) : 0;
}
