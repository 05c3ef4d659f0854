/* loss.h - the terms of the training loss over one batch, with their gradients.
 * Source:  DAT eq. (2) mimic, (4) binary cross-entropy; softmax over the catalogue or over sampled items. Eq. (3) is in cal.h.
 * Every function returns the value of its term and *adds* gradients to the arrays given. T = n_pos (1 + n_neg) rows.
 *   pu [n_users][d], pv [n_items][d] outputs of the towers; dpu, dpv of the same shapes
 * Threads: split over the workspace's pool; one caller at a time. */
#ifndef DUET_TRAIN_LOSS_H
#define DUET_TRAIN_LOSS_H

#include "train/pool.h"
#include "train/sampler.h"
#include "train/wide.h"

struct loss_ws {
    struct pool *pool;
    const struct wide *wide;
    float *logit; // [max_users][max_items], softmax only
    size_t n_logit;
    double part[POOL_THREADS_MAX];
};

bool loss_ws_init(struct loss_ws *ws, size_t max_users, size_t max_items, struct pool *pool, struct err *err);
void loss_ws_fini(struct loss_ws *ws); // accepts zeroed

struct loss_io {
    const struct batch *b;
    const float *pu, *pv;
    size_t d;
    float scale; // logit = scale * <pu, pv>
    float *dpu, *dpv;
};

/* Eq. (4): -1/T sum y log sigma(s) + (1 - y) log(1 - sigma(s)), s the logit. */
double loss_bce(const struct loss_io *io);

/* -sum over positives of their user's share times log softmax over the batch's items, less the user's masked history. With log_q, an item that is there by chance stands for
 * 1/q of its kind: logit - log q; a user's own positives are there for certain and stand for themselves. */
double loss_softmax(const struct loss_io *io, struct loss_ws *ws);

/* d loss / d scale, from dpu as it stands after the main loss alone: <pu, dpu> summed is scale times that. */
double loss_scale_grad(const struct loss_io *io);

/* Eq. (2): 1/T sum over positives |a_u - p_v|^2 (user side) or |a_v - p_u|^2 (item side), p constant.
 *   a [n][d] own augmented vectors of the batch's users or items; own [n]: rows of 0 have none and take no part
 *   da [n][d] gets weight times the gradient. Returns the value without the weight. */
double loss_mimic_user(const struct loss_io *io, const float *a, const uint32_t *own, double weight, float *da);
double loss_mimic_item(const struct loss_io *io, const float *a, const uint32_t *own, double weight, float *da);

#endif
