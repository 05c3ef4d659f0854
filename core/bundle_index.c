/* bundle_index.c - a bundle's index: which file it is read from, whether it is that of the embeddings, its layout.
 *
 * A bundle may hold the index twice, as it was built and in the compact layout. Making the one from the other takes longer than reading
 * all files (bench/results.md, "Reload under load"), so a loader that wants the compact layout reads only that. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "core/base/pace.h"
#include "core/bundle_priv.h"
#include "core/verified.h"

#define AHEAD 8 // embeddings that are asked for before they are compared

enum manifest_file_id bundle_index_file(const struct manifest *m, enum hnsw_layout layout)
{
    return layout == HNSW_COMPACT && manifest_has(m, MF_COMPACT) ? MF_COMPACT : MF_INDEX;
}

// --------------------------------------------------------------------------------------------------------- reading

static bool failed(const struct hnsw_err *e, const char *name, struct err *err)
{
    static const enum err_code code[] = {
        [HNSW_OK] = ERR_FORMAT, [HNSW_NOMEM] = ERR_NOMEM,         [HNSW_IO] = ERR_IO,      [HNSW_FORMAT] = ERR_FORMAT,
        [HNSW_ARG] = ERR_ARG,   [HNSW_NOT_FOUND] = ERR_NOT_FOUND, [HNSW_FULL] = ERR_FORMAT};
    bool named = strstr(e->msg, name) != NULL;
    return err_set(err, code[e->code], "%s%s%s", named ? "" : name, named ? "" : ": ", e->msg);
}

static bool check_shape(struct loader *l, const char *name, bool compact)
{
    const struct hnsw *h = l->b->hnsw;
    const struct bundle_manifest *head = &l->m.head;
    if (hnsw_dim(h) != head->d || hnsw_get_metric(h) != HNSW_IP)
        return err_set(l->err, ERR_MISMATCH, "%s: %zu dimensions, metric %s; %s wants %u and ip", name, hnsw_dim(h),
                       hnsw_metric_name(hnsw_get_metric(h)), MANIFEST_NAME, head->d);
    size_t n_removed = hnsw_capacity(h) - hnsw_count(h); // what is loaded is full
    if (n_removed)
        return err_set(l->err, ERR_FORMAT, "%s: %zu removed elements, want none", name, n_removed);
    if ((hnsw_get_layout(h) == HNSW_COMPACT) != compact)
        return err_set(l->err, ERR_FORMAT, "%s: an index in the %s layout, want the %s one", name,
                       hnsw_layout_name(hnsw_get_layout(h)), compact ? "compact" : "plain");
    return hnsw_count(h) == head->n_items ||
           err_set(l->err, ERR_MISMATCH, "%s: %zu rows, %s says %llu", name, hnsw_count(h), MANIFEST_NAME,
                   (unsigned long long)head->n_items);
}

/* Read by the library itself, once more after the comparison with the manifest, rather than copied out of a block: that
 * would be the largest part of a reload's peak. Should the file change in between, its own checksum and every
 * structural rule still hold, and bundle_check_vectors sees to the rest. */
bool bundle_load_index(struct loader *l)
{
    struct hnsw_err e = {0};
    char path[PATH_MAX];
    enum manifest_file_id id = bundle_index_file(&l->m, l->layout);
    const char *name = manifest_file_name[id];
    const struct hnsw_load_opts how = {.threads = l->threads, .shared = l->map, .pace = pace_point_of, .pace_ctx = pace_mine()};
    if (!verified_check(l->dirfd, name, &l->m.file[id], l->err) || !fio_join(path, l->dir, name, l->err))
        return false;
    l->b->hnsw = hnsw_load_with(path, &how, &e);
    return l->b->hnsw ? check_shape(l, name, id == MF_COMPACT) : failed(&e, name, l->err);
}

// --------------------------------------------------------------------------------------- are these the embeddings?

static bool other_vector(const struct loader *l, const char *what, uint64_t item)
{
    return err_set(l->err, ERR_MISMATCH, "%s: %s item %llu as %s has it; rebuild with `duet publish`",
                   manifest_file_name[bundle_index_file(&l->m, l->layout)], what, (unsigned long long)item,
                   manifest_file_name[MF_EMBEDDINGS]);
}

