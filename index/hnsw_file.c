/* hnsw_file.c - the library's own file: docs/formats.md, "Index file".
 * Loading trusts no byte: the header is checked before anything is allocated, sizes follow from it and must be the
 * file's, and the graph is checked by the rules of hnsw_check before anyone searches it, whatever the checksums say:
 * whoever damages a file on purpose can compute those. Most of a file are its elements: hnsw_elements.c. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "index/hnsw_io.h"

#define MAGIC "HNSWLIBC"
#define VERSION 2

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian and read without conversion");

struct header {
    char magic[8];
    uint32_t version, metric, dim, m, ef_construction, entry;
    int32_t max_level;
    uint32_t stride; // of an element; 0 in version 1, whose elements are not padded
    uint64_t n, n_removed, n_upper, seed, file_size;
    unsigned char pad[40];
    uint64_t sum; // of the bytes before
};
static_assert(sizeof(struct header) == HNSW_IO_HEADER, "the header is 128 bytes");

static uint64_t record_size(const struct header *f)
{
    return f->stride ? f->stride : f->dim * sizeof(float) + 2 * (uint64_t)f->m * sizeof(uint32_t);
}

static uint64_t records_at(const struct header *f)
{
    return sizeof(*f) + hnsw_io_pad(8 * f->n) + 2 * hnsw_io_pad(f->n) +
           hnsw_io_pad(f->n_upper * f->m * sizeof(uint32_t));
}

static uint64_t size_wanted(const struct header *f)
{
    return records_at(f) + f->n * record_size(f) + sizeof(uint64_t);
}

// --------------------------------------------------------------------------------------------------------- saving

static void fill_header(const struct hnsw *h, struct header *f)
{
    *f = (struct header){
        .magic = MAGIC, .version = VERSION, .metric = (uint32_t)h->metric, .dim = (uint32_t)h->dim, .m = h->m};
    f->stride = (uint32_t)hnsw_graph_stride(h->dim, h->m);
    f->ef_construction = h->ef_construction;
    f->entry = h->entry;
    f->max_level = h->max_level;
    f->n = h->n;
    f->n_removed = h->n_removed;
    f->n_upper = h->upper_n;
    f->seed = h->seed;
    f->file_size = size_wanted(f);
    f->sum = hnsw_sum_of(f, offsetof(struct header, sum));
}

/* Lists above level 0 in the order of their elements, which need not be that of h->upper. */
static bool put_upper(const struct hnsw *h, struct hnsw_out *out)
{
    static const unsigned char zero[HNSW_IO_ALIGN];
    size_t list = h->m * sizeof(uint32_t), total = h->upper_n * list;
    for (uint32_t i = 0; i < h->n; i++)
        if (h->level[i] > 0 && !hnsw_out_put(out, node_links(h, i, 1), h->level[i] * list))
            return false;
    return hnsw_out_put(out, zero, hnsw_io_pad(total) - total);
}

/* The last 8 bytes are the sum of the sums: of what comes before the elements, and of each group of them. */
static bool put_elements(const struct hnsw *h, size_t stride, struct hnsw_out *out)
{
    static const unsigned char zero[HNSW_ALIGN];
    size_t record = h->dim * sizeof(float) + h->m0 * sizeof(uint32_t), per_group = hnsw_elements_per_group(stride);
    struct hnsw_sum all;
    hnsw_sum_init(&all);
    for (uint32_t i = 0; i < h->n; i++) {
        if (i % per_group == 0)
            hnsw_out_end_part(out, &all);
        if (!hnsw_out_put(out, node_vec(h, i), record) || !hnsw_out_put(out, zero, stride - record))
            return false;
    }
    hnsw_out_end_part(out, &all);
    out->sum = all;
    return hnsw_out_put_sum(out);
}

bool hnsw_may_write(const struct hnsw *h, const char *path, struct hnsw_err *err)
{
    struct stat st;
    bool same = h->mapping && stat(path, &st) == 0 && st.st_dev == h->mapping_dev && st.st_ino == h->mapping_ino;
    return !same || hnsw_fail(err, HNSW_ARG, "%s: the index is mapped from this file; wanted another, to be renamed", path);
}

