/* duet inspect: what is in a dataset, a checkpoint or a bundle. One JSON object is made of each; people get it as
 * indented lines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bundle_path.h"
#include "cli/cmd.h"
#include "cli/opts.h"
#include "core/base/fio.h"
#include "core/manifest.h"
#include "core/model.h"
#include "train/dataset.h"

static const char usage[] = "duet inspect PATH [--json]";
static const char about[] =
    "PATH: a dataset file, a checkpoint's folder, a bundle's folder, or a model's folder for its newest bundle.\n";

#define JSON_MAX ((size_t)16 << 20)

// ---------------------------------------------------------------------------------------------------------- schema

static json_t *field_json(const struct schema_side *side, uint32_t i)
{
    static const char *const kinds[] = {"id", "categorical", "numeric", "multi", "display"};
    const struct schema_field *f = &side->field[i];
    json_t *o = json_pack("{s:s, s:s}", "name", f->name, "kind", kinds[f->kind]);
    if (f->n_rows)
        json_object_set_new(o, "rows", json_integer(f->n_rows));
    if (f->n_slots > 1)
        json_object_set_new(o, "slots", json_integer(f->n_slots));
    if (f->category)
        json_object_set_new(o, "category", json_true());
    if ((int)i == side->segment_field)
        json_object_set_new(o, "segment", json_true());
    return o;
}

static json_t *fields_json(const struct schema_side *side)
{
    json_t *a = json_array();
    for (uint32_t i = 0; i < side->n_fields; i++)
        json_array_append_new(a, field_json(side, i));
    return a;
}

static json_t *schema_summary(const struct schema *s)
{
    return json_pack("{s:o, s:o}", "user", fields_json(&s->user), "item", fields_json(&s->item));
}

// --------------------------------------------------------------------------------------------------------- dataset

static json_t *split_json(const struct interactions *x, uint32_t n_users)
{
    uint32_t users = 0;
    for (uint32_t u = 0; u < n_users; u++)
        users += x->off[u + 1] > x->off[u];
    return json_pack("{s:I, s:I}", "interactions", (json_int_t)x->off[n_users], "users", (json_int_t)users);
}

static json_t *dataset_json(const struct dataset *d, struct err *err)
{
    struct str info = dataset_info(d);
    json_t *how = json_parse(info.p, info.n, err), *attrs = json_array();
    for (uint32_t i = 0; i < d->n_attrs; i++)
        json_array_append_new(attrs, json_string(d->attr[i].name));
    if (!how) {
        json_decref(attrs);
        return NULL;
    }
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:b, s:{s:o, s:o, s:o, s:o}, s:o, s:o, s:o}", "is", "dataset", "hash",
                     d->hash, "users", (json_int_t)d->n_users, "items", (json_int_t)d->n_items, "categories",
                     (json_int_t)(d->category.n - 1), "has_time", d->train.time != NULL, "splits", "train",
                     split_json(&d->train, d->n_users), "valid", split_json(&d->valid, d->n_users), "test",
                     split_json(&d->test, d->n_users), "held", split_json(&d->held, d->n_users), "fields",
                     schema_summary(d->schema), "attributes", attrs, "made", how);
}

/* The id of the first user that a retrieval with exclude_seen says something about. */
static bool print_first_user(const struct dataset *d, struct err *err)
{
    for (uint32_t u = 0; u < d->n_users; u++)
        if (d->train.off[u + 1] > d->train.off[u]) {
            struct str id = strtab_get(&d->user_id, u);
            printf("%.*s\n", (int)id.n, id.p);
            return true;
        }
    return err_set(err, ERR_NOT_FOUND, "no user has training interactions");
}

// ------------------------------------------------------------------------------------------------------ checkpoint

static size_t n_parameters(const struct tower *t)
{
    const struct tower_shape *s = &t->shape;
    size_t n = s->n_rows * s->k + ((t->aug ? s->n_ids : 0) + (size_t)s->n_segments) * s->d_aug, in = t->z_dim;
    for (uint32_t l = 0; l < s->n_layers; in = s->width[l++])
        n += (in + 1) * s->width[l];
    return n;
}

static json_t *tower_json(const struct tower *t)
{
    json_t *widths = json_array();
    for (uint32_t l = 0; l < t->shape.n_layers; l++)
        json_array_append_new(widths, json_integer(t->shape.width[l]));
    return json_pack("{s:I, s:I, s:o, s:I, s:I}", "k", (json_int_t)t->shape.k, "d_aug", (json_int_t)t->shape.d_aug,
                     "widths", widths, "segments", (json_int_t)t->shape.n_segments, "parameters",
                     (json_int_t)n_parameters(t));
}

static json_t *vectors_json(const struct stored *s)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:b, s:b}", "d", (json_int_t)s->d, "interests", (json_int_t)s->n_interest,
                     "users", (json_int_t)s->n_users, "items", (json_int_t)s->n_items, "item_bias", s->item_bias,
                     "folds_in", s->gram != NULL);
}

static json_t *checkpoint_json(const char *dir, struct err *err)
{
    char schema[PATH_MAX], model[PATH_MAX], info[PATH_MAX];
    if (!fio_join(schema, dir, "schema.json", err) || !fio_join(model, dir, "model.safetensors", err) ||
        !fio_join(info, dir, "checkpoint.json", err))
        return NULL;
    struct schema *s = schema_load(schema, err);
    struct model *m = s ? model_load(model, s, true, err) : NULL;
    json_t *training = m && fio_exists(info) ? json_read_file(info, JSON_MAX, err) : json_null();
    json_t *o = NULL;
    if (m && training && m->stored)
        o = json_pack("{s:s, s:s, s:o, s:o, s:O}", "is", "checkpoint", "kind", model_kind_name(m->kind), "vectors",
                      vectors_json(m->stored), "fields", schema_summary(m->schema), "training", training);
    else if (m && training)
        o = json_pack("{s:s, s:s, s:b, s:f, s:o, s:o, s:o, s:O}", "is", "checkpoint", "kind", model_kind_name(m->kind),
                      "relu_out", m->user.shape.relu_out, "logit_scale", (double)m->logit_scale, "user_tower",
                      tower_json(&m->user), "item_tower", tower_json(&m->item), "fields", schema_summary(m->schema),
                      "training", training);
    json_decref(training);
    model_free(m);
    return o;
}

