#include "core/stored.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/als.h"
#include "core/base/mem.h"

#define FORMAT_VERSION "1"
#define PARTS 4 // user.vec, item.vec, item.gram, fold_in
#define FOLD_IN 3

struct stored *stored_new(uint32_t d, uint32_t n_interest, uint32_t n_users, uint32_t n_items, bool fold_in,
                          struct err *err)
{
    if (d < 1 || d > STORED_D_MAX || n_interest < 1 || n_interest > STORED_INTERESTS_MAX) {
        err_set(err, ERR_ARG, "%u vectors of width %u a user, want 1 to %d of 1 to %d", n_interest, d,
                STORED_INTERESTS_MAX, STORED_D_MAX);
        return NULL;
    }
    struct stored *s = mem_array(1, sizeof(*s), err);
    if (!s)
        return NULL;
    *s = (struct stored){.d = d, .n_interest = n_interest, .n_users = n_users, .n_items = n_items};
    bool vec = n_users || n_items;
    if ((!vec || ((s->user = mem_array((size_t)n_users * n_interest, d * sizeof(float), err)) &&
                  (s->item = mem_array(n_items, d * sizeof(float), err)))) &&
        (!fold_in || (s->gram = mem_array((size_t)d * d, sizeof(float), err))))
        return s;
    stored_free(s);
    return NULL;
}

void stored_free(struct stored *s)
{
    if (!s)
        return;
    free(s->user);
    free(s->item);
    free(s->gram);
    free(s);
}

size_t stored_memory(const struct stored *s)
{
    size_t rows = (size_t)s->n_users * s->n_interest + s->n_items + (s->gram ? s->d : 0);
    return sizeof(*s) + rows * s->d * sizeof(float);
}

// -------------------------------------------------------------------------------------------------------- files

static bool meta_number(const struct safetensors *st, const char *key, uint32_t max, uint32_t *out, struct err *err)
{
    const char *text = safetensors_meta(st, key);
    char *end = NULL;
    unsigned long v = text ? strtoul(text, &end, 10) : 0;
    *out = (uint32_t)v;
    return (text && end != text && *end == '\0' && v >= 1 && v <= max) ||
           err_set(err, ERR_FORMAT, "metadata %s: found %.20s, want 1 to %u", key, text ? text : "nothing", max);
}

static bool meta_flag(const struct safetensors *st, const char *key, bool *out, struct err *err)
{
    const char *text = safetensors_meta(st, key);
    *out = text && strcmp(text, "true") == 0;
    return *out || (text && strcmp(text, "false") == 0) ||
           err_set(err, ERR_FORMAT, "metadata %s: found %.20s, want true or false", key, text ? text : "nothing");
}

/* Rows of a matrix with `cols` columns; the reading itself checks the rest. */
static bool rows_of(const struct safetensors *st, const char *name, uint64_t cols, uint32_t *rows, struct err *err)
{
    const struct st_tensor *t = safetensors_find(st, name);
    if (!t)
        return err_set(err, ERR_FORMAT, "tensor \"%s\" is missing", name);
    if (t->n_dims != 2 || t->dim[1] != cols || t->dim[0] < 1 || t->dim[0] >= UINT32_MAX / 4)
        return err_set(err, ERR_FORMAT, "tensor \"%s\": want [n][%llu]", name, (unsigned long long)cols);
    *rows = (uint32_t)t->dim[0];
    return true;
}

static bool check_names(const struct safetensors *st, bool fold_in, struct err *err)
{
    static const char *const known[PARTS] = {"user.vec", "item.vec", "item.gram", "fold_in"};
    for (size_t i = 0; i < safetensors_count(st); i++) {
        const char *name = safetensors_at(st, i)->name;
        bool ok = false;
        for (size_t k = 0; k < (fold_in ? PARTS : 2); k++)
            ok |= strcmp(name, known[k]) == 0;
        if (!ok)
            return err_set(err, ERR_FORMAT, "tensor \"%.80s\" is not one of a model without towers", name);
    }
    return true;
}

static bool read_fold_in(struct stored *s, const struct safetensors *st, struct err *err)
{
    float v[FOLD_IN];
    const uint64_t shape[2] = {s->d, s->d}, n = FOLD_IN;
    if (!safetensors_read_f32(st, "item.gram", 2, shape, s->gram, err) ||
        !safetensors_read_f32(st, "fold_in", 1, &n, v, err))
        return false;
    if (v[0] < 0 || v[0] > 1 || v[1] < 0 || v[2] < 1 || v[2] > 1e9f)
        return err_set(err, ERR_FORMAT, "tensor \"fold_in\": w0 %g, lambda %g, %g items; want 0 to 1, >= 0, >= 1",
                       (double)v[0], (double)v[1], (double)v[2]);
    s->w0 = v[0];
    s->lambda = v[1];
    s->n_fold = (uint32_t)v[2];
    return true;
}

static bool read_vectors(struct stored *s, const struct safetensors *st, struct err *err)
{
    const uint64_t user[2] = {s->n_users, (uint64_t)s->n_interest * s->d}, item[2] = {s->n_items, s->d};
    return safetensors_read_f32(st, "user.vec", 2, user, s->user, err) &&
           safetensors_read_f32(st, "item.vec", 2, item, s->item, err);
}

