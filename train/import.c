#include "train/import.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "core/safetensors.h"
#include "train/checkpoint.h"
#include "train/resume.h"

#define NAME_SIZE (ST_NAME_MAX + 64)

static const char *const side_names[] = {"user", "item"};

/* A tensor of the state dict, under our name for it. */
struct named {
    char name[NAME_SIZE];
    const struct st_tensor *t;
    bool used;
};

struct state {
    struct safetensors *file;
    struct named *at; // [n]
    size_t n;
};

// ---------------------------------------------------------------------------------------------------------- names

static bool begins(const char *s, const char *with)
{
    return strncmp(s, with, strlen(with)) == 0;
}

static bool ends(const char *s, const char *with)
{
    size_t n = strlen(s), m = strlen(with);
    return n >= m && strcmp(s + n - m, with) == 0;
}

bool import_check_renames(const struct import_params *p, struct err *err)
{
    for (size_t i = 0; i < p->n_rename; i++)
        if (!strchr(p->rename[i], '='))
            return err_set(err, ERR_ARG, "--rename \"%.80s\", want OLD=NEW", p->rename[i]);
    return true;
}

/* The first of the renamings that fits. */
static bool rename_one(const struct import_params *p, struct named *q, struct err *err)
{
    const char *name = q->t->name;
    snprintf(q->name, sizeof(q->name), "%s", name);
    for (size_t i = 0; i < p->n_rename; i++) {
        const char *eq = strchr(p->rename[i], '=');
        if (strncmp(name, p->rename[i], (size_t)(eq - p->rename[i])) != 0)
            continue;
        int n = snprintf(q->name, sizeof(q->name), "%s%s", eq + 1, name + (eq - p->rename[i]));
        return n < (int)sizeof(q->name) ||
               err_set(err, ERR_LIMIT, "--rename \"%.80s\" makes a name of %d characters, want fewer than %zu",
                       p->rename[i], n, sizeof(q->name));
    }
    return true;
}

/* nn.Embedding's tables are called .weight; ours have no such suffix. */
static void drop_suffix(char *name)
{
    const char *rest = begins(name, "user.") || begins(name, "item.") ? name + 5 : "";
    if ((begins(rest, "emb.") || begins(rest, "aug.") || begins(rest, "aug_segment.")) && ends(name, ".weight"))
        name[strlen(name) - strlen(".weight")] = '\0';
}

/* "user.fc.<l>.weight" or ".bias" -> l, else -1. */
static long layer_of(const char *name, const char *side)
{
    size_t n = strlen(side);
    char *end;
    if (!begins(name, side) || !begins(name + n, ".fc.") || name[n + 4] < '0' || name[n + 4] > '9')
        return -1;
    long l = strtol(name + n + 4, &end, 10);
    return strcmp(end, ".weight") == 0 || strcmp(end, ".bias") == 0 ? l : -1;
}

static int ascending(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return x < y ? -1 : x > y;
}

/* Layers of an nn.Sequential have numbers with gaps, where activations lie between them; ours are 0, 1, 2 .. */
static bool number_layers(struct state *s, const char *side, struct err *err)
{
    long *seen = mem_array(s->n, sizeof(*seen), err);
    size_t n = 0, kept = 0;
    if (!seen)
        return false;
    for (size_t i = 0; i < s->n; i++)
        if ((seen[n] = layer_of(s->at[i].name, side)) >= 0)
            n++;
    qsort(seen, n, sizeof(*seen), ascending);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || seen[i] != seen[i - 1])
            seen[kept++] = seen[i];
    for (size_t i = 0; i < s->n; i++) {
        char *name = s->at[i].name;
        long l = layer_of(name, side);
        size_t k = 0;
        while (l >= 0 && seen[k] != l)
            k++;
        if (l >= 0)
            snprintf(name, NAME_SIZE, "%s.fc.%zu.%s", side, k, ends(name, ".bias") ? "bias" : "weight");
    }
    free(seen);
    return true;
}

