/* users.h - the stored users of a bundle: encoded features, a_u, seen items. File users.pack; carries the fingerprint of the
 * model it belongs to and can be published alone for it.
 * Threads: const once loaded. */
#ifndef DUET_USERS_H
#define DUET_USERS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/pack.h"
#include "core/base/strtab.h"
#include "core/schema.h"

struct users {
    struct pack *pack;
    char fingerprint[33];
    uint32_t n;
    struct strtab ids;
    struct strtab_index by_id;
    const uint32_t *x;        // [n][n_slots]; NULL if n_slots = 0
    const float *aug;         // [n][d_aug]; NULL if the model has none
    uint32_t d_aug;
    const uint64_t *seen_off; // [n + 1] CSR of item_idx, ascending within a user; NULL if not stored
    const uint32_t *seen;
    const float *vec;         // [n][vec_cols] stored query vectors (encoder "stored"); NULL otherwise
    uint32_t vec_cols;        // n_interest * d
};

struct users *users_load(const char *path, const struct schema *schema, uint32_t n_items, enum pack_mode mode, struct err *err);
struct users *users_from_pack(struct pack *p, const struct schema *schema, uint32_t n_items, struct err *err); // takes p, on failure too
void users_free(struct users *u);
size_t users_memory(const struct users *u); // bytes it holds, the file's included
uint32_t users_find(const struct users *u, const char *id, size_t n); // row or STRTAB_NONE

/* What a file is written from; everything is borrowed. users_save checks ids and seen items as users_load does. */
struct users_columns {
    uint32_t n, n_slots, d_aug;
    struct strtab ids;
    const uint32_t *x;        // [n][n_slots]
    const float *aug;         // [n][d_aug]
    const float *vec;         // [n][vec_cols]
    uint32_t vec_cols;        // 0 = none
    const uint64_t *seen_off; // [n + 1] or NULL
    const uint32_t *seen;
    uint32_t n_items;
};
bool users_save(const char *path, const struct users_columns *c, const char *fingerprint, struct err *err); // fsynced, not renamed

/* All n values finite? ERR_FORMAT names `what` and the index of the first that is not. */
bool users_check_finite(const float *v, size_t n, const char *what, struct err *err);

#endif
