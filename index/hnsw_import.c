/* hnsw_import.c - hnswlib's own file, as saveIndex of versions 0.6 to 0.8 writes it on 64-bit little-endian machines.
 * After hnswlib's saveIndex and loadIndex (Apache-2.0); own text. hnswlib believes what it reads; here every number is
 * checked first.
 *
 *   header     96 bytes, struct foreign below
 *   elements   n times [u16 count, u8 removed, u8 0 | u32 link[2 m] | f32 vec[dim] | u64 label]   behind the count:
 * leftovers for each   u32 bytes, then one list a level above 0: [u32 count | u32 link[m]]
 *
 * 0.7 and 0.8 write the same fields in the same order: what 0.7 added, reusing deleted places, is not in the file but counted from the
 * marks when it is loaded. Files are exchanged in the tests with the 0.6.2 of Debian 12.
 *
 * It has no checksum, so a damaged vector that is still finite cannot be told from another one. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_io.h"

#define PIECE ((size_t)1 << 20)

struct foreign {
    uint64_t offset_level0, max_elements, n, record, label_at, vector_at;
    int32_t max_level;
    uint32_t entry;
    uint64_t max_m, max_m0, m;
    double mult; // of the levels' distribution: 1 / ln m; ours follows from m
    uint64_t ef_construction;
};
static_assert(sizeof(struct foreign) == 96, "hnswlib's header has no gaps");

static void fill(struct foreign *f, size_t dim, uint64_t m)
{
    f->max_m = f->m = m;
    f->max_m0 = 2 * m;
    f->vector_at = sizeof(uint32_t) + f->max_m0 * sizeof(uint32_t);
    f->label_at = f->vector_at + dim * sizeof(float);
    f->record = f->label_at + sizeof(uint64_t);
    f->mult = 1 / log((double)m);
}

static size_t upper_list(const struct foreign *f)
{
    return (size_t)(f->m + 1) * sizeof(uint32_t);
}

// --------------------------------------------------------------------------------------------------------- export

static bool put_element(const struct hnsw *h, uint32_t id, const struct foreign *f, struct hnsw_out *out)
{
    const uint32_t *link = node_links(h, id, 0);
    unsigned n = links_count(link, h->m0);
    uint32_t head = n | (uint32_t)h->removed[id] << 16, zero[ROW_MAX] = {0};
    return hnsw_out_put(out, &head, sizeof(head)) && hnsw_out_put(out, link, n * sizeof(*link)) &&
           hnsw_out_put(out, zero, (f->max_m0 - n) * sizeof(*zero)) &&
           hnsw_out_put(out, node_vec(h, id), h->dim * sizeof(float)) &&
           hnsw_out_put(out, &h->label[id], sizeof(uint64_t));
}

static bool put_upper(const struct hnsw *h, uint32_t id, const struct foreign *f, struct hnsw_out *out)
{
    uint32_t bytes = (uint32_t)(h->level[id] * upper_list(f)), zero[HNSW_M_MAX] = {0};
    bool ok = hnsw_out_put(out, &bytes, sizeof(bytes));
    for (int level = 1; ok && level <= h->level[id]; level++) {
        const uint32_t *link = node_links(h, id, level);
        uint32_t n = links_count(link, h->m);
        ok = hnsw_out_put(out, &n, sizeof(n)) && hnsw_out_put(out, link, n * sizeof(*link)) &&
             hnsw_out_put(out, zero, (h->m - n) * sizeof(*zero));
    }
    return ok;
}

bool hnsw_export(const struct hnsw *h, const char *path, struct hnsw_err *err)
{
    if (hnsw_compact_refuses(h, "export", err) || !hnsw_may_write(h, path, err))
        return false;
    struct hnsw_out out;
    struct foreign f = {.max_elements = h->capacity, .n = h->n, .max_level = h->max_level, .entry = h->entry};
    fill(&f, h->dim, h->m);
    f.ef_construction = h->ef_construction;
    if (!hnsw_out_open(&out, path, err))
        return false;
    bool ok = hnsw_out_put(&out, &f, sizeof(f));
    for (uint32_t i = 0; ok && i < h->n; i++)
        ok = put_element(h, i, &f, &out);
    for (uint32_t i = 0; ok && i < h->n; i++)
        ok = put_upper(h, i, &f, &out);
    return hnsw_out_close(&out, ok);
}

// --------------------------------------------------------------------------------------------------------- import

static bool same(const struct hnsw_in *in, size_t offset, const char *what, uint64_t found, uint64_t want,
                 struct hnsw_err *err)
{
    return found == want || hnsw_fail(err, HNSW_FORMAT, "%s: offset %zu: %s: found %llu, wanted %llu", in->name, offset,
                                      what, (unsigned long long)found, (unsigned long long)want);
}

static bool check_header(const struct hnsw_in *in, const struct foreign *f, size_t dim, struct hnsw_err *err)
{
    struct foreign want = {0};
    if (f->m < 2 || f->m > HNSW_M_MAX)
        return hnsw_fail(err, HNSW_FORMAT, "%s: offset %zu: M: found %llu, wanted 2 to %d", in->name,
                         offsetof(struct foreign, m), (unsigned long long)f->m, HNSW_M_MAX);
    fill(&want, dim, f->m);
#define SAME(field) same(in, offsetof(struct foreign, field), #field, f->field, want.field, err)
    if (!SAME(offset_level0) || !SAME(max_m) || !SAME(max_m0) || !SAME(vector_at))
        return false;
    if (!SAME(record) || !SAME(label_at))
        return hnsw_fail(err, HNSW_FORMAT, "%s: not of %zu dimensions", in->name, dim);
#undef SAME
    if (f->n > f->max_elements || f->n > ID_MAX || f->n > (in->size - sizeof(*f)) / (f->record + sizeof(uint32_t)))
        return hnsw_fail(err, HNSW_FORMAT,
                         "%s: offset %zu: found %llu elements, more than the file or max_elements (%llu) has room for",
                         in->name, offsetof(struct foreign, n), (unsigned long long)f->n,
                         (unsigned long long)f->max_elements);
    if (f->ef_construction < 1 || f->ef_construction > UINT32_MAX)
        return hnsw_fail(err, HNSW_FORMAT, "%s: offset %zu: ef_construction: found %llu, wanted 1 to %u", in->name,
                         offsetof(struct foreign, ef_construction), (unsigned long long)f->ef_construction, UINT32_MAX);
    return f->max_level >= -1 && f->max_level <= LEVEL_MAX
               ? true
               : hnsw_fail(err, HNSW_FORMAT, "%s: offset %zu: max_level: found %d, wanted -1 to %d", in->name,
                           offsetof(struct foreign, max_level), f->max_level, LEVEL_MAX);
}

static bool take_links(uint32_t *link, unsigned cap, uint32_t count, const unsigned char *from)
{
    if (count > cap)
        return false;
    memcpy(link, from, count * sizeof(*link));
    memset(link + count, 0xff, (cap - count) * sizeof(*link));
    return true;
}

static bool take_element(struct hnsw *h, uint32_t id, const struct foreign *f, const unsigned char *rec,
                         const char *name, struct hnsw_err *err)
{
    uint16_t count;
    memcpy(&count, rec, sizeof(count));
    memcpy(node_vec(h, id), rec + f->vector_at, h->dim * sizeof(float));
    memcpy(&h->label[id], rec + f->label_at, sizeof(uint64_t));
    h->removed[id] = rec[2];
    h->n_removed += rec[2] & 1;
    if (rec[2] > 1 || rec[3] != 0 || !take_links(node_links(h, id, 0), h->m0, count, rec + sizeof(uint32_t)))
        return hnsw_fail(err, HNSW_FORMAT, "%s: element %u: found %u links and marks %u, wanted at most %u and 1", name,
                         id, count, rec[2] | rec[3] << 8, h->m0);
    return true;
}

static bool get_elements(struct hnsw *h, struct hnsw_in *in, const struct foreign *f, struct hnsw_err *err)
{
    size_t record = (size_t)f->record, in_piece = PIECE / record;
    in_piece = in_piece < h->n ? in_piece : h->n;
    unsigned char *piece = hnsw_mem_block(in_piece, record);
    bool ok = piece || hnsw_fail(err, HNSW_NOMEM, "%s: no memory for reading", in->name);
    for (size_t i = 0; ok && i < h->n; i += in_piece) {
        size_t some = h->n - i < in_piece ? h->n - i : in_piece;
        ok = hnsw_in_get(in, piece, some * record, err);
        for (size_t j = 0; ok && j < some; j++)
            ok = take_element(h, (uint32_t)(i + j), f, piece + j * record, in->name, err);
    }
    free(piece);
    return ok;
}

static bool get_upper(struct hnsw *h, struct hnsw_in *in, uint32_t id, const struct foreign *f, struct hnsw_err *err)
{
    uint32_t bytes, count;
    unsigned char list[(HNSW_M_MAX + 1) * sizeof(uint32_t)];
    size_t size = upper_list(f);
    if (!hnsw_in_get(in, &bytes, sizeof(bytes), err))
        return false;
    if (bytes % size != 0 || bytes / size > LEVEL_MAX || bytes > in->size - in->at)
        return hnsw_fail(err, HNSW_FORMAT,
                         "%s: offset %llu: element %u: found %u bytes of lists, wanted a multiple of %zu", in->name,
                         (unsigned long long)in->at - sizeof(bytes), id, bytes, size);
    h->level[id] = (uint8_t)(bytes / size);
    h->upper_at[id] = h->level[id] ? (uint32_t)h->upper_n : 0;
    if (!hnsw_graph_reserve_upper(h, h->level[id]))
        return hnsw_fail(err, HNSW_NOMEM, "%s: no memory for lists", in->name);
    h->upper_n += h->level[id];
    for (int level = 1; level <= h->level[id]; level++) {
        if (!hnsw_in_get(in, list, size, err))
            return false;
        memcpy(&count, list, sizeof(count));
        if (!take_links(node_links(h, id, level), h->m, count, list + sizeof(count)))
            return hnsw_fail(err, HNSW_FORMAT, "%s: element %u, level %d: found %u links, wanted at most %u", in->name,
                             id, level, count, h->m);
    }
    return true;
}

static bool check_elements(const struct hnsw *h, const char *name, const struct foreign *f, struct hnsw_err *err)
{
    struct hnsw_err found = {0};
    for (uint32_t i = 0; i < h->n; i++)
        if (!hnsw_check_element(h, i, (const unsigned char *)node_vec(h, i), &found))
            return hnsw_fail(err, HNSW_FORMAT, "%s: offset %llu: %s", name,
                             (unsigned long long)(sizeof(*f) + i * f->record), found.msg);
    return true;
}

struct hnsw *hnsw_import_from(struct hnsw_in *in, enum hnsw_metric metric, size_t dim, struct hnsw_err *err)
{
    struct foreign f;
    if (dim < 1 || dim > HNSW_DIM_MAX) {
        hnsw_fail(err, HNSW_ARG, "dim is %zu, wanted 1 to %d", dim, HNSW_DIM_MAX);
        return NULL;
    }
    if (!hnsw_in_get(in, &f, sizeof(f), err) || !check_header(in, &f, dim, err))
        return NULL;
    struct hnsw_params p = {.metric = metric, .dim = dim, .capacity = (size_t)f.n, .m = (unsigned)f.m};
    p.ef_construction = (unsigned)f.ef_construction;
    struct hnsw *h = hnsw_new(&p, err);
    if (!h)
        return NULL;
    h->n = (size_t)f.n;
    h->entry = f.entry;
    h->max_level = f.max_level;
    bool ok = get_elements(h, in, &f, err);
    for (uint32_t i = 0; ok && i < h->n; i++)
        ok = get_upper(h, in, i, &f, err);
    if (ok && in->at != in->size)
        ok = hnsw_fail(err, HNSW_FORMAT, "%s: offset %llu: found %llu more bytes, wanted the end", in->name,
                       (unsigned long long)in->at, (unsigned long long)(in->size - in->at));
    if (ok && hnsw_load_begin(h, in->name, err) && check_elements(h, in->name, &f, err) &&
        hnsw_repair(h, NULL, err))
        return h;
    hnsw_free(h);
    return NULL;
}

struct hnsw *hnsw_import(const char *path, enum hnsw_metric metric, size_t dim, struct hnsw_err *err)
{
    struct hnsw_in in;
    if (!hnsw_in_open(&in, path, err))
        return NULL;
    struct hnsw *h = hnsw_import_from(&in, metric, dim, err);
    hnsw_in_close(&in);
    return h;
}
