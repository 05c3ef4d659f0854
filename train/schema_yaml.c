/* schema_yaml.c - the fields of a dataset named by a person: docs/data.md, "YAML schema".
 *
 *     user:
 *       user_id: id
 *       city: {kind: categorical, min_count: 5}
 *     item:
 *       price: {kind: numeric, bounds: [10, 50, 100]}
 *       category: {kind: categorical, category: true} */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/yaml.h"
#include "core/base/mem.h"
#include "train/features.h"

#define YAML_BYTES_MAX (1u << 20)

static const char *const kinds[] = {"id", "categorical", "numeric", "multi", "display"}; // enum field_kind
static const char *const keys[] = {"kind", "category", "segment", "sep", "min_count", "buckets", "bounds"};
enum { KEY_KIND, KEY_CATEGORY, KEY_SEGMENT, KEY_SEP, KEY_MIN_COUNT, KEY_BUCKETS, KEY_BOUNDS, N_KEYS };

struct source {
    const char *name; // of the file
    const struct raw_table *table;
    bool is_item;
};

/* "unknown key "x"; did you mean y?" at a node. Returns false. */
static bool unknown(const struct ynode *at, const struct source *s, const char *what, const char *const *known,
                    size_t n, struct err *err)
{
    const char *near = ynode_nearest(at->text, known, n);
    if (near)
        return ynode_error(at, s->name, err, "unknown %s \"%s\"; did you mean \"%s\"?", what, at->text, near);
    struct buf list = {0};
    for (size_t i = 0; i < n && i < 30; i++)
        buf_printf(&list, "%s%s", i ? ", " : "", known[i]);
    ynode_error(at, s->name, err, "unknown %s \"%s\"; want one of %s", what, at->text,
                list.data ? list.data : "(none)");
    buf_fini(&list);
    return false;
}

static size_t index_of(const char *text, const char *const *known, size_t n)
{
    size_t i = 0;
    while (i < n && strcmp(known[i], text) != 0)
        i++;
    return i;
}

// --------------------------------------------------------------------------------------------------- values of a field

static bool set_kind(struct field_spec *f, const struct ynode *v, const struct source *s, struct err *err)
{
    if (!ynode_str(v, s->name, err))
        return false;
    size_t kind = index_of(v->text, kinds, 5);
    if (kind == 5)
        return unknown(v, s, "kind", kinds, 5, err);
    f->kind = (enum field_kind)kind;
    return true;
}

static bool set_count(uint32_t *out, uint64_t max, const struct ynode *v, const struct source *s, struct err *err)
{
    uint64_t n;
    if (!ynode_uint(v, s->name, &n, err))
        return false;
    if (n == 0 || n > max)
        return ynode_error(v, s->name, err, "found %s, want 1 to %llu", v->text, (unsigned long long)max);
    *out = (uint32_t)n;
    return true;
}

static bool set_sep(struct field_spec *f, const struct ynode *v, const struct source *s, struct err *err)
{
    const char *text = ynode_str(v, s->name, err);
    if (!text)
        return false;
    if (strlen(text) != 1 || text[0] <= 0x20 || text[0] > 0x7e)
        return ynode_error(v, s->name, err, "sep is \"%s\", want one printable ASCII character", text);
    f->sep = text[0];
    return true;
}

static bool set_bounds(struct field_spec *f, const struct ynode *v, const struct source *s, struct err *err)
{
    if (v->kind != YNODE_SEQ || v->n == 0 || v->n > SCHEMA_BOUNDS_MAX)
        return ynode_error(v, s->name, err, "bounds: want a list of 1 to %d ascending numbers", SCHEMA_BOUNDS_MAX);
    if (!(f->bounds = mem_array(v->n, sizeof(*f->bounds), err)))
        return false;
    f->n_bounds = (uint32_t)v->n;
    for (size_t i = 0; i < v->n; i++) {
        if (!ynode_double(&v->child[i], s->name, &f->bounds[i], err))
            return false;
        if (i > 0 && f->bounds[i] <= f->bounds[i - 1])
            return ynode_error(&v->child[i], s->name, err,
                               "bound %s is not above the one before, want ascending numbers", v->child[i].text);
    }
    return true;
}

static bool set_key(struct field_spec *f, size_t key, const struct ynode *v, const struct source *s, struct err *err)
{
    switch (key) {
    case KEY_KIND:
        return set_kind(f, v, s, err);
    case KEY_CATEGORY:
        return ynode_bool(v, s->name, &f->category, err);
    case KEY_SEGMENT:
        return ynode_bool(v, s->name, &f->segment, err);
    case KEY_SEP:
        return set_sep(f, v, s, err);
    case KEY_MIN_COUNT:
        return set_count(&f->min_count, UINT32_MAX, v, s, err);
    case KEY_BUCKETS:
        return set_count(&f->buckets, SCHEMA_BOUNDS_MAX, v, s, err);
    default:
        return set_bounds(f, v, s, err);
    }
}

/* Which keys a kind understands: a key without effect is a mistake of the writer. */
static bool key_fits(size_t key, enum field_kind kind)
{
    switch (key) {
    case KEY_CATEGORY:
    case KEY_SEGMENT:
        return kind == FIELD_CATEGORICAL;
    case KEY_SEP:
        return kind == FIELD_MULTI;
    case KEY_MIN_COUNT:
        return kind == FIELD_ID || kind == FIELD_CATEGORICAL || kind == FIELD_MULTI;
    case KEY_BUCKETS:
    case KEY_BOUNDS:
        return kind == FIELD_NUMERIC;
    default:
        return true;
    }
}

