#include "server/hits.h"

#include <string.h>

#include "server/jsonw.h"
#include "server/query.h"

/* Ids lie all over blocks of many megabytes, far more pages than the TLB holds. Each chunk's are touched in short loops
 * without branches before it is written, so that many misses are under way at once: one an id where ids are short, two
 * where its text has to be looked up. Prefetch instructions did not
 * help (bench/results.md, "Wire"), and without this a mispredicted branch on an id's length waits for the miss that
 * tells it: 105 us for 1,000 rows, not 39. */
#define CHUNK 64

static void touch_chunk(const struct items *it, const struct retrieve_hit *hit, size_t n, size_t from)
{
    size_t end = from + CHUNK < n ? from + CHUNK : n, n_long = 0;
    const char *id[CHUNK];
    unsigned sum = 0;
    for (size_t i = from; i < end; i++)
        n_long += it->short_id[hit[i].item_idx].n == 0;
    __asm__ volatile("" : : "r"(n_long));
    if (n_long == 0)
        return;
    for (size_t i = from; i < end; i++)
        id[i - from] = it->ids.bytes + it->ids.off[hit[i].item_idx];
    for (size_t i = from; i < end; i++)
        sum += (unsigned char)*id[i - from]; // ids have at least one byte
    __asm__ volatile("" : : "r"(sum));
}

/* What an id takes at most. */
static inline size_t id_room(const struct items *it, uint32_t item)
{
    return it->short_id[item].n ? sizeof(it->short_id->text) + 4 : jsonw_string_room(strtab_get(&it->ids, item).n);
}

static inline char *put_id(char *p, const struct items *it, uint32_t item)
{
    const struct item_short_id *s = &it->short_id[item];
    if (s->n == 0) {
        struct str id = strtab_get(&it->ids, item);
        return jsonw_put_string(p, id.p, id.n);
    }
    memcpy(p + 1, s, sizeof(*s)); // always all of it: what is too much is written over
    p[0] = p[1 + s->n] = '"';
    return p + s->n + 2;
}

/* The end of what is written, with room for `need` bytes behind it; NULL without memory. Cheaper than a call where
 * there is room. */
