#include "server/query_priv.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "config/yaml.h"
#include "core/base/mem.h"

#define VECTOR_MAX 1e15 // as the index takes them

void query_init(struct query *q)
{
    memset(q, 0, sizeof(*q));
}

void query_fini(struct query *q)
{
    free(q->str);
    free(q->idx);
    free(q->vector);
    free(q->text);
    free(q->and_text);
    memset(q, 0, sizeof(*q));
}

// ------------------------------------------------------------------------------------------------------- memory

static bool no_memory(struct wire *w)
{
    return wire_fail(w, 503, "out_of_memory", "out of memory");
}

/* Room for n elements in *p; contents are kept. */
bool query_room(void **p, size_t *cap, size_t n, size_t size)
{
    if (n <= *cap)
        return true;
    size_t want = *cap ? *cap : 64;
    while (want < n)
        want *= 2;
    void *grown = mem_grow(*p, want, size, NULL);
    if (!grown)
        return false;
    *p = grown;
    *cap = want;
    return true;
}

static bool add_str(struct query *q, struct wire *w, struct str s)
{
    if (q->n_str == q->cap_str && !query_room((void **)&q->str, &q->cap_str, q->n_str + 1, sizeof(*q->str)))
        return no_memory(w);
    q->str[q->n_str++] = s;
    return true;
}

// ------------------------------------------------------------------------------------------------------- values

/* A string, or a number's or boolean's own text: what a feature's or an id's value may be. */
static bool read_text(struct wire *w, bool numbers, bool booleans, const char *wanted, struct str *out)
{
    bool b, integer;
    switch (wire_peek(w)) {
    case WIRE_STRING:
        return wire_string(w, out);
    case WIRE_NUMBER:
        return numbers ? wire_number_text(w, out, &integer) : wire_wrong_type(w, wanted);
    case WIRE_BOOL:
        if (!booleans)
            return wire_wrong_type(w, wanted);
        if (!wire_bool(w, &b))
            return false;
        *out = b ? (struct str){"true", 4} : (struct str){"false", 5};
        return true;
    default:
        return wire_wrong_type(w, wanted);
    }
}

/* An id: a string or an integer, which stands for its decimal form. */
static bool read_id(struct wire *w, const struct query_limits *lim, struct str *out)
{
    static const char wanted[] = "a string or an integer";
    if (wire_peek(w) == WIRE_NUMBER) {
        bool integer;
        if (!wire_number_text(w, out, &integer))
            return false;
        if (!integer)
            return wire_fail(w, 400, "wrong_type", "found the number %.*s, want %s", (int)(out->n < 40 ? out->n : 40),
                             out->p, wanted);
        if (out->n == 2 && memcmp(out->p, "-0", 2) == 0)
            *out = (struct str){"0", 1};
    } else if (wire_peek(w) != WIRE_STRING) {
        return wire_wrong_type(w, wanted);
    } else if (!wire_string(w, out)) {
        return false;
    }
    if (out->n == 0)
        return wire_fail(w, 400, "invalid_value", "found an empty id, want 1 to %llu bytes",
                         (unsigned long long)lim->id_bytes);
    if (out->n > lim->id_bytes)
        return wire_fail(w, 422, "limit_exceeded", "an id of %zu bytes, at most %llu are allowed (limits.id_bytes)",
                         out->n, (unsigned long long)lim->id_bytes);
    return true;
}

static bool read_ids(struct query *q, struct wire *w, const struct query_limits *lim, uint64_t max, const char *limit,
                     struct query_list *out)
{
    struct str id;
    out->first = q->n_str;
    if (!wire_enter_array(w))
        return false;
    while (wire_next_item(w)) {
        if (q->n_str - out->first >= max)
            return wire_fail(w, 422, "limit_exceeded", "more than %llu ids (limits.%s)", (unsigned long long)max,
                             limit);
        if (!read_id(w, lim, &id) || !add_str(q, w, id))
            return false;
    }
    out->n = q->n_str - out->first;
    return wire_ok(w);
}

bool query_read_strings(struct query *q, struct wire *w, bool numbers, uint64_t max, struct query_list *out)
{
    struct str s;
    out->first = q->n_str;
    if (!wire_enter_array(w))
        return false;
    while (wire_next_item(w)) {
        if (q->n_str - out->first >= max)
            return wire_fail(w, 422, "limit_exceeded", "more than %llu values", (unsigned long long)max);
        if (!read_text(w, numbers, numbers, "a string", &s) || !add_str(q, w, s))
            return false;
    }
    out->n = q->n_str - out->first;
    return wire_ok(w);
}

