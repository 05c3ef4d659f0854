/* pool.c - storage of pool.h. */
#include <stdlib.h>

#include "index/hnsw_priv.h"

bool pool_fit(struct pool *p, size_t cap)
{
    return hnsw_grow_array((void **)&p->key, &p->room, cap, sizeof(*p->key));
}

void pool_fini(struct pool *p)
{
    free(p->key);
    *p = (struct pool){0};
}
