#include "server/batch_body.h"

#include <stdlib.h>
#include <string.h>

#include "server/query_priv.h"

void batch_body_fini(struct batch_body *b)
{
    free(b->text);
    free(b->request);
    *b = (struct batch_body){0};
}

static bool read_requests(struct batch_body *b, struct wire *w, uint64_t most)
{
    if (!wire_enter_array(w))
        return false;
    while (wire_next_item(w)) {
        if (b->n == most)
            return wire_fail(w, 422, "limit_exceeded", "more than %llu requests (limits.batch)", (unsigned long long)most);
        if (!query_room((void **)&b->request, &b->cap_request, b->n + 1, sizeof(*b->request)))
            return wire_fail(w, 503, "out_of_memory", "out of memory");
        const char *begin = w->p;
        if (!wire_skip(w))
            return false;
        b->request[b->n++] = (struct str){begin, (size_t)(w->p - begin)};
    }
    return wire_ok(w) && (b->n || wire_fail(w, 400, "invalid_value", "found 0 requests, want 1 to %llu", (unsigned long long)most));
}

static bool read_members(struct batch_body *b, struct wire *w, uint64_t most)
{
    static const char *const known[] = {"requests"};
    bool seen = false;
    struct str key;
    if (!wire_enter_object(w))
        return false;
    while (wire_next_key(w, &key)) {
        if (!query_same(key, known[0], strlen(known[0])))
            return query_unknown_field(w, key, known, 1);
        if (seen)
            return query_duplicate(w, key);
        seen = true;
        if (!read_requests(b, w, most))
            return false;
    }
    if (wire_ok(w) && !seen)
        return wire_fail(w, 400, "invalid_value", "'requests' is missing");
    return wire_end(w);
}

bool batch_body_read(struct batch_body *b, const char *body, size_t n, const struct query_limits *lim, uint64_t most,
                     struct wire_error *e)
{
    struct wire w;
    b->n = 0;
    e->pointer[0] = '\0';
    if (!query_room((void **)&b->text, &b->cap_text, 2 * n + 2, 1))
        return query_refuse(e, 503, "out_of_memory", "out of memory");
    memcpy(b->text, body, n);
    b->text[n] = '\0';
    wire_begin(&w, b->text, n, b->text + n + 1, lim->depth);
    if (!read_members(b, &w, most)) {
        *e = w.error;
        return false;
    }
    for (size_t i = 0; i < b->n; i++)
        b->text[b->request[i].p - b->text + (ptrdiff_t)b->request[i].n] = '\0'; // a comma, a bracket or white space, which have been read
    return true;
}
