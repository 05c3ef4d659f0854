/* Sealing, encoding and checking; the JSON form is in schema_json.c. */
#include "core/schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/pace.h"
#include "core/base/utf8.h"

#define NUMBER_MAX 63 // bytes of a numeric value's text; longer ones are no numbers that anybody means

static const char *const kind_names[] = {"id", "categorical", "numeric", "multi", "display"};

const char *schema_kind_name(enum field_kind kind)
{
    return kind_names[kind];
}

bool schema_kind_parse(const char *name, enum field_kind *out)
{
    for (int i = FIELD_ID; i <= FIELD_DISPLAY; i++)
        if (strcmp(name, kind_names[i]) == 0) {
            *out = (enum field_kind)i;
            return true;
        }
    return false;
}

static void side_fini(struct schema_side *side)
{
    for (uint32_t i = 0; side->field && i < side->n_fields; i++) {
        strtab_index_fini(&side->field[i].index);
        strtab_builder_fini(&side->field[i].vocab);
        free(side->field[i].bounds);
    }
    free(side->field);
}

void schema_free(struct schema *s)
{
    if (!s)
        return;
    side_fini(&s->user);
    side_fini(&s->item);
    free(s);
}

// ------------------------------------------------------------------------------------------------------- sealing

static bool check_name(const struct schema_side *side, uint32_t i, struct err *err)
{
    const char *name = side->field[i].name;
    size_t n = strnlen(name, sizeof(side->field[i].name));
    if (n == 0 || n > SCHEMA_NAME_MAX)
        return err_set(err, ERR_FORMAT, "name has %zu bytes, want 1 to %d", n, SCHEMA_NAME_MAX);
    if (!utf8_valid(name, n))
        return err_set(err, ERR_FORMAT, "name is not UTF-8");
    for (size_t j = 0; j < n; j++)
        if ((unsigned char)name[j] < 0x20 || name[j] == 0x7f)
            return err_set(err, ERR_FORMAT, "name has a control character at byte %zu", j);
    for (uint32_t j = 0; j < i; j++)
        if (strcmp(side->field[j].name, name) == 0)
            return err_set(err, ERR_FORMAT, "name is also that of field %u; want distinct names", j);
    return true;
}

static bool check_value(const struct schema_field *f, struct str v, struct err *err)
{
    if (v.n == 0)
        return err_set(err, ERR_FORMAT, "an empty value; a missing one needs no place in the vocabulary");
    if (!utf8_valid(v.p, v.n) || memchr(v.p, '\0', v.n))
        return err_set(err, ERR_FORMAT, "a value is not UTF-8 without NUL");
    if (f->kind == FIELD_MULTI && (memchr(v.p, f->sep, v.n) || v.p[0] == ' ' || v.p[v.n - 1] == ' '))
        return err_set(err, ERR_FORMAT, "value \"%.*s\" has the separator '%c' or a space at an end",
                       (int)(v.n < 60 ? v.n : 60), v.p, f->sep);
    return true;
}

static bool seal_vocab(struct schema_field *f, struct err *err)
{
    struct strtab t = strtab_view(&f->vocab);
    if (t.n >= SCHEMA_ROWS_MAX)
        return err_set(err, ERR_LIMIT, "%u values, at most %u allowed", t.n, SCHEMA_ROWS_MAX - 1);
    for (uint32_t r = 0; r < t.n; r++)
        if (!check_value(f, strtab_get(&t, r), err))
            return err_prefix(err, "value %u", r);
    strtab_index_fini(&f->index);
    f->n_rows = t.n + 1;
    return strtab_index_init(&f->index, t, err);
}

static double round9(double v)
{
    char text[32];
    snprintf(text, sizeof(text), "%.9g", v);
    return strtod(text, NULL);
}

static bool seal_bounds(struct schema_field *f, struct err *err)
{
    if (f->n_bounds > SCHEMA_BOUNDS_MAX)
        return err_set(err, ERR_LIMIT, "%u bounds, at most %d allowed", f->n_bounds, SCHEMA_BOUNDS_MAX);
    for (uint32_t i = 0; i < f->n_bounds; i++) {
        if (!isfinite(f->bounds[i]))
            return err_set(err, ERR_FORMAT, "bound %u is not finite", i);
        if (i > 0 && f->bounds[i] <= f->bounds[i - 1])
            return err_set(err, ERR_FORMAT, "bound %u is %.9g, not above the one before (%.9g); want ascending bounds",
                           i, f->bounds[i], f->bounds[i - 1]);
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < f->n_bounds; i++) {
        double b = round9(f->bounds[i]);
        if (!isfinite(b))
            return err_set(err, ERR_FORMAT, "bound %u is too large", i);
        if (n == 0 || b > f->bounds[n - 1])
            f->bounds[n++] = b;
    }
    f->n_bounds = n;
    f->n_rows = n + 2;
    return true;
}

