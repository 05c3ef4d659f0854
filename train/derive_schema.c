/* A schema for data that comes without one. The rules, in order, are those of docs/data.md, "Derived schema"; they look
 * at a column's name first, because names of titles and identifiers say more than their values, then at what it holds.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/base/mem.h"
#include "train/features.h"

#define CODES_MAX 32 // a numeric column with no more distinct values holds codes (occupation 0 to 20), not amounts
#define NUMERIC_SHARE 0.98 // of values that must be numbers; the rest counts as missing (rough rows of real catalogues)
#define MULTI_SHARE 0.02   // of values that must have the separator
#define SHARED 0.5   // of entities that must share their value with another, else it identifies instead of describing
#define FINE_COUNT 2 // minimum count in a categorical column: a value of one entity says no more than the entity's id

struct profile {
    uint32_t filled, distinct; // entities with a value, and values
    uint32_t numbers, barred;  // entities whose value is a number, has a '|'
    uint32_t shared;           // entities whose value another has too
};

static bool profile_column(const struct raw_column *c, const struct entities *e, struct profile *p, struct err *err)
{
    uint32_t *count = mem_array(c->values.n, sizeof(*count), err);
    if (!count)
        return false;
    *p = (struct profile){0};
    for (uint32_t i = 0; i < e->n; i++)
        count[c->cell[e->row[i]]]++;
    struct strtab values = strtab_view(&c->values);
    for (uint32_t r = 1; r < values.n; r++) {
        struct str s = strtab_get(&values, r);
        double number;
        p->filled += count[r];
        p->distinct += count[r] > 0;
        p->shared += count[r] > 1 ? count[r] : 0;
        p->numbers += raw_parse_number(s, &number) ? count[r] : 0;
        p->barred += memchr(s.p, '|', s.n) ? count[r] : 0;
    }
    free(count);
    return true;
}

static bool one_of(const char *name, const char *const *known)
{
    for (; *known; known++)
        if (strcasecmp(name, *known) == 0)
            return true;
    return false;
}

static bool is_category_name(const char *name)
{
    static const char *const known[] = {"category", "class", "main_category", NULL};
    return one_of(name, known);
}

/* Names, texts, links, and identifiers: for people, or too fine to be features. Postal codes are in the second group:
 * an area of a few digits would be a feature, but a request would have to cut them in the same way; see docs/data.md.
 */
static bool is_display_name(const char *name)
{
    static const char *const known[] = {"title",    "name",     "description", "text",  "summary", "url", "uri",
                                        "image",    "link",     "asin",        "isbn",  "id",      "zip", "zipcode",
                                        "zip_code", "postcode", "postal_code", "phone", "email",   NULL};
    size_t n = strlen(name);
    return one_of(name, known) || (n > 3 && strcasecmp(name + n - 3, "_id") == 0) ||
           (n > 4 && strcasecmp(name + n - 4, "_url") == 0);
}

static enum field_kind kind_of(const char *name, const struct profile *p)
{
    if (p->distinct == 0 || is_display_name(name))
        return FIELD_DISPLAY;
    if (p->barred > 0 && p->barred >= MULTI_SHARE * p->filled)
        return FIELD_MULTI;
    bool shared = p->shared >= SHARED * p->filled;
    if (p->numbers >= NUMERIC_SHARE * p->filled)
        return p->distinct <= CODES_MAX && shared ? FIELD_CATEGORICAL : FIELD_NUMERIC;
    return shared ? FIELD_CATEGORICAL : FIELD_DISPLAY;
}

static bool derive_side(struct side_spec *side, const struct entities *e, const char *id, bool is_item,
                        uint32_t min_count, struct err *err)
{
    if (!features_spec_add(side, id, FIELD_ID, err))
        return false;
    bool has_category = false, has_segment = false;
    for (uint32_t i = 0; i < e->table->n_cols; i++) {
        const struct raw_column *c = &e->table->col[i];
        struct profile p;
        if (!profile_column(c, e, &p, err))
            return false;
        bool category = is_item && !has_category && p.distinct > 0 && is_category_name(c->name);
        struct field_spec *f =
            features_spec_add(side, c->name, category ? FIELD_CATEGORICAL : kind_of(c->name, &p), err);
        if (!f)
            return false;
        f->sep = f->kind == FIELD_MULTI ? '|' : '\0';
        f->category = category;
        if (f->kind == FIELD_CATEGORICAL && !category)
            f->min_count = min_count > FINE_COUNT ? min_count : FINE_COUNT;
        f->segment = is_item ? category : !has_segment && f->kind == FIELD_CATEGORICAL;
        has_category = has_category || f->category;
        has_segment = has_segment || f->segment;
    }
    return true;
}

struct features_spec *derive_schema(const struct entities *users, const struct entities *items, uint32_t min_count,
                                    struct err *err)
{
    struct features_spec *spec = mem_array(1, sizeof(*spec), err);
    if (spec && derive_side(&spec->user, users, "user_id", false, min_count, err) &&
        derive_side(&spec->item, items, "item_id", true, min_count, err))
        return spec;
    features_spec_free(spec);
    return NULL;
}
