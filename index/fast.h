/* fast.h - the fast layout of a finished graph: beside an element's links on level 0, the int8 codes of those neighbours.
 * Place: made by hnsw_optimize (fast.c), walked by fast_search.c; kernels in fast_hop.c.
 *
 * A hop of the plain layout gathers some ten vectors from all over memory, each a cache miss, after a first miss for
 * the list. Here one hop is one contiguous block, whose address is known as soon as the candidate is, so it is
 * prefetched while others are scored:
 *
 *   block:  [ uint32_t id[width] | float bias[width] (L2 only) | codes ]   width = 2 m rounded up to 16
 *   codes:  for each 16 neighbours, for each 4 dimensions, 16 x 4 bytes: one VNNI instruction adds 4 products for all 16
 *
 * An unused id is NO_ID. A value v of dimension j is the byte (v - low[j]) / step[j]; a query is folded with step[j] and
 * rounded to int8. The walk orders its pool by these scores, and the best of it are scored again with the exact
 * vectors. Measured: bench/results.md. */
#ifndef HNSW_FAST_H
#define HNSW_FAST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAST_GROUP 16

struct hnsw;

struct fast {
    unsigned width, words; // neighbours in a block; dimensions / 4, rounded up
    bool has_bias;
    bool plain_labels; // element i's label is i: hits need no look-up, which would be a cache miss each
    size_t n, stride;
    unsigned char *block; // [n][stride]
    unsigned char *seed; // [n_seed][stride]: all elements of the higher levels, in blocks of `width`; where walks begin
    size_t n_seed;
    unsigned char *flat; // [blocks][stride] all elements likewise, for exact search; NULL if the seeds are all
    double most_norm2;   // the greatest |v|^2
    float *low, *step; // [dim]
    uint32_t *element; // [n] of a block; ids in blocks are block numbers, so that neighbours lie near each other
};

/* Of one block: the neighbours whose score is above `above` and that are not in `seen`, a direct-mapped cache of mask +
 * 1 ids: it may have forgotten one, but never claims one that it was not given. id and score have room for width + 16.
 * Returns how many. */
typedef size_t hnsw_fast_hop_fn(const struct fast *p, const unsigned char *block, const int8_t *q, float scale, float above,
                           const uint32_t *seen, uint32_t mask, uint32_t *id, float *score);

hnsw_fast_hop_fn *hnsw_fast_hop_get(void); // by the picked kernel
extern hnsw_fast_hop_fn hnsw_fast_hop_plain, hnsw_fast_hop_sse, hnsw_fast_hop_avx2, hnsw_fast_hop_vnni;

/* Fold the query with the steps of the codes and round it to int8, code [4 words]; returns what turns sums of products into scores. */
float hnsw_fast_encode_query(const struct hnsw *h, const float *q, int8_t *code);

struct fast *hnsw_fast_make(const struct hnsw *h, unsigned threads); // NULL: no memory; whether it finds enough is not tried
void hnsw_fast_free(struct fast *p);
size_t hnsw_fast_bytes(const struct fast *p);

/* All elements in blocks, and how many blocks. */
static inline const unsigned char *fast_flat(const struct fast *p)
{
    return p->flat ? p->flat : p->seed;
}

static inline size_t fast_blocks(const struct fast *p)
{
    return p->flat ? (p->n + p->width - 1) / p->width : p->n_seed;
}

static inline const float *fast_bias(const struct fast *p, const unsigned char *block)
{
    return (const float *)(const void *)(block + p->width * sizeof(uint32_t));
}

static inline const unsigned char *fast_codes(const struct fast *p, const unsigned char *block)
{
    return block + p->width * (sizeof(uint32_t) + (p->has_bias ? sizeof(float) : 0));
}

#endif