bool hnsw_save(const struct hnsw *h, const char *path, struct hnsw_err *err)
{
    struct hnsw_out out;
    struct header f;
    if (h->compact)
        return hnsw_compact_save(h, path, err);
    fill_header(h, &f);
    if (!hnsw_may_write(h, path, err) || !hnsw_out_open(&out, path, err))
        return false;
    bool ok = hnsw_out_put(&out, &f, sizeof(f)) && hnsw_out_put_padded(&out, h->label, h->n * sizeof(uint64_t)) &&
              hnsw_out_put_padded(&out, h->level, h->n) && hnsw_out_put_padded(&out, h->removed, h->n) &&
              put_upper(h, &out) && put_elements(h, f.stride, &out);
    return hnsw_out_close(&out, ok);
}

// -------------------------------------------------------------------------------------------------------- loading

#define WANT(field, min, max) hnsw_in_wanted(in, offsetof(struct header, field), #field, f->field, min, max, err)

static bool check_header(const struct hnsw_in *in, const struct header *f, struct hnsw_err *err)
{
    static const unsigned char zero[sizeof(f->pad)];
    if (memcmp(f->magic, MAGIC, sizeof(f->magic)) != 0)
        return hnsw_fail(err, HNSW_FORMAT, "%s: offset 0: not an index file (hnswlib's own format is read by import)",
                         in->name);
    if (!WANT(version, 1, VERSION))
        return false;
    if (!hnsw_in_header_sum(in, f, sizeof(*f), err))
        return false;
    if (!WANT(metric, 0, HNSW_L2) || !WANT(dim, 1, HNSW_DIM_MAX) || !WANT(m, 2, HNSW_M_MAX) ||
        !WANT(ef_construction, 1, UINT32_MAX) || !WANT(n, 0, ID_MAX) ||
        !WANT(n_removed, 0, f->n) || !WANT(n_upper, 0, UINT32_MAX))
        return false;
    size_t stride = f->version == 1 ? 0 : hnsw_graph_stride(f->dim, f->m);
    if (!WANT(stride, stride, stride))
        return false;
    if (f->max_level < -1 || f->max_level > LEVEL_MAX)
        return hnsw_fail(err, HNSW_FORMAT, "%s: offset %zu: max_level: found %d, wanted -1 to %d", in->name,
                         offsetof(struct header, max_level), f->max_level, LEVEL_MAX);
    if (memcmp(f->pad, zero, sizeof(zero)) != 0)
        return hnsw_fail(err, HNSW_FORMAT, "%s: offset %zu: padding is not zero", in->name,
                         offsetof(struct header, pad));
    return WANT(file_size, size_wanted(f), size_wanted(f)) &&
           hnsw_in_wanted(in, 0, "size of the file", in->size, f->file_size, f->file_size, err);
}

/* Where each element's lists above level 0 begin; the levels must use all lists there are. */
static bool place_upper(struct hnsw *h, const struct hnsw_in *in, uint64_t n_upper, struct hnsw_err *err)
{
    uint64_t total = 0;
    for (size_t i = 0; i < h->n; i++) {
        if (h->level[i] > LEVEL_MAX)
            return hnsw_fail(err, HNSW_FORMAT, "%s: element %zu: found level %u, wanted at most %d", in->name, i,
                             h->level[i], LEVEL_MAX);
        h->upper_at[i] = h->level[i] > 0 ? (uint32_t)total : 0;
        total += h->level[i];
        if (total > n_upper)
            break;
    }
    if (total != n_upper)
        return hnsw_fail(err, HNSW_FORMAT, "%s: levels: found lists for %llu, wanted %llu", in->name,
                         (unsigned long long)total, (unsigned long long)n_upper);
    h->upper_n = (size_t)n_upper;
    return true;
}

/* All but the elements. */
static bool get_body(struct hnsw *h, struct hnsw_in *in, const struct header *f, struct hnsw_err *err)
{
    h->n = (size_t)f->n;
    h->n_removed = (size_t)f->n_removed;
    h->entry = f->entry;
    h->max_level = f->max_level;
    if (!hnsw_in_get_padded(in, h->label, h->n * sizeof(uint64_t), err) ||
        !hnsw_in_get_padded(in, h->level, h->n, err) || !hnsw_in_get_padded(in, h->removed, h->n, err) ||
        !place_upper(h, in, f->n_upper, err))
        return false;
    if (!hnsw_graph_reserve_upper(h, 0) || !hnsw_in_get_padded(in, h->upper, h->upper_n * h->m * sizeof(uint32_t), err))
        return hnsw_fail(err, HNSW_NOMEM, "%s: no memory for %zu lists", in->name, h->upper_n);
    return true;
}

