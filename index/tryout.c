/* tryout.c - whether a walk by codes of 8 bits finds what one by vectors finds. */
#include "index/hnsw_priv.h"

enum { TRIES = 32, TRY_K = 10, TRY_EF = 40 };

static void vector_of(const struct hnsw *h, uint32_t id, float *out)
{
    if (h->compact)
        hnsw_compact_vector(h->compact, id, out);
    else
        memcpy(out, node_vec(h, id), h->dim * sizeof(*out));
}

/* Codes spread 256 steps over all that a dimension holds. Where that is powers of ten more than what neighbours differ by, a walk by
 * codes finds little of what one by vectors finds: seen with vectors of very different lengths. */
bool hnsw_codes_find_enough(struct hnsw *h, void (*use)(struct hnsw *h, void *codes, bool on), void *codes, struct hnsw_ws *ws)
{
    struct hnsw_hit plain[TRY_K], coarse[TRY_K];
    const struct hnsw_query q = {.k = TRY_K, .ef = TRY_EF, .plan = HNSW_PLAN_WALK};
    size_t want = 0, found = 0;
    float v[HNSW_DIM_MAX];
    for (size_t i = 0; i < TRIES; i++) {
        vector_of(h, (uint32_t)(i * h->n / TRIES), v);
        use(h, codes, false);
        size_t n = hnsw_search(h, v, &q, ws, plain, NULL);
        use(h, codes, true);
        size_t m = hnsw_search(h, v, &q, ws, coarse, NULL);
        for (size_t j = 0; j < m; j++)
            found += n > 0 && coarse[j].score >= plain[n - 1].score;
        want += n;
    }
    use(h, codes, false);
    return 10 * found >= 8 * want;
}
