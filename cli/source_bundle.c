/* source_bundle.c - answers of a bundle that is read here, by the code that serves requests. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bundle_path.h"
#include "cli/source_priv.h"
#include "core/base/mem.h"
#include "core/retrieve.h"

#define FEATURES_MAX 64
#define TEXT_MAX 65536 // joined values of multi-valued features

struct local {
    struct bundle *b;
    struct retrieve_ws *ws;
    struct retrieve_query q;
    struct retrieve_feature feature[FEATURES_MAX];
    uint32_t *history, *category, *exclude; // of the current request, for free()
    float *vector;                          // the same
    char id[32], text[TEXT_MAX];
    size_t text_n;
};

struct local *local_open(const char *path, struct err *err)
{
    char dir[PATH_MAX];
    struct local *l = mem_array(1, sizeof(*l), err);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    const struct bundle_load_params p = {.layout = HNSW_COMPACT, .threads = cores > 0 ? (unsigned)cores : 1}; // as a daemon
    if (l && bundle_path(path, dir, err) && (l->b = bundle_load(dir, &p, err)) &&
        (l->ws = retrieve_ws_new(l->b, err)))
        return l;
    local_free(l);
    return NULL;
}

static void forget(struct local *l)
{
    free(l->history);
    free(l->category);
    free(l->exclude);
    free(l->vector);
    l->history = l->category = l->exclude = NULL;
    l->vector = NULL;
    l->text_n = 0;
    l->q = (struct retrieve_query){.k = 100, .feature = l->feature};
}

void local_free(struct local *l)
{
    if (!l)
        return;
    forget(l);
    retrieve_ws_free(l->ws);
    bundle_free(l->b);
    free(l);
}

const struct bundle *local_bundle(const struct local *l)
{
    return l->b;
}

bool local_fields(struct local *l, json_t *fields)
{
    const struct items *it = l->b->items;
    for (uint32_t i = 0; i < it->n_attrs; i++)
        if (strcmp(it->attr[i].name, "category") != 0)
            json_array_append_new(fields, json_string(it->attr[i].name));
    return json_array_append_new(fields, json_string("category")) == 0;
}

// ------------------------------------------------------------------------------------------------ reading a request

static bool add_text(struct local *l, const char *p, size_t n, struct err *err)
{
    if (n > TEXT_MAX - l->text_n)
        return err_set(err, ERR_LIMIT, "features: more than %d bytes of values", TEXT_MAX);
    memcpy(l->text + l->text_n, p, n);
    l->text_n += n;
    return true;
}

/* A value as text; several are joined by the field's separator. */
static bool add_value(struct local *l, const char *name, const json_t *v, struct err *err)
{
    char number[40];
    if (json_is_string(v))
        return add_text(l, json_string_value(v), json_string_length(v), err);
    if (json_is_boolean(v))
        return add_text(l, json_is_true(v) ? "true" : "false", json_is_true(v) ? 4 : 5, err);
    if (json_is_integer(v))
        snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        snprintf(number, sizeof(number), "%.17g", json_real_value(v));
    else
        return err_set(err, ERR_ARG, "features: \"%s\": want a string, a number, a boolean or an array of strings",
                       name);
    return add_text(l, number, strlen(number), err);
}

static bool read_feature(struct local *l, const char *name, const json_t *v, struct err *err)
{
    const struct schema_field *f = schema_find(&l->b->model->schema->user, name, strlen(name));
    size_t from = l->text_n, i;
    const json_t *one;
    if (l->q.n_features == FEATURES_MAX)
        return err_set(err, ERR_LIMIT, "features: more than %d of them", FEATURES_MAX);
    if (json_is_array(v)) {
        json_array_foreach(v, i, one) if ((i > 0 && !add_text(l, f ? &f->sep : ",", 1, err)) ||
                                          !add_value(l, name, one, err)) return false;
    } else if (!add_value(l, name, v, err)) {
        return false;
    }
    l->feature[l->q.n_features++] = (struct retrieve_feature){{name, strlen(name)}, {l->text + from, l->text_n - from}};
    return true;
}

