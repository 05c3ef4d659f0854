/* query_resolve.c - what a body says, in the indices of one bundle. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/utf8.h"
#include "server/query_priv.h"

bool query_refuse(struct wire_error *e, unsigned status, const char *code, const char *fmt, ...)
{
    va_list ap;
    e->status = status;
    e->code = code;
    va_start(ap, fmt);
    vsnprintf(e->detail, sizeof(e->detail), fmt, ap);
    va_end(ap);
    utf8_mend(e->detail);
    return false;
}

/* "/features/<name>", escaped. */
static void point_at_feature(struct wire_error *e, struct str name)
{
    size_t at = (size_t)snprintf(e->pointer, sizeof(e->pointer), "/features/");
    for (size_t i = 0; i < name.n && at + 3 < sizeof(e->pointer); i++) {
        char c = name.p[i];
        if (c == '~' || c == '/') {
            e->pointer[at++] = '~';
            c = c == '~' ? '0' : '1';
        }
        e->pointer[at++] = c;
    }
    e->pointer[at] = '\0';
}

static bool unknown_feature(struct wire_error *e, const struct schema_side *side, const struct query_feature *f)
{
    const char *known[SCHEMA_FIELDS_MAX];
    size_t n = 0;
    for (uint32_t i = 0; i < side->n_fields && n < SCHEMA_FIELDS_MAX; i++)
        if (side->field[i].kind != FIELD_ID && side->field[i].kind != FIELD_DISPLAY)
            known[n++] = side->field[i].name;
    const char *near = query_nearest(f->name, known, n);
    point_at_feature(e, f->name);
    if (near)
        return query_refuse(e, 422, "unknown_feature", "the model has no user feature '%.*s', did you mean '%s'?",
                            query_shown(f->name), f->name.p, near);
    return query_refuse(e, 422, "unknown_feature", "the model has no user feature '%.*s'", query_shown(f->name),
                        f->name.p);
}

/* Values of a multi-valued feature as stored text: joined by the field's separator, behind what the text block holds
 * already. */
static bool join(struct query *q, const struct query_feature *f, char sep, struct str *out, struct wire_error *e)
{
    size_t need = 0;
    for (size_t i = 0; i < f->value.n; i++)
        need += q->str[f->value.first + i].n + 1;
    if (q->text_used + need > q->cap_text) // cannot be: each value took two quotes in the body
        return query_refuse(e, 503, "out_of_memory", "out of memory");
    char *at = q->text + q->text_used, *p = at;
    for (size_t i = 0; i < f->value.n; i++) {
        struct str s = q->str[f->value.first + i];
        if (i)
            *p++ = sep;
        memcpy(p, s.p, s.n);
        p += s.n;
    }
    *out = (struct str){at, (size_t)(p - at)};
    q->text_used += need;
    return true;
}

static bool resolve_feature(struct query *q, size_t i, const struct schema_side *side, struct wire_error *e)
{
    const struct query_feature *f = &q->feature[i];
    const struct schema_field *field = schema_find(side, f->name.p, f->name.n);
    if (!field || field->kind == FIELD_DISPLAY || field->kind == FIELD_ID)
        return unknown_feature(e, side, f);
    q->resolved[i].name = f->name;
    if (!f->is_list) {
        q->resolved[i].value = q->str[f->value.first];
        return true;
    }
    if (field->kind != FIELD_MULTI) {
        point_at_feature(e, f->name);
        return query_refuse(e, 400, "wrong_type", "found an array, want one value: feature '%s' is not multi-valued",
                            field->name);
    }
    return join(q, f, field->sep, &q->resolved[i].value, e);
}

static int attr_of(const struct items *it, struct str name)
{
    int a = items_attr(it, name.p, name.n);
    return a < 0 && query_same(name, "category", 8) ? QUERY_ATTR_CATEGORY : a;
}

static bool resolve_fields(struct query *q, const struct items *it, struct wire_error *e)
{
    for (size_t i = 0; i < q->fields.n; i++) {
        struct str name = q->str[q->fields.first + i];
        if ((q->attr[i] = attr_of(it, name)) != -1) {
            for (size_t j = 0; j < i; j++)
                if (q->attr[j] == q->attr[i]) {
                    snprintf(e->pointer, sizeof(e->pointer), "/fields/%zu", i);
                    return query_refuse(e, 400, "invalid_value", "attribute '%.*s' is there twice", query_shown(name),
                                        name.p);
                }
            continue;
        }
        const char *known[ITEM_ATTRS_MAX + 1] = {"category"};
        for (uint32_t a = 0; a < it->n_attrs; a++)
            known[a + 1] = it->attr[a].name;
        const char *near = query_nearest(name, known, it->n_attrs + 1);
        snprintf(e->pointer, sizeof(e->pointer), "/fields/%zu", i);
        if (near)
            return query_refuse(e, 422, "unknown_attribute", "items have no attribute '%.*s', did you mean '%s'?",
                                query_shown(name), name.p, near);
        return query_refuse(e, 422, "unknown_attribute", "items have no attribute '%.*s'", query_shown(name), name.p);
    }
    return true;
}

