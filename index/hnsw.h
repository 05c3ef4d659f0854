/* hnsw.h - hnswlib-c: approximate nearest neighbours by a hierarchical navigable small world graph, and exact search.
 * Source:  Malkov, Yashunin, "Efficient and robust approximate nearest neighbor search using HNSW graphs", TPAMI 2018
 *          (algorithm numbers below are its own), after hnswlib 0.6-0.8 (Apache-2.0).
 * Place:   usable alone; includes nothing but the C library.
 * Threads: a `const struct hnsw` may be searched by any number of threads, each with its own workspace. Adding, removing and
 *          resizing are not safe together with searches; hnsw_add_batch runs its own threads and returns when they are done.
 * Scores:  higher is better. IP: <q, v>. COSINE: <q, v> / (|q| |v|). L2: -|q - v|^2. Ties go to the lower label. */
#ifndef HNSW_H
#define HNSW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default) // all else in the shared library is hidden

enum hnsw_err_code { HNSW_OK = 0, HNSW_NOMEM, HNSW_IO, HNSW_FORMAT, HNSW_ARG, HNSW_NOT_FOUND, HNSW_FULL };

/* Zeroed by the caller, may be NULL; the first cause wins. */
struct hnsw_err {
    enum hnsw_err_code code;
    char msg[256];
};

enum hnsw_metric { HNSW_IP, HNSW_COSINE, HNSW_L2 };
const char *hnsw_metric_name(enum hnsw_metric m); // "ip", "cosine", "l2"

#define HNSW_DIM_MAX 4096
#define HNSW_M_MAX 256

struct hnsw;

// ------------------------------------------------------------------------------------------------------ building

struct hnsw_params {
    enum hnsw_metric metric;
    size_t dim;               // 1 .. HNSW_DIM_MAX
    size_t capacity;          // most elements, removed ones included; see hnsw_resize
    unsigned m;               // links per element on levels above 0, 2 m on level 0; 0 = 16
    unsigned ef_construction; // 0 = 200
    uint64_t seed;            // levels are drawn from it: same seed, same order, one thread = same graph
};

struct hnsw *hnsw_new(const struct hnsw_params *p, struct hnsw_err *err);
void hnsw_free(struct hnsw *h); // NULL is fine

/* Add one vector [dim] of finite values of at most 1e15, as queries must be (alg. 1). An existing label: its vector is replaced and
 * its links are repaired; a removed label comes back. A removed element's place is reused before new space. HNSW_FULL when there is no room. */
bool hnsw_add(struct hnsw *h, const float *vec, uint64_t label, struct hnsw_err *err);

/* Add n vectors [n][dim]; labels [n] or NULL for 0 .. n - 1; distinct within the call. `progress` (may be NULL) is called from one
 * thread with the number done. With threads > 1 the graph depends on timing, with 1 it is the same every time.
 * After any addition every element can be reached from every other on level 0; the first one to a loaded
 * index looks at all of it (4 s for 1M elements built by hnswlib). */
bool hnsw_add_batch(struct hnsw *h, const float *vec, const uint64_t *label, size_t n, unsigned threads,
                    void (*progress)(void *user, size_t done, size_t n), void *user, struct hnsw_err *err);

/* Mark as removed: never returned again; still walked through until its place is reused. HNSW_NOT_FOUND for an unknown label. */
bool hnsw_remove(struct hnsw *h, uint64_t label, struct hnsw_err *err);

/* Link what cannot be reached from the entry point, or does not lead there, in a graph that was not built here; *linked (may be NULL):
 * how many links that took. Import does it; a graph that has been added to needs none. A layout is dropped if there was any. */
bool hnsw_repair(struct hnsw *h, size_t *linked, struct hnsw_err *err);

/* New capacity; HNSW_ARG if smaller than what is there. */
bool hnsw_resize(struct hnsw *h, size_t capacity, struct hnsw_err *err);

