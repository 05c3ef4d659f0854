/* The JSON form of a schema: docs/formats.md, schema.json. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "core/schema.h"

#define FILE_MAX ((size_t)256 << 20)
#define FORMAT_NAME "duet-schema"
#define FORMAT_VERSION 1

// -------------------------------------------------------------------------------------------------------- reading

/* Refuses members that are not in `known` (NULL-terminated): a misspelt one would silently not count. */
static bool check_members(const json_t *o, const char *const *known, struct err *err)
{
    const char *key;
    json_t *v;
    if (!json_is_object(o))
        return err_set(err, ERR_FORMAT, "want an object");
    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        size_t i = 0;
        while (known[i] && strcmp(known[i], key) != 0)
            i++;
        if (!known[i])
            return err_set(err, ERR_FORMAT, "unknown member \"%.60s\"", key);
    }
    return true;
}

static bool read_values(const json_t *o, struct schema_field *f, struct err *err)
{
    json_t *values = json_need_array(o, "values", err), *v;
    size_t i;
    if (!values)
        return false;
    json_array_foreach(values, i, v)
    {
        if (!json_is_string(v))
            return err_set(err, ERR_FORMAT, "\"values\": entry %zu is not a string", i);
        if (!strtab_add(&f->vocab, json_string_value(v), json_string_length(v), NULL, err))
            return false;
    }
    return true;
}

static bool read_bounds(const json_t *o, struct schema_field *f, struct err *err)
{
    json_t *bounds = json_need_array(o, "bounds", err), *v;
    size_t i;
    if (!bounds)
        return false;
    if (json_array_size(bounds) > SCHEMA_BOUNDS_MAX)
        return err_set(err, ERR_LIMIT, "\"bounds\": %zu entries, at most %d allowed", json_array_size(bounds),
                       SCHEMA_BOUNDS_MAX);
    f->n_bounds = (uint32_t)json_array_size(bounds);
    if (!(f->bounds = mem_array(f->n_bounds, sizeof(*f->bounds), err)))
        return false;
    json_array_foreach(bounds, i, v)
    {
        if (!json_is_number(v))
            return err_set(err, ERR_FORMAT, "\"bounds\": entry %zu is not a number", i);
        f->bounds[i] = json_number_value(v);
    }
    return true;
}

static bool read_multi(const json_t *o, struct schema_field *f, struct err *err)
{
    uint64_t slots;
    const char *sep = json_need_str(o, "sep", err);
    if (!sep || !json_need_uint(o, "slots", SCHEMA_MULTI_MAX, &slots, err))
        return false;
    if (strlen(sep) != 1)
        return err_set(err, ERR_FORMAT, "\"sep\": \"%.60s\", want one character", sep);
    if (slots == 0)
        return err_set(err, ERR_FORMAT, "\"slots\": 0, want 1 to %d", SCHEMA_MULTI_MAX);
    f->sep = sep[0];
    f->n_slots = (uint32_t)slots;
    return read_values(o, f, err);
}

static bool read_kind(const json_t *o, struct schema_field *f, struct err *err)
{
    static const char *const members[][6] = {
        [FIELD_ID] = {"name", "kind", "rows"},        [FIELD_CATEGORICAL] = {"name", "kind", "values", "category"},
        [FIELD_NUMERIC] = {"name", "kind", "bounds"}, [FIELD_MULTI] = {"name", "kind", "sep", "slots", "values"},
        [FIELD_DISPLAY] = {"name", "kind"},
    };
    uint64_t rows;
    if (!check_members(o, members[f->kind], err))
        return false;
    switch (f->kind) {
    case FIELD_ID:
        if (!json_need_uint(o, "rows", SCHEMA_ROWS_MAX, &rows, err))
            return false;
        f->n_rows = (uint32_t)rows;
        return true;
    case FIELD_CATEGORICAL:
        return (!json_object_get(o, "category") || json_need_bool(o, "category", &f->category, err)) &&
               read_values(o, f, err);
    case FIELD_NUMERIC:
        return read_bounds(o, f, err);
    case FIELD_MULTI:
        return read_multi(o, f, err);
    case FIELD_DISPLAY:
        break;
    }
    return true;
}