/* Ids that this bundle does not have can neither be excluded nor tell anything: they are counted and dropped. */
static size_t resolve_ids(const struct query *q, const struct query_list *l, const struct strtab_index *index,
                          uint32_t *out, size_t *unknown)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++) {
        struct str id = q->str[l->first + i];
        uint32_t row = strtab_find(index, id.p, id.n);
        if (row != STRTAB_NONE)
            out[n++] = row;
    }
    *unknown = l->n - n;
    return n;
}

/* Each at its place, for their scores are given in this order. */
static void resolve_items(struct query *q, const struct items *it)
{
    for (size_t i = 0; i < q->item_ids.n; i++) {
        struct str id = q->str[q->item_ids.first + i];
        q->item[i] = items_find(it, id.p, id.n);
        q->unknown_item += q->item[i] == STRTAB_NONE;
    }
}

/* A target that was asked for, in the terms of this bundle. */
static bool resolve_target(const struct query *q, const struct bundle *b, struct retrieve_query *out,
                           struct wire_error *e)
{
    size_t k = out->k < b->items->n ? out->k : b->items->n;
    if (q->target_recall <= 0)
        return true;
    switch (calibration_ef(&b->manifest.calibration, b->layout, k, q->target_recall, &out->ef)) {
    case CALIBRATION_EF:
        return true;
    case CALIBRATION_EXACT:
        out->exact = true;
        return true;
    case CALIBRATION_NONE:
        break;
    }
    snprintf(e->pointer, sizeof(e->pointer), "/target_recall");
    return query_refuse(e, 422, "not_calibrated",
                        "version %llu of model '%s' was published without a calibration for the %s layout: give ef",
                        (unsigned long long)b->manifest.version, b->manifest.model, bundle_layout_name(b->layout));
}

bool query_resolve(struct query *q, const struct bundle *b, uint64_t k_default, uint64_t ef_default,
                   struct retrieve_query *out, struct wire_error *e)
{
    const struct items *it = b->items;
    e->pointer[0] = '\0';
    if (!query_room((void **)&q->idx, &q->cap_idx,
                    q->exclude_ids.n + q->include_ids.n + q->item_ids.n + q->history.n + 1, sizeof(*q->idx)))
        return query_refuse(e, 503, "out_of_memory", "out of memory");
    for (size_t i = 0; i < q->n_features; i++)
        if (!resolve_feature(q, i, &b->model->schema->user, e))
            return false;
    if (!resolve_fields(q, it, e))
        return false;
    uint32_t *exclude = q->idx, *history = exclude + q->exclude_ids.n, *include = history + q->history.n;
    q->item = include + q->include_ids.n;
    resolve_items(q, it);
    if (q->has_vector && q->n_vector != b->manifest.d) {
        snprintf(e->pointer, sizeof(e->pointer), "/vector");
        return query_refuse(e, 422, "invalid_vector", "found %zu components, want %u", q->n_vector, b->manifest.d);
    }
    const struct filter_expr *filter;
    if (!query_resolve_filter(q, it, &filter, e))
        return false;
    *out = (struct retrieve_query){
        .user_id = q->user_id,
        .feature = q->resolved,
        .n_features = q->n_features,
        .history = history,
        .n_history = resolve_ids(q, &q->history, &it->by_id, history, &q->unknown_history),
        .k = (size_t)(q->k ? q->k : k_default),
        .ef = (size_t)(q->ef ? q->ef : ef_default),
        .exact = q->exact,
        .exclude_seen = q->exclude_seen,
        .exclude = exclude,
        .n_exclude = resolve_ids(q, &q->exclude_ids, &it->by_id, exclude, &q->unknown_exclude),
        .has_include = q->has_include,
        .include = include,
        .n_include = resolve_ids(q, &q->include_ids, &it->by_id, include, &q->unknown_include),
        .vector = q->has_vector ? q->vector : NULL,
        .filter = filter,
        .has_min_score = q->has_min_score,
        .min_score = q->min_score,
    };
    return query_resolve_bounds(q, it, out->k, &out->bounds, e) && resolve_target(q, b, out, e);
}
