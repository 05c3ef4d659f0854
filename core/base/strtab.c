#include "core/base/strtab.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/hash.h"
#include "core/base/mem.h"
#include "core/base/pace.h"

#define MAX_ROWS (UINT32_MAX / 4) // keeps 2 n slots inside 32 bits

bool strtab_check(const struct strtab *t, uint64_t n_bytes, struct err *err)
{
    if (t->off[0] != 0 || t->off[t->n] != n_bytes)
        return err_set(err, ERR_FORMAT, "string table: offsets run from %llu to %llu, want 0 to %llu",
                       (unsigned long long)t->off[0], (unsigned long long)t->off[t->n], (unsigned long long)n_bytes);
    for (uint32_t i = 0; i < t->n; i++)
        if (t->off[i + 1] < t->off[i])
            return err_set(err, ERR_FORMAT, "string table: offset of row %u goes backwards", i + 1);
    return true;
}

// ---------------------------------------------------------------------------------------------------- hash slots

static uint32_t find_slot(const struct strtab *t, const uint32_t *slot, uint32_t n_slots, const char *p, size_t n)
{
    uint32_t i = (uint32_t)hash64(p, n) & (n_slots - 1);
    for (; slot[i] != STRTAB_NONE; i = (i + 1) & (n_slots - 1)) {
        struct str s = strtab_get(t, slot[i]);
        if (s.n == n && (n == 0 || memcmp(s.p, p, n) == 0))
            break;
    }
    return i;
}

static uint32_t *new_slots(uint32_t n_rows, uint32_t *n_slots, struct err *err)
{
    uint32_t size = 16;
    while (size < 2 * n_rows)
        size *= 2;
    uint32_t *slot = mem_array(size, sizeof(*slot), err);
    if (slot)
        memset(slot, 0xff, (size_t)size * sizeof(*slot));
    *n_slots = size;
    return slot;
}

// ------------------------------------------------------------------------------------------------------- builder

void strtab_builder_fini(struct strtab_builder *b)
{
    free(b->off);
    free(b->bytes);
    free(b->slot);
    *b = (struct strtab_builder){0};
}

struct strtab strtab_view(const struct strtab_builder *b)
{
    static const uint64_t zero[1] = {0};
    return (struct strtab){.n = b->n, .off = b->off ? b->off : zero, .bytes = b->bytes ? b->bytes : ""};
}

bool strtab_add(struct strtab_builder *b, const char *p, size_t n, uint32_t *row, struct err *err)
{
    if (b->n >= MAX_ROWS)
        return err_set(err, ERR_LIMIT, "string table: more than %u rows", MAX_ROWS);
    if (!b->off || b->n == b->cap) {
        uint32_t cap = b->cap ? b->cap * 2 : 64;
        uint64_t *off = mem_grow(b->off, (size_t)cap + 1, sizeof(*off), err);
        if (!off)
            return false;
        off[0] = 0;
        b->off = off;
        b->cap = cap;
    }
    if (!b->bytes || b->len + n > b->bytes_cap) {
        size_t cap = b->bytes_cap ? b->bytes_cap * 2 : 1024;
        while (cap < b->len + n)
            cap *= 2;
        char *bytes = mem_grow(b->bytes, cap, 1, err);
        if (!bytes)
            return false;
        b->bytes = bytes;
        b->bytes_cap = cap;
    }
    if (n)
        memcpy(b->bytes + b->len, p, n);
    b->len += n;
    b->off[b->n + 1] = b->len;
    if (row)
        *row = b->n;
    b->n++;
    return true;
}

bool strtab_intern(struct strtab_builder *b, const char *p, size_t n, uint32_t *row, struct err *err)
{
    if (!b->slot || 2 * (b->n + 1) > b->n_slots) {
        uint32_t n_slots;
        uint32_t *slot = new_slots(2 * (b->n + 1), &n_slots, err);
        if (!slot)
            return false;
        struct strtab t = strtab_view(b);
        for (uint32_t r = 0; r < b->n; r++) {
            struct str s = strtab_get(&t, r);
            slot[find_slot(&t, slot, n_slots, s.p, s.n)] = r;
        }
        free(b->slot);
        b->slot = slot;
        b->n_slots = n_slots;
    }
    struct strtab t = strtab_view(b);
    uint32_t at = find_slot(&t, b->slot, b->n_slots, p, n);
    uint32_t r = b->slot[at];
    if (r == STRTAB_NONE) {
        if (!strtab_add(b, p, n, &r, err))
            return false;
        b->slot[at] = r;
    }
    if (row)
        *row = r;
    return true;
}

// --------------------------------------------------------------------------------------------------------- index

bool strtab_index_init(struct strtab_index *x, struct strtab tab, struct err *err)
{
    *x = (struct strtab_index){.tab = tab};
    if (tab.n > MAX_ROWS)
        return err_set(err, ERR_LIMIT, "string table: more than %u rows", MAX_ROWS);
    x->slot = new_slots(tab.n, &x->n_slots, err);
    if (!x->slot)
        return false;
    for (uint32_t r = 0; r < tab.n; r++) {
        struct str s = strtab_get(&tab, r);
        uint32_t at = find_slot(&tab, x->slot, x->n_slots, s.p, s.n);
        if (x->slot[at] != STRTAB_NONE) {
            err_set(err, ERR_FORMAT, "rows %u and %u are both \"%.*s\", want distinct values", x->slot[at], r,
                    (int)(s.n < 60 ? s.n : 60), s.p);
            strtab_index_fini(x);
            return false;
        }
        x->slot[at] = r;
        pace_step(r);
    }
    return true;
}

void strtab_index_fini(struct strtab_index *x)
{
    free(x->slot);
    *x = (struct strtab_index){0};
}

uint32_t strtab_find(const struct strtab_index *x, const char *p, size_t n)
{
    return x->slot ? x->slot[find_slot(&x->tab, x->slot, x->n_slots, p, n)] : STRTAB_NONE;
}
