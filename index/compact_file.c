/* compact_file.c - the file of a compact index: docs/formats.md, "Compact index file"; and the rules that it is held
 * to. As in hnsw_file.c no byte is trusted: sizes follow from a checked header and must be the file's before anything
 * is allocated, and what searching relies on is checked whatever the checksums say. Codes need no check: any code is a
 * value within bounds that `mid` and `step` set. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_io.h"

#define VERSION 2 // 1 had each code's two bytes side by side

struct header {
    char magic[8];
    uint32_t version, metric, dim, m, ef_construction, label_bytes;
    uint64_t n, n_removed, seed, file_size;
    unsigned char pad[56];
    uint64_t sum; // of the bytes before
};
static_assert(sizeof(struct header) == HNSW_IO_HEADER,
              "both formats' headers are read before one is told from the other");

static uint64_t links_at(const struct header *f)
{
    return sizeof(*f) + 2 * hnsw_io_pad(f->dim * sizeof(float)) + hnsw_io_pad(f->n * f->label_bytes) +
           (f->n_removed ? hnsw_io_pad(f->n) : 0);
}

static uint64_t size_wanted(const struct header *f)
{
    return links_at(f) + hnsw_io_pad(f->n * hnsw_compact_row((size_t)f->n, 2 * f->m)) +
           2 * hnsw_io_pad(f->n * f->dim) + sizeof(uint64_t);
}

// ---------------------------------------------------------------------------------------------------------- saving

static void fill_header(const struct hnsw *h, struct header *f)
{
    *f = (struct header){.magic = HNSW_COMPACT_MAGIC, .version = VERSION, .metric = (uint32_t)h->metric, .m = h->m};
    f->dim = (uint32_t)h->dim;
    f->ef_construction = h->ef_construction;
    f->label_bytes = h->compact->label32 ? sizeof(uint32_t) : sizeof(uint64_t);
    f->n = h->n;
    f->n_removed = h->n_removed;
    f->seed = h->seed;
    f->file_size = size_wanted(f);
    f->sum = hnsw_sum_of(f, offsetof(struct header, sum));
}

bool hnsw_compact_save(const struct hnsw *h, const char *path, struct hnsw_err *err)
{
    const struct compact *c = h->compact;
    const void *label = c->label32 ? (const void *)c->label32 : c->label64;
    struct hnsw_out out;
    struct header f;
    fill_header(h, &f);
    if (!hnsw_out_open(&out, path, err))
        return false;
    bool ok = hnsw_out_put(&out, &f, sizeof(f)) && hnsw_out_put_padded(&out, c->mid, c->dim * sizeof(*c->mid)) &&
              hnsw_out_put_padded(&out, c->step, c->dim * sizeof(*c->step)) &&
              hnsw_out_put_padded(&out, label, c->n * f.label_bytes) &&
              hnsw_out_put_padded(&out, h->removed, h->n_removed ? c->n : 0) &&
              hnsw_out_put_padded(&out, c->link, c->n * c->row) &&
              hnsw_out_put_padded(&out, c->code.hi, c->n * c->dim) && hnsw_out_put_padded(&out, c->code.lo, c->n * c->dim);
    ok = ok && hnsw_out_put_sum(&out);
    return hnsw_out_close(&out, ok);
}

// --------------------------------------------------------------------------------------------------------- checking

/* No value may be so large that a score could overflow. */
static bool check_steps(const struct compact *c, struct hnsw_err *err)
{
    for (size_t j = 0; j < c->dim; j++) {
        if (!(c->step[j] >= 0) || !(fabsf(c->mid[j]) + c->step[j] * 32768 <= 2 * HNSW_VALUE_MAX))
            return hnsw_fail(err, HNSW_FORMAT, "dimension %zu: found values %g +- %g, wanted them within %g", j,
                             (double)c->mid[j], (double)c->step[j] * 32768, 2 * (double)HNSW_VALUE_MAX);
    }
    return true;
}