/* From 1 to the key limits.<limit>. */
static bool read_count(struct wire *w, uint64_t max, const char *limit, uint64_t *out)
{
    if (!wire_uint(w, out))
        return false;
    if (*out < 1)
        return wire_fail(w, 400, "invalid_value", "found 0, want 1 to %llu", (unsigned long long)max);
    if (*out > max)
        return wire_fail(w, 422, "limit_exceeded", "found %llu, at most %llu are allowed (limits.%s)",
                         (unsigned long long)*out, (unsigned long long)max, limit);
    return true;
}

// ------------------------------------------------------------------------------------------------------- names

bool query_same(struct str s, const char *name, size_t n)
{
    return s.n == n && memcmp(s.p, name, n) == 0;
}

const char *query_nearest(struct str s, const char *const *known, size_t n)
{
    char word[64];
    size_t len = s.n < sizeof(word) - 1 ? s.n : sizeof(word) - 1;
    memcpy(word, s.p, len);
    word[len] = '\0';
    return ynode_nearest(word, known, n);
}

/* Bytes of a client's text that a message repeats: at most 64, whole characters. */
int query_shown(struct str s)
{
    size_t n = s.n < 64 ? s.n : 64;
    while (n < s.n && n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80)
        n--;
    return (int)n;
}

bool query_unknown_field(struct wire *w, struct str key, const char *const *known, size_t n)
{
    const char *near = query_nearest(key, known, n);
    if (near)
        return wire_fail(w, 400, "unknown_field", "unknown field '%.*s', did you mean '%s'?", query_shown(key), key.p,
                         near);
    return wire_fail(w, 400, "unknown_field", "unknown field '%.*s'", query_shown(key), key.p);
}

bool query_duplicate(struct wire *w, struct str key)
{
    return wire_fail(w, 400, "duplicate_field", "field '%.*s' is there twice", query_shown(key), key.p);
}

// ------------------------------------------------------------------------------------------------------- features

static bool read_feature_value(struct query *q, struct wire *w, struct query_feature *f)
{
    struct str s;
    f->is_list = wire_peek(w) == WIRE_ARRAY;
    if (f->is_list)
        return query_read_strings(q, w, true, 1024, &f->value);
    f->value = (struct query_list){q->n_str, 1};
    return read_text(w, true, true, "a string, a number, a boolean or an array of strings", &s) && add_str(q, w, s);
}

static bool read_features(struct query *q, struct wire *w)
{
    struct str key;
    if (!wire_enter_object(w))
        return false;
    while (wire_next_key(w, &key)) {
        if (q->n_features == QUERY_FEATURES_MAX)
            return wire_fail(w, 422, "limit_exceeded", "more than %d features", QUERY_FEATURES_MAX);
        for (size_t i = 0; i < q->n_features; i++)
            if (query_same(q->feature[i].name, key.p, key.n))
                return query_duplicate(w, key);
        struct query_feature *f = &q->feature[q->n_features++];
        f->name = key;
        if (!read_feature_value(q, w, f))
            return false;
    }
    return wire_ok(w);
}

// ------------------------------------------------------------------------------------------------------- fields of the
// body

enum field {
    F_USER_ID,
    F_MODEL,
    F_FEATURES,
    F_HISTORY,
    F_K,
    F_EF,
    F_EXACT,
    F_EXCLUDE_IDS,
    F_EXCLUDE_SEEN,
    F_FILTER,
    F_MIN_SCORE,
    F_FIELDS,
    F_FORMAT,
    F_INCLUDE_IDS,
    F_VECTOR,
    F_ITEM_IDS,
    F_ITEM_ID,
    F_TARGET_RECALL,
    F_MAX_PER_CATEGORY,
    F_CATEGORIES,
    F_N
};

static const char *const field_name[F_N] = {"user_id", "model",       "features",     "history",  "k",         "ef",
                                            "exact",   "exclude_ids", "exclude_seen", "filter",   "min_score", "fields",
                                            "format",  "include_ids", "vector",       "item_ids", "item_id", "target_recall",
                                            "max_per_category", "categories"};

