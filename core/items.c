#include "core/items.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/base/pace.h"
#include "core/base/utf8.h"

// ------------------------------------------------------------------------------------------------------- checking

static bool has_control(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return true;
    return false;
}

bool items_check_ids(const struct strtab *ids, struct err *err)
{
    for (uint32_t i = 0; i < ids->n; i++) {
        struct str s = strtab_get(ids, i);
        if (s.n == 0 || s.n > ITEM_ID_MAX)
            return err_set(err, ERR_FORMAT, "id of row %u has %zu bytes, want 1 to %d", i, s.n, ITEM_ID_MAX);
        if (!utf8_valid(s.p, s.n) || has_control(s))
            return err_set(err, ERR_FORMAT, "id of row %u is not UTF-8 text without control characters", i);
        pace_step(i);
    }
    return true;
}

static bool check_text(const struct strtab *t, const char *what, struct err *err)
{
    for (uint32_t i = 0; i < t->n; i++) {
        struct str s = strtab_get(t, i);
        if (!utf8_valid(s.p, s.n))
            return err_set(err, ERR_FORMAT, "%s: row %u is not UTF-8", what, i);
        pace_step(i);
    }
    return true;
}

static bool check_categories(const struct strtab *names, const uint32_t *of, uint32_t n, struct err *err)
{
    if (names->n == 0 || strtab_get(names, 0).n != 0)
        return err_set(err, ERR_FORMAT, "category: row 0 must exist and be empty");
    for (uint32_t i = 0; i < n; i++)
        if (of[i] >= names->n)
            return err_set(err, ERR_FORMAT, "category_of: item %u has category %u, there are %u", i, of[i], names->n);
    return check_text(names, "category", err);
}

// -------------------------------------------------------------------------------------------------------- reading

static bool read_attr(struct items *it, const struct strtab *names, uint32_t i, struct err *err)
{
    struct str name = strtab_get(names, i);
    char section[32];
    if (name.n == 0 || name.n > SCHEMA_NAME_MAX || memchr(name.p, '\0', name.n))
        return err_set(err, ERR_FORMAT, "attr_names: row %u has %zu bytes, want 1 to %d", i, name.n, SCHEMA_NAME_MAX);
    memcpy(it->attr[i].name, name.p, name.n);
    snprintf(section, sizeof(section), "attr.%u", i);
    if (!pack_get_strtab(it->pack, section, &it->attr[i].values, err))
        return false;
    if (it->attr[i].values.n != it->n)
        return err_set(err, ERR_FORMAT, "%s has %u rows, want %u", section, it->attr[i].values.n, it->n);
    return check_text(&it->attr[i].values, section, err);
}

static bool read_attrs(struct items *it, struct err *err)
{
    struct strtab names;
    if (!pack_get_strtab(it->pack, "attr_names", &names, err) || !check_text(&names, "attr_names", err))
        return false;
    if (names.n > ITEM_ATTRS_MAX)
        return err_set(err, ERR_LIMIT, "%u attributes, at most %d allowed", names.n, ITEM_ATTRS_MAX);
    it->n_attrs = names.n;
    it->attr = mem_array(names.n, sizeof(*it->attr), err);
    if (!it->attr)
        return false;
    for (uint32_t i = 0; i < names.n; i++) {
        if (!read_attr(it, &names, i, err))
            return false;
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(it->attr[i].name, it->attr[j].name) == 0)
                return err_set(err, ERR_FORMAT, "attr_names: \"%s\" appears twice", it->attr[i].name);
    }
    return true;
}

/* Counting sort, so items keep their order within a category. */
static bool group_by_category(struct items *it, struct err *err)
{
    uint32_t *off = it->category_off = mem_array((size_t)it->category.n + 1, sizeof(*off), err);
    it->category_item = mem_array(it->n, sizeof(*it->category_item), err);
    uint32_t *at = mem_array(it->category.n, sizeof(*at), err);
    if (off && it->category_item && at) {
        for (uint32_t i = 0; i < it->n; i++)
            off[it->category_of[i] + 1]++;
        for (uint32_t c = 0; c < it->category.n; c++) {
            at[c] = off[c];
            off[c + 1] += off[c];
        }
        for (uint32_t i = 0; i < it->n; i++)
            it->category_item[at[it->category_of[i]]++] = i;
    }
    free(at);
    return off && it->category_item && at;
}

/* Most popular first, ties by index: a radix sort by the complement of the count, from its lowest digit, each pass
 * keeping the order of the one before. */
