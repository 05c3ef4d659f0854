#include "train/features.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

// --------------------------------------------------------------------------------------------------- specification

static void side_spec_fini(struct side_spec *side)
{
    for (uint32_t i = 0; i < side->n; i++)
        free(side->field[i].bounds);
    free(side->field);
}

void features_spec_free(struct features_spec *spec)
{
    if (!spec)
        return;
    side_spec_fini(&spec->user);
    side_spec_fini(&spec->item);
    free(spec);
}

struct field_spec *features_spec_add(struct side_spec *side, const char *name, enum field_kind kind, struct err *err)
{
    struct field_spec *grown = mem_grow(side->field, (size_t)side->n + 1, sizeof(*grown), err);
    if (!grown)
        return NULL;
    side->field = grown;
    struct field_spec *f = &side->field[side->n++];
    *f = (struct field_spec){.kind = kind};
    snprintf(f->name, sizeof(f->name), "%s", name);
    return f;
}

static uint32_t min_count_of(const struct field_spec *f, uint32_t fallback)
{
    return f->min_count ? f->min_count : fallback;
}

// ------------------------------------------------------------------------------------------------------ vocabularies

/* How many entities in training have each distinct value of a column. */
static uint32_t *count_values(const struct raw_column *c, const struct entities *e, struct err *err)
{
    uint32_t *count = mem_array(c->values.n, sizeof(*count), err);
    for (uint32_t i = 0; count && i < e->n; i++)
        if (e->n_train[i] > 0)
            count[c->cell[e->row[i]]]++;
    return count;
}

/* Values in the order of the source. A value with a NUL byte cannot be asked for and is left out. */
static bool learn_categorical(struct schema_field *f, const struct raw_column *c, const uint32_t *count,
                              uint32_t min_count, struct err *err)
{
    struct strtab values = strtab_view(&c->values);
    for (uint32_t r = 1; r < values.n; r++) {
        struct str s = strtab_get(&values, r);
        if (count[r] >= min_count && !memchr(s.p, '\0', s.n) && !strtab_add(&f->vocab, s.p, s.n, NULL, err))
            return false;
    }
    return true;
}

struct token_counts {
    struct strtab_builder token;
    uint32_t *n; // [cap]
    uint32_t cap;
};

static bool count_token(struct token_counts *t, struct str s, uint32_t n, struct err *err)
{
    uint32_t row;
    if (!strtab_intern(&t->token, s.p, s.n, &row, err))
        return false;
    if (row >= t->cap) {
        uint32_t cap = t->cap ? t->cap * 2 : 64;
        uint32_t *grown = mem_grow(t->n, cap, sizeof(*grown), err);
        if (!grown)
            return false;
        memset(grown + t->cap, 0, (size_t)(cap - t->cap) * sizeof(*grown));
        t->n = grown;
        t->cap = cap;
    }
    t->n[row] += n;
    return true;
}

/* Tokens of all values, weighted by how many entities have the value; *most: tokens of the longest value. */
static bool count_tokens(struct token_counts *t, const struct raw_column *c, const uint32_t *count, char sep,
                         uint32_t *most, struct err *err)
{
    struct strtab values = strtab_view(&c->values);
    for (uint32_t r = 1; r < values.n; r++) {
        struct str s = strtab_get(&values, r), token;
        uint32_t n = 0;
        for (; count[r] > 0 && schema_multi_next(sep, &s.p, &s.n, &token); n++)
            if (!count_token(t, token, count[r], err))
                return false;
        *most = n > *most ? n : *most;
    }
    return true;
}

static bool learn_multi(struct schema_field *f, const struct raw_column *c, const uint32_t *count, uint32_t min_count,
                        struct err *err)
{
    struct token_counts t = {0};
    uint32_t most = 1;
    bool ok = count_tokens(&t, c, count, f->sep, &most, err);
    struct strtab tokens = strtab_view(&t.token);
    for (uint32_t r = 0; ok && r < tokens.n; r++) {
        struct str s = strtab_get(&tokens, r);
        if (t.n[r] >= min_count && !memchr(s.p, '\0', s.n))
            ok = strtab_add(&f->vocab, s.p, s.n, NULL, err);
    }
    f->n_slots = most < SCHEMA_MULTI_MAX ? most : SCHEMA_MULTI_MAX;
    strtab_builder_fini(&t.token);
    free(t.n);
    return ok;
}

// ------------------------------------------------------------------------------------------------------------ bounds

struct weighted {
    double value;
    uint32_t n;
};

static int by_value(const void *pa, const void *pb)
{
    const struct weighted *a = pa, *b = pb;
    return a->value < b->value ? -1 : a->value > b->value;
}

/* Bounds at the quantiles 1/buckets, 2/buckets, ...: a bound is the first value at or behind its quantile. Values that
 * many entities share take several quantiles at once, so there can be fewer buckets than asked for. */