static bool read_user(struct local *l, const json_t *request, struct err *err)
{
    const json_t *id = json_object_get(request, "user_id");
    json_t *features = json_object_get(request, "features"), *v;
    const char *name;
    if (json_is_integer(id)) {
        snprintf(l->id, sizeof(l->id), "%lld", (long long)json_integer_value(id));
        l->q.user_id = (struct str){l->id, strlen(l->id)};
    } else if (json_is_string(id)) {
        l->q.user_id = (struct str){json_string_value(id), json_string_length(id)};
    } else if (id) {
        return err_set(err, ERR_ARG, "user_id: want a string or an integer");
    }
    json_object_foreach(features, name, v) if (!read_feature(l, name, v, err)) return false;
    return true;
}

/* Rows of the names that there are; the others are left out. */
static bool read_rows(const struct strtab_index *x, const json_t *list, uint32_t **rows, const uint32_t **out,
                      size_t *n, struct err *err)
{
    size_t i;
    const json_t *v;
    char number[32];
    if (!list)
        return true;
    if (!json_is_array(list))
        return err_set(err, ERR_ARG, "history, exclude_ids, in: want arrays of ids");
    if (!(*rows = mem_array(json_array_size(list), sizeof(**rows), err)))
        return false;
    *out = *rows;
    json_array_foreach(list, i, v)
    {
        const char *p = json_string_value(v);
        if (json_is_integer(v)) {
            snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(v));
            p = number;
        }
        uint32_t row = p ? strtab_find(x, p, json_is_string(v) ? json_string_length(v) : strlen(p)) : STRTAB_NONE;
        if (row != STRTAB_NONE)
            (*rows)[(*n)++] = row;
    }
    return true;
}

/* The query vector of a search. */
static bool read_vector(struct local *l, const json_t *v, struct err *err)
{
    size_t d = l->b->manifest.d, i;
    const json_t *x;
    if (!v)
        return true;
    if (json_array_size(v) != d)
        return err_set(err, ERR_ARG, "vector: found %zu components, want %zu", json_array_size(v), d);
    if (!(l->vector = mem_array(d, sizeof(*l->vector), err)))
        return false;
    json_array_foreach(v, i, x)
    {
        if (!json_is_number(x))
            return err_set(err, ERR_ARG, "vector: component %zu is no number", i);
        l->vector[i] = (float)json_number_value(x);
    }
    l->q.vector = l->vector;
    return true;
}

static bool read_count(const json_t *request, const char *key, size_t *out, struct err *err)
{
    const json_t *v = json_object_get(request, key);
    if (v && (!json_is_integer(v) || json_integer_value(v) < 0))
        return err_set(err, ERR_ARG, "%s: want a whole number", key);
    if (v)
        *out = (size_t)json_integer_value(v);
    return true;
}

static bool filter_known(const json_t *filter)
{
    const char *field = json_string_value(json_object_get(filter, "field"));
    return field && strcmp(field, "category") == 0 && json_is_array(json_object_get(filter, "in")) &&
           json_object_size(filter) == 2;
}

static bool read_request(struct local *l, const json_t *request, struct err *err)
{
    struct retrieve_query *q = &l->q;
    const json_t *filter = json_object_get(request, "filter"), *min_score = json_object_get(request, "min_score");
    const struct items *it = l->b->items;
    forget(l);
    if (filter && !filter_known(filter))
        return err_set(
            err, ERR_ARG,
            "filter: a bundle is filtered here by {\"field\": \"category\", \"in\": [..]} alone; ask a daemon");
    q->exact = json_is_true(json_object_get(request, "exact"));
    q->exclude_seen = json_is_true(json_object_get(request, "exclude_seen"));
    q->has_min_score = json_is_number(min_score);
    q->min_score = (float)json_number_value(min_score);
    q->target_recall = json_number_value(json_object_get(request, "target_recall"));
    return read_user(l, request, err) && read_vector(l, json_object_get(request, "vector"), err) && read_count(request, "k", &q->k, err) &&
           read_count(request, "ef", &q->ef, err) &&
           read_rows(&it->by_id, json_object_get(request, "history"), &l->history, &q->history, &q->n_history, err) &&
           read_rows(&it->by_id, json_object_get(request, "exclude_ids"), &l->exclude, &q->exclude, &q->n_exclude,
                     err) &&
           read_rows(&it->category_index, json_object_get(filter, "in"), &l->category, &q->category, &q->n_category,
                     err);
}

// --------------------------------------------------------------------------------------------------------- answers

