/* query_and.c - filters that are not the request's own: those of the variants that its user got, and-ed with its own. */
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "server/query_priv.h"

/* Where a request's own filter is, its nodes move up by one for the `and` above all:
 *
 *     [own ...]   ->   [and] [own ...] [variant's ...] [variant's ...]                                             */
static void make_room(struct query *q)
{
    memmove(q->filter + 1, q->filter, q->n_filter * sizeof(q->filter[0]));
    for (size_t i = 2; i <= q->n_filter; i++)
        q->filter[i].parent++; // the first one's, which is 0, becomes the `and`
    q->n_filter++;
}

bool query_and_filters(struct query *q, const struct str *text, size_t n, const struct query_limits *lim, struct wire_error *e)
{
    size_t bytes = 1, own = q->n_filter > 0;
    struct wire *w = &q->wire;
    q->n_own_filter = q->n_filter;
    e->pointer[0] = '\0';
    for (size_t i = 0; i < n; i++)
        bytes += text[i].n;
    if (q->n_filter == FILTER_NODES_MAX)
        return query_refuse(e, 422, "limit_exceeded", "a filter of %d nodes, which leaves no room for that of the experiment's variant",
                            FILTER_NODES_MAX);
    if (!query_room((void **)&q->and_text, &q->cap_and_text, bytes, 1))
        return query_refuse(e, 503, "out_of_memory", "out of memory");
    make_room(q);
    q->filter[0] = (struct query_filter){.op = FILTER_AND, .n_children = own + n};
    q->n_and = n;
    char *scratch = q->and_text;
    for (size_t i = 0; i < n; i++) {
        wire_begin(w, text[i].p, text[i].n, scratch, lim->depth);
        if (!query_read_node(q, w, lim, own + i) || !wire_end(w)) {
            *e = w->error;
            return false;
        }
        scratch = w->scratch;
    }
    return true;
}

void query_drop_and(struct query *q)
{
    if (q->n_and == 0)
        return;
    memmove(q->filter, q->filter + 1, q->n_own_filter * sizeof(q->filter[0]));
    for (size_t i = 1; i < q->n_own_filter; i++)
        q->filter[i].parent--;
    q->n_filter = q->n_own_filter;
    q->n_and = 0;
}

bool query_check_filter(const char *text, struct err *err)
{
    const struct query_limits lim = {.ids = 10000, .id_bytes = ITEM_ID_MAX, .depth = WIRE_DEPTH_MAX};
    const struct str one = {text, strlen(text)};
    struct wire_error e = {0};
    struct query *q = mem_array(1, sizeof(*q), err);
    if (!q)
        return false;
    query_init(q);
    bool ok = query_and_filters(q, &one, 1, &lim, &e);
    if (!ok)
        err_set(err, ERR_ARG, "filter%s: %s", e.pointer, e.detail);
    query_fini(q);
    free(q);
    return ok;
}
