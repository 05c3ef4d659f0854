/* vecs.c - see vecs.h. Every kind is rows of 4-byte words at a fixed step, so a mapped file needs no parsing: fbin and ibin begin after
 * two words and step by dim, fvecs and ivecs begin after one and step by dim + 1. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "index/hnsw_io.h"
#include "index/vecs.h"

#define WORD sizeof(uint32_t)
#define ROW_IDS_MAX ((uint32_t)1 << 20)

static const char *const kind_name[] = {"fbin", "fvecs", "ibin", "ivecs"};
#define N_KINDS (sizeof(kind_name) / sizeof(kind_name[0]))

struct hnsw_vecs {
    enum hnsw_vecs_kind kind;
    const char *name; // for messages while opening; borrowed
    size_t n, dim;
    size_t first, step;   // words: the first row, from row to row
    const uint32_t *word; // [size / WORD] the file; NULL if it is empty
    size_t size;          // bytes
};

static bool holds_floats(enum hnsw_vecs_kind kind)
{
    return kind == HNSW_FBIN || kind == HNSW_FVECS;
}

static bool has_header(enum hnsw_vecs_kind kind)
{
    return kind == HNSW_FBIN || kind == HNSW_IBIN;
}

static uint32_t dim_max(enum hnsw_vecs_kind kind)
{
    return holds_floats(kind) ? HNSW_DIM_MAX : ROW_IDS_MAX;
}

const char *hnsw_vecs_kind_name(enum hnsw_vecs_kind kind)
{
    return (unsigned)kind < N_KINDS ? kind_name[kind] : "unknown";
}

bool hnsw_vecs_kind_of(const char *path, enum hnsw_vecs_kind *kind, struct hnsw_err *err)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');
    for (unsigned k = 0; dot && k < N_KINDS; k++)
        if (strcmp(dot + 1, kind_name[k]) == 0) {
            *kind = (enum hnsw_vecs_kind)k;
            return true;
        }
    return hnsw_fail(err, HNSW_ARG, "%s: the ending says what is in it: found \"%s\", wanted .fbin, .fvecs, .ibin or .ivecs",
                     path, dot ? dot : "");
}

// -------------------------------------------------------------------------------------------------------- opening

static bool map_file(struct hnsw_vecs *v, struct hnsw_err *err)
{
    struct hnsw_in in;
    if (!hnsw_in_open(&in, v->name, err))
        return false;
    bool ok = true;
    v->size = (size_t)in.size;
    if (v->size > 0) {
        void *p = mmap(NULL, v->size, PROT_READ, MAP_PRIVATE, in.fd, 0);
        ok = p != MAP_FAILED || hnsw_fail(err, HNSW_IO, "%s: mmap: %s", v->name, strerror(errno));
        v->word = ok ? p : NULL;
    }
    hnsw_in_close(&in);
    return ok;
}

static bool check_dim(const struct hnsw_vecs *v, size_t offset, uint32_t dim, struct hnsw_err *err)
{
    return (dim >= 1 && dim <= dim_max(v->kind)) ||
           hnsw_fail(err, HNSW_FORMAT, "%s: offset %zu: dimensions: found %u, wanted 1 to %u", v->name, offset, dim,
                     dim_max(v->kind));
}

/* [n | dim | n dim words], ids perhaps with as many scores behind them. */
static bool take_bin(struct hnsw_vecs *v, struct hnsw_err *err)
{
    if (v->size < 2 * WORD)
        return hnsw_fail(err, HNSW_FORMAT, "%s: found %zu bytes, wanted at least the 8 of a header", v->name, v->size);
    v->n = v->word[0];
    v->dim = v->step = v->word[1];
    v->first = 2;
    if (!check_dim(v, WORD, v->word[1], err))
        return false;
    size_t want = (2 + v->n * v->dim) * WORD, scored = (2 + 2 * v->n * v->dim) * WORD; // n < 2^32, dim <= 2^20: no overflow
    if (v->size == want || (v->kind == HNSW_IBIN && v->size == scored))
        return true;
    return hnsw_fail(err, HNSW_FORMAT, "%s: found %zu bytes, wanted %zu for the %zu x %zu that its header tells", v->name,
                     v->size, want, v->n, v->dim);
}

