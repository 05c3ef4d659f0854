#include "train/dataset.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/base/hash.h"
#include "core/base/mem.h"
#include "core/base/utf8.h"
#include "core/items.h"

#define SCHEMA_BYTES_MAX (256u << 20)

static const char *const split_names[] = {"train", "valid", "test", "held"};
#define N_SPLITS (sizeof(split_names) / sizeof(split_names[0]))

static struct interactions *split_of(struct dataset *d, size_t i)
{
    struct interactions *of[N_SPLITS] = {&d->train, &d->valid, &d->test, &d->held};
    return of[i];
}

static const struct interactions *split_at(const struct dataset *d, size_t i)
{
    const struct interactions *of[N_SPLITS] = {&d->train, &d->valid, &d->test, &d->held};
    return of[i];
}

// ------------------------------------------------------------------------------------------------------- checking

static bool check_text(const struct strtab *t, const char *what, struct err *err)
{
    for (uint32_t i = 0; i < t->n; i++) {
        struct str s = strtab_get(t, i);
        if (!utf8_valid(s.p, s.n))
            return err_set(err, ERR_FORMAT, "%s: row %u is not UTF-8", what, i);
    }
    return true;
}

/* All rows distinct: an index can be built over them. */
static bool check_distinct(const struct strtab *t, const char *what, struct err *err)
{
    struct strtab_index index;
    bool ok = strtab_index_init(&index, *t, err);
    strtab_index_fini(&index);
    return ok || err_prefix(err, "%s", what);
}

static bool check_ids(const struct strtab *ids, uint32_t n, const char *what, struct err *err)
{
    if (ids->n != n)
        return err_set(err, ERR_FORMAT, "%s: %u ids, want %u", what, ids->n, n);
    return items_check_ids(ids, err) ? check_distinct(ids, what, err) : err_prefix(err, "%s", what);
}

/* The id slot names the entity itself or nobody. */
static bool check_id_slots(const struct schema_side *side, const uint32_t *x, uint32_t n, const char *what,
                           struct err *err)
{
    if (side->id_field < 0)
        return true;
    const struct schema_field *f = &side->field[side->id_field];
    if (f->n_rows != n + 1)
        return err_set(err, ERR_FORMAT, "%s: id field %s has %u rows, want %u", what, f->name, f->n_rows, n + 1);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t row = x[(size_t)i * side->n_slots + f->slot];
        if (row != 0 && row != i + 1)
            return err_set(err, ERR_FORMAT, "%s: id slot of row %u holds %u, want 0 or %u", what, i, row, i + 1);
    }
    return true;
}

static bool check_side(const struct schema_side *side, const struct strtab *ids, const uint32_t *x, uint32_t n,
                       const char *what, struct err *err)
{
    if (!check_ids(ids, n, what, err))
        return false;
    if (side->n_slots == 0)
        return true;
    if (!x)
        return err_set(err, ERR_ARG, "%s: no encoded features", what);
    if (!schema_check_x(side, x, n, err))
        return err_prefix(err, "%s", what);
    return check_id_slots(side, x, n, what, err);
}

static bool check_attrs(const struct dataset *d, struct err *err)
{
    if (d->n_attrs > ITEM_ATTRS_MAX)
        return err_set(err, ERR_LIMIT, "%u item attributes, at most %d allowed", d->n_attrs, ITEM_ATTRS_MAX);
    for (uint32_t i = 0; i < d->n_attrs; i++) {
        const struct dataset_attr *a = &d->attr[i];
        if (a->name[0] == '\0' || !utf8_valid(a->name, strlen(a->name)))
            return err_set(err, ERR_FORMAT, "attribute %u has an empty name or one that is not UTF-8", i);
        if (a->values.n != d->n_items)
            return err_set(err, ERR_FORMAT, "attribute %s has %u values, want %u", a->name, a->values.n, d->n_items);
        if (!check_text(&a->values, a->name, err))
            return false;
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(d->attr[j].name, a->name) == 0)
                return err_set(err, ERR_FORMAT, "attribute %s appears twice", a->name);
    }
    return true;
}

static bool check_categories(const struct dataset *d, struct err *err)
{
    if (d->category.n == 0 || strtab_get(&d->category, 0).n != 0)
        return err_set(err, ERR_FORMAT, "category: row 0 must exist and be empty");
    for (uint32_t i = 0; i < d->n_items; i++)
        if (d->item_category[i] >= d->category.n)
            return err_set(err, ERR_FORMAT, "category_of: item %u has category %u, there are %u", i,
                           d->item_category[i], d->category.n);
    return check_text(&d->category, "category", err) && check_distinct(&d->category, "category", err);
}

