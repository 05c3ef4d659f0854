/* retrieve.h - from a query to its top-k items: features + a_u -> tower -> index -> filters. The same code answers requests,
 * `duet query` and offline evaluation, so offline figures describe what is served.
 * Threads: the bundle is const; each caller has its own workspace. Allocates nothing once the workspace is warm. */
#ifndef DUET_RETRIEVE_H
#define DUET_RETRIEVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/strtab.h"
#include "core/bundle.h"
#include "core/filter.h"

/* Which rung of the ladder gave the query vector. */
enum retrieve_fallback {
    FALLBACK_NONE,       // stored user: own features and a_u, or own stored vectors
    FALLBACK_FEATURES,   // unknown user, features given: OOV id row, a_u = mean of the segment
    FALLBACK_HISTORY,    // unknown user, `history` given: a_u = n^-alpha sum of its p_v (docs/model.md), features as given; a model
                         // without a_u: the normalised mean itself is the query vector; one without towers: stored_from_history
    FALLBACK_POPULAR     // nothing known: most popular items, score = share of training interactions (min_score, which bounds
                         // inner products, is not applied: an unknown user is never answered with nothing)
};
const char *retrieve_fallback_name(enum retrieve_fallback f); // NULL for FALLBACK_NONE; "features", "history", "popular"

struct retrieve_feature {
    struct str name, value; // value as text; multi-valued fields: joined by the field's separator
};

/* Bounds on how many items of one category an answer has. */
struct retrieve_category {
    uint32_t category;                        // row of items->category
    size_t min, max;                          // min <= max
};
struct retrieve_bounds {
    size_t max_each;                          // of the categories without a rule; SIZE_MAX = any number
    const struct retrieve_category *rule;     // distinct categories, their minima together at most k
    size_t n_rules;
};

struct retrieve_embedded;

struct retrieve_query {
    struct str user_id;                       // .p = NULL: none given
    const struct retrieve_feature *feature;   // override stored features; the user keeps its a_u and id
    size_t n_features;
    const uint32_t *history;                  // item_idx, newest last; used for unknown users
    size_t n_history;
    const float *vector;                      // [d] if not NULL: search this, ignore the user
    size_t k;                                 // 1 .. 10,000
    size_t ef;                                // 0 = what target_recall wants; raised to k
    double target_recall;                     // 0.5 to 1, with ef = 0: the smallest ef that reaches it at this k by the bundle's curves;
                                              // 1, or above what they reach: exact. 0 = the bundle's own target, or its default ef
    bool exact;                               // scan all items instead of walking the graph
    bool exclude_seen;                        // drop the stored user's seen items
    const uint32_t *exclude;                  // item_idx to drop
    size_t n_exclude;
    const uint32_t *category;                 // keep only items of these categories (rows of items->category)
    size_t n_category;                        // 0 = no category filter
    const uint32_t *not_category;             // drop items of these
    size_t n_not_category;
    const uint32_t *include;                  // item_idx: only these
    size_t n_include;
    bool has_include;                         // false: all items
    const struct filter_expr *filter;         // what else must hold; NULL = nothing
    bool has_min_score;
    float min_score;
    const struct retrieve_bounds *bounds;     // NULL = none
    const struct retrieve_embedded *embedded; // by retrieve_embed_batch, for this query and bundle; NULL: embed here
    uint64_t deadline_ns;                     // CLOCK_MONOTONIC; 0 = none. Looked at before and during the search
};

struct retrieve_hit {
    uint32_t item_idx;
    float score; // inner product, higher is better
};

#define RETRIEVE_UNKNOWN_MAX 32

struct retrieve_result {
    enum retrieve_fallback fallback;
    size_t n;                                 // hits written, <= k; fewer only if fewer items are eligible
    size_t ef_used;                           // 0 for exact and popular
    bool exact_used;
    uint32_t unknown_feature[RETRIEVE_UNKNOWN_MAX]; // indices into query->feature whose value was out of vocabulary
    size_t n_unknown;
    bool late;                                // the deadline passed: before the search (n = 0), or n of what it met until then
    size_t n_vectors;                         // query vectors that were searched, 0 without any
    uint64_t embed_ns, search_ns;             // time spent, monotonic
};

/* Scratch of one caller for one bundle, which must outlive it. */
struct retrieve_ws;
struct retrieve_ws *retrieve_ws_new(const struct bundle *b, struct err *err);
void retrieve_ws_free(struct retrieve_ws *ws);

/* Floats that retrieve_embed may write to p_u: n_interest * d. */
size_t retrieve_width(const struct bundle *b);

/* p_u of the query and the a_u used. ERR_ARG names a feature that there is not, or that no tower reads (display, the id).
 * FALLBACK_POPULAR and `vector`: no a_u, zeroed; FALLBACK_POPULAR: no vector either, p_u zeroed. r->n_vectors rows of p_u are set.
 *   p_u [n_interest][d], a_u [d_aug] (may be NULL) */
bool retrieve_embed(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws, float *p_u, float *a_u,
                    struct retrieve_result *r, struct err *err);

#define RETRIEVE_BATCH 64

struct retrieve_embedded {
    struct retrieve_result result; // what of it is known: fallback, unknown features, n_vectors, its share of embed_ns
    const float *p;                // [n_interest][d] in the workspace, until it embeds the next batch
    struct err err;                // .code: this query has no vector, as retrieve_embed would say
};

/* Vectors of n <= RETRIEVE_BATCH queries, all that need the tower by one pass through it (its scores differ from those of single
 * queries in the last digits, see tower_forward). False: out of memory. */
bool retrieve_embed_batch(const struct bundle *b, const struct retrieve_query *const *q, size_t n, struct retrieve_ws *ws,
                          struct retrieve_embedded *out, struct err *err);

/* Top k, best first, ties by item_idx. hit has room for q->k. A filter that leaves few items is answered by scanning just
 * those (exact_used), a wide one by a filtered walk; either way min(k, eligible) items come back.
 * With `bounds` (bounds.c): the best min items of each category first, as many as there are, then the best others that its maximum lets in. ERR_ARG for k out of range, a
 * target_recall without a curve for it, bounds that contradict each other, an item or category that there is not, a filter that filter_check refuses, a vector that is not finite. */
bool retrieve_topk(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws, struct retrieve_hit *hit,
                   struct retrieve_result *r, struct err *err);

/* Scores of n items for the user, in their order, as retrieve_topk would give them; k, ef, filters and exclusions have no say. */
bool retrieve_score(const struct bundle *b, const struct retrieve_query *q, const uint32_t *item, size_t n, struct retrieve_ws *ws,
                    float *score, struct retrieve_result *r, struct err *err);

#endif
