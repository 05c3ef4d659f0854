/* batch_body.h - the body of /v1/retrieve:batch: where each of its requests lies.
 * Place:   handle_batch.c; query_parse then reads the requests one by one.
 * Checked: that the whole is JSON, as wire_skip checks it, and the object around the requests. What a request says is not looked at, so
 *          that what is wrong with one is its own affair: repeated names in it too.
 * Memory:  used again and again; it allocates only while it grows. */
#ifndef DUET_SERVER_BATCH_BODY_H
#define DUET_SERVER_BATCH_BODY_H

#include "server/query.h"

struct batch_body {
    char *text; // [cap_text] the body, and behind it the strings that reading it decodes
    size_t cap_text;
    struct str *request; // [n] in text, a NUL behind each
    size_t n, cap_request;
};

/* 1 to `most` requests; depths count from the body's outermost object. False: *e says why. */
bool batch_body_read(struct batch_body *b, const char *body, size_t n, const struct query_limits *lim, uint64_t most,
                     struct wire_error *e);
void batch_body_fini(struct batch_body *b);

#endif