static bool check_flags(const uint8_t *flag, uint32_t n, const char *what, struct err *err)
{
    for (uint32_t i = 0; i < n; i++)
        if (flag[i] > 1)
            return err_set(err, ERR_FORMAT, "%s: row %u holds %u, want 0 or 1", what, i, flag[i]);
    return true;
}

static bool check_offsets(const struct interactions *x, uint32_t n_users, const char *name, struct err *err)
{
    if (x->off[0] != 0)
        return err_set(err, ERR_FORMAT, "%s.off begins with %llu, want 0", name, (unsigned long long)x->off[0]);
    for (uint32_t u = 0; u < n_users; u++)
        if (x->off[u + 1] < x->off[u])
            return err_set(err, ERR_FORMAT, "%s.off: offset of user %u goes backwards", name, u + 1);
    return true;
}

static bool check_rows(const struct interactions *x, const struct dataset *d, const char *name, struct err *err)
{
    uint64_t n = x->off[d->n_users];
    for (uint64_t i = 0; i < n; i++)
        if (x->item[i] >= d->n_items)
            return err_set(err, ERR_FORMAT, "%s.item: row %llu names item %u, there are %u", name,
                           (unsigned long long)i, x->item[i], d->n_items);
    for (uint32_t u = 0; x->time && u < d->n_users; u++)
        for (uint64_t i = x->off[u] + 1; i < x->off[u + 1]; i++)
            if (x->time[i] < x->time[i - 1])
                return err_set(err, ERR_FORMAT, "%s.time: row %llu of user %u goes backwards", name,
                               (unsigned long long)i, u);
    if ((x->time != NULL) != (d->train.time != NULL))
        return err_set(err, ERR_FORMAT, "%s.time: times must be in all splits or in none", name);
    return true;
}

/* No user has an item twice, in whatever splits: a pair that is in training and in the test would make every figure a
 * lie. */
static bool check_pairs(const struct dataset *d, struct err *err)
{
    uint32_t *seen = mem_array(d->n_items, sizeof(*seen), err); // user + 1 that had the item last
    bool ok = seen != NULL;
    for (uint32_t u = 0; ok && u < d->n_users; u++)
        for (size_t s = 0; ok && s < N_SPLITS; s++) {
            const struct interactions *x = split_at(d, s);
            for (uint64_t i = x->off[u]; ok && i < x->off[u + 1]; i++) {
                ok = seen[x->item[i]] != u + 1 ||
                     err_set(err, ERR_FORMAT, "%s: user %u has item %u twice", split_names[s], u, x->item[i]);
                seen[x->item[i]] = u + 1;
            }
        }
    free(seen);
    return ok;
}

static bool check_counts(const struct dataset *d, struct err *err)
{
    uint32_t *count = mem_array(d->n_items, sizeof(*count), err);
    bool ok = count != NULL;
    for (uint64_t i = 0; ok && i < d->train.off[d->n_users]; i++)
        count[d->train.item[i]]++;
    for (uint32_t i = 0; ok && i < d->n_items; i++)
        ok = count[i] == d->item_count[i] ||
             err_set(err, ERR_FORMAT, "item_count: item %u has %u, its training interactions are %u", i,
                     d->item_count[i], count[i]);
    free(count);
    return ok;
}

static bool check_interactions(const struct dataset *d, struct err *err)
{
    for (size_t s = 0; s < N_SPLITS; s++)
        if (!check_offsets(split_at(d, s), d->n_users, split_names[s], err) ||
            !check_rows(split_at(d, s), d, split_names[s], err))
            return false;
    return check_pairs(d, err) && check_counts(d, err);
}

static bool check(const struct dataset *d, struct err *err)
{
    return check_side(&d->schema->user, &d->user_id, d->user_x, d->n_users, "users", err) &&
           check_side(&d->schema->item, &d->item_id, d->item_x, d->n_items, "items", err) && check_attrs(d, err) &&
           check_categories(d, err) && check_flags(d->user_held_out, d->n_users, "user_held_out", err) &&
           check_flags(d->item_held_out, d->n_items, "item_held_out", err) && check_interactions(d, err);
}

// -------------------------------------------------------------------------------------------------------- reading

static struct schema *read_schema(const struct pack *p, struct err *err)
{
    size_t n = 0;
    const char *text = pack_get(p, "schema", PACK_U8, 1, &n, err);
    if (!text)
        return NULL;
    if (n > SCHEMA_BYTES_MAX) {
        err_set(err, ERR_LIMIT, "schema: %zu bytes, at most %u allowed", n, SCHEMA_BYTES_MAX);
        return NULL;
    }
    json_t *v = json_parse(text, n, err);
    struct schema *s = v ? schema_from_json(v, err) : NULL;
    json_decref(v);
    if (!s)
        err_prefix(err, "schema");
    return s;
}