// ---------------------------------------------------------------------------------------------------------- bundle

/* The manifest without its hashes, and the features. */
static json_t *bundle_json(const char *dir, struct err *err)
{
    char manifest[PATH_MAX], schema[PATH_MAX];
    struct manifest checked = {0};
    if (!fio_join(manifest, dir, MANIFEST_NAME, err) || !fio_join(schema, dir, manifest_file_name[MF_SCHEMA], err))
        return NULL;
    bool ok = manifest_read(dir, &checked, err);
    json_int_t bytes = (json_int_t)checked.head.n_bytes;
    manifest_fini(&checked);
    struct schema *s = ok ? schema_load(schema, err) : NULL;
    json_t *o = s ? json_read_file(manifest, JSON_MAX, err) : NULL, *file;
    const char *name;
    json_object_foreach(json_object_get(o, "files"), name, file)
    {
        json_object_del(file, "chunks");
    }
    if (o) {
        json_object_del(o, "manifest_xxh3");
        json_object_set_new(o, "is", json_string("bundle"));
        json_object_set_new(o, "bytes", json_integer(bytes));
        json_object_set_new(o, "fields", schema_summary(s));
    }
    schema_free(s);
    return o;
}

// ---------------------------------------------------------------------------------------------------------- output

static bool is_flat(const json_t *v)
{
    const char *key;
    json_t *child;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)v, key, child)
    {
        if (json_is_object(child) || json_is_array(child))
            return false;
    }
    json_array_foreach(v, i, child)
    {
        if (json_is_object(child) || json_is_array(child))
            return false;
    }
    return true;
}

static void print_scalar(const json_t *v)
{
    if (json_is_string(v)) {
        printf("%s", json_string_value(v));
        return;
    }
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(7));
    printf("%s", text ? text : "?");
    free(text);
}

/* Objects and arrays without children of their own fit one line. */
static void print_flat(const json_t *v)
{
    const char *key, *between = "";
    json_t *child;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)v, key, child)
    {
        printf("%s%s ", between, key);
        print_scalar(child);
        between = ", ";
    }
    json_array_foreach(v, i, child)
    {
        printf("%s", between);
        print_scalar(child);
        between = ", ";
    }
}

static void print_member(const char *key, const json_t *v, int depth)
{
    const char *name;
    json_t *child;
    size_t i;
    printf("%*s%-*s ", depth * 2, "", 16, key);
    if (!json_is_object(v) && !json_is_array(v)) {
        print_scalar(v);
        printf("\n");
        return;
    }
    if (is_flat(v)) {
        print_flat(v);
        printf("\n");
        return;
    }
    printf("\n");
    json_object_foreach((json_t *)(uintptr_t)v, name, child) print_member(name, child, depth + 1);
    json_array_foreach(v, i, child) print_member("-", child, depth + 1);
}

static int print(json_t *o, bool json)
{
    int rc = 0;
    const char *key;
    json_t *v;
    if (json)
        rc = json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) == 0 && putchar('\n') != EOF ? 0 : 1;
    else
        json_object_foreach(o, key, v) print_member(key, v, 0);
    json_decref(o);
    return fflush(stdout) == 0 ? rc : 1;
}

// --------------------------------------------------------------------------------------------------------- command

static int inspect_file(const char *path, bool first_user, bool json, struct err *err)
{
    struct dataset *d = dataset_open(path, err);
    int rc = 1;
    if (d && first_user) {
        rc = print_first_user(d, err) ? 0 : 1;
    } else if (d) {
        json_t *o = dataset_json(d, err);
        rc = o ? print(o, json) : 1;
    }
    dataset_close(d);
    return rc;
}

static int inspect_folder(const char *path, bool json, struct err *err)
{
    char model[PATH_MAX], manifest[PATH_MAX], dir[PATH_MAX];
    if (!fio_join(model, path, "model.safetensors", err) || !fio_join(manifest, path, MANIFEST_NAME, err))
        return 1;
    json_t *o = NULL;
    if (fio_exists(model) && !fio_exists(manifest))
        o = checkpoint_json(path, err);
    else if (bundle_path(path, dir, err))
        o = bundle_json(dir, err);
    return o ? print(o, json) : 1;
}

int cmd_inspect(int argc, char **argv)
{
    struct err err = {0};
    struct opt_list paths = {0};
    bool json = false, first_user = false;
    const struct opt opts[] = {
        {"json", OPT_FLAG, &json, NULL, "print JSON", 0, 0},
        {"first-user", OPT_FLAG, &first_user, NULL,
         "of a dataset: only the id of the first user with training interactions", 0, 0},
        {0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, &paths);
    if (rc >= 0)
        return rc;
    bool folder = paths.n == 1 && fio_is_dir(paths.v[0]);
    if (paths.n != 1 || (first_user && folder)) {
        fprintf(stderr, "duet inspect: %s\nusage: %s\n",
                paths.n != 1 ? "want one path" : "--first-user is for a dataset file", usage);
        return 2;
    }
    rc = folder ? inspect_folder(paths.v[0], json, &err) : inspect_file(paths.v[0], first_user, json, &err);
    return rc ? cmd_fail("inspect", &err) : 0;
}