static void sort_by_popularity(const uint32_t *count, uint32_t n, uint32_t *idx, uint32_t *other)
{
    enum { BITS = 11, DIGITS = 1 << BITS };
    for (unsigned shift = 0; shift < 32; shift += BITS) {
        uint32_t at[DIGITS] = {0}, sum = 0;
        for (uint32_t i = 0; i < n; i++) {
            at[~count[i] >> shift & (DIGITS - 1)]++;
            pace_step(i);
        }
        for (unsigned d = 0; d < DIGITS; d++) {
            uint32_t before = sum;
            sum += at[d];
            at[d] = before;
        }
        for (uint32_t i = 0; i < n; i++) {
            other[at[~count[idx[i]] >> shift & (DIGITS - 1)]++] = idx[i];
            pace_step(i);
        }
        memcpy(idx, other, n * sizeof(*idx));
    }
}

static bool rank_by_popularity(struct items *it, struct err *err)
{
    it->by_popularity = mem_array(it->n, sizeof(*it->by_popularity), err);
    uint32_t *other = it->by_popularity ? mem_array(it->n, sizeof(*other), err) : NULL;
    if (!other)
        return false;
    for (uint32_t i = 0; i < it->n; i++) {
        it->by_popularity[i] = i;
        it->popularity_sum += it->popularity[i];
    }
    sort_by_popularity(it->popularity, it->n, it->by_popularity, other);
    free(other);
    return true;
}

bool items_shorten_ids(struct items *it, struct err *err)
{
    if (!(it->short_id = mem_block(it->n * sizeof(*it->short_id), err)))
        return false;
    for (uint32_t i = 0; i < it->n; i++) {
        struct str id = strtab_get(&it->ids, i);
        pace_step(i);
        if (id.n > ITEM_SHORT_MAX || memchr(id.p, '"', id.n) || memchr(id.p, '\\', id.n))
            continue;
        memcpy(it->short_id[i].text, id.p, id.n);
        it->short_id[i].n = (uint8_t)id.n;
    }
    return true;
}

static bool read_columns(struct items *it, const struct schema *schema, struct err *err)
{
    const char *fingerprint = pack_need(it->pack, "fingerprint", PACK_U8, 32, 1, err);
    struct hash128 parsed;
    if (!fingerprint)
        return false;
    memcpy(it->fingerprint, fingerprint, 32);
    if (!hash128_parse(it->fingerprint, &parsed))
        return err_set(err, ERR_FORMAT, "fingerprint is not 32 hex digits");
    if (!pack_get_strtab(it->pack, "ids", &it->ids, err) || !items_check_ids(&it->ids, err))
        return false;
    it->n = it->ids.n;
    const struct schema_side *side = &schema->item;
    if (side->n_slots && (!(it->x = pack_need(it->pack, "x", PACK_U32, side->n_slots, it->n, err)) ||
                          !schema_check_x(side, it->x, it->n, err)))
        return false;
    if (!(it->popularity = pack_need(it->pack, "popularity", PACK_U32, 1, it->n, err)) ||
        !pack_get_strtab(it->pack, "category", &it->category, err) ||
        !(it->category_of = pack_need(it->pack, "category_of", PACK_U32, 1, it->n, err)))
        return false;
    return check_categories(&it->category, it->category_of, it->n, err);
}

static bool make_facets(struct items *it, const struct schema_side *side, struct err *err)
{
    it->facet = mem_array((size_t)it->n_attrs + 1, sizeof(*it->facet), err);
    for (uint32_t a = 0; it->facet && a < it->n_attrs; a++) {
        const struct schema_field *f = schema_find(side, it->attr[a].name, strlen(it->attr[a].name));
        struct facet_source s = {.values = &it->attr[a].values,
                                 .n_items = it->n,
                                 .sep = f && f->kind == FIELD_MULTI ? f->sep : 0,
                                 .numeric = f && f->kind == FIELD_NUMERIC};
        it->n_facets++;
        if (!facet_init(&it->facet[a], &s, err))
            return err_prefix(err, "attribute %s", it->attr[a].name);
    }
    if (!it->facet)
        return false;
    struct facet_source category = {.values = &it->category, .of = it->category_of, .n_items = it->n};
    return facet_init(&it->facet[it->n_facets++], &category, err);
}

struct items *items_from_pack(struct pack *p, const struct schema *schema, struct err *err)
{
    struct items *it = mem_array(1, sizeof(*it), err);
    if (!it) {
        pack_close(p);
        return NULL;
    }
    it->pack = p;
    if (read_columns(it, schema, err) && read_attrs(it, err) && strtab_index_init(&it->by_id, it->ids, err) &&
        strtab_index_init(&it->category_index, it->category, err) && group_by_category(it, err) &&
        rank_by_popularity(it, err) && items_shorten_ids(it, err) && make_facets(it, &schema->item, err))
        return it;
    if (err && !strstr(err->msg, pack_path(p)))
        err_prefix(err, "%s", pack_path(p));
    items_free(it);
    return NULL;
}