/* n times [dim | dim words]. */
static bool take_rows(struct hnsw_vecs *v, struct hnsw_err *err)
{
    v->first = 1;
    if (v->size == 0)
        return true;
    if (v->size < WORD)
        return hnsw_fail(err, HNSW_FORMAT, "%s: found %zu bytes, wanted at least the 4 of a row's dimension", v->name, v->size);
    v->dim = v->word[0];
    v->step = v->dim + 1;
    if (!check_dim(v, 0, v->word[0], err))
        return false;
    if (v->size % (v->step * WORD) != 0)
        return hnsw_fail(err, HNSW_FORMAT, "%s: found %zu bytes, wanted a multiple of %zu for rows of %zu values", v->name,
                         v->size, v->step * WORD, v->dim);
    v->n = v->size / (v->step * WORD);
    for (size_t i = 0; i < v->n; i++)
        if (v->word[i * v->step] != v->dim)
            return hnsw_fail(err, HNSW_FORMAT, "%s: offset %zu: dimensions of row %zu: found %u, wanted %zu as in row 0", v->name,
                             i * v->step * WORD, i, v->word[i * v->step], v->dim);
    return true;
}

static bool check_values(const struct hnsw_vecs *v, struct hnsw_err *err)
{
    for (size_t i = 0; i < v->n; i++) {
        const float *row = hnsw_vecs_row(v, i);
        if (hnsw_finite(row, v->dim))
            continue;
        size_t j = 0;
        while (hnsw_finite(row + j, 1))
            j++;
        return hnsw_fail(err, HNSW_FORMAT, "%s: offset %zu: value %zu of row %zu: found %g, wanted a finite one of at most %g",
                         v->name, (v->first + i * v->step + j) * WORD, j, i, (double)row[j], (double)HNSW_VALUE_MAX);
    }
    return true;
}

struct hnsw_vecs *hnsw_vecs_open(const char *path, struct hnsw_err *err)
{
    struct hnsw_vecs *v = hnsw_mem_new(1, sizeof(*v));
    if (!v) {
        hnsw_fail(err, HNSW_NOMEM, "%s: out of memory", path);
        return NULL;
    }
    v->name = path;
    if (!hnsw_vecs_kind_of(path, &v->kind, err) || !map_file(v, err) ||
        !(has_header(v->kind) ? take_bin(v, err) : take_rows(v, err)) ||
        (holds_floats(v->kind) && !check_values(v, err))) {
        hnsw_vecs_close(v);
        return NULL;
    }
    v->name = NULL;
    return v;
}

void hnsw_vecs_close(struct hnsw_vecs *v)
{
    if (v && v->word)
        munmap((void *)(uintptr_t)v->word, v->size);
    free(v);
}

// --------------------------------------------------------------------------------------------------------- asking

enum hnsw_vecs_kind hnsw_vecs_get_kind(const struct hnsw_vecs *v)
{
    return v->kind;
}

size_t hnsw_vecs_n(const struct hnsw_vecs *v)
{
    return v->n;
}

size_t hnsw_vecs_dim(const struct hnsw_vecs *v)
{
    return v->dim;
}

bool hnsw_vecs_is_float(const struct hnsw_vecs *v)
{
    return holds_floats(v->kind);
}

const float *hnsw_vecs_row(const struct hnsw_vecs *v, size_t i)
{
    return (const float *)(const void *)hnsw_vecs_ids(v, i);
}

const uint32_t *hnsw_vecs_ids(const struct hnsw_vecs *v, size_t i)
{
    return v->word + v->first + i * v->step;
}

// --------------------------------------------------------------------------------------------------------- adding

struct shift { // progress of one piece as progress of the whole
    void (*progress)(void *user, size_t done, size_t n);
    void *user;
    size_t before, n;
};

static void shifted(void *user, size_t done, size_t n)
{
    const struct shift *s = user;
    (void)n;
    s->progress(s->user, s->before + done, s->n);
}

/* hnsw_add_batch wants rows without gaps: an eighth of them at a time, so the copy is small beside the index, and the looks at the
 * whole graph that end a batch are few. */
