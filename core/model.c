#include "core/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/safetensors.h"

#define FORMAT_VERSION "1"
#define NAME_SIZE (SCHEMA_NAME_MAX + 32) // "user.emb." + a field's name
#define TENSORS_MAX (2 * (SCHEMA_FIELDS_MAX + 2 + 2 * TOWER_LAYERS_MAX) + 1)

static const char *const side_names[] = {"user", "item"};
static const char *const kind_names[] = {"two_tower", "dat", "wals", "fm", "youtube_dnn", "mind"};

const char *model_kind_name(enum model_kind kind)
{
    return kind_names[kind];
}

bool model_kind_parse(const char *name, enum model_kind *out)
{
    for (int k = MODEL_TWO_TOWER; k <= MODEL_MIND; k++)
        if (strcmp(name, kind_names[k]) == 0) {
            *out = (enum model_kind)k;
            return true;
        }
    return false;
}

bool model_kind_stored(enum model_kind kind)
{
    return kind >= MODEL_WALS;
}

// ------------------------------------------------------------------------------------------------------ building

static bool check_kind(const struct model *m, struct err *err)
{
    const struct tower *u = &m->user, *v = &m->item;
    if (u->d != v->d)
        return err_set(err, ERR_ARG, "user tower has %u outputs, item tower %u; want the same", u->d, v->d);
    if (u->shape.relu_out != v->shape.relu_out)
        return err_set(err, ERR_ARG, "relu_out is %d for users and %d for items; want the same", u->shape.relu_out,
                       v->shape.relu_out);
    if (u->shape.skip_aug != v->shape.skip_aug)
        return err_set(err, ERR_ARG, "skip_aug is %d for users and %d for items; want the same", u->shape.skip_aug,
                       v->shape.skip_aug);
    uint32_t want = m->kind == MODEL_DAT ? u->d : 0;
    if (u->shape.d_aug != want || v->shape.d_aug != want)
        return err_set(err, ERR_ARG, "augmented vectors of %u (user) and %u (item); kind %s with %u outputs wants %u",
                       u->shape.d_aug, v->shape.d_aug, kind_names[m->kind], u->d, want);
    return true;
}

struct model *model_new(enum model_kind kind, struct schema *schema, const struct tower_params *user,
                        const struct tower_params *item, struct err *err)
{
    struct model *m = mem_array(1, sizeof(*m), err);
    if (!m) {
        schema_free(schema);
        return NULL;
    }
    m->kind = kind;
    m->schema = schema;
    m->logit_scale = 1;
    history_form_plain(&m->history, 1);
    if (!tower_init(&m->user, &schema->user, user, err))
        err_prefix(err, "user");
    else if (!tower_init(&m->item, &schema->item, item, err))
        err_prefix(err, "item");
    else if (check_kind(m, err))
        return m;
    err_prefix(err, "model");
    model_free(m);
    return NULL;
}

struct model *model_new_stored(enum model_kind kind, struct schema *schema, struct stored *stored, struct err *err)
{
    struct model *m = mem_array(1, sizeof(*m), err);
    if (!m) {
        schema_free(schema);
        stored_free(stored);
        return NULL;
    }
    *m = (struct model){.kind = kind, .schema = schema, .stored = stored, .logit_scale = 1};
    m->user.d = m->item.d = stored->d;
    return m;
}

void model_free(struct model *m)
{
    if (!m)
        return;
    tower_fini(&m->user);
    tower_fini(&m->item);
    stored_free(m->stored);
    schema_free(m->schema);
    free(m);
}

// --------------------------------------------------------------------------------------- the tensors of a model

/* One tensor of the file and where it lives in memory. */
struct part {
    char name[NAME_SIZE];
    uint32_t n_dims;
    uint64_t dim[2];
    float *data;
};

struct parts {
    struct part at[TENSORS_MAX];
    size_t n;
};