#define BIT(f) (1u << (f))
#define WHO (BIT(F_USER_ID) | BIT(F_MODEL) | BIT(F_FEATURES) | BIT(F_HISTORY))
#define BOUNDS (BIT(F_MAX_PER_CATEGORY) | BIT(F_CATEGORIES))
#define WHAT                                                                                                           \
    (BIT(F_K) | BIT(F_EF) | BIT(F_TARGET_RECALL) | BIT(F_EXACT) | BIT(F_EXCLUDE_IDS) | BIT(F_INCLUDE_IDS) | BIT(F_FILTER) |                   \
     BIT(F_MIN_SCORE) | BIT(F_FIELDS) | BIT(F_FORMAT))

static const unsigned fields_of[] = {[QUERY_RETRIEVE] = WHO | WHAT | BOUNDS | BIT(F_EXCLUDE_SEEN),
                                     [QUERY_EMBED] = WHO,
                                     [QUERY_SEARCH] = WHAT | BIT(F_MODEL) | BIT(F_VECTOR),
                                     [QUERY_SCORE] = WHO | BIT(F_ITEM_IDS),
                                     [QUERY_EXPLAIN] = WHO | (WHAT & ~(BIT(F_FIELDS) | BIT(F_FORMAT))) | BOUNDS |
                                                       BIT(F_EXCLUDE_SEEN) | BIT(F_ITEM_ID)};
static const unsigned needed_by[QUERY_EXPLAIN + 1] = {
    [QUERY_SEARCH] = BIT(F_VECTOR), [QUERY_SCORE] = BIT(F_ITEM_IDS), [QUERY_EXPLAIN] = BIT(F_ITEM_ID)};

static bool read_vector(struct query *q, struct wire *w)
{
    double v;
    q->has_vector = true;
    if (!wire_enter_array(w))
        return false;
    while (wire_next_item(w)) {
        if (q->n_vector == HNSW_DIM_MAX)
            return wire_fail(w, 422, "limit_exceeded", "more than %d components", HNSW_DIM_MAX);
        if (!wire_double(w, &v))
            return false;
        if (fabs(v) > VECTOR_MAX)
            return wire_fail(w, 422, "limit_exceeded", "found %g, want at most %g", v, VECTOR_MAX);
        if (!query_room((void **)&q->vector, &q->cap_vector, q->n_vector + 1, sizeof(*q->vector)))
            return no_memory(w);
        q->vector[q->n_vector++] = (float)v;
    }
    return wire_ok(w);
}

static bool read_min_score(struct query *q, struct wire *w)
{
    double v;
    if (!wire_double(w, &v))
        return false;
    if (fabs(v) > (double)FLT_MAX)
        return wire_fail(w, 400, "wrong_type", "found %g, want a number that a 32-bit float can hold", v);
    q->min_score = (float)v;
    q->has_min_score = true;
    return true;
}

static bool read_target(struct query *q, struct wire *w)
{
    if (!wire_double(w, &q->target_recall))
        return false;
    return (q->target_recall >= 0.5 && q->target_recall <= 1) ||
           wire_fail(w, 400, "invalid_value", "found %g, want a recall from 0.5 to 1", q->target_recall);
}

static bool read_format(struct query *q, struct wire *w)
{
    struct str s;
    if (!wire_string(w, &s))
        return false;
    q->columns = query_same(s, "columns", 7);
    return q->columns || query_same(s, "rows", 4) ||
           wire_fail(w, 400, "invalid_value", "found '%.*s', want 'rows' or 'columns'", query_shown(s), s.p);
}

static bool read_model(struct query *q, struct wire *w)
{
    if (!wire_string(w, &q->model))
        return false;
    return q->model.n ? true : wire_fail(w, 400, "invalid_value", "found an empty name, want a model's");
}

