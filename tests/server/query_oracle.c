#include "tests/server/query_oracle.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/filter.h"
#include "index/hnsw.h"

struct walk {
    const struct query_limits *lim;
    struct verdict v;
    char at[512]; // the place that is being looked at
    size_t n_at;
    unsigned depth;
    size_t n_nodes;
};

static bool refuse(struct walk *w, unsigned status, const char *code)
{
    w->v.status = status;
    w->v.code = code;
    memcpy(w->v.pointer, w->at, w->n_at);
    w->v.pointer[w->n_at] = '\0';
    return false;
}

// ------------------------------------------------------------------------------------------------------- places

static size_t down(struct walk *w, const char *key, size_t n)
{
    size_t before = w->n_at;
    w->at[w->n_at++] = '/';
    for (size_t i = 0; i < n && w->n_at + 4 < sizeof(w->at); i++)
        switch (key[i]) {
        case '~':
            memcpy(w->at + w->n_at, "~0", 2);
            w->n_at += 2;
            break;
        case '/':
            memcpy(w->at + w->n_at, "~1", 2);
            w->n_at += 2;
            break;
        default:
            w->at[w->n_at++] = key[i];
        }
    return before;
}

static size_t down_index(struct walk *w, size_t i)
{
    char text[24];
    return down(w, text, (size_t)snprintf(text, sizeof(text), "%zu", i));
}

/* Into a container of this type. */
static bool enter(struct walk *w, const json_t *v, json_type type)
{
    if (json_typeof(v) != type)
        return refuse(w, 400, "wrong_type");
    return ++w->depth <= w->lim->depth || refuse(w, 400, "too_deep");
}

// ------------------------------------------------------------------------------------------------------- values

static size_t id_text(const json_t *v, char *out, size_t cap)
{
    return (size_t)snprintf(out, cap, "%lld", (long long)json_integer_value(v));
}

static bool judge_id(struct walk *w, const json_t *v)
{
    char text[32];
    size_t n;
    if (json_is_integer(v))
        n = id_text(v, text, sizeof(text));
    else if (json_is_string(v))
        n = json_string_length(v);
    else
        return refuse(w, 400, "wrong_type");
    if (n == 0)
        return refuse(w, 400, "invalid_value");
    return n <= w->lim->id_bytes || refuse(w, 422, "limit_exceeded");
}

/* A list of at most `max` values that `one` accepts. */
static bool judge_list(struct walk *w, json_t *v, uint64_t max, bool (*one)(struct walk *, const json_t *))
{
    if (!enter(w, v, JSON_ARRAY))
        return false;
    for (size_t i = 0; i < json_array_size(v); i++) {
        size_t up = down_index(w, i);
        if (i >= max)
            return refuse(w, 422, "limit_exceeded");
        if (!one(w, json_array_get(v, i)))
            return false;
        w->n_at = up;
    }
    w->depth--;
    return true;
}

static bool judge_scalar(struct walk *w, const json_t *v)
{
    return json_is_string(v) || json_is_number(v) || json_is_boolean(v) || refuse(w, 400, "wrong_type");
}

static bool judge_string(struct walk *w, const json_t *v)
{
    return json_is_string(v) || refuse(w, 400, "wrong_type");
}

static bool judge_bool(struct walk *w, const json_t *v)
{
    return json_is_boolean(v) || refuse(w, 400, "wrong_type");
}

static bool judge_component(struct walk *w, const json_t *v)
{
    if (!json_is_number(v))
        return refuse(w, 400, "wrong_type");
    return fabs(json_number_value(v)) <= 1e15 || refuse(w, 422, "limit_exceeded");
}

static bool judge_count(struct walk *w, const json_t *v, long long min, uint64_t max)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return refuse(w, 400, "wrong_type");
    if (json_integer_value(v) < min)
        return refuse(w, 400, "invalid_value");
    return (uint64_t)json_integer_value(v) <= max || refuse(w, 422, "limit_exceeded");
}

static bool judge_number(struct walk *w, const json_t *v, double min, double max, const char *code)
{
    if (!json_is_number(v))
        return refuse(w, 400, "wrong_type");
    return (json_number_value(v) >= min && json_number_value(v) <= max) || refuse(w, 400, code);
}

