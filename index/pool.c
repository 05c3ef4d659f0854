/* pool.c - storage of pool.h. */
#include <stdlib.h>

#include "index/hnsw_priv.h"

bool hnsw_pool_fit(struct pool *p, size_t cap)
{
    return hnsw_grow_array((void **)&p->key, &p->room, cap, sizeof(*p->key));
}

void hnsw_pool_fini(struct pool *p)
{
    free(p->key);
    *p = (struct pool){0};
}

/* Shell's sort: in place, nearly as cheap as looking for keys that are nearly sorted, and never quadratic in practice.
 */
void hnsw_keys_sort(uint64_t *key, size_t n)
{
    static const size_t gaps[] = {1750, 701, 301, 132, 57, 23, 10, 4, 1}; // Ciura 2001
    for (size_t g = 0; g < sizeof(gaps) / sizeof(gaps[0]); g++)
        for (size_t gap = gaps[g], i = gap; i < n; i++) {
            uint64_t x = key[i];
            size_t at = i;
            for (; at >= gap && key[at - gap] < x; at -= gap)
                key[at] = key[at - gap];
            key[at] = x;
        }
}
