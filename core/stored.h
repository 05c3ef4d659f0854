/* stored.h - a model without towers: vectors of users and items as training left them (wals, fm, youtube_dnn, mind).
 * Files:   model.safetensors (docs/formats.md): metadata d, n_interest, item_bias; tensors user.vec and item.vec in checkpoints,
 *          which bundles have in users.pack and items.safetensors instead; item.gram and fold_in where a history can be folded in.
 * Threads: const once loaded. */
#ifndef DUET_STORED_H
#define DUET_STORED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/safetensors.h"

#define STORED_INTERESTS_MAX 64
#define STORED_D_MAX 4096

struct stored {
    uint32_t d, n_interest;
    bool item_bias;            // the last component of an item's vector is its bias: queries have 1 there
    uint32_t n_users, n_items; // 0 without the vectors
    float *user;               // [n_users][n_interest][d] query vectors, all zeros where nothing is known; NULL in bundles
    float *item;               // [n_items][d]; NULL in bundles
    float *gram;               // [d][d] sum of v v' over the items; NULL: a history's query is the mean of its items
    float w0, lambda;          // of als.h, with `gram`
    uint32_t n_fold;           // items that `gram` is the sum over
};

/* Zeroed vectors of n_users and n_items; with n_users = n_items = 0 none. */
struct stored *stored_new(uint32_t d, uint32_t n_interest, uint32_t n_users, uint32_t n_items, bool fold_in, struct err *err);
void stored_free(struct stored *s); // NULL is fine
size_t stored_memory(const struct stored *s);

/* Of an open model file whose kind has no towers. with_vec: user.vec and item.vec are required; false: they are ignored. */
struct stored *stored_load(const struct safetensors *st, bool with_vec, struct err *err);
bool stored_save(const struct stored *s, const char *kind, const char *path, bool with_vec, struct err *err);

/* One query vector for somebody of whom only a history is known. False, and zeros, where that gives no direction.
 *   item [n_items][d], history [n] item indices, scratch [stored_scratch(s)], out [d] */
size_t stored_scratch(const struct stored *s); // floats
bool stored_from_history(const struct stored *s, const float *item, const uint32_t *history, size_t n, float *scratch, float *out);

/* Is any of the n values not 0? A stored query of zeros says that nothing is known of the user. */
bool stored_known(const float *v, size_t n);

#endif
