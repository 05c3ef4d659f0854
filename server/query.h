/* query.h - the bodies of /v1/retrieve, /v1/users:embed, /v1/search, /v1/score and /v1/explain: JSON -> struct query -> struct retrieve_query.
 * Place:   two steps, for what the client wrote must be understood before the bundle that answers it is known:
 *          query_parse needs the limits only, query_resolve turns ids, features, categories and attributes into
 *          indices of one bundle.
 * Memory:  a struct query belongs to one loop's thread and is used again and again; it allocates only while it grows.
 * Errors:  struct wire_error: status, code, pointer, detail. docs/api.md lists the codes. */
#ifndef DUET_SERVER_QUERY_H
#define DUET_SERVER_QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/bundle.h"
#include "core/retrieve.h"
#include "server/wire.h"

enum query_kind { QUERY_RETRIEVE, QUERY_EMBED, QUERY_SEARCH, QUERY_SCORE, QUERY_EXPLAIN };

#define QUERY_FEATURES_MAX 256 // SCHEMA_FIELDS_MAX
#define QUERY_FIELDS_MAX 64    // attributes asked for
#define QUERY_CATEGORIES_MAX 64 // with bounds of their own
#define QUERY_K_DEFAULT 100
#define QUERY_ATTR_CATEGORY (-2) // in attr[]: the item's category

struct query_limits {
    uint64_t k, ef, ids, id_bytes, history;
    unsigned depth;
};

/* Strings in a row of query.str. */
struct query_list {
    size_t first, n;
};

struct query_feature {
    struct str name;
    struct query_list value; // one, or several for a multi-valued field
    bool is_list;
};

/* A category's bounds as read. */
struct query_category {
    struct str name;
    bool has_max;
    uint64_t min, max;
};

/* A node of the filter as read. */
struct query_filter {
    enum filter_op op;
    size_t parent, child, n_children; // its place, for messages
    struct str field;
    struct query_list in, not_in;
    bool has_in, has_not_in, has_lo, has_hi, lo_open, hi_open;
    double lo, hi;
};

struct query {
    // what was asked; strings point into the body or into text
    struct str user_id, model, item_id; // .p = NULL: not given
    size_t n_features;
    struct query_feature feature[QUERY_FEATURES_MAX];
    struct query_list exclude_ids, include_ids, item_ids, history, fields;
    bool has_include;
    struct query_filter filter[FILTER_NODES_MAX]; // in prefix order
    bool without_variant_filter; // one did not fit the bundle
    size_t n_and, n_own_filter; // filters of variants in it (0: it is the request's as read), and the request's own nodes
    size_t n_filter;                               // 0 = none given
    bool has_bounds;
    uint64_t max_per_category; // 0 = not given
    struct query_category category[QUERY_CATEGORIES_MAX];
    size_t n_categories;
    bool has_min_score, exact, exclude_seen, columns;
    uint64_t k, ef; // 0 = not given
    double target_recall; // 0 = not given
    float min_score;
    // what became of it in one bundle
    struct retrieve_feature resolved[QUERY_FEATURES_MAX];
    int attr[QUERY_FIELDS_MAX]; // column of items->attr, or QUERY_ATTR_CATEGORY
    struct filter_node filter_node[FILTER_NODES_MAX];
    struct filter_expr filter_expr;
    struct retrieve_bounds bounds;
    struct retrieve_category rule[QUERY_CATEGORIES_MAX];
    size_t unknown_categories;
    size_t full_ef; // what the search would have taken if requests had not waited; 0 = it did
    size_t unknown_history, unknown_exclude; // ids that this bundle does not know: ignored, and counted
    uint32_t *item;          // [item_ids.n] of /v1/score, STRTAB_NONE where the bundle has no such item; part of idx
    size_t unknown_include, unknown_item;
    size_t unknown_filter;                   // values in the filter that no item has
    // memory, kept from request to request
    struct str *str;
    size_t n_str, cap_str;
    float *vector; // [n_vector] as given
    size_t n_vector, cap_vector;
    bool has_vector;
    uint32_t *idx; // [cap_idx] resolved exclude, include, history, items
    size_t cap_idx;
    char *and_text; // [cap_and_text] decoded strings of query_and_filters
    size_t cap_and_text;
    char *text; // [cap_text] decoded strings and joined values
    size_t cap_text, text_used;
    struct wire wire;
};

void query_init(struct query *q);
void query_reset(struct query *q); // as if nothing was asked; memory is kept
void query_fini(struct query *q);

/* Body of n bytes, NUL behind it. False: *e says why. `q` borrows from `body`. */
bool query_parse(struct query *q, enum query_kind kind, const char *body, size_t n, const struct query_limits *lim,
                 struct wire_error *e);

/* After query_parse: and-ed with the request's own filter, n >= 1 filters as JSON texts, NUL-terminated, from which `q` borrows. False:
 * too many nodes together, or one that query_check_filter would refuse. */
bool query_and_filters(struct query *q, const struct str *text, size_t n, const struct query_limits *lim, struct wire_error *e);
void query_drop_and(struct query *q); // back to the request's own
/* Is it a filter? ERR_ARG says why not, with the place. Attributes are a bundle's affair. */
bool query_check_filter(const char *text, struct err *err);

/* out->k and out->ef are set from the query, or from the defaults given (ef 0 = the bundle's); a target_recall of the query becomes an
 * ef, or a scan. `out` borrows from `q`
 * and `b`. */
bool query_resolve(struct query *q, const struct bundle *b, uint64_t k_default, uint64_t ef_default,
                   struct retrieve_query *out, struct wire_error *e);

#endif
