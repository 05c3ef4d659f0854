/* evaluate.h - a model against the held-out interactions of a dataset: the whole catalogue ranked, popularity beside it, each
 * category for itself, and the answers that strangers would get.
 * Protocol: rank.h; training items (and, for the test split, validation items) of the user are left out.
 * Result:   JSON objects, which report.h prints and docs/formats.md ("Evaluation") describes.
 * Threads:  one caller; work is split over the pool. */
#ifndef DUET_TRAIN_EVALUATE_H
#define DUET_TRAIN_EVALUATE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/json.h"
#include "core/model.h"
#include "train/dataset.h"
#include "train/pool.h"
#include "train/rank.h"

struct evaluation_params {
    const struct dataset *data;
    bool valid;               // the validation split instead of the test split
    bool per_category;
    struct metrics_spec spec;
};

/* A group of users and their targets, ranked together. */
struct target_set {
    uint32_t *user;          // [n_users]
    size_t n_users, n;       // n targets
    uint32_t *item;          // [n] in ranking order
    uint8_t *keep_known;     // [n] target item was there in training
    uint8_t *keep_cold;      // [n] target item is held out
    size_t n_cold;
};

struct evaluation {
    struct evaluation_params p;
    struct pool *pool;
    const struct interactions *target;
    struct target_set known, cold; // users with training rows; held-out users
    float *rank;                   // [most targets of a set]
    float *kept;                   // [known.n] the caller's, or NULL: gets the ranks of the known users as they are
};

bool evaluation_init(struct evaluation *e, const struct evaluation_params *p, struct pool *pool, struct err *err);
void evaluation_fini(struct evaluation *e); // accepts zeroed

/* One system's object: name, kind, metrics, categories, cold_start. NULL on failure; for json_decref. */
json_t *evaluation_popularity(struct evaluation *e, struct err *err);
json_t *evaluation_model(struct evaluation *e, const char *name, const struct model *m, struct err *err);

/* The whole report over a list of systems, which it takes. */
json_t *evaluation_report(const struct evaluation *e, const char *data_path, json_t *systems);

/* Ranks of a set in e->rank -> metrics and, if asked for, categories into `system`. */
bool evaluation_put_metrics(const struct evaluation *e, const struct target_set *set, const float *rank, json_t *system, struct err *err);

/* For evaluators of other kinds of systems: an object with name, kind and "through": "exact"; the ranking of a set but for what
 * scores it; one line of the cold-start table out of e->rank. */
json_t *evaluation_system_new(const char *name, const char *kind);
struct rank_input evaluation_rank_input(const struct evaluation *e, const struct target_set *set);
void evaluation_put_cold(const struct evaluation *e, json_t *list, const char *view, const uint8_t *keep, size_t n);

#endif
