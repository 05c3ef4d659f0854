/* compact.h - the compact layout of a finished graph: less than half the memory of the plain one, for reading only.
 * Place: made by hnsw_optimize (compact.c) or read from a file (compact_file.c), walked by compact_search.c; the other files of the
 * library ask through the functions below and hnsw_priv.h. It takes the place of the plain graph, which is freed.
 *
 *   code:  2 x uint8 [n][dim]    value j of a vector is mid[j] + step[j] * code[j]: 65,535 steps over what dimension j holds. The
 *                                upper bytes stand apart from the lower ones (metric.h, planes)
 *   link:  [n][row] bytes        2 m numbers of `bits` bits, the lowest bit first: the links on level 0; all ones after their end
 *
 * An element goes by its number (order.c): neighbours lie near each other. The levels above 0 are gone: a walk begins at the best of
 * at most 1,024 elements spread evenly over the numbers, number 0, the graph's entry point, among them; their codes are there a
 * second time, one after the other.
 *
 * A walk for an inner product or a cosine reads the upper bytes only, half the memory, and scores by products of bytes; the best
 * are scored again by whole codes. Where the upper bytes do not tell neighbours apart (`coarse` is false), and for L2, it reads whole
 * codes. What these choices cost and bring: bench/results.md. */
#ifndef HNSW_COMPACT_H
#define HNSW_COMPACT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "index/bins.h"
#include "index/hnsw.h"
#include "index/metric.h"

#define COMPACT_PAST 32
#define HOP_ROOM (2 * HNSW_M_MAX + 16)

struct hnsw_ws;

/* An element and its score, where a walk begins. */
struct scored {
    uint32_t id;
    float score;
};

struct compact {
    size_t n, dim, row;
    unsigned width, bits;   // links of an element; bits of a link
    unsigned char *block;   // [bytes] what the pointers below point into
    size_t bytes;
    float *mid, *step;      // [dim]
    struct planes code;     // [n][dim]; behind hi COMPACT_PAST bytes more, so that kernels may read past the end
    unsigned char *link;    // [n][row], and 8 bytes to read past the end
    struct planes seed;     // [n_seed][dim] codes of the elements 0, seed_step, 2 seed_step, ..., as above
    size_t n_seed, seed_step;
    uint32_t *label32;      // [n] of a number; NULL if a label needs more
    uint64_t *label64;      // [n] then
    uint32_t *by_label;     // [n] numbers in the order of their labels: of labels 0 .. n - 1 the number of each
    float top, radius;      // no vector is longer, or farther from mid
    bool coarse;            // walks go by upper bytes
    float spread;           // then: by how many bins the ef-th is behind the k-th, for each doubling; 0 = not known
};

/* A cache of the ids that a walk met: direct-mapped, so it forgets. `walk` differs from one walk to the next in the bits above those of an
 * id, so that what earlier walks left is none of this one's. */
struct seen {
    uint32_t *tag; // [mask + 1] id | walk
    uint32_t mask, walk;
    unsigned bits; // of an id
    size_t room;
};

/* From a sum of products to a bin (bins.h): what the score lacks to the best there could be, top - scale * sum, by steps of 1 / 512 in each
 * power of two; `first` is that of bin 0. */
struct lack {
    float top, scale;
    int32_t first;
};

/* compact_hop.c: what a walk by upper bytes does at each element. Sums and bins are the same of all kernels; `fresh` of AVX-512 looks up
 * sixteen ids at a time, so where two share a place of `seen` it may spare a score that the others repeat. Candidates are the same. */
struct compact_hop {
    /* Links of `id` that are not in `seen`, which never claims one that it was not given, and which they enter; into out, which has room
     * for HOP_ROOM. Returns how many; a row of zeros follows them. */
    size_t (*fresh)(const struct compact *c, uint32_t id, const struct seen *seen, uint32_t *out);
    /* sum[i], i < n: products of q and the bytes of row id[i]. q has zeros up to a multiple of COMPACT_PAST. Ids up to the next multiple
     * of 8 are read, and sums written. */
    void (*sums)(const uint8_t *hi, size_t dim, const uint32_t *id, size_t n, const int8_t *q, int32_t *sum);
    /* Those of the n ids whose bin is `last` at most, in their order, to the front of id, and their bins into bin, both of which have room
     * for 16 more; how many. */
    size_t (*near)(const struct lack *l, const int32_t *sum, size_t n, uint32_t last, uint32_t *id, uint32_t *bin);
};

