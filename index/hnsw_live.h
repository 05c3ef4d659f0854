/* hnsw_live.h - an index that changes while it is searched: hnsw.h's graph, never touched, and beside it what has
 * changed since. Source:  the two-level scheme of log-structured stores (O'Neil et al. 1996), snapshots by time as in
 * multi-version databases; taking elements out of a graph as in Singh et al., "FreshDiskANN", 2021, alg. 4. Place: part
 * of hnswlib-c, beside hnsw.h; includes nothing but the C library. Threads: every function may be called from any
 * thread at any time, but hnsw_live_free alone. hnsw_live_search, _search_exact, _get_vector and _count take no lock
 * and wait for nobody; each caller of a search has its own workspace. put and remove take turns. A merge works beside
 * all of them. Scores:  as in hnsw.h. */
#ifndef HNSW_LIVE_H
#define HNSW_LIVE_H

#include "hnsw.h" // beside this file, in the source tree as where it is installed

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* A search sees the index as it was at one moment of the search: all of every put and removal that had returned before
 * the search began, and of those that went on meanwhile either all or nothing. So a label comes at most once, with the
 * score of one of the vectors that were put for it, and is never missing because it is being replaced.
 *
 * New vectors go to the delta, `delta_max` of them at most, which every search scans exactly after the graph: a put is
 * found at once with recall 1. A merge makes a new graph of what lives and starts an empty delta; it is
 *   - hnsw_live_merge, by a thread of the caller's, or
 *   - made by a thread of the index (merge_threads > 0) whenever the delta is half full or a tenth of the graph is
 * dead. */
struct hnsw_live;

struct hnsw_live_params {
    size_t delta_max;       // puts between two merges; 0 = max(4096, 1 % of the graph), decided anew at each merge
    unsigned merge_threads; // 0: only hnsw_live_merge merges
    bool optimize;          // give the graph the fast layout (hnsw_optimize) after a merge, if it can hold the vectors
};

/* An empty index. `index->capacity` is not used: it grows as it must. */
struct hnsw_live *hnsw_live_new(const struct hnsw_params *index, const struct hnsw_live_params *p,
                                struct hnsw_err *err);

/* From an index, built or loaded, which it takes; on failure `main` is still the caller's. HNSW_ARG for one in the compact layout. */
struct hnsw_live *hnsw_live_open(struct hnsw *main, const struct hnsw_live_params *p, struct hnsw_err *err);

/* Ends its thread, after the merge under way if there is one. Nobody may be using it. NULL is fine. */
void hnsw_live_free(struct hnsw_live *l);

// ------------------------------------------------------------------------------------------------------ changing

/* Add or replace: vec [dim] of finite values. Where the delta is full: with a merging thread it waits for the merge,
 * and fails with HNSW_FULL only if that has failed, naming why; without one it fails with HNSW_FULL at once: call
 * hnsw_live_merge. HNSW_NOMEM, HNSW_ARG. On failure nothing has changed. */
bool hnsw_live_put(struct hnsw_live *l, uint64_t label, const float *vec, struct hnsw_err *err);

/* HNSW_NOT_FOUND for an unknown label. Never waits for a merge, takes no room in the delta. HNSW_NOMEM. */
bool hnsw_live_remove(struct hnsw_live *l, uint64_t label, struct hnsw_err *err);

/* A new graph of all that lives, by `threads` threads (0 = 1), and an empty delta. Searches, puts and removals go on;
 * what they change meanwhile is kept. Nothing to do: returns at once. Needs memory for a second graph; HNSW_NOMEM:
 * nothing has changed. Returns when the old graph is freed, so it waits for the searches under way: not to be called
 * from a filter. */
bool hnsw_live_merge(struct hnsw_live *l, unsigned threads, struct hnsw_err *err);

/* Merge, and write the graph as hnsw_save does. The file is the index at one moment between call and return; puts and
 * removals go on meanwhile. hnsw_live_open(hnsw_load(path)) has it back. */
bool hnsw_live_save(struct hnsw_live *l, const char *path, unsigned threads, struct hnsw_err *err);

// ----------------------------------------------------------------------------------------------------- searching

/* As hnsw_search: never fewer than k while k are eligible, ties to the lower label. The filter is called for elements
 * of the graph and of the delta, at any moment of the search. Limits (max_visits, deadline_ns) and the report are about the graph:
 * the delta is always scanned. */
size_t hnsw_live_search(const struct hnsw_live *l, const float *q, const struct hnsw_query *p, struct hnsw_ws *ws,
                        struct hnsw_hit *hit, struct hnsw_err *err);

/* The same by scanning everything. */
size_t hnsw_live_search_exact(const struct hnsw_live *l, const float *q, const struct hnsw_query *p, struct hnsw_ws *ws,
                              struct hnsw_hit *hit, struct hnsw_err *err);

/* Copy the vector of a label, as stored (COSINE: normalised), to vec [dim]; false if there is none. */
bool hnsw_live_get_vector(const struct hnsw_live *l, uint64_t label, float *vec);

size_t hnsw_live_count(const struct hnsw_live *l); // labels that can be returned
size_t hnsw_live_dim(const struct hnsw_live *l);
enum hnsw_metric hnsw_live_metric(const struct hnsw_live *l);

struct hnsw_live_stats {
    size_t count;          // labels that can be returned
    size_t n_main, n_dead; // elements of the graph; of these, removed or replaced since it was made
    size_t n_delta,
        delta_max; // places of the delta that are taken, replaced and removed ones included; places there are
    size_t n_merges, n_failed; // since the start
    bool merging;              // right now
    double last_merge_s;       // how long the last one took; 0: none yet
    size_t bytes;              // held: graph, delta, tables; what a merge under way has made is not counted
};
void hnsw_live_get_stats(struct hnsw_live *l, struct hnsw_live_stats *s); // waits for a put under way, not for a merge

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