static bool learn_quantiles(struct schema_field *f, struct weighted *w, uint32_t n, uint32_t buckets, struct err *err)
{
    uint64_t total = 0, before = 0;
    qsort(w, n, sizeof(*w), by_value);
    for (uint32_t i = 0; i < n; i++)
        total += w[i].n;
    if (!(f->bounds = mem_array(buckets, sizeof(*f->bounds), err)))
        return false;
    for (uint32_t i = 0, q = 1; i < n && q < buckets; i++) {
        if (i > 0 && before * buckets >= q * total && w[i].value > w[i - 1].value)
            f->bounds[f->n_bounds++] = w[i].value;
        while (q < buckets && before * buckets >= q * total)
            q++;
        before += w[i].n;
    }
    return true;
}

static bool learn_numeric(struct schema_field *f, const struct field_spec *spec, const struct raw_column *c,
                          const uint32_t *count, struct err *err)
{
    if (spec->n_bounds > 0) {
        if (!(f->bounds = mem_array(spec->n_bounds, sizeof(*f->bounds), err)))
            return false;
        memcpy(f->bounds, spec->bounds, spec->n_bounds * sizeof(*f->bounds));
        f->n_bounds = spec->n_bounds;
        return true;
    }
    struct strtab values = strtab_view(&c->values);
    struct weighted *w = mem_array(values.n, sizeof(*w), err);
    uint32_t n = 0;
    for (uint32_t r = 1; w && r < values.n; r++)
        if (count[r] > 0 && raw_parse_number(strtab_get(&values, r), &w[n].value))
            w[n++].n = count[r];
    bool ok = w && learn_quantiles(f, w, n, spec->buckets ? spec->buckets : FEATURE_BUCKETS, err);
    free(w);
    return ok;
}

// ------------------------------------------------------------------------------------------------------------ schema

static bool learn_field(struct schema_field *f, const struct field_spec *spec, const struct entities *e,
                        uint32_t min_count, struct err *err)
{
    snprintf(f->name, sizeof(f->name), "%s", spec->name);
    f->kind = spec->kind;
    f->category = spec->category;
    f->sep = spec->sep;
    if (spec->kind == FIELD_ID) {
        f->n_rows = e->n + 1;
        return true;
    }
    if (spec->kind == FIELD_DISPLAY)
        return true;
    int col = raw_find_column(e->table, spec->name);
    if (col < 0)
        return err_set(err, ERR_ARG, "there is no %s column \"%s\"", e->table->what, spec->name);
    const struct raw_column *c = &e->table->col[col];
    uint32_t *count = count_values(c, e, err);
    bool ok = count != NULL;
    if (ok && spec->kind == FIELD_NUMERIC)
        ok = learn_numeric(f, spec, c, count, err);
    else if (ok && spec->kind == FIELD_MULTI)
        ok = learn_multi(f, c, count, min_count_of(spec, min_count), err);
    else if (ok)
        ok = learn_categorical(f, c, count, min_count_of(spec, min_count), err);
    free(count);
    return ok;
}

static bool learn_side(struct schema_side *side, const struct side_spec *spec, const struct entities *e,
                       uint32_t min_count, struct err *err)
{
    side->id_field = side->segment_field = -1;
    if (!(side->field = mem_array(spec->n, sizeof(*side->field), err)))
        return false;
    side->n_fields = spec->n;
    for (uint32_t i = 0; i < spec->n; i++) {
        if (!learn_field(&side->field[i], &spec->field[i], e, min_count, err))
            return false;
        if (spec->field[i].segment)
            side->segment_field = (int)i;
    }
    return true;
}

struct schema *features_schema(const struct features_spec *spec, const struct entities *users,
                               const struct entities *items, uint32_t min_count, struct err *err)
{
    struct schema *s = mem_array(1, sizeof(*s), err);
    if (s && learn_side(&s->user, &spec->user, users, min_count, err) &&
        learn_side(&s->item, &spec->item, items, min_count, err) && schema_seal(s, err))
        return s;
    schema_free(s);
    return NULL;
}

// --------------------------------------------------------------------------------------------------------- encoding

static void encode_column(const struct schema_side *side, uint32_t i, const struct entities *e, uint32_t min_count,
                          uint32_t *x)
{
    const struct schema_field *f = &side->field[i];
    int col = raw_find_column(e->table, f->name);
    for (uint32_t r = 0; r < e->n; r++) {
        uint32_t *row = x + (size_t)r * side->n_slots;
        if (f->kind == FIELD_ID) {
            row[f->slot] = e->n_train[r] >= min_count ? r + 1 : 0;
        } else if (f->kind != FIELD_DISPLAY && col >= 0) {
            struct str s = raw_get(e->table, e->row[r], (uint32_t)col);
            schema_encode_value(side, f, s.p, s.n, row);
        }
    }
}

uint32_t *features_encode(const struct schema_side *side, const struct side_spec *spec, const struct entities *e,
                          uint32_t min_count, struct err *err)
{
    uint32_t *x = mem_array((size_t)e->n * side->n_slots, sizeof(*x), err);
    if (!x)
        return NULL;
    for (uint32_t r = 0; r < e->n; r++)
        schema_encode_unknown(side, x + (size_t)r * side->n_slots);
    for (uint32_t i = 0; i < side->n_fields; i++)
        encode_column(side, i, e, min_count_of(&spec->field[i], min_count), x);
    return x;
}
