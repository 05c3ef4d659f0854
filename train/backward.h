/* backward.h - a tower in training: forward that keeps its activations, and the gradient of every parameter.
 * Source:  DAT (Yu et al. 2021) eq. (1); core/tower.h has the forward of serving, which a test compares with this one.
 * Threads: one user at a time; the work is split over the pool by rows. The result depends on the number of threads in the
 *          last bits only, and is the same at each run with one number. */
#ifndef DUET_TRAIN_BACKWARD_H
#define DUET_TRAIN_BACKWARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/tower.h"
#include "train/by_value.h"
#include "train/pool.h"

/* Activations of up to max_rows rows. Valid until the next forward. */
struct tower_pass {
    struct pool *pool;
    size_t max_rows, n;
    size_t first;                  // number in the whole batch of row 0, which decides what is dropped in it
    const uint32_t *x;             // [n][n_slots] of the last forward, borrowed
    struct by_value values;        // of the fields that go through the first layer a value at a time
    float *z;                      // [n][z_dim]; columns of these fields are not filled, here and in dz
    float *h[TOWER_LAYERS_MAX];    // [n][width[l]] after the ReLU, if there is one; the last with a added where the tower skips
    float *p;                      // [n][d] unit rows, or 0
    float *inv_norm;               // [n] 1 / |h_L|, 0 for a zero row
    float *dz;                     // [n][z_dim] gradient of z after tower_pass_backward; the last d_aug columns belong to a
    float *dh[POOL_THREADS_MAX];   // per thread: two blocks of PASS_BLOCK rows of the widest layer
    float *gw[POOL_THREADS_MAX];   // per thread but the first: gradients of all W, b, laid out as `w_off` and `b_off` say
    size_t w_off[TOWER_LAYERS_MAX], b_off[TOWER_LAYERS_MAX], n_dense;
    float *block;
    size_t block_floats;
    float drop;                    // chance that a component of the last h is 0 in the next forward
    uint64_t drop_seed;            // of that forward's choice
    uint8_t *keep;                 // [max_rows][d] that choice; NULL until tower_pass_drop
};

bool tower_pass_init(struct tower_pass *s, const struct tower *t, size_t max_rows, struct pool *pool, struct err *err);
void tower_pass_fini(struct tower_pass *s); // accepts zeroed

/* From now on components are dropped with that chance (to 1/256), as drop_seed says, the same for any number of threads. */
bool tower_pass_drop(struct tower_pass *s, const struct tower *t, double chance, struct err *err);

/* p = tower(x, a) for n <= max_rows rows.
 *   x [n][n_slots]  kept until backward      a [n][d_aug]  may be NULL if d_aug = 0 */
void tower_pass_forward(struct tower_pass *s, const struct tower *t, const uint32_t *x, const float *a, size_t n);

/* Adds to `grad` (same shape as t) the gradient of the tables' rows that x names and of every W and b.
 *   dp       [n][d]  gradient of the loss with respect to p
 *   aug_row  [n]     row of `aug` that a_i was, or 0: a_i was a constant (mean of the segment). May be NULL if d_aug = 0. */
void tower_pass_backward(struct tower_pass *s, const struct tower *t, const float *dp, const uint32_t *aug_row, struct tower *grad);

#endif