static bool judge_features(struct walk *w, json_t *v)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    if (!enter(w, v, JSON_OBJECT))
        return false;
    json_object_foreach(v, key, value)
    {
        size_t up = down(w, key, strlen(key));
        if (n++ == QUERY_FEATURES_MAX)
            return refuse(w, 422, "limit_exceeded");
        if (!(json_is_array(value) ? judge_list(w, value, 1024, judge_scalar) : judge_scalar(w, value)))
            return false;
        w->n_at = up;
    }
    w->depth--;
    return true;
}

static bool judge_bounds_of(struct walk *w, json_t *v)
{
    const char *key;
    json_t *value;
    if (!enter(w, v, JSON_OBJECT))
        return false;
    json_object_foreach(v, key, value)
    {
        size_t up = down(w, key, strlen(key));
        if (strcmp(key, "min") && strcmp(key, "max"))
            return refuse(w, 400, "unknown_field");
        if (!judge_count(w, value, 0, w->lim->k))
            return false;
        w->n_at = up;
    }
    w->depth--;
    return true;
}

static bool judge_categories(struct walk *w, json_t *v)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    if (!enter(w, v, JSON_OBJECT))
        return false;
    json_object_foreach(v, key, value)
    {
        size_t up = down(w, key, strlen(key));
        if (n++ == 64)
            return refuse(w, 422, "limit_exceeded");
        if (!judge_bounds_of(w, value))
            return false;
        w->n_at = up;
    }
    w->depth--;
    return true;
}

// ------------------------------------------------------------------------------------------------------- filters

static bool judge_filter(struct walk *w, json_t *v);

static bool judge_child(struct walk *w, const json_t *v)
{
    return judge_filter(w, (json_t *)(uintptr_t)v);
}

static bool one_of(const char *key, const char *const *names)
{
    for (; *names; names++)
        if (strcmp(key, *names) == 0)
            return true;
    return false;
}

static bool judge_filter(struct walk *w, json_t *v)
{
    static const char *const lists[] = {"in", "not_in", NULL}, *const low[] = {"gte", "gt", NULL}, *const high[] = {"lte", "lt", NULL},
                             *const many[] = {"and", "or", NULL};
    const char *key;
    json_t *value;
    size_t n_operators = 0, n_conditions = 0, n_low = 0, n_high = 0;
    if (w->n_nodes++ == FILTER_NODES_MAX)
        return refuse(w, 422, "limit_exceeded");
    if (!enter(w, v, JSON_OBJECT))
        return false;
    json_object_foreach(v, key, value)
    {
        size_t up = down(w, key, strlen(key));
        bool ok;
        n_low += one_of(key, low);
        n_high += one_of(key, high);
        if (one_of(key, low) || one_of(key, high)) {
            n_conditions++;
            ok = n_low > 1 || n_high > 1 ? refuse(w, 400, "invalid_value") : json_is_number(value) || refuse(w, 400, "wrong_type");
        } else if (one_of(key, lists)) {
            n_conditions++;
            ok = judge_list(w, value, w->lim->ids, judge_scalar);
        } else if (one_of(key, many)) {
            n_operators++;
            ok = judge_list(w, value, UINT64_MAX, judge_child);
        } else if (strcmp(key, "not") == 0) {
            n_operators++;
            ok = judge_filter(w, value);
        } else {
            ok = strcmp(key, "field") ? refuse(w, 400, "unknown_field") : judge_string(w, value);
        }
        if (!ok)
            return false;
        w->n_at = up;
    }
    w->depth--;
    bool alone = n_operators == 1 && json_object_size(v) == 1, condition = !n_operators && json_object_get(v, "field") && n_conditions;
    return alone || condition || refuse(w, 400, "invalid_value");
}

// ------------------------------------------------------------------------------------------------------- bodies

static const char *const who[] = {"user_id", "model", "features", "history", NULL},
                  *const what[] = {"k", "ef", "target_recall", "exact", "exclude_ids", "include_ids", "filter", "min_score", NULL},
                  *const form[] = {"fields", "format", NULL}, *const bounds[] = {"max_per_category", "categories", "exclude_seen", NULL};