struct items *items_load(const char *path, const struct schema *schema, enum pack_mode mode, struct err *err)
{
    struct pack *p = pack_open(path, "items", mode, true, err);
    return p ? items_from_pack(p, schema, err) : NULL;
}

void items_free(struct items *it)
{
    if (!it)
        return;
    strtab_index_fini(&it->by_id);
    strtab_index_fini(&it->category_index);
    for (uint32_t f = 0; f < it->n_facets; f++)
        facet_fini(&it->facet[f]);
    free(it->facet);
    free(it->attr);
    mem_block_free(it->short_id, it->n * sizeof(*it->short_id));
    free(it->by_popularity);
    free(it->category_off);
    free(it->category_item);
    pack_close(it->pack);
    free(it);
}

size_t items_memory(const struct items *it)
{
    size_t facets = 0;
    for (uint32_t f = 0; f < it->n_facets; f++)
        facets += sizeof(it->facet[f]) + facet_memory(&it->facet[f], it->n);
    return facets + sizeof(*it) + pack_bytes(it->pack) + it->n_attrs * sizeof(*it->attr) +
           (2 * sizeof(uint32_t) + sizeof(*it->short_id)) * it->n +
           sizeof(uint32_t) * ((size_t)it->category.n + 1 + it->by_id.n_slots + it->category_index.n_slots);
}

uint32_t items_find(const struct items *it, const char *id, size_t n)
{
    return strtab_find(&it->by_id, id, n);
}

int items_attr(const struct items *it, const char *name, size_t n)
{
    for (uint32_t i = 0; i < it->n_attrs; i++)
        if (strlen(it->attr[i].name) == n && memcmp(it->attr[i].name, name, n) == 0)
            return (int)i;
    return -1;
}

int items_facet(const struct items *it, const char *name, size_t n)
{
    return n == 8 && memcmp(name, "category", 8) == 0 ? (int)it->n_attrs : items_attr(it, name, n);
}

// -------------------------------------------------------------------------------------------------------- writing

static bool put_attrs(struct pack_writer *w, const struct items_columns *c, struct err *err)
{
    struct strtab_builder names = {0};
    bool ok = true;
    for (uint32_t i = 0; ok && i < c->n_attrs; i++)
        ok = strtab_add(&names, c->attr[i].name, strlen(c->attr[i].name), NULL, err);
    struct strtab view = strtab_view(&names);
    ok = ok && pack_put_strtab(w, "attr_names", &view, err);
    for (uint32_t i = 0; ok && i < c->n_attrs; i++) {
        char section[32];
        snprintf(section, sizeof(section), "attr.%u", i);
        ok = (c->attr[i].values.n == c->n || err_set(err, ERR_ARG, "attribute %s has %u values for %u items",
                                                     c->attr[i].name, c->attr[i].values.n, c->n)) &&
             pack_put_strtab(w, section, &c->attr[i].values, err);
    }
    strtab_builder_fini(&names);
    return ok;
}

bool items_save(const char *path, const struct items_columns *c, const char *fingerprint, struct err *err)
{
    if (c->ids.n != c->n)
        return err_set(err, ERR_ARG, "items: %u ids for %u items", c->ids.n, c->n);
    if (!items_check_ids(&c->ids, err) || !check_categories(&c->category, c->category_of, c->n, err))
        return err_prefix(err, "items");
    struct pack_writer *w = pack_writer_new(path, "items", err);
    bool ok = w && pack_put(w, "fingerprint", PACK_U8, 1, 32, fingerprint, err) &&
              pack_put_strtab(w, "ids", &c->ids, err) &&
              (c->n_slots == 0 || pack_put(w, "x", PACK_U32, c->n, c->n_slots, c->x, err)) &&
              pack_put(w, "popularity", PACK_U32, c->n, 1, c->popularity, err) &&
              pack_put_strtab(w, "category", &c->category, err) &&
              pack_put(w, "category_of", PACK_U32, c->n, 1, c->category_of, err) && put_attrs(w, c, err) &&
              pack_writer_finish(w, err);
    pack_writer_free(w);
    return ok;
}

bool items_ids_hash(const struct strtab *ids, struct hash128 *out, struct err *err)
{
    struct hash_state *h = hash_new();
    if (!h)
        return err_set(err, ERR_NOMEM, "out of memory");
    hash_update(h, ids->off, ((size_t)ids->n + 1) * sizeof(*ids->off));
    hash_update(h, ids->bytes, (size_t)ids->off[ids->n]);
    *out = hash_digest(h);
    hash_free(h);
    return true;
}