static bool check_labels(const struct compact *c, const struct hnsw_load_opts *how, struct hnsw_err *err)
{
    for (size_t i = 0; i < c->n; i++) {
        if (c->by_label[i] >= c->n)
            return hnsw_fail(err, HNSW_FORMAT, "label number %zu: found element %u, wanted below %zu", i,
                             c->by_label[i], c->n);
        if (i > 0 && compact_label(c, c->by_label[i - 1]) >= compact_label(c, c->by_label[i]))
            return hnsw_fail(err, HNSW_FORMAT, "element %u: label %llu is there twice or out of order", c->by_label[i],
                             (unsigned long long)compact_label(c, c->by_label[i]));
        hnsw_pace_step(how, i);
    }
    return true;
}

/* In a cosine index vectors have unit length, or are zero, but for the codes' rounding. */
static bool check_length(const struct hnsw *h, uint32_t id, float *vec, struct hnsw_err *err)
{
    if (h->metric != HNSW_COSINE)
        return true;
    hnsw_compact_vector(h->compact, id, vec);
    double len2 = hnsw_metric_norm2(vec, h->dim);
    if (len2 > 1e-4 && fabs(len2 - 1) > 5e-3)
        return hnsw_fail(err, HNSW_FORMAT, "element %u: vector of length %g in a cosine index, wanted 1", id,
                         sqrt(len2));
    return true;
}

static bool check_seeds(const struct compact *c, struct hnsw_err *err)
{
    for (size_t i = 0; i < c->n_seed; i++)
        if (memcmp(c->seed.hi + i * c->dim, c->code.hi + i * c->seed_step * c->dim, c->dim) != 0 ||
            memcmp(c->seed.lo + i * c->dim, c->code.lo + i * c->seed_step * c->dim, c->dim) != 0)
            return hnsw_fail(err, HNSW_FORMAT, "start %zu: found other codes than those of element %zu", i,
                             i * c->seed_step);
    return true;
}

static bool check_elements(const struct hnsw *h, struct hnsw_err *err)
{
    uint32_t link[ROW_MAX], none = compact_none(h->compact);
    float vec[HNSW_DIM_MAX];
    for (uint32_t i = 0; i < h->n; i++) {
        compact_links(h->compact, i, link);
        for (unsigned j = 0; j < h->m0; j++)
            link[j] = link[j] == none ? NO_ID : link[j];
        if (!hnsw_check_list(h, i, 0, link, err) || !check_length(h, i, vec, err))
            return false;
        hnsw_pace_step(h->loading, i);
    }
    return true;
}

bool hnsw_compact_check(const struct hnsw *h, struct hnsw_err *err)
{
    const struct compact *c = h->compact;
    if (c->n != h->n)
        return hnsw_fail(err, HNSW_FORMAT, "%zu elements in a layout of %zu", h->n, c->n);
    return check_steps(c, err) && check_labels(c, h->loading, err) && check_seeds(c, err) && check_elements(h, err);
}

// ---------------------------------------------------------------------------------------------------------- loading

#define WANT(field, min, max) hnsw_in_wanted(in, offsetof(struct header, field), #field, f->field, min, max, err)

static bool check_header(const struct hnsw_in *in, const struct header *f, struct hnsw_err *err)
{
    static const unsigned char zero[sizeof(f->pad)];
    if (!WANT(version, VERSION, VERSION))
        return false;
    if (!hnsw_in_header_sum(in, f, sizeof(*f), err))
        return false;
    if (!WANT(metric, 0, HNSW_L2) || !WANT(dim, 1, HNSW_DIM_MAX) || !WANT(m, 2, HNSW_M_MAX) ||
        !WANT(ef_construction, 1, UINT32_MAX) || !WANT(n, 0, ID_MAX) || !WANT(n_removed, 0, f->n))
        return false;
    if (f->label_bytes != sizeof(uint32_t) && !WANT(label_bytes, sizeof(uint64_t), sizeof(uint64_t)))
        return false;
    if (memcmp(f->pad, zero, sizeof(zero)) != 0)
        return hnsw_fail(err, HNSW_FORMAT, "%s: offset %zu: padding is not zero", in->name,
                         offsetof(struct header, pad));
    return WANT(file_size, size_wanted(f), size_wanted(f)) &&
           hnsw_in_wanted(in, 0, "size of the file", in->size, f->file_size, f->file_size, err);
}