static bool belongs(enum query_kind kind, const char *key)
{
    switch (kind) {
    case QUERY_RETRIEVE:
        return one_of(key, who) || one_of(key, what) || one_of(key, form) || one_of(key, bounds);
    case QUERY_EMBED:
        return one_of(key, who);
    case QUERY_SEARCH:
        return one_of(key, what) || one_of(key, form) || strcmp(key, "model") == 0 || strcmp(key, "vector") == 0;
    case QUERY_SCORE:
        return one_of(key, who) || strcmp(key, "item_ids") == 0;
    case QUERY_EXPLAIN:
        return one_of(key, who) || one_of(key, what) || one_of(key, bounds) || strcmp(key, "item_id") == 0;
    }
    return false;
}

static bool judge_member(struct walk *w, const char *key, json_t *v)
{
    static const char *const lists[] = {"exclude_ids", "include_ids", "item_ids", NULL}, *const yes_no[] = {"exact", "exclude_seen", NULL};
    if (one_of(key, lists))
        return judge_list(w, v, w->lim->ids, judge_id);
    if (one_of(key, yes_no))
        return judge_bool(w, v);
    switch (key[0]) {
    case 'u': // user_id
    case 'i': // item_id
        return judge_id(w, v);
    case 'h':
        return judge_list(w, v, w->lim->history, judge_id);
    case 'k':
        return judge_count(w, v, 1, w->lim->k);
    case 'e':
        return judge_count(w, v, 1, w->lim->ef);
    case 'v':
        return judge_list(w, v, HNSW_DIM_MAX, judge_component);
    case 'c':
        return judge_categories(w, v);
    case 't':
        return judge_number(w, v, 0.5, 1, "invalid_value");
    default:
        break;
    }
    if (strcmp(key, "max_per_category") == 0)
        return judge_count(w, v, 1, w->lim->k);
    if (strcmp(key, "min_score") == 0)
        return judge_number(w, v, -(double)FLT_MAX, (double)FLT_MAX, "wrong_type");
    if (strcmp(key, "features") == 0)
        return judge_features(w, v);
    if (strcmp(key, "fields") == 0)
        return judge_list(w, v, QUERY_FIELDS_MAX, judge_string);
    if (strcmp(key, "filter") == 0)
        return judge_filter(w, v);
    if (!json_is_string(v))
        return refuse(w, 400, "wrong_type");
    const char *s = json_string_value(v);
    bool ok = strcmp(key, "model") == 0 ? s[0] != '\0' : strcmp(s, "rows") == 0 || strcmp(s, "columns") == 0;
    return ok || refuse(w, 400, "invalid_value");
}

static bool judge_body(struct walk *w, enum query_kind kind, json_t *body)
{
    static const char *const needed[] = {
        [QUERY_RETRIEVE] = NULL, [QUERY_EMBED] = NULL, [QUERY_SEARCH] = "vector", [QUERY_SCORE] = "item_ids", [QUERY_EXPLAIN] = "item_id"};
    const char *key;
    json_t *value;
    if (!enter(w, body, JSON_OBJECT))
        return false;
    json_object_foreach(body, key, value)
    {
        size_t up = down(w, key, strlen(key));
        if (!belongs(kind, key))
            return refuse(w, 400, "unknown_field");
        if (!judge_member(w, key, value))
            return false;
        w->n_at = up;
    }
    bool both = json_object_get(body, "ef") && json_object_get(body, "target_recall");
    return !(both || (needed[kind] && !json_object_get(body, needed[kind]))) || refuse(w, 400, "invalid_value");
}

struct verdict oracle_judge(enum query_kind kind, json_t *body, const struct query_limits *lim)
{
    struct walk w = {.lim = lim};
    judge_body(&w, kind, body);
    return w.v;
}

static bool judge_depth(struct walk *w, json_t *v)
{
    if (json_is_array(v)) {
        if (!enter(w, v, JSON_ARRAY))
            return false;
        for (size_t i = 0; i < json_array_size(v); i++) {
            size_t up = down_index(w, i);
            if (!judge_depth(w, json_array_get(v, i)))
                return false;
            w->n_at = up;
        }
        w->depth--;
    } else if (json_is_object(v)) {
        const char *key;
        json_t *value;
        if (!enter(w, v, JSON_OBJECT))
            return false;
        json_object_foreach(v, key, value)
        {
            size_t up = down(w, key, strlen(key));
            if (!judge_depth(w, value))
                return false;
            w->n_at = up;
        }
        w->depth--;
    }
    return true;
}

