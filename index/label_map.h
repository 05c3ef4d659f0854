/* label_map.h - label -> place of an element, over an array of labels that the caller keeps: open addressing; or nothing at
 * all, as long as every element's label is its place.
 * Threads: a const map may be read by any number. The hash is keyed at random, so that no file can be made to collide;
 * nothing that comes out of the library depends on the key. */
#ifndef HNSW_LABEL_MAP_H
#define HNSW_LABEL_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct label_map {
    uint32_t *slot; // [mask + 1] place + 1, or 0; NULL: plain, label i is at place i
    size_t mask;
    uint64_t key[2];
    size_t n_plain; // while plain: how many are in it
};

void hnsw_label_map_plain(struct label_map *m, size_t n);         // labels 0 .. n - 1 at these places; allocates nothing
bool hnsw_label_map_init(struct label_map *m, size_t capacity); // hashed, empty; false: out of memory
void hnsw_label_map_fini(struct label_map *m);

/* From plain to hashed, with room for `capacity`; a hashed map gets that room. False: out of memory, and nothing has changed. */
bool hnsw_label_map_hash(struct label_map *m, const uint64_t *label, size_t n, size_t capacity);

/* `label` is the caller's array of labels by place; for put, label[place] is set already. A plain map takes nothing but the label
 * that comes next, at its place. */
uint32_t hnsw_label_map_find(const struct label_map *m, const uint64_t *label, uint64_t want); // UINT32_MAX if unknown
bool hnsw_label_map_put(struct label_map *m, const uint64_t *label, uint32_t place); // false: label is there already
void hnsw_label_map_del(struct label_map *m, const uint64_t *label, uint32_t place); // hashed; place is there
size_t hnsw_label_map_count(const struct label_map *m); // labels in it
size_t hnsw_label_map_bytes(const struct label_map *m);

/* The keyed hash, for other tables by label; the random key of one, at `owner`. */
static inline uint64_t hnsw_label_hash(const uint64_t key[2], uint64_t label)
{
    uint64_t x = label ^ key[0];
    x = (x ^ (x >> 32)) * 0x9fb21c651e98df25u;
    x = (x ^ (x >> 29) ^ key[1]) * 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
}
void hnsw_label_key(uint64_t key[2], const void *owner);

#endif