static struct part *add_part(struct parts *p, float *data, uint32_t n_dims, uint64_t rows, uint64_t cols)
{
    struct part *q = &p->at[p->n++];
    *q = (struct part){.n_dims = n_dims, .dim = {rows, cols}, .data = data};
    return q;
}

static void list_tower(struct parts *p, const char *side, const struct tower *t, bool with_aug)
{
    const struct tower_shape *s = &t->shape;
    for (uint32_t f = 0; f < s->n_fields; f++) {
        const struct tower_field *tf = &s->field[f];
        struct part *q = add_part(p, t->emb ? t->emb + tf->first_row * s->k : NULL, 2, tf->n_rows, s->k);
        snprintf(q->name, sizeof(q->name), "%s.emb.%s", side, tf->name);
    }
    if (s->d_aug && with_aug && s->n_ids)
        snprintf(add_part(p, t->aug, 2, s->n_ids, s->d_aug)->name, NAME_SIZE, "%s.aug", side);
    if (s->d_aug)
        snprintf(add_part(p, t->aug_segment, 2, s->n_segments, s->d_aug)->name, NAME_SIZE, "%s.aug_segment", side);
    for (uint32_t l = 0; l < s->n_layers; l++) {
        uint32_t n_in = l ? s->width[l - 1] : t->z_dim;
        snprintf(add_part(p, t->w[l], 2, s->width[l], n_in)->name, NAME_SIZE, "%s.fc.%u.weight", side, l);
        snprintf(add_part(p, t->b[l], 1, s->width[l], 0)->name, NAME_SIZE, "%s.fc.%u.bias", side, l);
    }
}

/* All tensors of the model in file order; what loading fills and saving writes. For free(). */
static struct parts *list_parts(const struct model *m, bool with_aug, struct err *err)
{
    struct parts *p = mem_array(1, sizeof(*p), err);
    if (!p)
        return NULL;
    list_tower(p, side_names[0], &m->user, with_aug);
    list_tower(p, side_names[1], &m->item, with_aug);
    snprintf(add_part(p, (float *)(uintptr_t)&m->logit_scale, 1, 1, 0)->name, NAME_SIZE, "logit_scale");
    if (!history_form_is_plain(&m->history))
        snprintf(add_part(p, (float *)(uintptr_t)m->history.weight, 1, HISTORY_STEPS, 0)->name, NAME_SIZE,
                 "history_weight");
    return p;
}

// ------------------------------------------------------------------------------------------------------- loading

static const struct st_tensor *find_2d(const struct safetensors *st, const char *name, struct err *err)
{
    const struct st_tensor *t = safetensors_find(st, name);
    if (!t)
        err_set(err, ERR_FORMAT, "tensor \"%s\" is missing", name);
    else if (t->n_dims == 2 && t->dtype == ST_F32)
        return t;
    else
        err_set(err, ERR_FORMAT, "tensor \"%s\": %u dimensions of %s, want 2 of F32", name, t->n_dims,
                st_dtype_name(t->dtype));
    return NULL;
}