static bool judge_batch(struct walk *w, json_t *body, uint64_t most)
{
    const char *key;
    json_t *list;
    if (!enter(w, body, JSON_OBJECT))
        return false;
    json_object_foreach(body, key, list)
    {
        size_t up = down(w, key, strlen(key)), i = 0;
        if (strcmp(key, "requests"))
            return refuse(w, 400, "unknown_field");
        if (!enter(w, list, JSON_ARRAY))
            return false;
        for (; i < json_array_size(list); i++) {
            size_t out = down_index(w, i);
            if (i == most)
                return refuse(w, 422, "limit_exceeded");
            if (!judge_depth(w, json_array_get(list, i)))
                return false;
            w->n_at = out;
        }
        if (i == 0)
            return refuse(w, 400, "invalid_value");
        w->depth--;
        w->n_at = up;
    }
    return json_object_size(body) == 1 || refuse(w, 400, "invalid_value");
}

struct verdict oracle_judge_batch(json_t *body, const struct query_limits *lim, uint64_t most)
{
    struct walk w = {.lim = lim};
    judge_batch(&w, body, most);
    return w.v;
}

// ------------------------------------------------------------------------------------------------------- values

/* Numbers by their value: the tree has lost how they were written. */
static bool is_text(struct str s, const json_t *v)
{
    char text[64];
    if (json_is_string(v))
        return s.n == json_string_length(v) && memcmp(s.p, json_string_value(v), s.n) == 0;
    if (json_is_boolean(v))
        return s.n == (json_is_true(v) ? 4u : 5u) && memcmp(s.p, json_is_true(v) ? "true" : "false", s.n) == 0;
    if (json_is_integer(v)) {
        size_t n = id_text(v, text, sizeof(text));
        return (s.n == n && memcmp(s.p, text, n) == 0) || (s.n == 2 && memcmp(s.p, "-0", 2) == 0 && json_integer_value(v) == 0);
    }
    char *copy = strndup(s.p, s.n);
    bool same = strtod(copy, NULL) == json_real_value(v);
    free(copy);
    return same;
}

static bool is_id(struct str s, const json_t *v)
{
    if (!v)
        return s.p == NULL;
    return s.p && is_text(s, v) && !(s.n == 2 && memcmp(s.p, "-0", 2) == 0 && !json_is_string(v));
}

static bool is_list(const struct query *q, struct query_list l, const json_t *v)
{
    if (l.n != json_array_size(v)) // 0 of what is not there
        return false;
    for (size_t i = 0; i < l.n; i++)
        if (!is_text(q->str[l.first + i], json_array_get(v, i)))
            return false;
    return true;
}

static bool are_features(const struct query *q, json_t *v)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    if (q->n_features != json_object_size(v))
        return false;
    json_object_foreach(v, key, value)
    {
        const struct query_feature *f = &q->feature[n++];
        if (f->name.n != strlen(key) || memcmp(f->name.p, key, f->name.n) || f->is_list != json_is_array(value))
            return false;
        if (f->is_list ? !is_list(q, f->value, value) : f->value.n != 1 || !is_text(q->str[f->value.first], value))
            return false;
    }
    return true;
}

static bool are_categories(const struct query *q, json_t *v)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    if (q->n_categories != json_object_size(v))
        return false;
    json_object_foreach(v, key, value)
    {
        const struct query_category *c = &q->category[n++];
        json_t *max = json_object_get(value, "max");
        if (c->name.n != strlen(key) || memcmp(c->name.p, key, c->name.n) ||
            c->min != (uint64_t)json_integer_value(json_object_get(value, "min")) || c->has_max != (max != NULL) ||
            c->max != (uint64_t)json_integer_value(max))
            return false;
    }
    return true;
}

static bool is_bound(bool has, bool open, double found, const json_t *closed_by, const json_t *open_by)
{
    const json_t *v = closed_by ? closed_by : open_by;
    return has == (v != NULL) && (!v || (open == (open_by != NULL) && found == json_number_value(v)));
}

