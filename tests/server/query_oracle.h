/* query_oracle.h - what docs/api.md says about a request's body, told from the tree that jansson reads: the second opinion of the fuzzer
 * of query.c. Written from the documents, not from the parser: it walks a tree, the parser a text. */
#ifndef DUET_TESTS_SERVER_QUERY_ORACLE_H
#define DUET_TESTS_SERVER_QUERY_ORACLE_H

#include "core/base/json.h"
#include "server/query.h"

struct verdict {
    unsigned status;  // 0 = accepted
    const char *code; // of the first fault in the order of the text
    char pointer[512];
};

/* A body of this kind, with what must be in it and no name twice (the reader of the tree has refused those). */
struct verdict oracle_judge(enum query_kind kind, json_t *body, const struct query_limits *lim);
/* The object around a batch's requests; what is in them counts for its depth alone. */
struct verdict oracle_judge_batch(json_t *body, const struct query_limits *lim, uint64_t most);

/* Does an accepted body say what was read from it? NULL, or the name of what differs. */
const char *oracle_differs(json_t *body, const struct query *q);

/* `categories` against k in a bundle that has these categories: 0, or the status, which is always that of invalid_value. */
unsigned oracle_bounds(json_t *body, size_t k);

#endif
