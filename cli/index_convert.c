/* duet index convert: between our index files, hnswlib's, and files of vectors or ids. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/index_cmd.h"
#include "cli/opts.h"
#include "core/base/mem.h"

static const char usage[] = "duet index convert --in FILE --out FILE [options]";
static const char about[] =
    "--in: an index of ours, of hnswlib's (with --metric and --dim), or a file of vectors or ids.\n"
    "--out: .fbin or .fvecs gets the vectors in the order of their labels (cosine: of length 1), and --ids-out the labels;\n"
    "any other name an index, ours or, with --to hnswlib, hnswlib's.\n";

struct args {
    const char *in, *out, *to, *ids_out, *layout;
    struct index_from from;
};

// ---------------------------------------------------------------------------------------------------------- vectors

/* row(ctx, i): the i-th of n. */
static bool write_rows(const char *path, enum hnsw_vecs_kind kind, size_t n, size_t dim,
                       const void *(*row)(const void *ctx, size_t i), const void *ctx, struct err *err)
{
    struct hnsw_err e = {0};
    char tmp[PATH_MAX];
    if (!index_out_begin(tmp, path, err))
        return false;
    struct hnsw_vecs_out *out = hnsw_vecs_create(tmp, kind, n, dim, &e);
    bool ok = out != NULL;
    for (size_t i = 0; ok && i < n; i++)
        ok = hnsw_vecs_put(out, row(ctx, i), &e);
    ok = hnsw_vecs_finish(out, ok, &e) || index_err(&e, err);
    return index_out_end(tmp, path, ok, err);
}

static const void *row_of_file(const void *ctx, size_t i)
{
    return hnsw_vecs_ids(ctx, i);
}

static bool vectors_to_vectors(const struct args *a, enum hnsw_vecs_kind to, struct err *err)
{
    struct hnsw_err e = {0};
    struct hnsw_vecs *v = hnsw_vecs_open(a->in, &e);
    if (!v)
        return index_err(&e, err);
    bool ok = hnsw_vecs_is_float(v) == (to == HNSW_FBIN || to == HNSW_FVECS);
    if (!ok)
        err_set(err, ERR_ARG, "%s: found %s, and %s is for the other kind", a->in, hnsw_vecs_is_float(v) ? "vectors" : "ids", a->out);
    ok = ok && write_rows(a->out, to, hnsw_vecs_n(v), hnsw_vecs_dim(v), row_of_file, v, err);
    if (ok)
        printf("%s: %zu rows of %zu\n", a->out, hnsw_vecs_n(v), hnsw_vecs_dim(v));
    hnsw_vecs_close(v);
    return ok;
}

struct labelled {
    const struct hnsw *h;
    uint64_t *label; // [n] ascending
    size_t n;
    float *row; // [dim]
};

static const void *row_of_index(const void *ctx, size_t i)
{
    const struct labelled *l = ctx;
    hnsw_get_vector(l->h, l->label[i], l->row);
    return l->row;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool index_to_vectors(const struct args *a, const struct hnsw *h, enum hnsw_vecs_kind to, struct err *err)
{
    float row[HNSW_DIM_MAX];
    struct labelled l = {.h = h, .n = hnsw_count(h), .row = row};
    if (to != HNSW_FBIN && to != HNSW_FVECS)
        return err_set(err, ERR_ARG, "%s: an index's vectors go to .fbin or .fvecs, its labels to --ids-out", a->out);
    if (!(l.label = mem_array(l.n, sizeof(*l.label), err)))
        return false;
    hnsw_labels(h, l.label);
    qsort(l.label, l.n, sizeof(*l.label), ascending);
    if (!a->ids_out && l.n && l.label[l.n - 1] != l.n - 1)
        fprintf(stderr, "index convert: the labels are not 0 to %zu, so rows do not tell them; --ids-out writes them\n", l.n - 1);
    bool ok = (!a->ids_out || index_ids_write(a->ids_out, l.label, l.n, err)) && // first: not every label fits every kind of file
              write_rows(a->out, to, l.n, hnsw_dim(h), row_of_index, &l, err);
    if (ok)
        printf("%s: %zu rows of %zu\n", a->out, l.n, hnsw_dim(h));
    free(l.label);
    return ok;
}

// ---------------------------------------------------------------------------------------------------------- indexes

static bool index_to_index(const struct args *a, struct hnsw *h, struct err *err)
{
    struct hnsw_err e = {0};
    enum hnsw_layout layout = HNSW_PLAIN;
    char tmp[PATH_MAX];
    bool theirs = a->to && strcmp(a->to, "hnswlib") == 0;
    if (a->ids_out)
        return err_set(err, ERR_ARG, "--ids-out goes with an --out of vectors; an index has its labels inside");
    if (a->layout && !index_layout(a->layout, &layout, err))
        return false;
    if (layout == HNSW_FAST)
        return err_set(err, ERR_ARG, "--layout: found fast, which no file holds: searches make it; want plain or compact");
    if (layout == HNSW_COMPACT && theirs)
        return err_set(err, ERR_ARG, "--layout compact: hnswlib cannot read it; want --to ours");
    if (layout == HNSW_COMPACT && hnsw_get_layout(h) != HNSW_COMPACT && !hnsw_optimize(h, HNSW_COMPACT, index_cores(), &e))
        return index_err(&e, err);
    if (!index_out_begin(tmp, a->out, err))
        return false;
    bool ok = (theirs ? hnsw_export : hnsw_save)(h, tmp, &e) || index_err(&e, err);
    ok = index_out_end(tmp, a->out, ok, err);
    if (ok)
        printf("%s: %s, %zu elements of %zu dimensions, %s\n", a->out, theirs ? "hnswlib's format" : "our format", hnsw_count(h),
               hnsw_dim(h), hnsw_metric_name(hnsw_get_metric(h)));
    return ok;
}

static bool convert(const struct args *a, struct err *err)
{
    enum hnsw_vecs_kind in, out;
    bool to_vectors = hnsw_vecs_kind_of(a->out, &out, NULL);
    if (hnsw_vecs_kind_of(a->in, &in, NULL)) {
        if (!to_vectors)
            return err_set(err, ERR_ARG, "%s: vectors become an index by duet index build", a->in);
        return vectors_to_vectors(a, out, err);
    }
    struct hnsw *h = index_load(a->in, &a->from, err);
    bool ok = h && (to_vectors ? index_to_vectors(a, h, out, err) : index_to_index(a, h, err));
    hnsw_free(h);
    return ok;
}

int index_convert(int argc, char **argv)
{
    struct err err = {0};
    struct args a = {0};
    const struct opt opts[] = {
        {"in", OPT_STR, &a.in, "FILE", "to read", 0, 0},
        {"out", OPT_STR, &a.out, "FILE", "to write", 0, 0},
        {"to", OPT_STR, &a.to, "FORMAT", "of an index: ours or hnswlib; ours if not given", 0, 0},
        {"layout", OPT_STR, &a.layout, "NAME", "of our file: plain, or compact, about half the size, for reading only", 0, 0},
        {"ids-out", OPT_STR, &a.ids_out, "FILE", "labels of the vectors: .ibin, .ivecs or .txt", 0, 0},
        INDEX_FROM_OPTS(&a.from),
        {0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    if (!a.in || !a.out)
        return index_wrong("convert", usage, "--in and --out are needed");
    if (a.to && strcmp(a.to, "ours") != 0 && strcmp(a.to, "hnswlib") != 0)
        return index_wrong("convert", usage, "--to: want ours or hnswlib");
    return convert(&a, &err) ? 0 : cmd_fail("index convert", &err);
}