static bool get_body(struct hnsw_in *in, const struct header *f, struct compact *c, uint8_t *removed,
                     struct hnsw_err *err)
{
    void *label = c->label32 ? (void *)c->label32 : c->label64;
    if (!hnsw_in_get_padded(in, c->mid, c->dim * sizeof(*c->mid), err) ||
        !hnsw_in_get_padded(in, c->step, c->dim * sizeof(*c->step), err) ||
        !hnsw_in_get_padded(in, label, c->n * f->label_bytes, err) ||
        !hnsw_in_get_padded(in, removed, f->n_removed ? c->n : 0, err) ||
        !hnsw_in_get_padded(in, c->link, c->n * c->row, err) ||
        !hnsw_in_get_padded(in, c->code.hi, c->n * c->dim, err) ||
        !hnsw_in_get_padded(in, c->code.lo, c->n * c->dim, err))
        return false;
    return hnsw_in_get_sum(in, err);
}

/* What follows from the body, and whether it is sound. */
static bool finish(struct hnsw *h, const char *name, struct hnsw_err *err)
{
    struct compact *c = h->compact;
    struct hnsw_err found = {0};
    uint32_t twice = 0;
    hnsw_compact_derive(c, h->loading);
    enum hnsw_err_code code = hnsw_compact_sort_labels(c, h->loading, &twice);
    if (code == HNSW_NOMEM)
        return hnsw_fail(err, HNSW_NOMEM, "%s: no memory for the labels", name);
    if (code == HNSW_FORMAT)
        return hnsw_fail(err, HNSW_FORMAT, "%s: element %u: label %llu is there twice", name, twice,
                         (unsigned long long)compact_label(c, twice));
    if (!hnsw_check_marks(h, &found) || !hnsw_compact_check(h, &found))
        return hnsw_fail(err, HNSW_FORMAT, "%s: %s", name, found.msg);
    return hnsw_compact_settle(h) || hnsw_fail(err, HNSW_NOMEM, "%s: no memory for a search", name);
}

struct hnsw *hnsw_compact_load(struct hnsw_in *in, const void *header, struct hnsw_err *err)
{
    struct header f;
    memcpy(&f, header, sizeof(f));
    if (!check_header(in, &f, err))
        return NULL;
    struct hnsw_params p = {.metric = (enum hnsw_metric)f.metric, .dim = f.dim, .m = f.m, .seed = f.seed};
    p.ef_construction = f.ef_construction;
    struct hnsw *h = hnsw_graph_new(&p, err);
    if (!h)
        return NULL;
    struct compact *c = hnsw_compact_new((size_t)f.n, f.dim, h->m0, f.label_bytes == sizeof(uint64_t));
    uint8_t *removed = c && f.n_removed ? hnsw_mem_new((size_t)f.n, 1) : NULL;
    if (!c || (f.n_removed && !removed)) {
        hnsw_fail(err, HNSW_NOMEM, "%s: no memory for %llu elements", in->name, (unsigned long long)f.n);
        hnsw_compact_free(c);
        hnsw_free(h);
        return NULL;
    }
    hnsw_compact_place(h, c, removed);
    h->n_removed = (size_t)f.n_removed;
    h->loading = in->how;
    bool ok = get_body(in, &f, c, removed, err) && finish(h, in->name, err);
    h->loading = NULL;
    if (ok)
        return h;
    hnsw_free(h);
    return NULL;
}