/* Labels 0, 1, 2, ... need no map. */
static bool take_labels(struct hnsw *h, const char *name, struct hnsw_err *err)
{
    size_t n = 0;
    while (n < h->n && h->label[n] == n)
        n++;
    hnsw_label_map_plain(&h->map, n);
    if (n == h->n)
        return true;
    if (!hnsw_label_map_hash(&h->map, h->label, n, h->capacity))
        return hnsw_fail(err, HNSW_NOMEM, "%s: no memory for %zu labels", name, h->n);
    for (uint32_t i = (uint32_t)n; i < h->n; i++)
        if (!hnsw_label_map_put(&h->map, h->label, i))
            return hnsw_fail(err, HNSW_FORMAT, "%s: element %u: label %llu is there twice", name, i,
                             (unsigned long long)h->label[i]);
    return true;
}

bool hnsw_load_begin(struct hnsw *h, const char *name, struct hnsw_err *err)
{
    struct hnsw_err found = {0};
    if (!take_labels(h, name, err))
        return false;
    return (hnsw_check_entry(h, &found) && hnsw_check_marks(h, &found)) ||
           hnsw_fail(err, HNSW_FORMAT, "%s: %s", name, found.msg);
}

static bool map_elements(struct hnsw *h, const struct hnsw_in *in, uint64_t at, struct hnsw_err *err)
{
    struct stat st;
    if (fstat(in->fd, &st) != 0)
        return hnsw_fail(err, HNSW_IO, "%s: %s", in->name, strerror(errno));
    if (!(h->mapping = hnsw_in_map(in, err)))
        return false;
    h->mapping_dev = st.st_dev;
    h->mapping_ino = st.st_ino;
    h->mapping_size = (size_t)in->size;
    h->block = (unsigned char *)h->mapping + at;
    return true;
}

static struct hnsw *load(struct hnsw_in *in, const struct hnsw_load_opts *o, struct hnsw_err *err)
{
    struct header f;
    if (!hnsw_in_get(in, &f, sizeof(f), err))
        return NULL;
    if (memcmp(f.magic, HNSW_COMPACT_MAGIC, sizeof(f.magic)) == 0)
        return hnsw_compact_load(in, &f, err);
    if (!check_header(in, &f, err))
        return NULL;
    struct hnsw_params p = {.metric = (enum hnsw_metric)f.metric, .dim = f.dim, .capacity = (size_t)f.n, .m = f.m};
    p.ef_construction = f.ef_construction;
    p.seed = f.seed;
    bool shared = o->shared && f.n > 0;
    struct hnsw *h = hnsw_graph_plain(&p, (size_t)record_size(&f), shared, err);
    if (h && get_body(h, in, &f, err) && hnsw_load_begin(h, in->name, err) &&
        hnsw_elements_load(h, in, f.version == 1, o->threads, err) &&
        (!shared || map_elements(h, in, records_at(&f), err)))
        return h;
    hnsw_free(h);
    return NULL;
}

struct hnsw *hnsw_load_with(const char *path, const struct hnsw_load_opts *o, struct hnsw_err *err)
{
    struct hnsw_in in;
    if (!hnsw_in_open(&in, path, err))
        return NULL;
    in.how = o;
    struct hnsw *h = load(&in, o, err);
    hnsw_in_close(&in);
    return h;
}

struct hnsw *hnsw_load(const char *path, struct hnsw_err *err)
{
    return hnsw_load_with(path, &(struct hnsw_load_opts){.threads = 1}, err);
}

struct hnsw *hnsw_load_mem_with(const void *data, size_t n, const char *name, unsigned threads, struct hnsw_err *err)
{
    struct hnsw_in in;
    hnsw_in_mem(&in, data, n, name);
    return load(&in, &(struct hnsw_load_opts){.threads = threads}, err);
}

struct hnsw *hnsw_load_mem(const void *data, size_t n, const char *name, struct hnsw_err *err)
{
    return hnsw_load_mem_with(data, n, name, 1, err);
}