/* Node *at and those below it, in prefix order. */
static bool is_filter(const struct query *q, size_t *at, size_t parent, size_t child, json_t *v)
{
    size_t self = (*at)++;
    if (self >= q->n_filter)
        return false;
    const struct query_filter *f = &q->filter[self];
    json_t *and = json_object_get(v, "and"), *or = json_object_get(v, "or"), *not = json_object_get(v, "not"), *list = and ? and : or;
    enum filter_op op = and ? FILTER_AND : or ? FILTER_OR : not ? FILTER_NOT : FILTER_LEAF;
    if (f->op != op || f->parent != parent || f->child != child)
        return false;
    if (not)
        return f->n_children == 1 && is_filter(q, at, self, 0, not);
    if (list) {
        for (size_t i = 0; i < json_array_size(list); i++)
            if (!is_filter(q, at, self, i, json_array_get(list, i)))
                return false;
        return f->n_children == json_array_size(list);
    }
    json_t *in = json_object_get(v, "in"), *not_in = json_object_get(v, "not_in");
    return is_text(f->field, json_object_get(v, "field")) && f->has_in == (in != NULL) && f->has_not_in == (not_in != NULL) &&
           is_list(q, f->in, in) && is_list(q, f->not_in, not_in) &&
           is_bound(f->has_lo, f->lo_open, f->lo, json_object_get(v, "gte"), json_object_get(v, "gt")) &&
           is_bound(f->has_hi, f->hi_open, f->hi, json_object_get(v, "lte"), json_object_get(v, "lt"));
}

static bool is_vector(const struct query *q, const json_t *v)
{
    if (q->has_vector != (v != NULL) || q->n_vector != json_array_size(v))
        return false;
    for (size_t i = 0; i < q->n_vector; i++)
        if (q->vector[i] != (float)json_number_value(json_array_get(v, i)))
            return false;
    return true;
}

const char *oracle_differs(json_t *body, const struct query *q)
{
#define GET(name) json_object_get(body, name)
#define INT(name) ((uint64_t)json_integer_value(GET(name)))
    size_t at = 0;
    json_t *filter = GET("filter"), *format = GET("format");
    const struct {
        const char *name;
        bool same;
    } all[] = {
        {"user_id", is_id(q->user_id, GET("user_id"))},
        {"item_id", is_id(q->item_id, GET("item_id"))},
        {"model", is_id(q->model, GET("model"))},
        {"features", are_features(q, GET("features"))},
        {"history", is_list(q, q->history, GET("history"))},
        {"k", q->k == INT("k")},
        {"ef", q->ef == INT("ef")},
        {"target_recall", q->target_recall == json_number_value(GET("target_recall"))},
        {"exact", q->exact == json_is_true(GET("exact"))},
        {"exclude_seen", q->exclude_seen == json_is_true(GET("exclude_seen"))},
        {"exclude_ids", is_list(q, q->exclude_ids, GET("exclude_ids"))},
        {"include_ids", q->has_include == (GET("include_ids") != NULL) && is_list(q, q->include_ids, GET("include_ids"))},
        {"item_ids", is_list(q, q->item_ids, GET("item_ids"))},
        {"min_score", q->has_min_score == (GET("min_score") != NULL) &&
                          (!q->has_min_score || q->min_score == (float)json_number_value(GET("min_score")))},
        {"fields", is_list(q, q->fields, GET("fields"))},
        {"format", q->columns == (format && strcmp(json_string_value(format), "columns") == 0)},
        {"vector", is_vector(q, GET("vector"))},
        {"max_per_category", q->max_per_category == INT("max_per_category")},
        {"categories", q->has_bounds == (GET("max_per_category") || GET("categories")) && are_categories(q, GET("categories"))},
        {"filter", filter ? is_filter(q, &at, 0, 0, filter) && at == q->n_filter : q->n_filter == 0},
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (!all[i].same)
            return all[i].name;
    return NULL;
#undef GET
#undef INT
}

unsigned oracle_bounds(json_t *body, size_t k)
{
    const char *key;
    json_t *value, *each = json_object_get(body, "max_per_category");
    json_int_t sum = 0;
    json_object_foreach(json_object_get(body, "categories"), key, value)
    {
        json_t *max = json_object_get(value, "max");
        json_int_t min = json_integer_value(json_object_get(value, "min"));
        sum += min;
        if ((max || each) && min > json_integer_value(max ? max : each))
            return 400;
        if (sum > (json_int_t)k)
            return 400;
    }
    return 0;
}