static bool read_field(struct query *q, struct wire *w, enum field f, const struct query_limits *lim)
{
    switch (f) {
    case F_USER_ID:
        return read_id(w, lim, &q->user_id);
    case F_MODEL:
        return read_model(q, w);
    case F_FEATURES:
        return read_features(q, w);
    case F_HISTORY:
        return read_ids(q, w, lim, lim->history, "history", &q->history);
    case F_K:
        return read_count(w, lim->k, "k", &q->k);
    case F_EF:
        return read_count(w, lim->ef, "ef", &q->ef);
    case F_EXACT:
        return wire_bool(w, &q->exact);
    case F_EXCLUDE_IDS:
        return read_ids(q, w, lim, lim->ids, "ids", &q->exclude_ids);
    case F_EXCLUDE_SEEN:
        return wire_bool(w, &q->exclude_seen);
    case F_FILTER:
        return query_read_filter(q, w, lim);
    case F_MIN_SCORE:
        return read_min_score(q, w);
    case F_FIELDS:
        return query_read_strings(q, w, false, QUERY_FIELDS_MAX, &q->fields);
    case F_FORMAT:
        return read_format(q, w);
    case F_INCLUDE_IDS:
        q->has_include = true;
        return read_ids(q, w, lim, lim->ids, "ids", &q->include_ids);
    case F_VECTOR:
        return read_vector(q, w);
    case F_ITEM_IDS:
        return read_ids(q, w, lim, lim->ids, "ids", &q->item_ids);
    case F_ITEM_ID:
        return read_id(w, lim, &q->item_id);
    case F_TARGET_RECALL:
        return read_target(q, w);
    case F_MAX_PER_CATEGORY:
        q->has_bounds = true;
        return read_count(w, lim->k, "k", &q->max_per_category);
    case F_CATEGORIES:
        q->has_bounds = true;
        return query_read_categories(q, w, lim);
    case F_N:
        break;
    }
    return false;
}

void query_reset(struct query *q)
{
    q->user_id = q->model = q->item_id = (struct str){0};
    q->n_features = 0;
    q->exclude_ids = q->include_ids = q->item_ids = q->history = q->fields = (struct query_list){0};
    q->has_vector = q->has_include = q->has_min_score = q->exact = q->exclude_seen = q->columns = q->without_variant_filter = false;
    q->full_ef = 0;
    q->k = q->ef = q->max_per_category = 0;
    q->has_bounds = false;
    q->n_categories = q->unknown_categories = 0;
    q->target_recall = 0;
    q->unknown_history = q->unknown_exclude = q->unknown_filter = q->n_filter = q->n_and = 0;
    q->unknown_include = q->unknown_item = 0;
    q->n_str = q->n_vector = 0;
}

static bool unknown_of(struct wire *w, struct str key, unsigned fields)
{
    const char *known[F_N];
    size_t n = 0;
    for (size_t f = 0; f < F_N; f++)
        if (fields & BIT(f))
            known[n++] = field_name[f];
    return query_unknown_field(w, key, known, n);
}

static bool read_body(struct query *q, struct wire *w, enum query_kind kind, const struct query_limits *lim)
{
    struct str key;
    unsigned seen = 0;
    if (!wire_enter_object(w))
        return false;
    while (wire_next_key(w, &key)) {
        size_t f = 0;
        while (f < F_N && !(fields_of[kind] & BIT(f) && query_same(key, field_name[f], strlen(field_name[f]))))
            f++;
        if (f == F_N)
            return unknown_of(w, key, fields_of[kind]);
        if (seen & BIT(f))
            return query_duplicate(w, key);
        seen |= BIT(f);
        if (!read_field(q, w, (enum field)f, lim))
            return false;
    }
    if (wire_ok(w) && q->ef && q->target_recall > 0)
        return wire_fail(w, 400, "invalid_value", "'ef' and 'target_recall' are both given, want one of them");
    for (size_t f = 0; f < F_N && wire_ok(w); f++)
        if (needed_by[kind] & ~seen & BIT(f))
            return wire_fail(w, 400, "invalid_value", "'%s' is missing", field_name[f]);
    return wire_end(w);
}

bool query_parse(struct query *q, enum query_kind kind, const char *body, size_t n, const struct query_limits *lim,
                 struct wire_error *e)
{
    query_reset(q);
    struct wire *w = &q->wire;
    bool ok = query_room((void **)&q->text, &q->cap_text, 2 * n + 1, 1); // decoded strings, and joined ones behind them
    wire_begin(w, body, n, q->text, lim->depth);
    ok = ok ? read_body(q, w, kind, lim) : no_memory(w);
    q->text_used = ok && q->text ? (size_t)(w->scratch - q->text) : 0;
    if (!ok)
        *e = w->error;
    return ok;
}