// -------------------------------------------------------------------------------------------------------------- fields

static bool read_keys(struct field_spec *f, const struct ynode *v, const struct source *s, struct err *err)
{
    const struct ynode *kind = ynode_get(v, "kind");
    if (!kind)
        return ynode_error(v, s->name, err, "field \"%s\" has no kind; want id, categorical, numeric, multi or display",
                           f->name);
    if (!set_kind(f, kind, s, err))
        return false;
    for (size_t i = 0; i < v->n; i++) {
        size_t key = index_of(v->key[i].text, keys, N_KEYS);
        if (key == N_KEYS)
            return unknown(&v->key[i], s, "key", keys, N_KEYS, err);
        if (!key_fits(key, f->kind))
            return ynode_error(&v->key[i], s->name, err, "%s has no meaning for a field of kind %s", keys[key],
                               kinds[f->kind]);
        if (!set_key(f, key, &v->child[i], s, err))
            return false;
    }
    return true;
}

static bool check_column(const struct field_spec *f, const struct ynode *key, const struct source *s, struct err *err)
{
    const char *id = s->is_item ? "item_id" : "user_id", *known[RAW_COLUMNS_MAX + 1];
    size_t n = 0;
    if (f->kind == FIELD_ID)
        return strcmp(f->name, id) == 0 ||
               ynode_error(key, s->name, err, "the field of kind id is \"%s\", want \"%s\"", f->name, id);
    if (raw_find_column(s->table, f->name) >= 0)
        return true;
    for (uint32_t i = 0; i < s->table->n_cols; i++)
        known[n++] = s->table->col[i].name;
    return unknown(key, s, s->is_item ? "item column" : "user column", known, n, err);
}

static bool read_field(struct side_spec *side, const struct ynode *key, const struct ynode *v, const struct source *s,
                       struct err *err)
{
    if (key->text[0] == '\0' || strlen(key->text) > SCHEMA_NAME_MAX)
        return ynode_error(key, s->name, err, "a field's name of %zu bytes, want 1 to %d", strlen(key->text),
                           SCHEMA_NAME_MAX);
    struct field_spec *f = features_spec_add(side, key->text, FIELD_DISPLAY, err);
    if (!f)
        return false;
    bool ok = v->kind == YNODE_MAP ? read_keys(f, v, s, err) : set_kind(f, v, s, err);
    if (ok && f->category && !s->is_item)
        ok = ynode_error(v, s->name, err, "\"%s\": only items have a category", f->name);
    if (ok && f->kind == FIELD_MULTI && f->sep == '\0')
        f->sep = '|';
    return ok && check_column(f, key, s, err);
}

/* One category and one segment at most; items without a segment take the category. */
static bool check_marks(struct side_spec *side, const struct ynode *v, const struct source *s, struct err *err)
{
    struct field_spec *category = NULL, *segment = NULL;
    for (uint32_t i = 0; i < side->n; i++) {
        struct field_spec *f = &side->field[i];
        if (f->category && category)
            return ynode_error(v, s->name, err, "\"%s\" and \"%s\" are both the category, want one", category->name,
                               f->name);
        if (f->segment && segment)
            return ynode_error(v, s->name, err, "\"%s\" and \"%s\" are both the segment, want one", segment->name,
                               f->name);
        category = f->category ? f : category;
        segment = f->segment ? f : segment;
    }
    if (category && !segment)
        category->segment = true;
    return true;
}

static bool read_side(struct side_spec *side, const struct ynode *v, const struct source *s, struct err *err)
{
    if (v->kind != YNODE_MAP)
        return ynode_error(v, s->name, err, "want a mapping from columns to kinds");
    if (v->n > SCHEMA_FIELDS_MAX)
        return ynode_error(v, s->name, err, "%zu fields, at most %d allowed", v->n, SCHEMA_FIELDS_MAX);
    for (size_t i = 0; i < v->n; i++)
        if (!read_field(side, &v->key[i], &v->child[i], s, err))
            return false;
    return check_marks(side, v, s, err);
}

static bool read_root(struct features_spec *spec, const struct ynode *root, const struct source *user,
                      const struct source *item, struct err *err)
{
    static const char *const sides[] = {"user", "item"};
    if (root->kind != YNODE_MAP)
        return ynode_error(root, user->name, err, "want a mapping with the keys user and item");
    for (size_t i = 0; i < root->n; i++) {
        size_t side = index_of(root->key[i].text, sides, 2);
        if (side == 2)
            return unknown(&root->key[i], user, "key", sides, 2, err);
        if (!read_side(side ? &spec->item : &spec->user, &root->child[i], side ? item : user, err))
            return false;
    }
    if (spec->user.n == 0 || spec->item.n == 0)
        return ynode_error(root, user->name, err,
                           "no fields of the %s; want both user and item, each with one field or more",
                           spec->user.n == 0 ? "user" : "item");
    return true;
}

struct features_spec *schema_yaml_load(const char *path, const struct raw_table *users, const struct raw_table *items,
                                       struct err *err)
{
    struct source user = {path, users, false}, item = {path, items, true};
    struct ynode *root = ynode_read_file(path, YAML_BYTES_MAX, err);
    if (!root)
        return NULL;
    struct features_spec *spec = mem_array(1, sizeof(*spec), err);
    bool ok = spec && read_root(spec, root, &user, &item, err);
    ynode_free(root);
    if (ok)
        return spec;
    features_spec_free(spec);
    return NULL;
}
