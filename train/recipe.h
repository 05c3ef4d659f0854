/* recipe.h - every choice of a training run, in one struct that is written into each checkpoint.
 * Source:  docs/model.md. "paper" is the text to the letter; "duet" is what works on public data (docs/results.md). */
#ifndef DUET_TRAIN_RECIPE_H
#define DUET_TRAIN_RECIPE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/json.h"
#include "core/model.h"
#include "train/dataset.h"

enum loss_kind {
    LOSS_BCE,     // eq. (4): every positive against S random negatives
    LOSS_SOFTMAX, // every positive against the whole catalogue
    LOSS_SAMPLED  // every positive against the batch's items: its positives and S shared negatives
};

enum batch_kind {
    BATCH_PAIRS, // `batch` random pairs
    BATCH_USERS  // `batch` random users with all their pairs
};

enum aug_kind {
    AUG_TABLE, // a_u is a row of a table, moved by the losses
    AUG_CLOSED // a_u is computed: n^-alpha times the sum of p_v over the n items of the user's history
};

struct recipe {
    char name[16]; // "paper", "plain", "duet" or, for the baselines, "tuned": where the other values started from
    enum model_kind model;
    enum loss_kind loss;
    enum batch_kind batching;
    uint32_t batch;             // positives or users, by `batching`
    uint32_t negatives;         // S: for each positive (BCE) or for the whole batch (sampled)
    bool in_batch;              // sampled: the other users' positives are negatives too
    bool logq;                  // sampled: correct for how likely an item is in the batch

    uint32_t k;                 // columns of the embedding tables
    uint32_t n_layers, width[TOWER_LAYERS_MAX]; // the last is d, also the width of a_u and a_v
    bool relu_out;
    double scale;               // logit = scale * cosine
    bool learn_scale;

    enum aug_kind aug;          // where a_u comes from; DAT only
    double alpha;               // closed: see AUG_CLOSED; 1 = the minimiser of loss_u, less lets a_u grow with the history
    double denoise;             // closed: chance that a positive is left out of its user's history; these are what is asked for,
                                // and what stays in the history is no candidate. Every user has at least one
    uint32_t window;            // closed: 0 = `denoise` decides; else a user's history ends somewhere in time and the `window` items after
                                // that are asked for. Needs times; a user comes up once for each `window` of its items
    bool recency;               // closed: items weigh by how many newer ones there are (history.h), weights that are learned
    bool aug_grad;              // closed: the gradient of a_u goes on into the p_v that it was made of
    bool skip;                  // p = normalise(h_L + a), two_tower: + the id's embedding (tower_shape.skip_aug)
    bool id_tables;             // ids are embedded too; false: augmented vectors alone tell entities apart
    bool spectral;              // a_v (or the id's embedding) starts from the interactions' singular vectors (spectral.h)

    bool amm, cal;              // mimic losses (2), category alignment (3); DAT only
    double lambda1, lambda2, lambda3; // weights of loss_u, loss_v, loss_CA
    uint32_t cal_min_rows;      // categories with fewer rows in the batch are left out
    bool cal_weighted;          // a category's term weighs by its share of the rows; false: all alike, as in the text
    bool cal_detach_major;      // no gradient to the major category
    bool cal_positives;         // rows of positives only; false: every row of the batch

    double w0, reg;             // wals: weight of what was not seen; penalty, multiplied by a row's count
    uint32_t n_interest;        // mind: query vectors of a user
    uint32_t history;           // youtube_dnn, mind: latest items that describe a user

    double lr, lr_decay;        // Adam's rate, multiplied by lr_decay after each epoch
    double weight_decay;        // of the tables, decoupled
    double init_std;            // of the tables: N(0, init_std)
    double oov_dropout;         // chance that an id is replaced by row 0 and its augmented input by a mean
    double feature_dropout;     // the same for each other field
    double item_dropout;        // chance that a component of an item's output is 0 in a batch, before it gets unit length
    double user_weight;         // a user weighs n^user_weight, n its positives: 1 = every pair alike, 0 = every user
    double ema;                 // decay a step of the average of the parameters that is validated and kept; 0 = the last ones
    uint32_t ema_after;         // epochs before the average begins
    uint32_t epochs, patience;  // stop after `patience` epochs without a better validation HR@100; 0 = never
    uint64_t seed;
    uint32_t threads;
};

#define FEW_USERS 2000          // ml-latest-small (671 users), validation HR@100: a_u from a table .361 in batches of 64, .341 of 32; in
                                // closed form .402 and .404, and .416 with more epochs
#define SMALL_CATALOGUE 4000    // with times, up to this many items a batch has 64 rows: ml-100k .719, of 256 .700; a step costs the catalogue
#define WINDOW_MIN 4            // ml-100k, validation HR@100: window 4 .719, 8 .692, 16 .679
#define WINDOW_MAX 32
#define ROWS_AN_EPOCH 50000     // more pairs have wider windows, so that an epoch has about so many moments in time
#define WIDE_ITEMS 10000        // above this d is 256: book-crossing (17,384), validation HR@100 .225, with d = 128 .220
#define SOFTMAX_ITEMS_MAX 20000 // above this "duet" samples, as good and three times as fast: amazon-book-kgat (24,915), DAT, validation HR@100
                                // after one and two epochs: all items .3981 and .4063, 2,000 of them .3984 and .4092

/* What "duet" and the baselines' recipes look at. */
struct recipe_data {
    uint32_t n_users, n_items;
    uint64_t n_pairs; // training interactions
    bool timed;       // they have times
};

struct recipe_data recipe_data_of(const struct dataset *d);
uint32_t recipe_window(struct recipe_data data); // how many next items are asked for, with times

/* Values of a named recipe; false if there is none of that name. "duet" looks at the data: n_items chooses between softmax and
 * sampled, with few users a batch has fewer of them, so that an epoch still has steps enough, and with times histories are cut in time. */
bool recipe_named(const char *name, enum model_kind model, struct recipe_data data, struct recipe *out);
/* "duet" for a_u of that kind: closed for dat; table for two_tower and the ablation `--aug table`, everything else alike. */
void recipe_duet(enum model_kind model, enum aug_kind aug, struct recipe_data data, struct recipe *out);
void recipe_fast(struct recipe *r); // few epochs: the whole line in well under a minute
bool recipe_check(const struct recipe *r, struct err *err); // ranges, and choices that exclude each other

struct tower_params recipe_tower(const struct recipe *r);

bool aug_kind_parse(const char *name, enum aug_kind *out); // "table", "closed"
bool loss_kind_parse(const char *name, enum loss_kind *out); // "bce", "softmax", "sampled"
const char *loss_kind_name(enum loss_kind k);

/* JSON object of checkpoint.json. */
json_t *recipe_to_json(const struct recipe *r);
bool recipe_from_json(const json_t *o, struct recipe *out, struct err *err);

#endif