static bool read_field(const json_t *o, struct schema_field *f, struct err *err)
{
    const char *name = json_need_str(o, "name", err), *kind = json_need_str(o, "kind", err);
    if (!name || !kind)
        return false;
    if (strlen(name) > SCHEMA_NAME_MAX)
        return err_set(err, ERR_FORMAT, "\"name\" has %zu bytes, want 1 to %d", strlen(name), SCHEMA_NAME_MAX);
    memcpy(f->name, name, strlen(name) + 1);
    if (!schema_kind_parse(kind, &f->kind))
        return err_set(err, ERR_FORMAT, "\"kind\": \"%.60s\", want id, categorical, numeric, multi or display", kind);
    return read_kind(o, f, err);
}

static bool read_segment(const json_t *o, struct schema_side *side, struct err *err)
{
    json_t *v = json_object_get(o, "segment");
    side->segment_field = -1;
    if (json_is_null(v))
        return true;
    if (!json_is_string(v))
        return err_set(err, ERR_FORMAT, "\"segment\": want a field's name or null");
    const struct schema_field *f = schema_find(side, json_string_value(v), json_string_length(v));
    if (!f)
        return err_set(err, ERR_FORMAT, "\"segment\": there is no field \"%.60s\"", json_string_value(v));
    side->segment_field = (int)(f - side->field);
    return true;
}

static bool read_side(const json_t *schema, const char *key, struct schema_side *side, struct err *err)
{
    static const char *const members[] = {"fields", "segment", NULL};
    json_t *o = json_need_object(schema, key, err), *v;
    if (!o)
        return false;
    json_t *fields = check_members(o, members, err) ? json_need_array(o, "fields", err) : NULL;
    if (!fields)
        return err_prefix(err, "%s", key);
    if (json_array_size(fields) > SCHEMA_FIELDS_MAX)
        return err_set(err, ERR_LIMIT, "%s: %zu fields, at most %d allowed", key, json_array_size(fields),
                       SCHEMA_FIELDS_MAX);
    side->n_fields = (uint32_t)json_array_size(fields);
    if (!(side->field = mem_array(side->n_fields, sizeof(*side->field), err)))
        return false;
    size_t i;
    json_array_foreach(fields, i, v) if (!read_field(v, &side->field[i], err)) return err_prefix(
        err, "%s field %zu (\"%s\")", key, i, side->field[i].name);
    return read_segment(o, side, err) || err_prefix(err, "%s", key);
}

static bool read_schema(const json_t *v, struct schema *s, struct err *err)
{
    static const char *const members[] = {"format", "format_version", "user", "item", NULL};
    uint64_t version;
    if (!check_members(v, members, err))
        return false;
    const char *format = json_need_str(v, "format", err);
    if (!format || !json_need_uint(v, "format_version", INT32_MAX, &version, err))
        return false;
    if (strcmp(format, FORMAT_NAME) != 0)
        return err_set(err, ERR_FORMAT, "\"format\": \"%.60s\", want \"" FORMAT_NAME "\"", format);
    if (version != FORMAT_VERSION)
        return err_set(err, ERR_FORMAT, "\"format_version\": %llu, this program reads %d", (unsigned long long)version,
                       FORMAT_VERSION);
    return read_side(v, "user", &s->user, err) && read_side(v, "item", &s->item, err);
}

struct schema *schema_from_json(const json_t *v, struct err *err)
{
    struct schema *s = mem_array(1, sizeof(*s), err);
    if (!s)
        return NULL;
    bool read = read_schema(v, s, err);
    if (read && schema_seal(s, err))
        return s;
    if (!read)
        err_prefix(err, "schema");
    schema_free(s);
    return NULL;
}

