/* explain.h - why an item is, or is not, among the candidates of a query.
 * Place:   server/handle_explain.c. Made of retrieve_topk and retrieve_score alone, so it says what they do.
 * Cost:    three scans of all items, more with bounds, and for an item that the graph missed searches with ef doubled. */
#ifndef DUET_EXPLAIN_H
#define DUET_EXPLAIN_H

#include "core/retrieve.h"

#define EXPLAIN_RANKS 10000 // ranks beyond are 0

enum explain_rule {
    EXPLAIN_EXCLUDE_IDS,
    EXPLAIN_SEEN,
    EXPLAIN_INCLUDE_IDS,
    EXPLAIN_FILTER,
    EXPLAIN_MIN_SCORE,
    EXPLAIN_MAX_EACH,   // the bounds' max_each: its category is full
    EXPLAIN_CATEGORIES, // a rule of the bounds: its category's own maximum, or the minimum of another that took its place
    EXPLAIN_RULES
};
extern const char *const explain_rule_name[EXPLAIN_RULES]; // as in requests

struct explanation {
    float score;
    size_t rank;                 // in the answer, from 1; 0 = not there
    size_t exact_rank;           // among all items that the rules let through, bounds aside; 0 = dropped, or beyond
    size_t exact_rank_any;       // among all items; 0 = beyond
    bool has_kth;                // are there k items at all?
    float kth_score;             // of the exact answer
    bool dropped[EXPLAIN_RULES]; // each rule as if it were alone; the bounds after all others, where they kept the item from the exact answer
    bool missed;                 // belongs into the answer, but the graph did not find it
    size_t ef_needed;            // missed: smallest of ef, 2 ef, 4 ef .. that finds it; 0 = none up to ef_max
    struct retrieve_result result; // of the query itself
};

/* hit [EXPLAIN_RANKS]. As retrieve_topk fails; `late` in the result says that a deadline passed and the rest is not to be used. */
bool explain_item(const struct bundle *b, const struct retrieve_query *q, uint32_t item, size_t ef_max, struct retrieve_ws *ws,
                  struct retrieve_hit *hit, struct explanation *out, struct err *err);

#endif