/* How an index is laid out for searching; scores are exact but for COMPACT's.
 * PLAIN: the graph as it was built.
 * FAST:  beside each element's links the int8 codes of its neighbours, which searches walk instead of the vectors: 2 m (4 + dim) more
 *        bytes per element (m = 16, dim = 32: 1,152; 2 m (8 + dim) for L2). Searches with a filter, or with removed elements
 *        about, go on using the graph itself.
 * COMPACT: the smallest, and the fastest walk: vectors of 16 bits a value, of which walks for IP and COSINE read the upper 8 and score the
 *        best by all, and links of as few bits as n needs, level 0 only: 2 dim + 2 m bits / 8 bytes and 8 for
 *        labels below 2^32 (12 for others); m = 16, dim = 32, a million: 152. It takes the place of the graph: from then on the index
 *        is for reading only (adding, removing, resizing, exporting and other layouts fail with HNSW_ARG; no hnsw_vector). Searches,
 *        filtered and exact ones too, score the stored values, each of which is off by at most 1/131,068 of the range that the
 *        dimension j has in the index (4e-34 if that is more): an IP or COSINE score by at most the sum of |q_j| range_j / 131,068, some 1e-6 for unit
 *        vectors of 32 dimensions. Where ef is above 1.25 k + 16, a walk by the upper 8 bits ends at what is as far behind as the ef-th
 *        is with usual queries of this index, after 1.5 ef elements at most: the same recall at a smaller ef. */
enum hnsw_layout { HNSW_PLAIN, HNSW_FAST, HNSW_COMPACT };

/* Make a layout from the finished graph (PLAIN: drop it) with `threads` threads (0 = 1); the result is the same for any number of them.
 * The next addition drops it. HNSW_ARG for an unknown layout, and for FAST
 * where 8 bits cannot tell the vectors apart (lengths over powers of ten), which is tried out. On failure the index is as before. */
bool hnsw_optimize(struct hnsw *h, enum hnsw_layout layout, unsigned threads, struct hnsw_err *err);

// ----------------------------------------------------------------------------------------------------- searching

struct hnsw_hit {
    uint64_t label;
    float score;
};

/* How to find them. AUTO: the cheaper way by a model of what both cost, from the number of elements, k, ef, the layout and how many `allow`
 * lets through. WALK: through the graph. SCAN: score everything, as hnsw_search_exact does. */
enum hnsw_plan { HNSW_PLAN_AUTO, HNSW_PLAN_WALK, HNSW_PLAN_SCAN };

struct hnsw_query {
    size_t k;
    size_t ef;                                           // 0 = max(k, 64); raised to k. See HNSW_COMPACT
    bool (*filter)(const void *ctx, uint64_t label);     // true = may be returned; NULL = all
    const void *filter_ctx;
    const uint64_t *allow;                               // [(n_allow + 63) / 64], borrowed: label l may be returned if bit l % 64 of
    size_t n_allow;                                      // word l / 64 is set, those from n_allow on may not; NULL = all. With a
                                                         // filter too: what both let through
    bool has_min_score;                                  // hits below are dropped
    float min_score;
    size_t max_visits;                                   // scores to compute at most; 0 = as many as it takes
    uint64_t deadline_ns;                                // CLOCK_MONOTONIC; 0 = none. Looked at every 1,024 scores
    enum hnsw_plan plan;
    void (*score)(const void *ctx, const uint64_t *label, size_t n, float *score); // of a caller who has the vectors: a walk over the compact
    const void *score_ctx;                               // layout has its best scored by it, where its own scores would be those of
                                                         // codes; see report->scored. NULL = by codes
    struct hnsw_report *report;                          // filled in by a search that does not fail; may be NULL
};

/* Which limit ended a search before it was done: its hits are the best it met until then, fewer than k perhaps. */
enum hnsw_cut { HNSW_CUT_NONE, HNSW_CUT_VISITS, HNSW_CUT_DEADLINE };