static inline char *room_at(struct buf *b, char *p, size_t need)
{
    if (b->cap - (size_t)(p - b->data) > need)
        return p;
    b->len = (size_t)(p - b->data);
    return buf_reserve(b, need) ? b->data + b->len : NULL;
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

/* A row without its closing brace. */
static inline char *put_row(char *p, const struct items *it, const struct retrieve_hit *hit)
{
    p = PUT(p, "{\"id\":");
    p = put_id(p, it, hit->item_idx);
    p = PUT(p, ",\"score\":");
    return jsonw_put_float7(p, hit->score);
}

/* What a row takes at most, beside its id: the literals, a score, a comma. */
#define ROW_ROOM (JSONW_NUMBER_MAX + 32)

/* Everything goes through one pointer. */
static void write_plain_rows(struct buf *b, const struct items *it, const struct retrieve_hit *hit, size_t n)
{
    char *p = b->data + b->len;
    for (size_t i = 0; i < n; i++) {
        if (i % CHUNK == 0)
            touch_chunk(it, hit, n, i);
        if (!(p = room_at(b, p, id_room(it, hit[i].item_idx) + ROW_ROOM)))
            return;
        p = put_row(p, it, &hit[i]);
        memcpy(p, "},", 2);
        p += i + 1 < n ? 2 : 1;
    }
    b->len = (size_t)(p - b->data);
}

static void write_full_rows(struct buf *b, const struct items *it, const struct retrieve_hit *hit, size_t n,
                            const struct hits_attrs *a)
{
    for (size_t i = 0; i < n; i++) {
        if (!buf_reserve(b, id_room(it, hit[i].item_idx) + ROW_ROOM))
            return;
        b->len = (size_t)(put_row(b->data + b->len, it, &hit[i]) - b->data);
        put_attrs(b, it, a, hit[i].item_idx);
        buf_put(b, "},", i + 1 < n ? 2 : 1);
    }
}

void hits_write_rows(struct buf *b, const struct items *it, const struct retrieve_hit *hit, size_t n,
                     const struct hits_attrs *a)
{
    JSONW_LIT(b, "[");
    if (b->failed)
        return;
    if (a->n)
        write_full_rows(b, it, hit, n, a);
    else
        write_plain_rows(b, it, hit, n);
    JSONW_LIT(b, "]");
}

static void write_ids(struct buf *b, const struct items *it, const struct retrieve_hit *hit, size_t n)
{
    char *p = b->data + b->len;
    for (size_t i = 0; i < n; i++) {
        if (i % CHUNK == 0)
            touch_chunk(it, hit, n, i);
        if (!(p = room_at(b, p, id_room(it, hit[i].item_idx) + 1)))
            return;
        p = put_id(p, it, hit[i].item_idx);
        *p = ',';
        p += i + 1 < n;
    }
    b->len = (size_t)(p - b->data);
}

static void write_scores(struct buf *b, const struct retrieve_hit *hit, size_t n)
{
    if (!buf_reserve(b, n * (JSONW_NUMBER_MAX + 1)))
        return;
    char *p = b->data + b->len;
    for (size_t i = 0; i < n; i++) {
        p = jsonw_put_float7(p, hit[i].score);
        *p = ',';
        p += i + 1 < n;
    }
    b->len = (size_t)(p - b->data);
}

static void write_attributes(struct buf *b, const struct items *it, const struct retrieve_hit *hit, size_t n, int attr)
{
    jsonw_text(b, attr_name(it, attr));
    JSONW_LIT(b, ":[");
    for (size_t i = 0; i < n; i++) {
        if (i)
            JSONW_LIT(b, ",");
        put_attr(b, it, attr, hit[i].item_idx);
    }
    JSONW_LIT(b, "]");
}

void hits_write_columns(struct buf *b, const struct items *it, const struct retrieve_hit *hit, size_t n,
                        const struct hits_attrs *a)
{
    JSONW_LIT(b, "{\"ids\":[");
    if (b->failed)
        return;
    write_ids(b, it, hit, n);
    JSONW_LIT(b, "],\"scores\":[");
    write_scores(b, hit, n);
    JSONW_LIT(b, "]");
    for (size_t c = 0; c < a->n; c++) {
        if (c == 0)
            JSONW_LIT(b, ",\"attributes\":{");
        else
            JSONW_LIT(b, ",");
        write_attributes(b, it, hit, n, a->attr[c]);
    }
    if (a->n)
        JSONW_LIT(b, "}");
    JSONW_LIT(b, "}");
}

static void put_u32(struct buf *b, uint32_t v)
{
    const unsigned char le[4] = {(unsigned char)v, (unsigned char)(v >> 8), (unsigned char)(v >> 16),
                                 (unsigned char)(v >> 24)};
    buf_put(b, le, sizeof(le));
}

void hits_write_binary(struct buf *b, const struct items *it, const struct retrieve_hit *hit, size_t n,
                       const struct buf *meta)
{
    uint32_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += (uint32_t)strtab_get(&it->ids, hit[i].item_idx).n;
    JSONW_LIT(b, "DUETHITS");
    put_u32(b, (uint32_t)n);
    put_u32(b, bytes);
    put_u32(b, (uint32_t)meta->len);
    put_u32(b, 0);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &hit[i].score, sizeof(bits));
        put_u32(b, bits);
    }
    for (size_t i = 0, end = 0; i < n; i++)
        put_u32(b, (uint32_t)(end += strtab_get(&it->ids, hit[i].item_idx).n));
    for (size_t i = 0; i < n; i++) {
        struct str id = strtab_get(&it->ids, hit[i].item_idx);
        buf_put(b, id.p, id.n);
    }
    buf_put(b, meta->data, meta->len);
}