static bool name_all(struct state *s, const struct import_params *p, struct err *err)
{
    for (size_t i = 0; i < s->n; i++) {
        s->at[i].t = safetensors_at(s->file, i);
        if (!rename_one(p, &s->at[i], err))
            return false;
        drop_suffix(s->at[i].name);
    }
    if (!number_layers(s, "user", err) || !number_layers(s, "item", err))
        return false;
    for (size_t i = 0; i < s->n; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(s->at[i].name, s->at[j].name) == 0)
                return err_set(err, ERR_FORMAT, "tensors \"%.80s\" and \"%.80s\" would both be %.80s", s->at[j].t->name,
                               s->at[i].t->name, s->at[i].name);
    return true;
}

// --------------------------------------------------------------------------------------------------------- tensors

static struct named *find(struct state *s, const char *name)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->at[i].name, name) == 0)
            return &s->at[i];
    return NULL;
}

#define ANY 0                             // as a dimension that is wanted: whatever the file has
#define SHAPE_TEXT (ST_DIMS_MAX * 22 + 3) // a number of 64 bits and ", " each

static const char *shape_text(uint32_t n, const uint64_t *dim, const char *zero, char out[SHAPE_TEXT])
{
    int at = snprintf(out, SHAPE_TEXT, "[");
    for (uint32_t i = 0; i < n; i++) {
        const char *comma = i ? ", " : "";
        at += dim[i] ? snprintf(out + at, (size_t)(SHAPE_TEXT - at), "%s%llu", comma, (unsigned long long)dim[i])
                     : snprintf(out + at, (size_t)(SHAPE_TEXT - at), "%s%s", comma, zero);
    }
    snprintf(out + at, (size_t)(SHAPE_TEXT - at), "]");
    return out;
}

static bool same_shape(const struct st_tensor *t, uint32_t n, const uint64_t *dim)
{
    bool same = t->n_dims == n;
    for (uint32_t i = 0; same && i < n; i++)
        same = dim[i] == ANY ? t->dim[i] > 0 : t->dim[i] == dim[i];
    return same;
}

/* The tensor: F32, finite, of n dimensions, rows and cols. */
static const struct st_tensor *take(struct state *s, const char *name, uint32_t n, uint64_t rows, uint64_t cols,
                                    struct err *err)
{
    uint64_t dim[] = {rows, cols};
    char found[SHAPE_TEXT], want[SHAPE_TEXT];
    struct named *q = find(s, name);
    if (!q) {
        err_set(err, ERR_FORMAT,
                "no tensor is \"%s\" (the first of %zu is \"%.80s\"); --rename OLD=NEW names them as we do", name, s->n,
                s->n ? s->at[0].t->name : "");
        return NULL;
    }
    const struct st_tensor *t = q->t;
    q->used = true;
    if (!same_shape(t, n, dim)) {
        err_set(err, ERR_MISMATCH, "tensor \"%.80s\" (%s) has shape %s, want %s", t->name, name,
                shape_text(t->n_dims, t->dim, "0", found), shape_text(n, dim, "any", want));
    } else if (t->dtype != ST_F32) {
        err_set(err, ERR_FORMAT, "tensor \"%.80s\" (%s) is of %s, want F32: .float() before it is written", t->name,
                name, st_dtype_name(t->dtype));
    } else if (!st_all_finite(t->data, t->n_bytes / sizeof(float))) {
        err_set(err, ERR_FORMAT, "tensor \"%.80s\" (%s) holds a value that is not finite", t->name, name);
    } else {
        return t;
    }
    return NULL;
}

