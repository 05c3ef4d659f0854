/* spectral.h - the leading singular directions of the interactions, for items' augmented vectors to start from.
 * Source:  randomised subspace iteration (Halko, Martinsson, Tropp 2011) on Z = M^-1/4 X N^-1/2, X the training interactions, M
 *          and N the numbers of them of each user and item. Rows of the result are those of V sqrt(S), Z ~ U S V'.
 * Cost:    a few passes over the interactions; memory n_items (cols + 16) floats for each thread.
 * Threads: split over the pool by users; the result depends on the number of threads in the last bits. */
#ifndef DUET_TRAIN_SPECTRAL_H
#define DUET_TRAIN_SPECTRAL_H

#include "core/base/rng.h"
#include "train/dataset.h"
#include "train/pool.h"

/* out [n_items][cols], scaled to a root mean square of std over all of it. Directions beyond the catalogue's rank are 0. */
bool spectral_items(const struct dataset *d, size_t cols, double std, struct rng *rng, struct pool *pool, float *out,
                    struct err *err);

#endif
