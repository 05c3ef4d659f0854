/* query_priv.h - what query.c, query_filter.c and query_resolve.c share. */
#ifndef DUET_SERVER_QUERY_PRIV_H
#define DUET_SERVER_QUERY_PRIV_H

#include "server/query.h"

bool query_room(void **p, size_t *cap, size_t n, size_t size); // for n elements in *p; contents are kept
bool query_same(struct str s, const char *name, size_t n);
const char *query_nearest(struct str s, const char *const *known, size_t n); // NULL if none is near
int query_shown(struct str s); // bytes of a client's text that a message repeats: at most 64, whole characters

/* The rest of an array's texts; with `numbers`, numbers and booleans by their own text too. */
bool query_read_strings(struct query *q, struct wire *w, bool numbers, uint64_t max, struct query_list *out);
bool query_unknown_field(struct wire *w, struct str key, const char *const *known, size_t n);
bool query_duplicate(struct wire *w, struct str key);
bool query_refuse(struct wire_error *e, unsigned status, const char *code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

bool query_read_node(struct query *q, struct wire *w, const struct query_limits *lim, size_t child); // a child of the first node
bool query_read_filter(struct query *q, struct wire *w, const struct query_limits *lim);
/* *out = NULL if none was given. */
bool query_resolve_filter(struct query *q, const struct items *it, const struct filter_expr **out, struct wire_error *e);

/* query_bounds.c: the value of `categories`; then what both fields mean in a bundle, *out = NULL if neither was given. */
bool query_read_categories(struct query *q, struct wire *w, const struct query_limits *lim);
bool query_resolve_bounds(struct query *q, const struct items *it, size_t k, const struct retrieve_bounds **out, struct wire_error *e);

#endif
