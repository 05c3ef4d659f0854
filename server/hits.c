#include "server/hits.h"

#include <string.h>

#include "server/jsonw.h"
#include "server/query.h"

/* Ids lie all over a block of many megabytes: ask for them all before using the first. */
static void prefetch_ids(const struct items *it, const struct retrieve_hit *hit, size_t n)
{
    for (size_t i = 0; i < n; i++)
        __builtin_prefetch(&it->ids.off[hit[i].item_idx]);
    for (size_t i = 0; i < n; i++)
        __builtin_prefetch(it->ids.bytes + it->ids.off[hit[i].item_idx]);
}

static const char *attr_name(const struct items *it, int attr)
{
    return attr == QUERY_ATTR_CATEGORY ? "category" : it->attr[attr].name;
}

static struct str attr_value(const struct items *it, int attr, uint32_t idx)
{
    if (attr == QUERY_ATTR_CATEGORY)
        return strtab_get(&it->category, it->category_of[idx]);
    return strtab_get(&it->attr[attr].values, idx);
}

static void put_attr(struct buf *b, const struct items *it, int attr, uint32_t idx)
{
    struct str v = attr_value(it, attr, idx);
    if (v.n)
        jsonw_string(b, v.p, v.n);
    else
        JSONW_LIT(b, "null");
}

static void put_attrs(struct buf *b, const struct items *it, const struct hits_attrs *a, uint32_t idx)
{
    JSONW_LIT(b, ",\"attributes\":{");
    for (size_t i = 0; i < a->n; i++) {
        if (i)
            JSONW_LIT(b, ",");
        jsonw_text(b, attr_name(it, a->attr[i]));
        JSONW_LIT(b, ":");
        put_attr(b, it, a->attr[i], idx);
    }
    JSONW_LIT(b, "}");
}

static char *put_lit(char *p, const char *s, size_t n)
{
    memcpy(p, s, n);
    return p + n;
}
#define PUT(p, literal) put_lit((p), "" literal, sizeof(literal) - 1)

/* One buffer check a row, everything else through one pointer. Leaves the row open. */
static bool put_row(struct buf *b, const struct items *it, const struct retrieve_hit *h)
{
    struct str id = strtab_get(&it->ids, h->item_idx);
    if (!buf_reserve(b, jsonw_string_room(id.n) + JSONW_NUMBER_MAX + 32))
        return false;
    char *p = b->data + b->len;
    p = PUT(p, "{\"id\":");
    p = jsonw_put_string(p, id.p, id.n);
    p = PUT(p, ",\"score\":");
    p = jsonw_put_float7(p, h->score);
    b->len = (size_t)(p - b->data);
    return true;
}

void hits_write_rows(struct buf *b, const struct items *it, const struct retrieve_hit *hit, size_t n,
                     const struct hits_attrs *a)
{
    prefetch_ids(it, hit, n);
    JSONW_LIT(b, "[");
    for (size_t i = 0; i < n && put_row(b, it, &hit[i]); i++) {
        if (a->n)
            put_attrs(b, it, a, hit[i].item_idx);
        if (!buf_reserve(b, 2))
            return;
        b->data[b->len++] = '}';
        if (i + 1 < n)
            b->data[b->len++] = ',';
    }
    JSONW_LIT(b, "]");
}

void hits_write_columns(struct buf *b, const struct items *it, const struct retrieve_hit *hit, size_t n,
                        const struct hits_attrs *a)
{
    prefetch_ids(it, hit, n);
    JSONW_LIT(b, "{\"ids\":[");
    for (size_t i = 0; i < n; i++) {
        struct str id = strtab_get(&it->ids, hit[i].item_idx);
        if (i)
            JSONW_LIT(b, ",");
        jsonw_string(b, id.p, id.n);
    }
    JSONW_LIT(b, "],\"scores\":[");
    for (size_t i = 0; i < n; i++) {
        if (i)
            JSONW_LIT(b, ",");
        jsonw_float7(b, hit[i].score);
    }
    JSONW_LIT(b, "]");
    for (size_t c = 0; c < a->n; c++) {
        if (c == 0)
            JSONW_LIT(b, ",\"attributes\":{");
        else
            JSONW_LIT(b, ",");
        jsonw_text(b, attr_name(it, a->attr[c]));
        JSONW_LIT(b, ":[");
        for (size_t i = 0; i < n; i++) {
            if (i)
                JSONW_LIT(b, ",");
            put_attr(b, it, a->attr[c], hit[i].item_idx);
        }
        JSONW_LIT(b, "]");
    }
    if (a->n)
        JSONW_LIT(b, "}");
    JSONW_LIT(b, "}");
}
