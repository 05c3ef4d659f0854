/* fm.h - a factorisation machine whose features fall into two groups, the user's and the item's.
 * Source:  Rendle, "Factorization Machines", ICDM 2010, eq. (1): sum of linear weights and of <e_f, e_g> over all pairs of features.
 *          Terms of the user alone order nothing within a user and are left out; what remains is
 *              score(u, v) = <P_u, Q_v> + b_v,  P_u = sum of e_f of the user, Q_v = sum of e_g of the item,
 *              b_v = sum of w_g + sum over pairs of the item's features <e_g, e_h> = sum w_g + (|Q_v|^2 - sum |e_g|^2) / 2
 *          A multi-valued feature is the mean of its values' rows (its x are 1/n).
 * Loss:    softmax over the catalogue, or sampled, as the towers' (loss.h).
 * Threads: one caller; products are split over the pool. */
#ifndef DUET_TRAIN_FM_H
#define DUET_TRAIN_FM_H

#include "train/baseline.h"
#include "train/loss.h"
#include "train/param.h"
#include "train/sampler.h"

#define FM_FACTORS_MAX 512

struct fm_field {
    uint32_t slot, n_slots;
    size_t first_row; // in the side's table
};

struct fm_side {
    struct fm_field *field; // [n_fields]
    uint32_t n_fields, n_slots;
    size_t n_rows;
    const uint32_t *x;      // [entities][n_slots] of the dataset
    struct param factor;    // [n_rows][k]
};

struct fm {
    const struct dataset *d;
    const struct recipe *r;
    struct pool *pool;
    uint32_t k;             // factors; vectors have one component more, for b_v
    struct fm_side user, item;
    struct param weight;    // [item rows]
    struct sampler sampler;
    struct loss_ws loss;
    float *pu, *pv, *dpu, *dpv; // [max_users], [max_items][k + 1]
    uint32_t step;
};

bool fm_init(struct fm *m, const struct dataset *d, const struct recipe *r, struct pool *pool, struct err *err);
void fm_fini(struct fm *m); // accepts zeroed

double fm_gradients(struct fm *m); // of the sampler's batch: its loss, gradients added to the parameters'
void fm_update(struct fm *m);

void fm_user_vector(const struct fm *m, uint32_t u, float *out); // [k + 1], the last 1
void fm_item_vector(const struct fm *m, uint32_t i, float *out); // [k + 1], the last b_v

extern const struct baseline_ops fm_ops;

#endif
