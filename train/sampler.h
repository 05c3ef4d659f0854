/* sampler.h - which users, items and pairs make up each training batch.
 * Source:  DAT sec. 3.4: D positive pairs and S random negatives for each, drawn from the item corpus.
 * A batch names each user and item once; losses run over pairs of indices into these lists, so each distinct row goes through
 * its tower once however often it occurs.
 * Threads: one user at a time. The stream is a function of the seed; `rng` between two epochs is the whole state. */
#ifndef DUET_TRAIN_SAMPLER_H
#define DUET_TRAIN_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/rng.h"
#include "train/dataset.h"
#include "train/recipe.h"

struct batch {
    size_t n_users, n_items, n_pos;
    uint32_t *user;      // [n_users] distinct dataset users
    uint32_t *item;      // [n_items] distinct dataset items: every item the losses see
    uint32_t *pos_off;   // [n_users + 1]
    uint32_t *pos;       // [n_pos] positives by user, as indices into `item`; what the losses ask for
    float *share;        // [n_users] weight of each of a user's positives in the softmax losses; NULL: 1 / n_pos for all
    uint32_t *hist_off;  // [n_users + 1]
    uint32_t *hist;      // [n_hist] with recipe.denoise: the other positives by user, what its a_u is made of; no candidates
    size_t n_hist;
    bool masked;         // `hist` and `pos` have nothing in common, and the losses leave `hist` out
    uint32_t *neg;       // [n_pos][n_neg] negatives of each positive, indices into `item`
    size_t n_neg;        // S for binary cross-entropy, 0 for softmax
    float *log_q;        // [n_items] log of the chance that a batch holds the item; NULL: every item is there
    uint32_t *rows;      // [n_items] how many of the T = n_pos (1 + n_neg) rows are this item
};

struct sampler {
    struct rng rng;
    struct batch batch;        // of the last sampler_next
    size_t max_users, max_items, max_pos, n_batches; // bounds of a batch; batches an epoch
    size_t n_pairs;            // training pairs an epoch
    const struct dataset *d;
    const struct recipe *r;
    uint32_t *order;           // [n_order] users or pairs of this epoch, shuffled
    size_t n_order, at;
    uint32_t *pair_user;       // [n_pairs] user of each training pair; batches of pairs only
    uint32_t *corpus;          // [n_corpus] items that may be negatives: all but the held-out ones
    size_t n_corpus;
    uint32_t *local;           // [n_items] index in batch.item, or UINT32_MAX
    double mean_weight;        // of a user, where users weigh by their positives (recipe.user_weight)
    double *log_absent;        // [n_items] log of the chance that a batch's positives miss the item
};

bool sampler_init(struct sampler *s, const struct dataset *d, const struct recipe *r, struct err *err);
void sampler_fini(struct sampler *s); // accepts zeroed

void sampler_epoch(struct sampler *s); // shuffle and begin
bool sampler_next(struct sampler *s);  // fills s->batch; false at the end of the epoch

#endif
