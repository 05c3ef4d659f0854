/* rank.h - where each held-out item stands in the whole catalogue, and what follows from that: HR@K, MRR.
 * Protocol: all items are ranked by score; the user's excluded items and the user's other targets are left out; an item with
 *           the same score counts half against the target: rank = 1 + better + equal / 2, rounded down. So a model whose scores
 *           are all equal gets the middle rank, not the first.
 * Threads: users are split over the pool. */
#ifndef DUET_TRAIN_RANK_H
#define DUET_TRAIN_RANK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "train/dataset.h"
#include "train/pool.h"

struct rank_input {
    const float *pu;                       // [n_users][n_interest][d] query vectors, for each user below
    const uint32_t *user;                  // [n_users] dataset users
    size_t n_users;
    const float *pv;                       // [n_items][d]
    size_t n_items, d;
    size_t n_interest;                     // query vectors of a user: an item's score is the best of theirs; 0 = 1
    void (*score)(const void *ctx, size_t first, size_t n, float *scores); // instead of pu and pv: [n][n_items] of users first ..
    const void *score_ctx;
    const struct interactions *target;     // the ranked items of each user
    const struct interactions *exclude[2]; // left out of the catalogue; NULL = none
};

/* Targets of the users, in the order of `user` and of target->item. */
size_t rank_count(const struct rank_input *in);

/* rank [rank_count], from 1 on; a score that is not a number ranks last. */
bool rank_targets(const struct rank_input *in, struct pool *pool, float *rank, struct err *err);

#define METRICS_K_MAX 8

struct metrics {
    size_t n;                 // targets
    double hr[METRICS_K_MAX]; // share with rank <= k
    double mrr;               // mean 1 / rank
    double mrr10;             // mean 1 / ceil(rank / 10)
};

struct metrics_spec {
    uint32_t k[METRICS_K_MAX];
    size_t n_k;
};

/* Metrics of the targets with keep[i] != 0 (NULL: all). Zeros where there are none. */
struct metrics metrics_of(const struct metrics_spec *spec, const float *rank, const uint8_t *keep, size_t n);

#endif