static bool read_x(const struct pack *p, const char *name, const struct schema_side *side, uint32_t n,
                   const uint32_t **x, struct err *err)
{
    return side->n_slots == 0 || (*x = pack_need(p, name, PACK_U32, side->n_slots, n, err)) != NULL;
}

static bool read_attrs(struct dataset *d, struct err *err)
{
    struct strtab names;
    if (!pack_get_strtab(d->pack, "attr_names", &names, err))
        return false;
    if (names.n > ITEM_ATTRS_MAX)
        return err_set(err, ERR_LIMIT, "%u item attributes, at most %d allowed", names.n, ITEM_ATTRS_MAX);
    d->n_attrs = names.n;
    if (!(d->attr = mem_array(names.n, sizeof(*d->attr), err)))
        return false;
    for (uint32_t i = 0; i < names.n; i++) {
        struct str name = strtab_get(&names, i);
        char section[32];
        snprintf(section, sizeof(section), "attr.%u", i);
        if (name.n > SCHEMA_NAME_MAX || memchr(name.p, '\0', name.n))
            return err_set(err, ERR_FORMAT, "attr_names: row %u has %zu bytes, want 1 to %d", i, name.n,
                           SCHEMA_NAME_MAX);
        memcpy(d->attr[i].name, name.p, name.n);
        if (!pack_get_strtab(d->pack, section, &d->attr[i].values, err))
            return false;
    }
    return true;
}

static bool read_split(const struct pack *p, const char *name, uint32_t n_users, struct interactions *x,
                       struct err *err)
{
    char section[48];
    snprintf(section, sizeof(section), "%s.off", name);
    if (!(x->off = pack_need(p, section, PACK_U64, 1, (size_t)n_users + 1, err)))
        return false;
    uint64_t n = x->off[n_users];
    snprintf(section, sizeof(section), "%s.item", name);
    if (!(x->item = pack_need(p, section, PACK_U32, 1, (size_t)n, err)))
        return false;
    snprintf(section, sizeof(section), "%s.time", name);
    return !pack_has(p, section) || (x->time = pack_need(p, section, PACK_I64, 1, (size_t)n, err)) != NULL;
}

static bool read_columns(struct dataset *d, struct err *err)
{
    const struct pack *p = d->pack;
    if (!(d->schema = read_schema(p, err)) || !pack_get_strtab(p, "user.ids", &d->user_id, err) ||
        !pack_get_strtab(p, "item.ids", &d->item_id, err))
        return false;
    d->n_users = d->user_id.n;
    d->n_items = d->item_id.n;
    if (!read_x(p, "user.x", &d->schema->user, d->n_users, &d->user_x, err) ||
        !read_x(p, "item.x", &d->schema->item, d->n_items, &d->item_x, err) || !read_attrs(d, err) ||
        !pack_get_strtab(p, "category", &d->category, err) ||
        !(d->item_category = pack_need(p, "category_of", PACK_U32, 1, d->n_items, err)) ||
        !(d->item_count = pack_need(p, "item_count", PACK_U32, 1, d->n_items, err)) ||
        !(d->user_held_out = pack_need(p, "user_held_out", PACK_U8, 1, d->n_users, err)) ||
        !(d->item_held_out = pack_need(p, "item_held_out", PACK_U8, 1, d->n_items, err)))
        return false;
    for (size_t s = 0; s < N_SPLITS; s++)
        if (!read_split(p, split_names[s], d->n_users, split_of(d, s), err))
            return false;
    return true;
}

/* Hashes read the file from end to end; training asks for users in random order. */
static bool map_file(struct dataset *d, const char *path, struct err *err)
{
    size_t n = 0;
    void *file = fio_map(path, &n, err);
    if (!file)
        return false;
    hash128_hex(hash128(file, n), d->hash);
    if (!(d->pack = pack_open_block(file, n, path, "dataset", PACK_MAP, true, err)))
        return false;
    fio_map_random(file, n);
    return true;
}

struct dataset *dataset_open(const char *path, struct err *err)
{
    struct dataset *d = mem_array(1, sizeof(*d), err);
    if (!d)
        return NULL;
    if (map_file(d, path, err) && read_columns(d, err) && check(d, err))
        return d;
    if (err && !strstr(err->msg, path))
        err_prefix(err, "%s", path);
    dataset_close(d);
    return NULL;
}

void dataset_close(struct dataset *d)
{
    if (!d)
        return;
    schema_free(d->schema);
    free(d->attr);
    pack_close(d->pack);
    free(d);
}

