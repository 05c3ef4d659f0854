#include "core/base/json.h"

#include <math.h>
#include <stdlib.h>

#include "core/base/fio.h"

json_t *json_parse(const char *text, size_t n, struct err *err)
{
    json_error_t e;
    json_t *v = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (!v)
        err_set(err, ERR_FORMAT, "JSON line %d column %d: %s", e.line, e.column, e.text);
    return v;
}

json_t *json_read_file(const char *path, size_t max_bytes, struct err *err)
{
    size_t n;
    char *text = fio_read_all(path, max_bytes, &n, err);
    if (!text)
        return NULL;
    json_t *v = json_parse(text, n, err);
    free(text);
    if (!v)
        err_prefix(err, "%s", path);
    return v;
}

static const char *type_name(const json_t *v)
{
    if (!v)
        return "nothing";
    static const char *const names[] = {"an object", "an array", "a string", "an integer",
                                        "a real",    "true",     "false",    "null"};
    return names[json_typeof(v)];
}

static json_t *need(const json_t *o, const char *key, json_type type, const char *want, struct err *err)
{
    json_t *v = json_object_get(o, key);
    if (v && json_typeof(v) == type)
        return v;
    err_set(err, ERR_FORMAT, "\"%s\": found %s, want %s", key, type_name(v), want);
    return NULL;
}

bool json_need_uint(const json_t *o, const char *key, uint64_t max, uint64_t *out, struct err *err)
{
    json_t *v = need(o, key, JSON_INTEGER, "a non-negative integer", err);
    if (!v)
        return false;
    json_int_t i = json_integer_value(v);
    if (i < 0 || (uint64_t)i > max)
        return err_set(err, ERR_FORMAT, "\"%s\": found %lld, want 0 to %llu", key, (long long)i, (unsigned long long)max);
    *out = (uint64_t)i;
    return true;
}

bool json_need_num(const json_t *o, const char *key, double *out, struct err *err)
{
    json_t *v = json_object_get(o, key);
    if (!json_is_number(v) || !isfinite(json_number_value(v)))
        return err_set(err, ERR_FORMAT, "\"%s\": found %s, want a finite number", key, type_name(v));
    *out = json_number_value(v);
    return true;
}

bool json_need_bool(const json_t *o, const char *key, bool *out, struct err *err)
{
    json_t *v = json_object_get(o, key);
    if (!json_is_boolean(v))
        return err_set(err, ERR_FORMAT, "\"%s\": found %s, want true or false", key, type_name(v));
    *out = json_is_true(v);
    return true;
}

const char *json_need_str(const json_t *o, const char *key, struct err *err)
{
    return json_string_value(need(o, key, JSON_STRING, "a string", err));
}

json_t *json_need_array(const json_t *o, const char *key, struct err *err)
{
    return need(o, key, JSON_ARRAY, "an array", err);
}

json_t *json_need_object(const json_t *o, const char *key, struct err *err)
{
    return need(o, key, JSON_OBJECT, "an object", err);
}

char *json_text(const json_t *v, struct err *err)
{
    char *s = json_dumps(v, JSON_INDENT(2) | JSON_REAL_PRECISION(9) | JSON_ENCODE_ANY);
    if (!s)
        err_set(err, ERR_NOMEM, "JSON: cannot be written (out of memory, or not UTF-8)");
    return s;
}
