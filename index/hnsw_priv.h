/* hnsw_priv.h - what the files of hnswlib-c share: the index itself, its labels, its workspaces.
 * A port to C of the algorithms of hnswlib (Apache-2.0, https://github.com/nmslib/hnswlib); the text is our own.
 * Place:   the sources of index/ and tests/index only; everyone else includes hnsw.h. */
#ifndef HNSW_PRIV_H
#define HNSW_PRIV_H

#include <sched.h>
#include <stdatomic.h>

#include "index/bins.h"
#include "index/compact.h"
#include "index/heap.h"
#include "index/hnsw.h"
#include "index/label_map.h"
#include "index/limit.h"
#include "index/metric.h"
#include "index/fast.h"
#include "index/plan.h"
#include "index/pool.h"
#include "index/scan.h"
#include "index/shelf.h"
#include "index/visited.h"

#define NO_ID UINT32_MAX
#define ID_MAX 0x7ffffffeu // pool.h keeps an id in 31 bits
#define LEVEL_MAX 60       // a draw above has a chance of less than 2^-60 for m = 2
#define HNSW_ALIGN 64      // a cache line, and an AVX-512 register
#define ROW_MAX (2 * HNSW_M_MAX)

/* A list of links is `cap` ids, the used ones first, the rest NO_ID: no count, so a node of d = 32, m = 16 is 256 bytes
 * exactly.
 *
 *   block of node i, level 0:   [ float vec[dim] | uint32_t link[2 m] | pad ]   stride bytes, on a cache line
 *   lists above level 0:        upper[(upper_at[i] + level - 1) * m ..+ m]      only nodes with level > 0 have any */
struct hnsw {
    enum hnsw_metric metric;
    size_t dim;
    unsigned m, m0; // links per element above and on level 0; m0 = 2 m
    unsigned ef_construction;
    uint64_t seed;

    size_t capacity, n, n_removed; // n counts removed elements too
    uint32_t entry;                // NO_ID in an empty index
    int max_level;                 // -1 in an empty index

    unsigned char *block; // [capacity][stride]; within the mapping, and read-only, if there is one
    size_t stride;
    void *mapping; // of the index's file, or NULL
    size_t mapping_size;
    uint64_t mapping_dev, mapping_ino; // which file that is
    uint64_t *label;    // [capacity]
    uint8_t *level;     // [capacity]
    uint8_t *removed;   // [capacity] 0 or 1
    size_t removed_low; // no removed element before this one
    uint32_t *upper_at; // [capacity] first list of the element above level 0; 0 if it has none
    uint32_t *upper;    // [upper_cap][m]
    size_t upper_n, upper_cap;
    struct label_map map;

    const struct hnsw_load_opts *loading; // the caller's, while a compact index is being loaded; else NULL
    struct hnsw_builder *builder; // scratch of hnsw_add, or NULL
    atomic_uint *ways;            // [ways_cap] links in from elements before it, on level 0; NULL until something is added
    size_t ways_cap;
    struct fast *fast;            // the fast layout of the graph as it is, or NULL
    struct compact *compact;      // or NULL; with it there is nothing above but shape, counts and, if any are removed, `removed`
};

/* Everything a search needs besides the index. `id`, `id_next` and `score` hold one list of links. */
struct hnsw_ws {
    struct limit limit; // of this search; none while building
    struct visited visited;
    struct pool pool;
    struct heap best, open; // filtered search: eligible found so far, still to be expanded
    float *query;           // [query_cap] normalised for COSINE
    size_t query_cap;
    struct hnsw_hit *tie; // [tie_cap]
    size_t tie_cap;
    uint32_t id[ROW_MAX], id_next[ROW_MAX];
    float score[ROW_MAX];

    struct hnsw_hit *more; // live_search.c
    size_t more_cap;
    struct hnsw_hit *many; // multi.c
    size_t many_cap;