struct hnsw_report {
    size_t visited;  // scores computed, max_visits at most (of each vector of hnsw_search_multi). The fast layout scores whole blocks, empty
                     // places included
    size_t rescored; // of what was visited by codes of 8 bits, the best were scored again, exactly: so many. A walk: k + k / 4 + 16 at most
    enum hnsw_cut cut;
    enum hnsw_plan plan; // WALK or SCAN: what found the hits. SCAN too where a walk found too few
    bool exact;     // all that may be returned was scored: the hits are the exact answer
    bool scored;    // the hits' scores, and their order, are those of hnsw_query.score: not by a scan, nor with a filter, `allow` or removals
};

/* Scratch of one caller; grows to what it meets and then allocates nothing. Any workspace fits any index. */
struct hnsw_ws;
struct hnsw_ws *hnsw_ws_new(void);
void hnsw_ws_free(struct hnsw_ws *ws);

/* Best k, best first, into hit[k]; returns how many (alg. 5). Fewer than k only if fewer are eligible (filter, allow, removals), which an
 * exact scan makes sure of where the walk through the graph finds too few; if a limit cut the search; or if no more of what the walk found
 * reaches min_score: there an item may be missed that the walk did not come by, as at any place of an answer, and no scan looks for it.
 * 0 and `err` set (HNSW_NOMEM, HNSW_ARG for k = 0 or a min_score that is no number) on failure; 0 without an error means that nothing is eligible. */
size_t hnsw_search(const struct hnsw *h, const float *q, const struct hnsw_query *p, struct hnsw_ws *ws, struct hnsw_hit *hit,
                   struct hnsw_err *err);

/* The same by scanning every element: the truth for recall, and the way for small or heavily filtered sets. */
size_t hnsw_search_exact(const struct hnsw *h, const float *q, const struct hnsw_query *p, struct hnsw_ws *ws, struct hnsw_hit *hit,
                         struct hnsw_err *err);

/* By several query vectors q[nq][dim], as models of several interests have: an element's score is its best over them. Each label at most
 * once. Costs about nq searches; the report adds them up, limits hold for each search. HNSW_ARG for nq = 0. */
size_t hnsw_search_multi(const struct hnsw *h, const float *q, size_t nq, const struct hnsw_query *p, struct hnsw_ws *ws,
                         struct hnsw_hit *hit, struct hnsw_err *err);

/* Of nq independent queries q [nq][dim], each as by hnsw_search: the same answers, into hit [nq][k], how many each into found [nq].
 * p->report is NULL or [nq]. Where they are answered by a scan, groups of queries share each pass over the codes, and a deadline; in
 * one thread: callers with several split the queries. False and `err` set: of the answers nothing can be said. */
bool hnsw_search_batch(const struct hnsw *h, const float *q, size_t nq, const struct hnsw_query *p, struct hnsw_ws *ws,
                       struct hnsw_hit *hit, size_t *found, struct hnsw_err *err);

/* Scores of given vectors: score[i] = score of q against vec[idx[i]] (idx NULL: i), i < n. No index needed; vec [.][dim].
 * For COSINE neither side needs to be normalised. */
void hnsw_scores(enum hnsw_metric metric, size_t dim, const float *q, const float *vec, const uint32_t *idx, size_t n, float *score);

// --------------------------------------------------------------------------------------------------- looking inside

enum hnsw_metric hnsw_get_metric(const struct hnsw *h);
size_t hnsw_dim(const struct hnsw *h);
size_t hnsw_count(const struct hnsw *h);    // elements that can be returned
size_t hnsw_capacity(const struct hnsw *h);
/* Vector of a label as stored (COSINE: normalised), or NULL; also NULL in the compact layout, which has none of floats. Valid until the
 * index changes. */
const float *hnsw_vector(const struct hnsw *h, uint64_t label);
/* The same copied to out [dim], whatever the layout; false for an unknown or removed label. */
bool hnsw_get_vector(const struct hnsw *h, uint64_t label, float *out);