static bool copy_numbers(struct state *s, const char *name, float *out, uint64_t n, struct err *err)
{
    struct named *q = find(s, name);
    if (!q)
        return true;
    const struct st_tensor *t = n == 1 && q->t->n_dims == 0 ? take(s, name, 0, 0, 0, err) : take(s, name, 1, n, 0, err);
    if (!t)
        return false;
    memcpy(out, t->data, n * sizeof(*out));
    for (uint64_t i = 0; i < n; i++)
        if (!(out[i] > 0))
            return err_set(err, ERR_FORMAT, "tensor \"%.80s\" (%s) holds %g, want positive numbers", t->name, name,
                           (double)out[i]);
    return true;
}

// ----------------------------------------------------------------------------------------------------- one tower

/* Where a tower's numbers are in the file, and its shape. */
struct plan {
    const struct st_tensor *emb[SCHEMA_FIELDS_MAX], *aug, *segment, *w[TOWER_LAYERS_MAX], *b[TOWER_LAYERS_MAX];
    struct tower_params p;
    uint32_t n_fields;
};

/* A dimension of the file as a width; one that is none is cut to a value that model_new refuses. */
static uint32_t as_width(uint64_t n)
{
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

static bool plan_tables(struct state *s, const char *side, const struct schema_side *of, struct plan *q,
                        struct err *err)
{
    char name[NAME_SIZE];
    for (uint32_t i = 0; i < of->n_fields; i++) {
        const struct schema_field *f = &of->field[i];
        if (f->n_slots == 0)
            continue;
        snprintf(name, sizeof(name), "%s.emb.%s", side, f->name);
        const struct st_tensor *t = take(s, name, 2, f->n_rows, q->p.k, err);
        if (!t)
            return err_prefix(err, "field %s", f->name);
        q->emb[q->n_fields++] = t;
        q->p.k = as_width(t->dim[1]); // the others must be as wide
    }
    return true;
}

/* Outputs of the last layer that the file has: d, known before layer 0's inputs can be checked. */
static uint64_t width_of_last(struct state *s, const char *side)
{
    char name[NAME_SIZE];
    uint64_t d = ANY;
    for (uint32_t l = 0; l < TOWER_LAYERS_MAX; l++) {
        snprintf(name, sizeof(name), "%s.fc.%u.weight", side, l);
        const struct named *q = find(s, name);
        if (!q)
            break;
        d = q->t->n_dims == 2 ? q->t->dim[0] : ANY;
    }
    return d;
}

static bool plan_layers(struct state *s, const char *side, struct plan *q, struct err *err)
{
    char name[NAME_SIZE];
    uint64_t in = (uint64_t)q->n_fields * q->p.k + q->p.d_aug;
    for (uint32_t l = 0; l < TOWER_LAYERS_MAX; l++) {
        snprintf(name, sizeof(name), "%s.fc.%u.weight", side, l);
        if (l > 0 && !find(s, name))
            break;
        if (!(q->w[l] = take(s, name, 2, ANY, in, err)))
            return l > 0 ? false
                         : err_prefix(err, "layer 0 takes %u embeddings of %u and %u augmented", q->n_fields, q->p.k,
                                      q->p.d_aug);
        snprintf(name, sizeof(name), "%s.fc.%u.bias", side, l);
        in = q->w[l]->dim[0];
        if (!(q->b[l] = take(s, name, 1, in, 0, err)))
            return false;
        q->p.width[q->p.n_layers++] = as_width(in);
    }
    return true;
}

static bool plan_augmented(struct state *s, const char *side, const struct schema_side *of, struct plan *q,
                           struct err *err)
{
    char name[NAME_SIZE];
    uint32_t d = q->p.d_aug;
    q->p.with_aug = true;
    snprintf(name, sizeof(name), "%s.aug", side);
    if (of->id_field >= 0 && !(q->aug = take(s, name, 2, of->field[of->id_field].n_rows, d, err)))
        return false;
    snprintf(name, sizeof(name), "%s.aug_segment", side);
    if (!find(s, name) && q->aug)
        return true; // from the dataset
    return (q->segment = take(s, name, 2, schema_n_segments(of), d, err)) != NULL;
}

static bool plan_side(struct state *s, const struct import_params *p, int i, struct plan *q, struct err *err)
{
    const struct schema *schema = p->data->schema;
    const struct schema_side *of = i ? &schema->item : &schema->user;
    uint64_t d = width_of_last(s, side_names[i]);
    bool dat = p->kind == MODEL_DAT;
    q->p = (struct tower_params){.relu_out = p->relu_out, .skip_aug = p->skip_aug};
    q->p.d_aug = dat ? as_width(d) : 0;
    return plan_tables(s, side_names[i], of, q, err) && plan_layers(s, side_names[i], q, err) &&
           (!dat || plan_augmented(s, side_names[i], of, q, err));
}

static void put(float *to, const struct st_tensor *t)
{
    if (t)
        memcpy(to, t->data, t->n_bytes);
}

static void fill(struct tower *t, const struct plan *q)
{
    for (uint32_t f = 0; f < q->n_fields; f++)
        put(t->emb + t->shape.field[f].first_row * t->shape.k, q->emb[f]);
    put(t->aug, q->aug);
    put(t->aug_segment, q->segment);
    for (uint32_t l = 0; l < q->p.n_layers; l++) {
        put(t->w[l], q->w[l]);
        put(t->b[l], q->b[l]);
    }
}

/* Means of `aug` over each segment's entities that training has seen, of all where a segment has none: step_derive_aug.
 */
static bool segment_means(const struct dataset *d, int i, struct tower *t, struct err *err)
{
    const struct schema_side *of = i ? &d->schema->item : &d->schema->user;
    const uint32_t *x = i ? d->item_x : d->user_x;
    size_t n = i ? d->n_items : d->n_users, w = t->shape.d_aug, n_seg = t->shape.n_segments;
    double *sum = mem_array((n_seg + 1) * (w + 1), sizeof(*sum), err); // of each segment and of all, their number last
    if (!sum)
        return false;
    for (size_t e = 0; e < n; e++, x += of->n_slots) {
        uint32_t row = x[of->field[of->id_field].slot], seg = schema_segment(of, x);
        if (!row || !(i ? d->item_count[e] : d->train.off[e + 1] - d->train.off[e]))
            continue;
        for (size_t c = 0; c <= w; c++) {
            double a = c < w ? t->aug[row * w + c] : 1;
            sum[seg * (w + 1) + c] += a;
            sum[n_seg * (w + 1) + c] += a;
        }
    }
    for (size_t q = 0; q < n_seg; q++) {
        const double *of_q = sum + (sum[q * (w + 1) + w] > 0 ? q : n_seg) * (w + 1);
        for (size_t c = 0; c < w; c++)
            t->aug_segment[q * w + c] = of_q[w] > 0 ? (float)(of_q[c] / of_q[w]) : 0;
    }
    free(sum);
    return true;
}

// ------------------------------------------------------------------------------------------------------- the model

static bool all_used(const struct state *s, const struct import_params *p, struct err *err)
{
    for (size_t i = 0; i < s->n; i++)
        if (!s->at[i].used)
            return err_set(err, ERR_FORMAT,
                           "tensor \"%.80s\" (%.80s) has no place in a %s of this dataset; --rename OLD=NEW if it is "
                           "named otherwise, else leave it out of the file",
                           s->at[i].t->name, s->at[i].name, model_kind_name(p->kind));
    return true;
}

static struct model *build(struct state *s, const struct import_params *p, struct plan plan[2], struct err *err)
{
    struct model *m = NULL;
    struct schema *schema = schema_copy(p->data->schema, err);
    if (!schema || !(m = model_new(p->kind, schema, &plan[0].p, &plan[1].p, err)))
        return NULL;
    fill(&m->user, &plan[0]);
    fill(&m->item, &plan[1]);
    m->history.alpha = (float)p->history_alpha;
    bool ok = copy_numbers(s, "logit_scale", &m->logit_scale, 1, err) &&
              copy_numbers(s, "history_weight", m->history.weight, HISTORY_STEPS, err) && all_used(s, p, err) &&
              (!plan[0].aug || plan[0].segment || segment_means(p->data, 0, &m->user, err)) &&
              (!plan[1].aug || plan[1].segment || segment_means(p->data, 1, &m->item, err));
    if (ok)
        return m;
    model_free(m);
    return NULL;
}

struct model *import_state(const struct import_params *p, struct err *err)
{
    struct state s = {.file = import_check_renames(p, err) ? safetensors_open(p->state, err) : NULL};
    struct plan *plan = s.file ? mem_array(2, sizeof(*plan), err) : NULL;
    struct model *m = NULL;
    s.n = plan ? safetensors_count(s.file) : 0;
    s.at = plan ? mem_array(s.n, sizeof(*s.at), err) : NULL;
    if (s.at && name_all(&s, p, err) && plan_side(&s, p, 0, &plan[0], err) && plan_side(&s, p, 1, &plan[1], err))
        m = build(&s, p, plan, err);
    if (!m)
        err_prefix(err, "importing %s", p->state);
    free(s.at);
    free(plan);
    safetensors_close(s.file);
    return m;
}

/* Absent is false. Python's own True is not ours: taken for false, it would make another model. */
static bool read_flag(const struct safetensors *f, const char *key, bool *out, struct err *err)
{
    const char *v = safetensors_meta(f, key);
    *out = v && strcmp(v, "true") == 0;
    return !v || *out || strcmp(v, "false") == 0 ||
           err_set(err, ERR_FORMAT, "metadata %s: found \"%.40s\", want true or false", key, v);
}

static bool read_alpha(const struct safetensors *f, double *out, struct err *err)
{
    const char *v = safetensors_meta(f, "history_alpha");
    char *end = NULL;
    *out = v ? strtod(v, &end) : 1;
    return !v || (end != v && !*end && *out >= 0 && *out <= 1) ||
           err_set(err, ERR_FORMAT, "metadata history_alpha: found \"%.40s\", want a number from 0 to 1", v);
}

bool import_defaults(const char *state, struct import_params *p, bool *has_kind, struct err *err)
{
    struct safetensors *f = safetensors_open(state, err);
    if (!f)
        return false;
    const char *kind = safetensors_meta(f, "kind");
    *has_kind = kind && model_kind_parse(kind, &p->kind);
    bool ok = read_flag(f, "relu_out", &p->relu_out, err) && read_flag(f, "skip_aug", &p->skip_aug, err) &&
              read_alpha(f, &p->history_alpha, err);
    safetensors_close(f);
    return ok || err_prefix(err, "%s", state);
}

/* What checkpoint.json says of a model that was trained elsewhere: its shape. The rest are the values of "plain". */
static bool imported_recipe(const struct import_params *p, const struct model *m, struct recipe *r, struct err *err)
{
    const struct tower_shape *s = &m->user.shape;
    recipe_named("plain", p->kind, recipe_data_of(p->data), r);
    snprintf(r->name, sizeof(r->name), "imported");
    r->k = s->k;
    r->n_layers = s->n_layers;
    memcpy(r->width, s->width, sizeof(r->width));
    r->relu_out = p->relu_out;
    r->skip = p->skip_aug;
    r->alpha = p->history_alpha;
    return recipe_check(r, err);
}

bool import_checkpoint(const struct import_params *p, const char *out_dir, struct err *err)
{
    struct checkpoint_info info = {.spec = {{50, 100}, 2}};
    if (resume_exists(out_dir))
        return err_set(err, ERR_STATE, "%s holds the state of a training run; import into another folder", out_dir);
    struct model *m = import_state(p, err);
    snprintf(info.dataset_hash, sizeof(info.dataset_hash), "%s", p->data->hash);
    bool ok = m && imported_recipe(p, m, &info.recipe, err) && fio_mkdirs(out_dir, err) &&
              checkpoint_save(out_dir, m, &info, err);
    model_free(m);
    return ok;
}
