/* synth.h - made-up city services in the generic layout, drawn from a latent model, so that there is something to find and
 * the quickstart needs no download. docs/data.md, "Synthetic data", has the same model in words.
 *
 * D = 8 latent dimensions; N(m, s) normal, all draws from one seeded generator:
 *   city c, gender g   t_c, t_g ~ N(0, 1)^D
 *   user u             p_u = 0.6 t_c + 0.4 t_g + 1.0 n_u,  n_u ~ N(0, 1)^D     the n part is in no feature: only an id embedding
 *                                                                              or an augmented vector can learn it
 *   category k         m_k ~ N(0, 1)^D; shares from 0.42 (foods) down to 0.005 (pets)
 *   item i             q_i = 0.7 m_k + 0.7 n_i,  and q_i[0] += 0.5 z_i;  price = base_k exp(0.5 z_i),  z_i ~ N(0, 1)
 *   popularity         b_i ~ N(0, 1)
 *   choice             score(u, i) = p_u . q_i / sqrt(D) * 1.5 + b_i;  u's items are drawn one after another without
 *                      replacement with probability proportional to exp(score)
 *   time               uniform over 90 days */
#ifndef DUET_TRAIN_SYNTH_H
#define DUET_TRAIN_SYNTH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"

#define SYNTH_MIN_EACH 5 // interactions of the least active user

struct synth_params {
    uint32_t n_users, n_items;
    uint64_t n_interactions; // at least SYNTH_MIN_EACH a user, at most a quarter of the items a user
    uint64_t seed;
};

/* users.csv, items.csv and interactions.csv in `dir`, which is made if missing. The same parameters give the same files. */
bool synth_write(const char *dir, const struct synth_params *p, struct err *err);

#endif