/* FAST or PLAIN as hnsw_optimize left it and no addition has dropped it; COMPACT also of an index loaded so. */
enum hnsw_layout hnsw_get_layout(const struct hnsw *h);
const char *hnsw_layout_name(enum hnsw_layout layout); // "plain", "fast", "compact"

/* Labels of all elements that can be returned, in the order of their places, into label[hnsw_count(h)]. */
void hnsw_labels(const struct hnsw *h, uint64_t *label);

struct hnsw_stats {
    size_t n, n_removed, capacity, bytes;
    unsigned m, ef_construction, max_level;
    double mean_degree0;      // links per element on level 0
    size_t n_links0_zero;     // elements without any link on level 0 (1 in an index of one)
    uint64_t seed;
    const char *kernel;       // "avx512", "avx2", "sse", "plain"
};
void hnsw_get_stats(const struct hnsw *h, struct hnsw_stats *s);
size_t hnsw_bytes(const struct hnsw *h); // memory held, without what is mapped

/* Every structural rule: counts, link ranges, no self or double links, levels, entry point, labels unique, vectors finite, removed
 * marks, and that every element can be reached from the entry point on level 0: *unreachable (may be NULL) receives how many
 * cannot; these are no error. */
bool hnsw_check(const struct hnsw *h, size_t *unreachable, struct hnsw_err *err);

// --------------------------------------------------------------------------------------------------------- kernels

/* Kernels are picked once from the CPU; tests may force one by name. False if this CPU does not have it. Not while searching. */
bool hnsw_force_kernel(const char *name); // "avx512", "avx2", "sse", "plain"; NULL = pick again
const char *hnsw_kernel(void);

// ----------------------------------------------------------------------------------------------------------- files

/* Own format (docs/formats.md, "index file"), checksummed, little-endian. Save writes and fsyncs `path` (no rename). Load trusts no
 * byte: sizes, counts, links, levels, labels, finite values and checksums; HNSW_FORMAT names offset, found and wanted; needs at
 * most about twice the file's size in memory. */
bool hnsw_save(const struct hnsw *h, const char *path, struct hnsw_err *err);
struct hnsw *hnsw_load(const char *path, struct hnsw_err *err); // one thread, private memory

/* threads: that read and check; 0 = 1. shared: vectors and links on level 0 stay in the file, mapped read-only, so that processes share
 * them; the rest (some 15 bytes per element) is private. The file is checked by reading before it is mapped, so one that is cut by then is
 * a failed load. From then on it must stay as it is for as long as the index lives: a page that is cut off ends the process by SIGBUS
 * when it is touched, and other bytes are other, unchecked links. Replacing the file by rename is fine, saving over it is refused
 * (HNSW_ARG). Adding and resizing first
 * copy the elements into private memory. A compact index's file is always loaded privately. */
struct hnsw_load_opts {
    unsigned threads;
    bool shared;
    void (*pace)(void *ctx); // called by each thread that reads and checks, after every some 0.1 ms of work: it may rest there. NULL: none
    void *pace_ctx;
};
struct hnsw *hnsw_load_with(const char *path, const struct hnsw_load_opts *o, struct hnsw_err *err);

/* The same from bytes in memory (borrowed for the call). `name` is for messages. */
struct hnsw *hnsw_load_mem(const void *data, size_t n, const char *name, struct hnsw_err *err);
struct hnsw *hnsw_load_mem_with(const void *data, size_t n, const char *name, unsigned threads, struct hnsw_err *err);

/* hnswlib's saveIndex format (0.6-0.8, 64-bit little-endian). It holds neither metric nor dim, so both are given. COSINE is stored as
 * hnswlib users do: IP over normalised vectors. The same distrust. */
struct hnsw *hnsw_import(const char *path, enum hnsw_metric metric, size_t dim, struct hnsw_err *err);
bool hnsw_export(const struct hnsw *h, const char *path, struct hnsw_err *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