static json_t *text_json(struct str s)
{
    return json_stringn(s.p, s.n);
}

static json_t *head_of(const struct local *l, const struct retrieve_result *r)
{
    const char *fallback = retrieve_fallback_name(r->fallback);
    json_t *o =
        json_pack("{s:s, s:I, s:o}", "model", l->b->manifest.model, "version", (json_int_t)l->b->manifest.version,
                  "fallback", fallback ? json_string(fallback) : json_null());
    json_t *unknown = json_array();
    for (size_t i = 0; i < r->n_unknown; i++)
        json_array_append_new(unknown, text_json(l->feature[r->unknown_feature[i]].name));
    json_object_set_new(o, "unknown_features", unknown);
    return o;
}

static json_t *attribute(const struct items *it, const char *name, uint32_t idx)
{
    int column = items_attr(it, name, strlen(name));
    struct str s = {"", 0};
    if (column >= 0)
        s = strtab_get(&it->attr[column].values, idx);
    else if (strcmp(name, "category") == 0)
        s = strtab_get(&it->category, it->category_of[idx]);
    return s.n ? text_json(s) : json_null();
}

static json_t *item_of(const struct items *it, struct retrieve_hit hit, const json_t *fields)
{
    char score[32];
    size_t i;
    const json_t *f;
    snprintf(score, sizeof(score), "%.7g", (double)hit.score);
    json_t *o =
        json_pack("{s:o, s:f}", "id", text_json(strtab_get(&it->ids, hit.item_idx)), "score", strtod(score, NULL));
    if (json_array_size(fields) == 0)
        return o;
    json_t *attributes = json_object();
    json_array_foreach(fields, i, f) if (json_is_string(f))
        json_object_set_new(attributes, json_string_value(f), attribute(it, json_string_value(f), hit.item_idx));
    json_object_set_new(o, "attributes", attributes);
    return o;
}

json_t *local_ask(struct local *l, const json_t *request, double *us, struct err *err)
{
    struct retrieve_result r = {0};
    struct retrieve_hit *hit = read_request(l, request, err) ? mem_array(l->q.k, sizeof(*hit), err) : NULL;
    json_t *o = NULL;
    bool nothing = json_object_get(request, "filter") && l->q.n_category == 0; // only categories that there are not
    if (hit && (nothing || retrieve_topk(l->b, &l->q, l->ws, hit, &r, err))) {
        json_t *items = json_array();
        o = head_of(l, &r);
        json_object_set_new(o, "k", json_integer((json_int_t)l->q.k));
        json_object_set_new(o, "ef", json_integer((json_int_t)r.ef_used));
        json_object_set_new(o, "exact", json_boolean(r.exact_used));
        json_object_set_new(o, "returned", json_integer((json_int_t)r.n));
        for (size_t i = 0; i < r.n; i++)
            json_array_append_new(items, item_of(l->b->items, hit[i], json_object_get(request, "fields")));
        json_object_set_new(o, "items", items);
        *us = (double)(r.embed_ns + r.search_ns) / 1000;
    }
    free(hit);
    return o;
}

static json_t *floats_json(const float *v, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, json_real((double)v[i]));
    return a;
}

/* One vector as a list; of models with several, a list of lists. */
static json_t *vectors_json(const struct bundle *b, const float *p, size_t n)
{
    if (b->manifest.n_interest == 1)
        return floats_json(p, b->manifest.d);
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, floats_json(p + i * b->manifest.d, b->manifest.d));
    return a;
}

json_t *local_embed(struct local *l, const json_t *request, struct err *err)
{
    struct retrieve_result r;
    uint32_t d_aug = l->b->model->user.shape.d_aug;
    float *p = mem_array(retrieve_width(l->b), sizeof(*p), err);
    float *a = mem_array(d_aug, sizeof(*a), err);
    json_t *o = NULL;
    if (p && a && read_request(l, request, err) && retrieve_embed(l->b, &l->q, l->ws, p, a, &r, err)) {
        bool none = r.fallback == FALLBACK_POPULAR;
        o = head_of(l, &r);
        json_object_set_new(o, "p_u", none ? json_null() : vectors_json(l->b, p, r.n_vectors));
        json_object_set_new(o, "a_u", none || !d_aug ? json_null() : floats_json(a, d_aug));
    }
    free(p);
    free(a);
    return o;
}
