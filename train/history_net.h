/* history_net.h - networks whose query vectors come from the items of a user's history and its features, not from its id:
 *
 *     history -> pooled to 1 .. n_interest vectors -> each beside the features' embeddings through one tower -> unit vectors
 *
 * youtube_dnn pools by the mean, mind by capsules; items are a table of vectors, normalised. A user's training items are split
 * anew each time the user comes up: one part is the history, the other the targets, so that none explains itself.
 * Loss:    softmax over the catalogue, or sampled, over scale * cosine (loss.h). A target of a user with several vectors counts for
 *          the nearest of them.
 * Threads: one caller; towers and products are split over the pool. */
#ifndef DUET_TRAIN_HISTORY_NET_H
#define DUET_TRAIN_HISTORY_NET_H

#include "core/tower.h"
#include "train/adam.h"
#include "train/backward.h"
#include "train/baseline.h"
#include "train/ema.h"
#include "train/loss.h"
#include "train/param.h"
#include "train/sampler.h"

struct history_net;

/* One batch's users: user i's history is hist[off[i] .. off[i + 1]), rows of pv. */
struct history {
    size_t n_users;
    const uint32_t *off, *hist;
    const uint32_t *item;     // [rows of pv] dataset items
    const float *pv;          // [n_items][d] unit vectors
    size_t n_items;
};

/* How a history becomes vectors. */
struct pooling {
    uint32_t (*interests)(const struct recipe *r, size_t n_history); // of a user with that many; at most n_interest
    bool (*init)(struct history_net *m, struct err *err);
    void (*prepare)(struct history_net *m, const struct history *h); // what depends on pv alone
    /* out [n_users][n_interest][d] */
    void (*forward)(struct history_net *m, const struct history *h, float *out);
    /* dout of the last forward -> adds to dpv [n_items][d] and to the pooling's own gradients */
    void (*backward)(struct history_net *m, const struct history *h, const float *dout, size_t dout_stride, float *dpv);
};

struct history_net {
    const struct dataset *d;
    const struct recipe *r;
    const struct pooling *pooling;
    struct pool *pool;
    struct sampler sampler;
    struct rng rng;           // of the splits
    uint32_t dim, n_interest;
    struct tower user;
    struct tower_pass pass;
    struct adam adam;
    struct param item;        // [n_items][dim]
    struct param bilinear;    // [dim][dim] S of mind
    float *route_init;        // [n_items][n_interest] of mind
    float *route;             // [most history items of a batch][n_interest] of mind: weights of the last forward
    float *routed;            // [max_items][dim] S p_v
    float *drouted;           // the same shape
    float *capsule, *dcapsule; // [max_users][n_interest][dim] z before squash, and its gradient
    bool keep_route;          // tests: routes and targets' rows stay those of the last step, as the gradient takes them
    struct ema ema;           // of the tower, with recipe.ema
    struct ema_array ema_item, ema_bilinear;
    uint32_t step, epoch;
    uint32_t averaged;        // looks of the averages at the parameters
    uint32_t *every_item;     // [n_items] 0, 1, ..
    struct loss_ws loss;
    size_t max_rows;          // max_users * n_interest
    struct batch rows;        // the batch as the loss sees it: a "user" is a query vector
    uint32_t *hist, *hist_off, *target, *target_off, *zeros;
    uint32_t *x;              // [max_rows][n_slots]
    float *a;                 // [max_rows][dim]
    float *pv, *inv_norm, *dpv; // [max_items][dim]
    float *dpu;               // [max_rows][dim]
};

bool history_net_init(struct history_net *m, const struct pooling *p, const struct dataset *d, const struct recipe *r,
                      struct pool *pool, struct err *err);
void history_net_fini(struct history_net *m); // accepts zeroed

void history_net_split(struct history_net *m);       // the sampler's batch into histories and targets
double history_net_gradients(struct history_net *m); // of that: the loss, gradients added
void history_net_update(struct history_net *m);

/* The functions of struct baseline_ops but for `create`. */
bool history_net_epoch(void *state, double *loss, struct err *err);
struct stored *history_net_vectors(void *state, struct err *err);
void history_net_state(void *state, struct resume_list *out);
void history_net_resumed(void *state);
void history_net_destroy(void *state);
void *history_net_create(const struct pooling *p, const struct dataset *d, const struct recipe *r, struct pool *pool, struct err *err);

extern const struct pooling mean_pooling, capsule_pooling;
extern const struct baseline_ops youtube_dnn_ops, mind_ops;

#endif
