/* wals.h - weighted alternating least squares for implicit feedback (iALS): core/als.h for every user, then for every item.
 * Source:  Hu, Koren, Volinsky, ICDM 2008; Rendle et al., "Revisiting the Performance of iALS", RecSys 2022.
 * Loss:    sum over seen (1 - <u, v>)^2 + w0 sum over the others <u, v>^2 + penalties lambda (n + w0 N) |row|^2
 * Threads: rows are split over the pool; the result does not depend on their number. */
#ifndef DUET_TRAIN_WALS_H
#define DUET_TRAIN_WALS_H

#include "core/als.h"
#include "train/dataset.h"
#include "train/pool.h"
#include "train/recipe.h"

struct wals {
    const struct dataset *d;
    struct pool *pool;
    uint32_t k;
    float w0, lambda;
    float *user, *item;    // [n][k]
    float *gram;           // [k][k] of the side that stands still
    float *scratch;        // [threads][als_scratch]
    uint64_t *item_off;    // [n_items + 1] the training pairs by item
    uint32_t *item_user;
};

/* Recipe: width of the last layer = factors, w0, reg, init_std, seed. */
bool wals_init(struct wals *w, const struct dataset *d, const struct recipe *r, struct pool *pool, struct err *err);
void wals_fini(struct wals *w); // accepts zeroed

void wals_users(struct wals *w); // half a sweep: every user, the items standing still
void wals_items(struct wals *w);
double wals_loss(const struct wals *w); // divided by the training pairs

/* w0 and reg of the recipe by how dense the data is (docs/model.md, "Weights of wals"). */
void wals_weights(struct recipe_data data, struct recipe *out);

extern const struct baseline_ops wals_ops;

#endif
