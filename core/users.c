#include "core/users.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/hash.h"
#include "core/base/mem.h"
#include "core/base/pace.h"
#include "core/items.h"

// ------------------------------------------------------------------------------------------------------- checking

bool users_check_finite(const float *v, size_t n, const char *what, struct err *err)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(v[i]))
            return err_set(err, ERR_FORMAT, "%s: value %zu is not finite", what, i);
    return true;
}

static bool check_seen(const uint64_t *off, const uint32_t *seen, uint32_t n, uint64_t n_seen, uint32_t n_items,
                       struct err *err)
{
    if (off[0] != 0 || off[n] != n_seen)
        return err_set(err, ERR_FORMAT, "seen_off runs from %llu to %llu, want 0 to %llu", (unsigned long long)off[0],
                       (unsigned long long)off[n], (unsigned long long)n_seen);
    for (uint32_t u = 0; u < n; u++)
        if (off[u + 1] < off[u] || off[u + 1] > n_seen)
            return err_set(err, ERR_FORMAT, "seen_off: offset of user %u goes backwards or past the end", u + 1);
    for (uint32_t u = 0; u < n; pace_step(u), u++)
        for (uint64_t i = off[u]; i < off[u + 1]; i++) {
            if (seen[i] >= n_items)
                return err_set(err, ERR_FORMAT, "seen: user %u has item %u, there are %u", u, seen[i], n_items);
            if (i > off[u] && seen[i] <= seen[i - 1])
                return err_set(err, ERR_FORMAT, "seen: items of user %u are not strictly ascending", u);
        }
    return true;
}

// -------------------------------------------------------------------------------------------------------- reading

static bool read_floats(const struct users *u, const char *name, const float **out, uint32_t *cols, struct err *err)
{
    *cols = pack_cols(u->pack, name);
    if (*cols == 0)
        return true;
    *out = pack_need(u->pack, name, PACK_F32, *cols, u->n, err);
    return *out && users_check_finite(*out, (size_t)u->n * *cols, name, err);
}

static bool read_seen(struct users *u, uint32_t n_items, struct err *err)
{
    size_t n_seen;
    if (!pack_has(u->pack, "seen_off"))
        return true;
    return (u->seen_off = pack_need(u->pack, "seen_off", PACK_U64, 1, (size_t)u->n + 1, err)) &&
           (u->seen = pack_get(u->pack, "seen", PACK_U32, 1, &n_seen, err)) &&
           check_seen(u->seen_off, u->seen, u->n, n_seen, n_items, err);
}

static bool read_columns(struct users *u, const struct schema *schema, uint32_t n_items, struct err *err)
{
    const char *fingerprint = pack_need(u->pack, "fingerprint", PACK_U8, 32, 1, err);
    struct hash128 parsed;
    if (!fingerprint)
        return false;
    memcpy(u->fingerprint, fingerprint, 32);
    if (!hash128_parse(u->fingerprint, &parsed))
        return err_set(err, ERR_FORMAT, "fingerprint is not 32 hex digits");
    if (!pack_get_strtab(u->pack, "ids", &u->ids, err) || !items_check_ids(&u->ids, err))
        return false;
    u->n = u->ids.n;
    const struct schema_side *side = &schema->user;
    if (side->n_slots && (!(u->x = pack_need(u->pack, "x", PACK_U32, side->n_slots, u->n, err)) ||
                          !schema_check_x(side, u->x, u->n, err)))
        return false;
    return read_floats(u, "aug", &u->aug, &u->d_aug, err) && read_floats(u, "vec", &u->vec, &u->vec_cols, err) &&
           read_seen(u, n_items, err);
}

struct users *users_from_pack(struct pack *p, const struct schema *schema, uint32_t n_items, struct err *err)
{
    struct users *u = mem_array(1, sizeof(*u), err);
    if (!u) {
        pack_close(p);
        return NULL;
    }
    u->pack = p;
    if (read_columns(u, schema, n_items, err) && strtab_index_init(&u->by_id, u->ids, err))
        return u;
    if (err && !strstr(err->msg, pack_path(p)))
        err_prefix(err, "%s", pack_path(p));
    users_free(u);
    return NULL;
}

struct users *users_load(const char *path, const struct schema *schema, uint32_t n_items, enum pack_mode mode,
                         struct err *err)
{
    struct pack *p = pack_open(path, "users", mode, true, err);
    return p ? users_from_pack(p, schema, n_items, err) : NULL;
}

void users_free(struct users *u)
{
    if (!u)
        return;
    strtab_index_fini(&u->by_id);
    pack_close(u->pack);
    free(u);
}

size_t users_memory(const struct users *u)
{
    return sizeof(*u) + pack_bytes(u->pack) + u->by_id.n_slots * sizeof(uint32_t);
}

uint32_t users_find(const struct users *u, const char *id, size_t n)
{
    return strtab_find(&u->by_id, id, n);
}

// -------------------------------------------------------------------------------------------------------- writing

bool users_save(const char *path, const struct users_columns *c, const char *fingerprint, struct err *err)
{
    uint64_t n_seen = c->seen_off ? c->seen_off[c->n] : 0;
    if (c->ids.n != c->n)
        return err_set(err, ERR_ARG, "users: %u ids for %u users", c->ids.n, c->n);
    if (!items_check_ids(&c->ids, err) || !users_check_finite(c->aug, (size_t)c->n * c->d_aug, "aug", err) ||
        !users_check_finite(c->vec, (size_t)c->n * c->vec_cols, "vec", err) ||
        (c->seen_off && !check_seen(c->seen_off, c->seen, c->n, n_seen, c->n_items, err)))
        return err_prefix(err, "users");
    struct pack_writer *w = pack_writer_new(path, "users", err);
    bool ok = w && pack_put(w, "fingerprint", PACK_U8, 1, 32, fingerprint, err) &&
              pack_put_strtab(w, "ids", &c->ids, err) &&
              (c->n_slots == 0 || pack_put(w, "x", PACK_U32, c->n, c->n_slots, c->x, err)) &&
              (c->d_aug == 0 || pack_put(w, "aug", PACK_F32, c->n, c->d_aug, c->aug, err)) &&
              (c->vec_cols == 0 || pack_put(w, "vec", PACK_F32, c->n, c->vec_cols, c->vec, err)) &&
              (!c->seen_off || (pack_put(w, "seen_off", PACK_U64, (size_t)c->n + 1, 1, c->seen_off, err) &&
                                pack_put(w, "seen", PACK_U32, (size_t)n_seen, 1, c->seen, err))) &&
              pack_writer_finish(w, err);
    pack_writer_free(w);
    return ok;
}