static bool check_exactly(const struct loader *l)
{
    const struct bundle *b = l->b;
    size_t d = l->m.head.d;
    for (uint32_t i = 0; i < b->items->n; i++) {
        const float *v = hnsw_vector(b->hnsw, i);
        if (!v || memcmp(v, b->emb + i * d, d * sizeof(*v)) != 0)
            return other_vector(l, v ? "does not hold" : "holds no", i);
        pace_step(i);
    }
    return true;
}

/* How far a value of the compact layout may be from the embedding's: hnsw.h says half a step of the range that its dimension has; and the
 * roundings of the sum that makes the value of its code. */
static void find_tolerance(const float *restrict emb, size_t n, size_t d, float *restrict low, float *restrict high, float *tolerance)
{
    memcpy(low, emb, d * sizeof(*low));
    memcpy(high, emb, d * sizeof(*high));
    for (size_t i = 1; i < n; pace_step(i), i++)
        for (size_t j = 0; j < d; j++) {
            float v = emb[i * d + j];
            low[j] = v < low[j] ? v : low[j];
            high[j] = v > high[j] ? v : high[j];
        }
    for (size_t j = 0; j < d; j++) {
        float range = high[j] - low[j], most = fmaxf(fabsf(low[j]), fabsf(high[j]));
        tolerance[j] = fmaxf(range / 131068, 4e-34f) * 1.01f + 4 * 1.2e-7f * most;
    }
}

static bool is_near(const float *v, const float *want, const float *tolerance, size_t d)
{
    bool near = true;
    for (size_t j = 0; j < d; j++) // no early exit: the compiler makes it SIMD
        near &= fabsf(v[j] - want[j]) <= tolerance[j];
    return near;
}

/* In the order of the index's places, in which its own reads are one after the other. */
static bool check_nearly(const struct loader *l, const uint64_t *label, float *v, const float *tolerance)
{
    const struct bundle *b = l->b;
    size_t n = b->items->n, d = l->m.head.d;
    for (size_t i = 0; i < n; i++) {
        if (i + AHEAD < n && label[i + AHEAD] < n)
            for (size_t j = 0; j < d; j += 64 / sizeof(*b->emb))
                __builtin_prefetch(b->emb + label[i + AHEAD] * d + j);
        if (label[i] >= n)
            return err_set(l->err, ERR_MISMATCH, "%s: holds item %llu, %s has %zu", manifest_file_name[MF_COMPACT],
                           (unsigned long long)label[i], manifest_file_name[MF_EMBEDDINGS], n);
        if (!hnsw_get_vector(b->hnsw, label[i], v) || !is_near(v, b->emb + label[i] * d, tolerance, d))
            return other_vector(l, "does not hold", label[i]);
        pace_step(i);
    }
    return true;
}

static bool check_compact(struct loader *l)
{
    size_t n = l->b->items->n, d = l->m.head.d;
    uint64_t *label = mem_array(n, sizeof(*label), l->err);
    float *row = mem_array(4 * d, sizeof(*row), l->err);
    bool ok = label && row;
    if (ok) {
        find_tolerance(l->b->emb, n, d, row, row + d, row + 2 * d);
        hnsw_labels(l->b->hnsw, label); // distinct, as loading has seen: all below n are all
        ok = check_nearly(l, label, row + 3 * d, row + 2 * d);
    }
    free(label);
    free(row);
    return ok;
}

/* The index carries no fingerprint: its vectors must be the embeddings, bit by bit, or as nearly as the compact layout holds them. */
bool bundle_check_vectors(struct loader *l)
{
    return hnsw_get_layout(l->b->hnsw) == HNSW_COMPACT ? check_compact(l) : check_exactly(l);
}

// ---------------------------------------------------------------------------------------------------------- layout

/* Last of all, when what was read is given back already; the probes then search what requests will. Embeddings that the fast layout
 * cannot hold are searched in the plain one. */
bool bundle_make_layout(struct loader *l)
{
    struct hnsw_err e = {0};
    struct bundle *b = l->b;
    bool ok = hnsw_get_layout(b->hnsw) == l->layout || hnsw_optimize(b->hnsw, l->layout, l->threads, &e) ||
              (l->layout == HNSW_FAST && e.code == HNSW_ARG);
    b->layout = hnsw_get_layout(b->hnsw);
    return ok || failed(&e, manifest_file_name[MF_INDEX], l->err);
}