struct schema *schema_load(const char *path, struct err *err)
{
    json_t *v = json_read_file(path, FILE_MAX, err);
    if (!v)
        return NULL;
    struct schema *s = schema_from_json(v, err);
    json_decref(v);
    if (!s)
        err_prefix(err, "%s", path);
    return s;
}

struct schema *schema_copy(const struct schema *s, struct err *err)
{
    json_t *v = schema_to_json(s, err);
    struct schema *copy = v ? schema_from_json(v, err) : NULL;
    json_decref(v);
    return copy;
}

// -------------------------------------------------------------------------------------------------------- writing

/* jansson's *_set_new and *_append_new accept a NULL value by failing, so a row of them needs one check. */

static json_t *values_json(const struct strtab_builder *vocab)
{
    json_t *a = json_array();
    struct strtab t = strtab_view(vocab);
    for (uint32_t r = 0; r < t.n; r++) {
        struct str v = strtab_get(&t, r);
        if (json_array_append_new(a, json_stringn(v.p, v.n)) != 0) {
            json_decref(a);
            return NULL;
        }
    }
    return a;
}

static json_t *bounds_json(const struct schema_field *f)
{
    json_t *a = json_array();
    for (uint32_t i = 0; i < f->n_bounds; i++)
        if (json_array_append_new(a, json_real(f->bounds[i])) != 0) {
            json_decref(a);
            return NULL;
        }
    return a;
}

static json_t *field_json(const struct schema_field *f)
{
    json_t *o = json_object();
    int bad = json_object_set_new(o, "name", json_string(f->name));
    bad |= json_object_set_new(o, "kind", json_string(schema_kind_name(f->kind)));
    if (f->kind == FIELD_ID)
        bad |= json_object_set_new(o, "rows", json_integer(f->n_rows));
    if (f->category)
        bad |= json_object_set_new(o, "category", json_true());
    if (f->kind == FIELD_MULTI) {
        bad |= json_object_set_new(o, "sep", json_stringn(&f->sep, 1));
        bad |= json_object_set_new(o, "slots", json_integer(f->n_slots));
    }
    if (f->kind == FIELD_NUMERIC)
        bad |= json_object_set_new(o, "bounds", bounds_json(f));
    if (f->kind == FIELD_CATEGORICAL || f->kind == FIELD_MULTI)
        bad |= json_object_set_new(o, "values", values_json(&f->vocab));
    if (!bad)
        return o;
    json_decref(o);
    return NULL;
}

static json_t *side_json(const struct schema_side *side)
{
    json_t *o = json_object(), *fields = json_array();
    int bad = 0;
    for (uint32_t i = 0; i < side->n_fields; i++)
        bad |= json_array_append_new(fields, field_json(&side->field[i]));
    bad |= json_object_set_new(
        o, "segment", side->segment_field < 0 ? json_null() : json_string(side->field[side->segment_field].name));
    bad |= json_object_set_new(o, "fields", fields);
    if (!bad)
        return o;
    json_decref(o);
    return NULL;
}

json_t *schema_to_json(const struct schema *s, struct err *err)
{
    json_t *o = json_object();
    int bad = json_object_set_new(o, "format", json_string(FORMAT_NAME));
    bad |= json_object_set_new(o, "format_version", json_integer(FORMAT_VERSION));
    bad |= json_object_set_new(o, "user", side_json(&s->user));
    bad |= json_object_set_new(o, "item", side_json(&s->item));
    if (!bad)
        return o;
    json_decref(o);
    err_set(err, ERR_NOMEM, "schema: cannot be written as JSON (out of memory, or text that is not UTF-8)");
    return NULL;
}

bool schema_save(const struct schema *s, const char *path, struct err *err)
{
    json_t *v = schema_to_json(s, err);
    char *text = v ? json_text(v, err) : NULL;
    json_decref(v);
    bool ok = text && fio_write_atomic(path, text, strlen(text), err);
    free(text);
    return ok;
}
