/* step.h - one training step of both towers: rows in, losses (2)-(5), gradients, Adam.
 * Source:  DAT eq. (1)-(5); docs/model.md maps each to its function.
 *
 *     batch -> gather x (ids dropped to row 0 here) -> adam_catch_up -> p_v -> p_u -> main + mimic + CAL -> backward -> adam_step
 *
 * Items go first, because a_u may be made of their p_v: in closed form always, else for some users whose id is dropped, which
 * is how an unknown user with a history is answered in serving.
 * Several ranks (dist.h) know the same batch and draw the same numbers. Each takes its share of the items through their tower and of
 * the users through theirs; outputs are gathered, so that every user meets every item, and gradients summed (part.h).
 * Threads: one user at a time; the parts run over the pool. */
#ifndef DUET_TRAIN_STEP_H
#define DUET_TRAIN_STEP_H

#include "core/model.h"
#include "train/adam.h"
#include "train/backward.h"
#include "train/cal.h"
#include "train/ema.h"
#include "train/loss.h"
#include "train/part.h"
#include "train/recency.h"
#include "train/recipe.h"
#include "train/sampler.h"

struct loss_parts {
    double total; // eq. (5)
    double main, mimic_u, mimic_v, cal; // unweighted
};

/* What tells a dead or blown-up model from a learning one, over one batch. */
struct step_health {
    double zero_users, zero_items; // share of rows with p = 0
    double spread;                 // largest minus smallest cosine among pairs looked at
    bool finite;                   // losses and gradients
};

/* One tower's buffers of a batch. */
struct step_side {
    struct tower *tower;
    const struct schema_side *schema;
    const uint32_t *all_x; // [entities][n_slots] of the dataset
    struct tower_pass pass; // of this rank's share
    struct part part;
    struct adam adam;
    struct ema ema;    // of recipe.ema; its block is NULL without one
    uint32_t *x;       // [max][n_slots] with dropped ids
    uint32_t *own;     // [max] the entity's own row of `aug`, 0 = none
    uint32_t *through; // [max] row of `aug` that z holds: own, or 0 where a is a mean or in closed form
    float *hist_f;     // [max] users in closed form: N^-alpha of history.h; 0: a is the segment's mean
    float *a;          // [max][d_aug] what z holds
    float *own_a;      // [max][d_aug] aug[own]
    float *da;         // [max][d_aug] gradient of the mimic loss
    uint32_t *mine;    // [max] own of the rows of this rank's share, 0 of the others; alone: own itself
    float *p;          // [max][d] outputs of the whole batch; alone: pass.p itself
    float *dp;         // [max][d]
};

struct step {
    const struct dist *dist;
    const struct recipe *recipe;
    const struct dataset *data;
    struct model *model;
    struct sampler *sampler;
    struct pool *pool;
    struct step_side user, item;
    struct loss_ws loss;
    struct cal cal;
    bool use_mimic, use_cal, closed;
    uint32_t *category;      // [max_items] of the batch's items
    struct recency recency;  // with recipe.recency
    double scale_m, scale_v, scale_grad; // Adam moments and gradient of log(scale)
    struct loss_parts parts; // of the last step
    struct step_health health;
};

/* Borrows everything. */
bool step_init(struct step *s, const struct dist *dist, const struct recipe *r, const struct dataset *d, struct model *m, struct sampler *sampler,
               struct pool *pool, struct err *err);
void step_fini(struct step *s); // accepts zeroed

/* Weights (Xavier), biases 0, tables N(0, init_std) with rows 0 at zero, drawn from rng. */
void step_init_tower(struct tower *t, double std, struct rng *rng); // one of them
/* of: the step that will train m, whose rank keeps its own rows alone; NULL: all rows. */
void step_init_params(struct model *m, const struct recipe *r, const struct step *of, struct rng *rng);

/* The sampler's current batch: losses and gradients (in adam.grad of each side), no update. */
void step_gradients(struct step *s);
void step_update(struct step *s);

/* What follows from the parameters: a_u in closed form into the users' `aug` where the recipe has it so, by the whole history; and
 * aug_segment of both towers := mean of the trained rows of each segment, of all rows where a segment has none. */
bool step_derive_aug(struct step *s, struct err *err);

/* Outputs of all items, or of the given users, into out [n][d] at every rank; ranks share the work. */
bool step_embed_items(struct step *s, float *out, struct err *err);
bool step_embed_users(struct step *s, const uint32_t *user, size_t n, float *out, struct err *err);

#endif
