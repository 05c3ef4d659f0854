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
    const uint32_t *x;        // [n][n_slots]
    const float *aug;         // [n][d_aug]; NULL if the model has none
    uint32_t d_aug;
    const uint64_t *seen_off; // [n + 1] CSR of item_idx, ascending within a user; NULL if not stored
    const uint32_t *seen;
    const float *vec;         // [n][n_interest][d] stored query vectors (encoder "stored"); NULL otherwise
};

struct users *users_load(const char *path, const struct schema *schema, uint32_t n_items, enum pack_mode mode, struct err *err);
void users_free(struct users *u);
uint32_t users_find(const struct users *u, const char *id, size_t n); // row or STRTAB_NONE

#endif