    struct scan_room scan[SCAN_GROUP];
    struct shelf shelf; // fast_search.c
    uint32_t *seen;
    size_t n_seen, seen_cap;
    size_t rescored; // of this search, see struct hnsw_report
    struct bins bins; // compact_walk.c
    struct seen met;
    uint32_t *best_id;
    size_t best_id_cap;
    int8_t *code; // the query's
    size_t code_cap;
};

/* The caller's pace of a load; how: NULL or without one is none. hnsw_pace_step: in a loop of steps of some 0.1 us. */
static inline void hnsw_pace(const struct hnsw_load_opts *how)
{
    if (how && how->pace)
        how->pace(how->pace_ctx);
}

static inline void hnsw_pace_step(const struct hnsw_load_opts *how, size_t i)
{
    if (i % 1024 == 1023)
        hnsw_pace(how);
}

// hnsw_err.c, hnsw_mem.c
bool hnsw_fail(struct hnsw_err *err, enum hnsw_err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void *hnsw_mem_new(size_t n, size_t size);           // zeroed; NULL for out of memory or overflow
void *hnsw_mem_grow(void *p, size_t n, size_t size); // realloc with the same checks
void *hnsw_mem_block(size_t n, size_t size);         // not zeroed, on a cache line, huge pages if large; ends with free, or
void hnsw_mem_block_free(void *p, size_t bytes);     // gently, for a large one: bytes as it was asked for; NULL is fine
bool hnsw_grow_array(void **p, size_t *cap, size_t want, size_t size); // contents are lost

// hnsw_graph.c
struct hnsw *hnsw_graph_new(const struct hnsw_params *p, struct hnsw_err *err); // its map is hashed: any labels
/* With a plain map. stride: 0 or the file's own; mapped: without a block, which the caller has in a mapping. */
struct hnsw *hnsw_graph_plain(const struct hnsw_params *p, size_t stride, bool mapped, struct hnsw_err *err);
void hnsw_graph_drop_block(struct hnsw *h);
void hnsw_graph_drop_parts(struct hnsw *h); // all but what a compact index keeps
bool hnsw_graph_own(struct hnsw *h, struct hnsw_err *err); // from a mapping into private memory
size_t hnsw_graph_stride(size_t dim, size_t m); // bytes of an element's block
bool hnsw_graph_reserve_upper(struct hnsw *h, size_t n_lists);
int hnsw_graph_draw_level(const struct hnsw *h, size_t place);
void hnsw_graph_place(struct hnsw *h, uint32_t id, uint64_t label,
                      int level); // storage of a new element; upper lists are reserved

uint32_t hnsw_place_of(const struct hnsw *h, uint64_t label); // removed ones too; NO_ID: unknown

// hnsw_add.c
void hnsw_builder_free(struct hnsw_builder *b);
bool hnsw_diverse(const struct hnsw *h, uint32_t id, float to_base, const uint32_t *chosen, unsigned n); // alg. 4's test

// hnsw_ws.c
bool hnsw_ws_fit(struct hnsw_ws *ws, size_t n, size_t ef, size_t dim);

// hnsw_search.c
typedef atomic_uchar
    hnsw_lock; // one a node while several threads build; held for the copy or the rewriting of one list

static inline void hnsw_lock_take(hnsw_lock *l)
{
    while (atomic_exchange_explicit(l, 1, memory_order_acquire))
        sched_yield();
}

static inline void hnsw_lock_drop(hnsw_lock *l)
{
    atomic_store_explicit(l, 0, memory_order_release);
}

const float *hnsw_prepared_query(const struct hnsw *h, const float *q, struct hnsw_ws *ws); // q, or what is scored in its place

struct scored hnsw_descend(const struct hnsw *h, hnsw_lock *lock, const float *q, int level, struct hnsw_ws *ws, uint32_t at);
void hnsw_walk(const struct hnsw *h, hnsw_lock *lock, const float *q, struct scored from, int level, size_t ef, struct hnsw_ws *ws);

// fast_search.c: the best of the fast layout, exactly scored, into ws->pool, best first
bool hnsw_fast_ws_fit(struct hnsw_ws *ws, const struct fast *p, size_t k, size_t ef);
size_t hnsw_fast_keep(size_t k, size_t ef); // how many a walk by bytes keeps
size_t hnsw_fast_rescored(size_t k);        // and scores exactly at its end
void hnsw_fast_search(const struct hnsw *h, const float *q, size_t k, size_t ef, struct hnsw_ws *ws);

// range.c: the lowest and highest value of each dimension, exact whatever the threads; an index that is not empty
void hnsw_range(const struct hnsw *h, unsigned threads, float *low, float *high);

// order.c: elements of a graph that is not empty numbered by region, the entry point first. Number of each element, the
// caller's to free, or NULL: out of memory; element [n] receives the element of each number
uint32_t *hnsw_order(const struct hnsw *h, uint32_t *element);

// hnsw_ways.c: as long as `ways` is kept, everything can be reached from everywhere on level 0
bool hnsw_ways_fit(struct hnsw *h, struct hnsw_ws *ws); // for capacity; makes it so first; ws fits ef_construction
void hnsw_ways_gain(struct hnsw *h, uint32_t from, uint32_t to); // a new link
void hnsw_ways_rewrite(struct hnsw *h, uint32_t base, uint32_t *link, uint32_t *want,
                       unsigned n); // the list of `base`, locked, becomes want[n], less and more what it takes
void hnsw_ways_settle(struct hnsw *h, hnsw_lock *lock, uint32_t id,
                      struct hnsw_ws *ws); // `id` has a way in and one out; ws->pool: who is near it

// tryout.c: `use` turns a walk by codes on and off; off at the end
bool hnsw_codes_find_enough(struct hnsw *h, void (*use)(struct hnsw *h, void *codes, bool on), void *codes, struct hnsw_ws *ws);

// flat.c
/* Over all elements, or over the bits of p->allow. */
size_t hnsw_flat(const struct hnsw *h, const float *q, const struct hnsw_query *p, bool by_allowed, struct limit *l,
                 struct hnsw_hit *hit);
void hnsw_hits_sort(struct hnsw_hit *hit, size_t n); // best first, ties to the lower label
bool hnsw_hit_better(struct hnsw_hit a, struct hnsw_hit b); // comes before
size_t hnsw_hits_keep(struct hnsw_hit *hit, size_t n, size_t k, struct hnsw_hit x); // the k best of a stream, unsorted

bool hnsw_finite(const float *vec, size_t dim); // every value finite and within HNSW_VALUE_MAX

// hnsw_check.c: the rules of one element, and of the whole; `err` says what was found and wanted
bool hnsw_check_element(const struct hnsw *h, uint32_t id, const unsigned char *block,
                        struct hnsw_err *err); // its vector and links on level 0 are in `block`
bool hnsw_check_list(const struct hnsw *h, uint32_t id, int level, const uint32_t *link, struct hnsw_err *err);
bool hnsw_check_entry(const struct hnsw *h, struct hnsw_err *err);
bool hnsw_check_marks(const struct hnsw *h, struct hnsw_err *err);

// hnsw_sum.c: checksum of a stream
struct hnsw_sum {
    uint64_t lane[8];
    uint64_t total;         // bytes so far
    unsigned char part[64]; // total % 64 of them are still waiting here
};
void hnsw_sum_init(struct hnsw_sum *s);
void hnsw_sum_add(struct hnsw_sum *s, const void *data, size_t n);
uint64_t hnsw_sum_end(const struct hnsw_sum *s);
uint64_t hnsw_sum_of(const void *data, size_t n);

#define HNSW_VALUE_MAX 1e15f // so that no score can overflow: 4096 (2e15)^2 < 3.4e38

static inline float *node_vec(const struct hnsw *h, uint32_t id)
{
    return (float *)(void *)(h->block + (size_t)id * h->stride);
}

static inline uint32_t *node_links(const struct hnsw *h, uint32_t id, int level)
{
    if (level == 0)
        return (uint32_t *)(void *)(h->block + (size_t)id * h->stride + h->dim * sizeof(float));
    return h->upper + ((size_t)h->upper_at[id] + (size_t)level - 1) * h->m;
}

/* Level 0, to the cache. */
static inline void ask_for_links0(const struct hnsw *h, uint32_t id)
{
    const uint32_t *link = node_links(h, id, 0);
    for (size_t at = 0; at < h->m0; at += HNSW_ALIGN / sizeof(*link))
        __builtin_prefetch(link + at);
}

/* Candidates of an insertion; a file may ask for more than there could be. */
static inline size_t build_ef(const struct hnsw *h)
{
    return h->ef_construction < h->capacity ? h->ef_construction : h->capacity;
}

static inline unsigned links_cap(const struct hnsw *h, int level)
{
    return level == 0 ? h->m0 : h->m;
}

static inline unsigned links_count(const uint32_t *link, unsigned cap)
{
    unsigned n = 0;
    while (n < cap && link[n] != NO_ID)
        n++;
    return n;
}

static inline void ask_for_vector(const struct hnsw *h, uint32_t id)
{
    if (h->compact) {
        __builtin_prefetch(h->compact->code.hi + (size_t)id * h->dim);
        __builtin_prefetch(h->compact->code.lo + (size_t)id * h->dim);
        return;
    }
    const char *vec = (const char *)node_vec(h, id);
    __builtin_prefetch(vec);
    __builtin_prefetch(vec + 64);
}

static inline uint64_t label_of(const struct hnsw *h, uint32_t id)
{
    return h->compact ? compact_label(h->compact, id) : h->label[id];
}

static inline bool is_removed(const struct hnsw *h, uint32_t id)
{
    return h->n_removed > 0 && h->removed[id];
}

/* Do the query's filters let the label through? */
static inline bool may_return(const struct hnsw_query *p, uint64_t l)
{
    return (!p->allow || (l < p->n_allow && (p->allow[l / 64] >> (l % 64) & 1))) &&
           (!p->filter || p->filter(p->filter_ctx, l));
}

/* May the element be returned? */
static inline bool eligible(const struct hnsw *h, const struct hnsw_query *p, uint32_t id)
{
    return !is_removed(h, id) && ((!p->allow && !p->filter) || may_return(p, label_of(h, id)));
}

/* Copy the links of an element on level 0 into out [m0], anything after them; how many there are. */
static inline unsigned links0(const struct hnsw *h, uint32_t id, uint32_t *out)
{
    if (h->compact)
        return compact_links(h->compact, id, out);
    unsigned n = 0;
    memcpy(out, node_links(h, id, 0), h->m0 * sizeof(*out));
    for (unsigned i = 0; i < h->m0; i++)
        n += out[i] != NO_ID;
    return n;
}

/* Scores of codes; q is what hnsw_compact_query made of the query. */
static inline void compact_scores(const struct hnsw *h, const float *q, struct planes code, const uint32_t *id,
                                  size_t n, float *score)
{
    const struct kernel *k = hnsw_kernel_get();
    (h->metric == HNSW_L2 ? k->l2_16 : k->ip16)(q, h->compact->step, code, id, n, h->dim, score);
    for (size_t i = 0; i < n; i++)
        score[i] += q[h->dim];
}

/* In a compact index q is what hnsw_compact_query made of the query. */
static inline void score_ids(const struct hnsw *h, const float *q, const uint32_t *id, size_t n, float *score)
{
    if (h->compact) {
        compact_scores(h, q, h->compact->code, id, n, score);
        return;
    }
    metric_fn(h->metric)(q, h->block, h->stride, id, n, h->dim, score);
}

static inline float score_id(const struct hnsw *h, const float *q, uint32_t id)
{
    float s;
    score_ids(h, q, &id, 1, &s);
    return s;
}

#endif