/* Columns of a tensor as a width; absurd ones are cut to a value that tower_init refuses. */
static uint32_t as_width(uint64_t n)
{
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

/* The tables before anything is allocated: their row counts come from the schema, which may be of another size
 * altogether. */
static bool read_tables(const struct safetensors *st, const char *side, const struct schema_side *s,
                        struct tower_params *p, struct err *err)
{
    char name[NAME_SIZE];
    for (uint32_t i = 0; i < s->n_fields; i++) {
        const struct schema_field *f = &s->field[i];
        if (f->n_slots == 0)
            continue;
        snprintf(name, sizeof(name), "%s.emb.%s", side, f->name);
        const struct st_tensor *t = find_2d(st, name, err);
        if (!t)
            return false;
        if (t->dim[0] != f->n_rows)
            return err_set(err, ERR_MISMATCH,
                           "tensor \"%s\" has %llu rows, the schema's field %u: was it trained with this schema?", name,
                           (unsigned long long)t->dim[0], f->n_rows);
        p->k = as_width(t->dim[1]);
    }
    return true;
}

static bool read_augmented(const struct safetensors *st, const char *side, const struct schema_side *s, bool with_aug,
                           struct tower_params *p, struct err *err)
{
    char name[NAME_SIZE];
    snprintf(name, sizeof(name), "%s.aug_segment", side);
    if (!safetensors_find(st, name))
        return true;
    const struct st_tensor *segment = find_2d(st, name, err);
    if (!segment)
        return false;
    p->d_aug = as_width(segment->dim[1]);
    p->with_aug = with_aug;
    if (!with_aug || s->id_field < 0)
        return true;
    snprintf(name, sizeof(name), "%s.aug", side);
    const struct st_tensor *aug = find_2d(st, name, err);
    if (!aug)
        return false;
    uint32_t rows = s->field[s->id_field].n_rows;
    return aug->dim[0] == rows || err_set(err, ERR_MISMATCH, "tensor \"%s\" has %llu rows, the schema's id field %u",
                                          name, (unsigned long long)aug->dim[0], rows);
}

static bool read_layers(const struct safetensors *st, const char *side, struct tower_params *p, struct err *err)
{
    char name[NAME_SIZE];
    for (uint32_t l = 0; l < TOWER_LAYERS_MAX; l++) {
        snprintf(name, sizeof(name), "%s.fc.%u.weight", side, l);
        if (l > 0 && !safetensors_find(st, name))
            break;
        const struct st_tensor *t = find_2d(st, name, err);
        if (!t)
            return false;
        if (l > 0 && t->dim[1] != p->width[l - 1])
            return err_set(err, ERR_FORMAT, "tensor \"%s\" takes %llu inputs, the layer before gives %u", name,
                           (unsigned long long)t->dim[1], p->width[l - 1]);
        p->width[p->n_layers++] = as_width(t->dim[0]);
    }
    return true;
}

/* What the metadata say beyond the tensors' shapes. */
struct meta {
    enum model_kind kind;
    bool relu_out, skip_aug;
    float history_alpha;
};

/* "true" or "false"; `absent` where the file says nothing, or 2: it must say. */
static bool read_flag(const struct safetensors *st, const char *key, int absent, bool *out, struct err *err)
{
    const char *v = safetensors_meta(st, key);
    if (!v && absent < 2) {
        *out = absent;
        return true;
    }
    if (!v || (strcmp(v, "true") != 0 && strcmp(v, "false") != 0))
        return err_set(err, ERR_FORMAT, "metadata %s: found %.20s, want true or false", key, v ? v : "nothing");
    *out = strcmp(v, "true") == 0;
    return true;
}

static bool read_alpha(const struct safetensors *st, float *out, struct err *err)
{
    const char *v = safetensors_meta(st, "history_alpha");
    char *end = NULL;
    *out = v ? strtof(v, &end) : 1;
    return (*out >= 0 && *out <= 1 && (!v || (end != v && !*end))) ||
           err_set(err, ERR_FORMAT, "metadata history_alpha: found %.20s, want a number from 0 to 1",
                   v ? v : "nothing");
}

static bool read_meta(const struct safetensors *st, struct meta *m, struct err *err)
{
    const char *format = safetensors_meta(st, "duet_format"), *k = safetensors_meta(st, "kind");
    if (!format || strcmp(format, FORMAT_VERSION) != 0)
        return err_set(err, ERR_FORMAT,
                       "metadata duet_format: found %.20s, want " FORMAT_VERSION "; deploy/export_pytorch.py writes it",
                       format ? format : "nothing");
    if (!k || !model_kind_parse(k, &m->kind))
        return err_set(err, ERR_FORMAT, "metadata kind: found %.20s, want " MODEL_KINDS, k ? k : "nothing");
    return model_kind_stored(m->kind) ||
           (read_flag(st, "relu_out", 2, &m->relu_out, err) && read_flag(st, "skip_aug", 0, &m->skip_aug, err) &&
            read_alpha(st, &m->history_alpha, err));
}

/* Every tensor of the file must be one that we read (or a table of augmented vectors that bundles do without). */
static bool check_all_known(const struct safetensors *st, const struct parts *p, bool with_aug, struct err *err)
{
    for (size_t i = 0; i < safetensors_count(st); i++) {
        const char *name = safetensors_at(st, i)->name;
        bool known = !with_aug && (strcmp(name, "user.aug") == 0 || strcmp(name, "item.aug") == 0);
        for (size_t j = 0; !known && j < p->n; j++)
            known = strcmp(name, p->at[j].name) == 0;
        if (!known)
            return err_set(err, ERR_FORMAT,
                           "tensor \"%.80s\" is not one of this model's (schema and format have no place for it)",
                           name);
    }
    return true;
}

/* Weights are read where the file has them, which a form that is not plain says. */
static void expect_weights(struct model *m, const struct safetensors *st)
{
    if (safetensors_find(st, "history_weight"))
        memset(m->history.weight, 0, sizeof(m->history.weight));
}

static bool check_numbers(const struct model *m, struct err *err)
{
    if (!(m->logit_scale > 0))
        return err_set(err, ERR_FORMAT, "logit_scale is %g, want a positive number", (double)m->logit_scale);
    for (size_t i = 0; i < HISTORY_STEPS; i++)
        if (!(m->history.weight[i] > 0))
            return err_set(err, ERR_FORMAT, "history_weight[%zu] is %g, want a positive number", i,
                           (double)m->history.weight[i]);
    return true;
}

static bool fill_model(struct model *m, const struct safetensors *st, bool with_aug, struct err *err)
{
    expect_weights(m, st);
    struct parts *p = list_parts(m, with_aug, err);
    bool ok = p && check_all_known(st, p, with_aug, err);
    for (size_t i = 0; ok && i < p->n; i++)
        ok = safetensors_read_f32(st, p->at[i].name, p->at[i].n_dims, p->at[i].dim, p->at[i].data, err);
    free(p);
    return ok && check_numbers(m, err);
}

static struct model *load_stored(const struct safetensors *st, enum model_kind kind, struct schema *schema,
                                 bool with_vec, struct err *err)
{
    struct stored *s = stored_load(st, with_vec, err);
    if (s)
        return model_new_stored(kind, schema, s, err);
    schema_free(schema);
    return NULL;
}

/* What of a file is kept. */
enum keep { KEEP_ALL, KEEP_NO_AUG, KEEP_SERVING };

/* Takes the schema, not the reader. */
static struct model *load_from(const struct safetensors *st, struct schema *schema, enum keep keep, struct err *err)
{
    bool with_aug = keep == KEEP_ALL;
    const struct schema_side *side[] = {&schema->user, &schema->item};
    struct tower_params p[2] = {0};
    struct meta meta = {0};
    bool ok = read_meta(st, &meta, err);
    if (ok && model_kind_stored(meta.kind))
        return load_stored(st, meta.kind, schema, with_aug, err);
    for (int i = 0; ok && i < 2; i++) {
        ok = read_tables(st, side_names[i], side[i], &p[i], err) && read_layers(st, side_names[i], &p[i], err) &&
             read_augmented(st, side_names[i], side[i], with_aug, &p[i], err);
        p[i].relu_out = meta.relu_out;
        p[i].skip_aug = meta.skip_aug;
    }
    p[1].shape_only = keep == KEEP_SERVING;
    if (!ok) {
        schema_free(schema);
        return NULL;
    }
    struct model *m = model_new(meta.kind, schema, &p[0], &p[1], err);
    if (m && fill_model(m, st, with_aug, err)) {
        m->history.alpha = meta.history_alpha;
        return m;
    }
    model_free(m);
    if (err && err->code == ERR_ARG)
        err->code = ERR_FORMAT; // the file's shapes were the bad argument
    return NULL;
}

static struct model *load_and_close(struct safetensors *st, const char *name, struct schema *schema, enum keep keep,
                                    struct err *err)
{
    if (!st) {
        schema_free(schema);
        return NULL;
    }
    struct model *m = load_from(st, schema, keep, err);
    if (!m && err && !strstr(err->msg, name))
        err_prefix(err, "%s", name);
    safetensors_close(st);
    return m;
}

struct model *model_load(const char *path, struct schema *schema, bool with_aug, struct err *err)
{
    return load_and_close(safetensors_open(path, err), path, schema, with_aug ? KEEP_ALL : KEEP_NO_AUG, err);
}

struct model *model_load_mem(const void *bytes, size_t n, const char *name, struct schema *schema, bool with_aug,
                             struct err *err)
{
    return load_and_close(safetensors_open_mem(bytes, n, name, err), name, schema, with_aug ? KEEP_ALL : KEEP_NO_AUG,
                          err);
}

struct model *model_load_serving(const void *bytes, size_t n, const char *name, struct schema *schema, struct err *err)
{
    return load_and_close(safetensors_open_mem(bytes, n, name, err), name, schema, KEEP_SERVING, err);
}

// -------------------------------------------------------------------------------------------------------- saving

static bool put_parts(struct safetensors_writer *w, const struct parts *p, struct err *err)
{
    for (size_t i = 0; i < p->n; i++) {
        size_t n = (size_t)p->at[i].dim[0] * (p->at[i].n_dims == 2 ? (size_t)p->at[i].dim[1] : 1);
        if (!st_all_finite(p->at[i].data, n))
            return err_set(err, ERR_STATE, "tensor \"%s\" holds NaN or infinity; training has diverged", p->at[i].name);
        if (!safetensors_put(w, p->at[i].data, n * sizeof(float), err))
            return false;
    }
    return true;
}

static bool save_parts(const struct model *m, const char *path, const struct parts *p, struct err *err)
{
    char alpha[32];
    snprintf(alpha, sizeof(alpha), "%.9g", (double)m->history.alpha);
    const struct st_meta meta[] = {{"duet_format", FORMAT_VERSION},
                                   {"kind", model_kind_name(m->kind)},
                                   {"relu_out", m->user.shape.relu_out ? "true" : "false"},
                                   {"skip_aug", m->user.shape.skip_aug ? "true" : "false"},
                                   {"history_alpha", alpha}};
    struct st_tensor *t = mem_array(p->n, sizeof(*t), err);
    if (!t)
        return false;
    for (size_t i = 0; i < p->n; i++)
        t[i] = (struct st_tensor){.name = p->at[i].name,
                                  .dtype = ST_F32,
                                  .n_dims = p->at[i].n_dims,
                                  .dim = {p->at[i].dim[0], p->at[i].dim[1]}};
    const struct st_layout layout = {
        .tensor = t, .n_tensors = p->n, .meta = meta, .n_meta = sizeof(meta) / sizeof(meta[0])};
    struct safetensors_writer *w = safetensors_writer_new(path, &layout, err);
    bool ok = w && put_parts(w, p, err) && safetensors_finish(w, err);
    safetensors_writer_free(w);
    free(t);
    return ok;
}

bool model_save(const struct model *m, const char *path, bool with_aug, struct err *err)
{
    const struct tower *t[] = {&m->user, &m->item};
    if (m->stored)
        return stored_save(m->stored, model_kind_name(m->kind), path, with_aug, err) ||
               (err && strstr(err->msg, path) ? false : err_prefix(err, "%s", path));
    for (int i = 0; with_aug && i < 2; i++)
        if (t[i]->shape.d_aug && t[i]->shape.n_ids && !t[i]->aug)
            return err_set(err, ERR_STATE, "%s: the model has no %s.aug to save; it was loaded without", path,
                           side_names[i]);
    struct parts *p = list_parts(m, with_aug, err);
    bool ok = p && save_parts(m, path, p, err);
    free(p);
    return ok || (err && strstr(err->msg, path) ? false : err_prefix(err, "%s", path));
}