// compact.c
struct compact *hnsw_compact_new(size_t n, size_t dim, unsigned width, bool wide_labels); // zeroed but for its shape; NULL: no memory
void hnsw_compact_free(struct compact *c);
size_t hnsw_compact_bytes(const struct compact *c);
size_t hnsw_compact_row(size_t n, unsigned width); // bytes of an element's links
void hnsw_compact_place(struct hnsw *h, struct compact *c, uint8_t *removed); // takes both in the place of the plain graph
void hnsw_compact_derive(struct compact *c, const struct hnsw_load_opts *how); // seeds, top and radius; how: whose pace is kept, or NULL
bool hnsw_compact_settle(struct hnsw *h); // decide `coarse` and `spread`, by trying it out; false: no memory
enum hnsw_err_code hnsw_compact_sort_labels(struct compact *c, const struct hnsw_load_opts *how, uint32_t *twice); // HNSW_FORMAT: number *twice has another's label
bool hnsw_compact_make(struct hnsw *h, unsigned threads, struct hnsw_err *err);
uint32_t hnsw_compact_find(const struct compact *c, uint64_t label); // NO_ID if unknown
void hnsw_compact_vector(const struct compact *c, uint32_t id, float *out);
bool hnsw_compact_refuses(const struct hnsw *h, const char *what, struct hnsw_err *err); // true and `err` set if h is compact

// compact_search.c
void hnsw_compact_query(const struct hnsw *h, const float *q, float *out); // [dim + 1]; q may be out
struct scored hnsw_compact_start(const struct hnsw *h, const float *q, struct hnsw_ws *ws); // cut: of a score that nothing has, -INFINITY
void hnsw_compact_walk(const struct hnsw *h, const float *q, struct scored from, size_t ef, struct hnsw_ws *ws);

// seen.c
bool hnsw_seen_begin(struct seen *s, size_t n, unsigned bits); // a new walk, n a power of two; false: out of memory
void hnsw_seen_fini(struct seen *s);

// compact_walk.c: the walk by upper bytes; the best, scored by whole codes or p->score, into ws->pool, best first
float hnsw_compact_codes(const struct compact *c, const float *q, int8_t *code); // of a prepared query, [dim + COMPACT_PAST]; their scale
bool hnsw_compact_ws_fit(struct hnsw_ws *ws, const struct compact *c, size_t k, size_t ef);
void hnsw_compact_coarse(const struct hnsw *h, const float *q, const struct hnsw_query *p, size_t ef, struct hnsw_ws *ws);
float hnsw_compact_spread(const struct hnsw *h, struct hnsw_ws *ws); // with c->spread = 0
const struct compact_hop *hnsw_compact_hop_get(void); // by the picked kernel
extern const struct compact_hop hnsw_compact_hop_plain;

// compact_file.c
bool hnsw_compact_save(const struct hnsw *h, const char *path, struct hnsw_err *err);
bool hnsw_compact_check(const struct hnsw *h, struct hnsw_err *err); // all but entry, marks and reachability

static inline uint64_t compact_label(const struct compact *c, uint32_t id)
{
    return c->label32 ? c->label32[id] : c->label64[id];
}

static inline uint32_t compact_none(const struct compact *c)
{
    return (uint32_t)(((uint64_t)1 << c->bits) - 1);
}

#define LACK_SHIFT 14 // a float without its lowest 14 bits: 512 steps in each power of two

static inline int32_t lack_bits(float x) // not negative
{
    int32_t i;
    memcpy(&i, &x, sizeof(i));
    return i >> LACK_SHIFT;
}

static inline uint32_t compact_bin(const struct lack *l, int32_t sum)
{
    float product = l->scale * (float)sum, lack = l->top - product;
    int32_t bin = lack_bits(lack > 0 ? lack : 0) - l->first;
    bin = bin > 0 ? bin : 0;
    return (uint32_t)(bin < N_BINS ? bin : N_BINS - 1);
}

/* All links of an element, compact_none() after the end, into out [width]; how many there are. */
static inline unsigned compact_links(const struct compact *c, uint32_t id, uint32_t *out)
{
    const unsigned char *row = c->link + (size_t)id * c->row;
    uint32_t none = compact_none(c);
    unsigned n = 0;
    for (unsigned i = 0; i < c->width; i++) {
        size_t bit = (size_t)i * c->bits;
        uint64_t word;
        memcpy(&word, row + bit / 8, sizeof(word));
        out[i] = (uint32_t)(word >> bit % 8) & none;
        n += out[i] != none;
    }
    return n;
}

#endif