struct stored *stored_load(const struct safetensors *st, bool with_vec, struct err *err)
{
    uint32_t d, n_interest, n_users = 0, n_items = 0;
    bool item_bias, fold_in = safetensors_find(st, "item.gram") != NULL;
    if (!meta_number(st, "d", STORED_D_MAX, &d, err) ||
        !meta_number(st, "n_interest", STORED_INTERESTS_MAX, &n_interest, err) ||
        !meta_flag(st, "item_bias", &item_bias, err) || !check_names(st, fold_in, err))
        return NULL;
    if (with_vec && (!rows_of(st, "user.vec", (uint64_t)n_interest * d, &n_users, err) ||
                     !rows_of(st, "item.vec", d, &n_items, err)))
        return NULL;
    struct stored *s = stored_new(d, n_interest, n_users, n_items, fold_in, err);
    if (s && (!fold_in || read_fold_in(s, st, err)) && (!with_vec || read_vectors(s, st, err))) {
        s->item_bias = item_bias;
        return s;
    }
    stored_free(s);
    return NULL;
}

struct part {
    struct st_tensor t;
    const float *data;
    size_t n;
};

static bool put_parts(struct safetensors_writer *w, const struct part *p, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!st_all_finite(p[i].data, p[i].n))
            return err_set(err, ERR_STATE, "tensor \"%s\" holds NaN or infinity; training has diverged", p[i].t.name);
        if (!safetensors_put(w, p[i].data, p[i].n * sizeof(float), err))
            return false;
    }
    return true;
}

static void add_part(struct part *p, size_t *n, const char *name, const float *data, uint64_t rows, uint64_t cols)
{
    p[(*n)++] = (struct part){
        .t = {.name = name, .dtype = ST_F32, .n_dims = cols ? 2 : 1, .dim = {rows, cols}},
        .data = data,
        .n = (size_t)(rows * (cols ? cols : 1)),
    };
}

bool stored_save(const struct stored *s, const char *kind, const char *path, bool with_vec, struct err *err)
{
    char d[16], n_interest[16];
    const float fold_in[FOLD_IN] = {s->w0, s->lambda, (float)s->n_fold};
    struct part p[PARTS];
    struct st_tensor t[PARTS];
    size_t n = 0;
    snprintf(d, sizeof(d), "%u", s->d);
    snprintf(n_interest, sizeof(n_interest), "%u", s->n_interest);
    const struct st_meta meta[] = {{"duet_format", FORMAT_VERSION},
                                   {"kind", kind},
                                   {"d", d},
                                   {"n_interest", n_interest},
                                   {"item_bias", s->item_bias ? "true" : "false"}};
    if (with_vec) {
        if (!s->user || !s->item)
            return err_set(err, ERR_STATE, "%s: the model has no vectors to save; it was loaded without", path);
        add_part(p, &n, "user.vec", s->user, s->n_users, (uint64_t)s->n_interest * s->d);
        add_part(p, &n, "item.vec", s->item, s->n_items, s->d);
    }
    if (s->gram) {
        add_part(p, &n, "item.gram", s->gram, s->d, s->d);
        add_part(p, &n, "fold_in", fold_in, FOLD_IN, 0);
    }
    for (size_t i = 0; i < n; i++)
        t[i] = p[i].t;
    const struct st_layout layout = {
        .tensor = t, .n_tensors = n, .meta = meta, .n_meta = sizeof(meta) / sizeof(meta[0])};
    struct safetensors_writer *w = safetensors_writer_new(path, &layout, err);
    bool ok = w && put_parts(w, p, n, err) && safetensors_finish(w, err);
    safetensors_writer_free(w);
    return ok;
}

// ------------------------------------------------------------------------------------------------------ queries

bool stored_known(const float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (v[i] != 0)
            return true;
    return false;
}

size_t stored_scratch(const struct stored *s)
{
    return s->gram ? als_scratch(s->d) : 0;
}

/* Mean of the items; the bias, if there is one, counts once as for everybody. */
static bool mean_of(const struct stored *s, const float *item, const uint32_t *history, size_t n, float *out)
{
    uint32_t d = s->d;
    memset(out, 0, d * sizeof(*out));
    for (size_t i = 0; i < n; i++)
        for (uint32_t c = 0; c < d; c++)
            out[c] += item[(size_t)history[i] * d + c] / (float)n;
    if (s->item_bias)
        out[d - 1] = 0;
    bool known = stored_known(out, d);
    if (s->item_bias && known)
        out[d - 1] = 1;
    return known;
}

bool stored_from_history(const struct stored *s, const float *item, const uint32_t *history, size_t n, float *scratch,
                         float *out)
{
    if (!s->gram)
        return mean_of(s, item, history, n, out);
    const struct als_side side = {item, s->n_fold, s->d, s->gram, s->w0, s->lambda};
    return als_row(&side, history, n, scratch, out) && stored_known(out, s->d);
}
