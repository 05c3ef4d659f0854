/* label_map.h - label -> place of an element: open addressing over an array of labels that the caller keeps.
 * Threads: a const map may be read by any number. The hash is keyed at random, so that no file can be made to collide;
 * nothing that comes out of the library depends on the key. */
#ifndef HNSW_LABEL_MAP_H
#define HNSW_LABEL_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct label_map {
    uint32_t *slot; // [mask + 1] place + 1, or 0
    size_t mask;
    uint64_t key[2];
};

bool hnsw_label_map_init(struct label_map *m, size_t capacity); // false: out of memory
void hnsw_label_map_fini(struct label_map *m);

/* `label` is the caller's array of labels by place; for put, label[place] is set already. */
uint32_t hnsw_label_map_find(const struct label_map *m, const uint64_t *label, uint64_t want); // UINT32_MAX if unknown
bool hnsw_label_map_put(struct label_map *m, const uint64_t *label, uint32_t place); // false: label is there already
void hnsw_label_map_del(struct label_map *m, const uint64_t *label, uint32_t place); // place is there

#endif