static bool add_pieces(struct hnsw *h, const struct hnsw_vecs *v, const uint64_t *label, unsigned threads, struct shift *s,
                       struct hnsw_err *err)
{
    size_t piece = v->n / 8 + 1;
    float *copy = hnsw_mem_block(piece, v->dim * sizeof(*copy));
    uint64_t *number = hnsw_mem_new(piece, sizeof(*number));
    bool ok = (copy && number) || hnsw_fail(err, HNSW_NOMEM, "no memory for %zu of the vectors", piece);
    for (size_t some; ok && s->before < v->n; s->before += some) {
        some = v->n - s->before < piece ? v->n - s->before : piece;
        for (size_t i = 0; i < some; i++) {
            memcpy(copy + i * v->dim, hnsw_vecs_row(v, s->before + i), v->dim * sizeof(*copy));
            number[i] = label ? label[s->before + i] : s->before + i;
        }
        ok = hnsw_add_batch(h, copy, number, some, threads, s->progress ? shifted : NULL, s, err);
    }
    free(copy);
    free(number);
    return ok;
}

bool hnsw_vecs_add(struct hnsw *h, const struct hnsw_vecs *v, const uint64_t *label, unsigned threads,
                   void (*progress)(void *user, size_t done, size_t n), void *user, struct hnsw_err *err)
{
    struct shift s = {.progress = progress, .user = user, .n = v->n};
    if (!holds_floats(v->kind))
        return hnsw_fail(err, HNSW_ARG, "found a file of ids (%s), wanted vectors", kind_name[v->kind]);
    if (v->n == 0)
        return true;
    if (v->dim != hnsw_dim(h))
        return hnsw_fail(err, HNSW_ARG, "the vectors have %zu dimensions, the index %zu", v->dim, hnsw_dim(h));
    if (v->step == v->dim)
        return hnsw_add_batch(h, hnsw_vecs_row(v, 0), label, v->n, threads, progress, user, err);
    return add_pieces(h, v, label, threads, &s, err);
}

// -------------------------------------------------------------------------------------------------------- writing

struct hnsw_vecs_out {
    struct hnsw_out out;
    enum hnsw_vecs_kind kind;
    size_t n, dim, done;
    struct hnsw_err err; // of `out`, which keeps the pointer
};

struct hnsw_vecs_out *hnsw_vecs_create(const char *path, enum hnsw_vecs_kind kind, size_t n, size_t dim,
                                       struct hnsw_err *err)
{
    if ((unsigned)kind >= N_KINDS || n > UINT32_MAX || dim < 1 || dim > dim_max(kind)) {
        hnsw_fail(err, HNSW_ARG, "%s: found %zu x %zu, wanted at most %u rows of 1 to %u values", path, n, dim, UINT32_MAX,
                  dim_max(kind));
        return NULL;
    }
    struct hnsw_vecs_out *o = hnsw_mem_new(1, sizeof(*o));
    if (!o) {
        hnsw_fail(err, HNSW_NOMEM, "%s: out of memory", path);
        return NULL;
    }
    o->kind = kind;
    o->n = n;
    o->dim = dim;
    if (!hnsw_out_open(&o->out, path, err)) {
        free(o);
        return NULL;
    }
    const uint32_t head[2] = {(uint32_t)n, (uint32_t)dim};
    if (has_header(kind))
        hnsw_out_put(&o->out, head, sizeof(head)); // into an empty buffer: nothing is written yet that could fail
    o->out.err = &o->err;
    return o;
}

bool hnsw_vecs_put(struct hnsw_vecs_out *o, const void *row, struct hnsw_err *err)
{
    const uint32_t dim = (uint32_t)o->dim;
    if (o->done == o->n)
        return hnsw_fail(err, HNSW_ARG, "%s: more rows than the %zu announced", o->out.path, o->n);
    if ((!has_header(o->kind) && !hnsw_out_put(&o->out, &dim, sizeof(dim))) || !hnsw_out_put(&o->out, row, o->dim * WORD))
        return hnsw_fail(err, o->err.code, "%s", o->err.msg);
    o->done++;
    return true;
}

bool hnsw_vecs_finish(struct hnsw_vecs_out *o, bool ok, struct hnsw_err *err)
{
    if (!o)
        return false;
    if (ok && o->done != o->n)
        ok = hnsw_fail(err, HNSW_ARG, "%s: found %zu rows, wanted %zu", o->out.path, o->done, o->n);
    if (!hnsw_out_close(&o->out, ok) && ok)
        ok = hnsw_fail(err, o->err.code, "%s", o->err.msg);
    free(o);
    return ok;
}
