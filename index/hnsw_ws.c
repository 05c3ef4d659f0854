/* hnsw_ws.c - scratch of one searcher or builder. */
#include <stdlib.h>

#include "index/hnsw_priv.h"

struct hnsw_ws *hnsw_ws_new(void)
{
    struct hnsw_ws *ws = hnsw_mem_new(1, sizeof(*ws));
    if (ws)
        ws->limit = hnsw_limit_none();
    return ws;
}

void hnsw_ws_free(struct hnsw_ws *ws)
{
    if (!ws)
        return;
    hnsw_visited_fini(&ws->visited);
    hnsw_pool_fini(&ws->pool);
    hnsw_heap_fini(&ws->best);
    hnsw_heap_fini(&ws->open);
    free(ws->query);
    free(ws->tie);
    free(ws->more);
    free(ws->many);
    hnsw_shelf_fini(&ws->shelf);
    hnsw_bins_fini(&ws->bins);
    free(ws->best_id);
    for (size_t i = 0; i < SCAN_GROUP; i++)
        hnsw_scan_room_fini(&ws->scan[i]);
    free(ws->seen);
    hnsw_seen_fini(&ws->met);
    free(ws->code);
    free(ws);
}

bool hnsw_ws_fit(struct hnsw_ws *ws, size_t n, size_t ef, size_t dim)
{
    return hnsw_visited_fit(&ws->visited, n) && hnsw_pool_fit(&ws->pool, ef) &&
           hnsw_grow_array((void **)&ws->query, &ws->query_cap, dim + 1, sizeof(*ws->query)) &&
           hnsw_grow_array((void **)&ws->tie, &ws->tie_cap, 2 * ef, sizeof(*ws->tie));
}