static bool seal_multi(struct schema_field *f, struct err *err)
{
    if (f->sep < 0x20 || f->sep > 0x7e)
        return err_set(err, ERR_FORMAT, "separator is byte 0x%02x, want a printable ASCII character",
                       (unsigned char)f->sep);
    if (f->n_slots == 0)
        f->n_slots = SCHEMA_MULTI_MAX;
    if (f->n_slots > SCHEMA_MULTI_MAX)
        return err_set(err, ERR_FORMAT, "%u slots, want 1 to %d", f->n_slots, SCHEMA_MULTI_MAX);
    return seal_vocab(f, err);
}

static bool seal_field(struct schema_field *f, struct err *err)
{
    if (f->kind != FIELD_MULTI)
        f->n_slots = f->kind == FIELD_DISPLAY ? 0 : 1;
    switch (f->kind) {
    case FIELD_ID:
        return (f->n_rows >= 1 && f->n_rows <= SCHEMA_ROWS_MAX) ||
               err_set(err, ERR_FORMAT, "%u rows, want 1 to %u", f->n_rows, SCHEMA_ROWS_MAX);
    case FIELD_CATEGORICAL:
        return seal_vocab(f, err);
    case FIELD_NUMERIC:
        return seal_bounds(f, err);
    case FIELD_MULTI:
        return seal_multi(f, err);
    case FIELD_DISPLAY:
        f->n_rows = 0;
        return true;
    }
    return err_set(err, ERR_FORMAT, "unknown kind %d", (int)f->kind);
}

static bool check_category(const struct schema_side *side, bool allowed, struct err *err)
{
    const struct schema_field *first = NULL;
    for (uint32_t i = 0; i < side->n_fields; i++) {
        const struct schema_field *f = &side->field[i];
        if (!f->category)
            continue;
        if (!allowed)
            return err_set(err, ERR_FORMAT, "field \"%s\" is marked as the category; only items have one", f->name);
        if (f->kind != FIELD_CATEGORICAL)
            return err_set(err, ERR_FORMAT, "category field \"%s\" is %s, want categorical", f->name,
                           kind_names[f->kind]);
        if (first)
            return err_set(err, ERR_FORMAT, "\"%s\" and \"%s\" are both marked as the category, want at most one",
                           first->name, f->name);
        first = f;
    }
    return true;
}

static bool check_segment(const struct schema_side *side, struct err *err)
{
    int i = side->segment_field;
    if (i == -1)
        return true;
    if (i < -1 || i >= (int)side->n_fields)
        return err_set(err, ERR_FORMAT, "segment field %d does not exist, there are %u", i, side->n_fields);
    if (side->field[i].kind != FIELD_CATEGORICAL)
        return err_set(err, ERR_FORMAT, "segment field \"%s\" is %s, want categorical (or no segment field: -1, null)",
                       side->field[i].name, kind_names[side->field[i].kind]);
    return true;
}

static bool seal_side(struct schema_side *side, bool is_item, struct err *err)
{
    if (side->n_fields > SCHEMA_FIELDS_MAX)
        return err_set(err, ERR_LIMIT, "%u fields, at most %d allowed", side->n_fields, SCHEMA_FIELDS_MAX);
    side->n_slots = 0;
    side->id_field = -1;
    for (uint32_t i = 0; i < side->n_fields; i++) {
        struct schema_field *f = &side->field[i];
        f->name[SCHEMA_NAME_MAX] = '\0';
        if (!check_name(side, i, err) || !seal_field(f, err))
            return err_prefix(err, "field %u (\"%s\")", i, f->name);
        if (f->kind == FIELD_ID && side->id_field >= 0)
            return err_set(err, ERR_FORMAT, "\"%s\" and \"%s\" are both of kind id, want at most one",
                           side->field[side->id_field].name, f->name);
        if (f->kind == FIELD_ID)
            side->id_field = (int)i;
        f->slot = side->n_slots;
        side->n_slots += f->n_slots;
    }
    return check_category(side, is_item, err) && check_segment(side, err);
}

bool schema_seal(struct schema *s, struct err *err)
{
    if (!seal_side(&s->user, false, err))
        return err_prefix(err, "schema: user");
    if (!seal_side(&s->item, true, err))
        return err_prefix(err, "schema: item");
    return true;
}

// -------------------------------------------------------------------------------------------------------- finding

const struct schema_field *schema_find(const struct schema_side *s, const char *name, size_t n)
{
    for (uint32_t i = 0; i < s->n_fields; i++)
        if (strlen(s->field[i].name) == n && memcmp(s->field[i].name, name, n) == 0)
            return &s->field[i];
    return NULL;
}

const struct schema_field *schema_category(const struct schema_side *s)
{
    for (uint32_t i = 0; i < s->n_fields; i++)
        if (s->field[i].category)
            return &s->field[i];
    return NULL;
}

uint32_t schema_segment(const struct schema_side *s, const uint32_t *x)
{
    return s->segment_field < 0 ? 0 : x[s->field[s->segment_field].slot];
}