struct str dataset_info(const struct dataset *d)
{
    size_t n = 0;
    const char *text = pack_has(d->pack, "info") ? pack_get(d->pack, "info", PACK_U8, 1, &n, NULL) : NULL;
    return (struct str){text ? text : "{}", text ? n : 2};
}

// -------------------------------------------------------------------------------------------------------- writing

static bool put_schema(struct pack_writer *w, const struct schema *schema, struct err *err)
{
    json_t *v = schema_to_json(schema, err);
    char *text = v ? json_text(v, err) : NULL;
    bool ok = text && pack_put(w, "schema", PACK_U8, strlen(text), 1, text, err);
    free(text);
    json_decref(v);
    return ok;
}

static bool put_attrs(struct pack_writer *w, const struct dataset *d, struct err *err)
{
    struct strtab_builder names = {0};
    bool ok = true;
    for (uint32_t i = 0; ok && i < d->n_attrs; i++)
        ok = strtab_add(&names, d->attr[i].name, strlen(d->attr[i].name), NULL, err);
    struct strtab view = strtab_view(&names);
    ok = ok && pack_put_strtab(w, "attr_names", &view, err);
    strtab_builder_fini(&names);
    for (uint32_t i = 0; ok && i < d->n_attrs; i++) {
        char section[32];
        snprintf(section, sizeof(section), "attr.%u", i);
        ok = pack_put_strtab(w, section, &d->attr[i].values, err);
    }
    return ok;
}

static bool put_x(struct pack_writer *w, const char *name, const struct schema_side *side, uint32_t n,
                  const uint32_t *x, struct err *err)
{
    return side->n_slots == 0 || pack_put(w, name, PACK_U32, n, side->n_slots, x, err);
}

static bool put_split(struct pack_writer *w, const char *name, uint32_t n_users, const struct interactions *x,
                      struct err *err)
{
    char section[48];
    size_t n = (size_t)x->off[n_users];
    snprintf(section, sizeof(section), "%s.off", name);
    if (!pack_put(w, section, PACK_U64, (size_t)n_users + 1, 1, x->off, err))
        return false;
    snprintf(section, sizeof(section), "%s.item", name);
    if (!pack_put(w, section, PACK_U32, n, 1, x->item, err))
        return false;
    snprintf(section, sizeof(section), "%s.time", name);
    return !x->time || pack_put(w, section, PACK_I64, n, 1, x->time, err);
}

static bool put_all(struct pack_writer *w, const struct dataset *d, const char *info, struct err *err)
{
    bool ok = put_schema(w, d->schema, err) && (!info || pack_put(w, "info", PACK_U8, strlen(info), 1, info, err)) &&
              pack_put_strtab(w, "user.ids", &d->user_id, err) && pack_put_strtab(w, "item.ids", &d->item_id, err) &&
              put_x(w, "user.x", &d->schema->user, d->n_users, d->user_x, err) &&
              put_x(w, "item.x", &d->schema->item, d->n_items, d->item_x, err) && put_attrs(w, d, err) &&
              pack_put_strtab(w, "category", &d->category, err) &&
              pack_put(w, "category_of", PACK_U32, d->n_items, 1, d->item_category, err) &&
              pack_put(w, "item_count", PACK_U32, d->n_items, 1, d->item_count, err) &&
              pack_put(w, "user_held_out", PACK_U8, d->n_users, 1, d->user_held_out, err) &&
              pack_put(w, "item_held_out", PACK_U8, d->n_items, 1, d->item_held_out, err);
    for (size_t s = 0; ok && s < N_SPLITS; s++)
        ok = put_split(w, split_names[s], d->n_users, split_at(d, s), err);
    return ok;
}

static bool sync_parent(const char *path, struct err *err)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash == path ? 1 : slash ? (size_t)(slash - path) : 0;
    snprintf(dir, sizeof(dir), "%.*s", (int)n, path);
    return fio_sync_dir(n ? dir : ".", err);
}

bool dataset_save(const struct dataset *d, const char *info, const char *path, struct err *err)
{
    char tmp[PATH_MAX];
    int len = snprintf(tmp, sizeof(tmp), "%s.tmp-%ld", path, (long)getpid());
    if (len < 0 || len >= PATH_MAX)
        return err_set(err, ERR_LIMIT, "path too long: %.80s...", path);
    if (!check(d, err))
        return err_prefix(err, "%s", path);
    struct pack_writer *w = pack_writer_new(tmp, "dataset", err);
    bool ok = w && put_all(w, d, info, err) && pack_writer_finish(w, err);
    pack_writer_free(w);
    if (ok && rename(tmp, path) != 0) {
        unlink(tmp);
        ok = err_errno(err, "%s: rename", path);
    }
    return ok && sync_parent(path, err);
}
