/* hits.h - the candidates of an answer, written straight into the response: rows or columns.
 * Place:   handle_retrieve.c; bench/wire.c measures it. Knows no HTTP. Allocates only when the buffer grows; check
 *          buf.failed afterwards. */
#ifndef DUET_SERVER_HITS_H
#define DUET_SERVER_HITS_H

#include "core/base/mem.h"
#include "core/items.h"
#include "core/retrieve.h"

/* Attributes to return: columns of items->attr or QUERY_ATTR_CATEGORY, distinct names. Missing values are null. */
struct hits_attrs {
    const int *attr; // [n]
    size_t n;        // 0: the answer has no `attributes`
};

/* [{"id":"31","score":0.8123456,"attributes":{"title":".."}},..] */
void hits_write_rows(struct buf *b, const struct items *it, const struct retrieve_hit *hit, size_t n,
                     const struct hits_attrs *a);
/* {"ids":[..],"scores":[..],"attributes":{"title":[..]}} */
void hits_write_columns(struct buf *b, const struct items *it, const struct retrieve_hit *hit, size_t n,
                        const struct hits_attrs *a);

/* Little-endian (docs/api.md, "Binary answers"): "DUETHITS", u32 n, bytes of ids, bytes of `meta`, 0; f32 score[n]; u32 end of id[n]; the
 * ids; `meta`. */
void hits_write_binary(struct buf *b, const struct items *it, const struct retrieve_hit *hit, size_t n, const struct buf *meta);

#endif