uint32_t schema_n_segments(const struct schema_side *s)
{
    return s->segment_field < 0 ? 1 : s->field[s->segment_field].n_rows;
}

// ------------------------------------------------------------------------------------------------------- encoding

static void clear_field(const struct schema_field *f, uint32_t *x)
{
    for (uint32_t j = 0; j < f->n_slots; j++)
        x[f->slot + j] = j == 0 ? 0 : SLOT_EMPTY;
}

void schema_encode_unknown(const struct schema_side *s, uint32_t *x)
{
    for (uint32_t i = 0; i < s->n_fields; i++)
        clear_field(&s->field[i], x);
}

static struct str trim(const char *p, size_t n)
{
    while (n > 0 && *p == ' ')
        p++, n--;
    while (n > 0 && p[n - 1] == ' ')
        n--;
    return (struct str){p, n};
}

bool schema_multi_next(char sep, const char **text, size_t *n, struct str *value)
{
    while (*n > 0) {
        const char *end = memchr(*text, sep, *n);
        size_t len = end ? (size_t)(end - *text) : *n;
        *value = trim(*text, len);
        *text += len + (end != NULL);
        *n -= len + (end != NULL);
        if (value->n > 0)
            return true;
    }
    return false;
}

static uint32_t vocab_row(const struct schema_field *f, const char *p, size_t n)
{
    uint32_t r = strtab_find(&f->index, p, n);
    return r == STRTAB_NONE ? 0 : r + 1;
}

/* Decimal number, spaces around it allowed. strtod alone would also take nan, inf and hexadecimal. */
bool schema_parse_number(const char *p, size_t n, double *out)
{
    char text[NUMBER_MAX + 1], *end;
    struct str s = trim(p, n);
    if (s.n == 0 || s.n > NUMBER_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!memchr("0123456789+-.eE", s.p[i], 15))
            return false;
        text[i] = s.p[i];
    }
    text[s.n] = '\0';
    *out = strtod(text, &end);
    return *end == '\0' && isfinite(*out);
}

static uint32_t bucket(const struct schema_field *f, double v)
{
    uint32_t lo = 0, hi = f->n_bounds; // bounds[.. lo) <= v < bounds[hi ..]
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (f->bounds[mid] <= v)
            lo = mid + 1;
        else
            hi = mid;
    }
    return 1 + lo;
}

static bool seen(const uint32_t *x, uint32_t n, uint32_t row)
{
    for (uint32_t i = 0; i < n; i++)
        if (x[i] == row)
            return true;
    return false;
}

static bool encode_multi(const struct schema_field *f, const char *text, size_t n, uint32_t *x)
{
    uint32_t at = 0;
    bool known = true;
    struct str v;
    clear_field(f, x);
    x += f->slot;
    while (at < f->n_slots && schema_multi_next(f->sep, &text, &n, &v)) {
        uint32_t row = vocab_row(f, v.p, v.n);
        known = known && row != 0;
        if (!seen(x, at, row))
            x[at++] = row;
    }
    return known && at > 0;
}

bool schema_encode_value(const struct schema_side *s, const struct schema_field *f, const char *value, size_t n,
                         uint32_t *x)
{
    (void)s;
    double v;
    switch (f->kind) {
    case FIELD_ID:
    case FIELD_DISPLAY:
        return true;
    case FIELD_CATEGORICAL:
        return (x[f->slot] = vocab_row(f, value, n)) != 0;
    case FIELD_NUMERIC:
        return (x[f->slot] = schema_parse_number(value, n, &v) ? bucket(f, v) : 0) != 0;
    case FIELD_MULTI:
        return encode_multi(f, value, n, x);
    }
    return true;
}

// ------------------------------------------------------------------------------------------------------- checking

static bool check_field(const struct schema_field *f, const uint32_t *x)
{
    uint32_t j = 0;
    for (; j < f->n_slots && x[f->slot + j] < f->n_rows; j++)
        ;
    if (j == 0 && f->n_slots > 0)
        return false;
    for (; j < f->n_slots; j++)
        if (x[f->slot + j] != SLOT_EMPTY)
            return false;
    return true;
}

static bool bad_row(const struct schema_field *f, const uint32_t *x, size_t entity, struct err *err)
{
    uint32_t j = 0;
    while (j + 1 < f->n_slots && x[f->slot + j] < f->n_rows)
        j++;
    return err_set(err, ERR_FORMAT, "entity %zu, field \"%s\": row %u in slot %u, its table has %u rows", entity,
                   f->name, x[f->slot + j], f->slot + j, f->n_rows);
}

bool schema_check_x(const struct schema_side *s, const uint32_t *x, size_t n, struct err *err)
{
    for (size_t e = 0; e < n; e++) {
        for (uint32_t i = 0; i < s->n_fields; i++)
            if (!check_field(&s->field[i], x + e * s->n_slots))
                return bad_row(&s->field[i], x + e * s->n_slots, e, err);
        pace_step(e);
    }
    return true;
}
