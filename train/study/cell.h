/* cell.h - one run of a study: what is trained and measured, and the result that is kept of it.
 * A result is two files in DIR/runs, named by what it is a result of:
 *     <hash of configuration and dataset, 32 hex>-<model code, 12 hex>.json     configuration, metrics, times; written last
 *     the same .ranks                                                            pack "study-ranks": the rank of every target
 * and, while it trains, a folder of the same name with ".train": the checkpoint that a killed run goes on from.
 * Tables are made of these alone (table.h), so splits and tests need no training. Format: docs/formats.md, "Studies". */
#ifndef DUET_TRAIN_STUDY_CELL_H
#define DUET_TRAIN_STUDY_CELL_H

#include <limits.h>

#include "train/evaluate.h"
#include "train/recipe.h"
#include "train/trainer.h"

enum cell_kind {
    CELL_TRAINED,
    CELL_INDEX,     // trained, and published to see what the graph costs
    CELL_EASE,
    CELL_POPULARITY
};

struct cell {
    enum cell_kind kind;
    struct recipe recipe; // TRAINED, INDEX; with its seed; the number of threads is no part of the configuration
    double lambda;        // EASE
};

/* Where cells run and are kept. */
struct cell_place {
    const struct dataset *data;
    const char *data_path;       // the dataset's file
    const char *dir;             // holds runs/
    bool any_version;            // take results of other model code where there is none of this
    struct evaluation valid, test;
    void (*progress)(void *user, const struct trainer_report *r); // of training, may be NULL
    void *progress_user;
};

bool cell_is_trained(const struct cell *c); // has a recipe

/* Makes DIR/runs; the pool is kept. Zeroed *p to begin with. data_path: of INDEX, may be NULL without. */
bool cell_place_init(struct cell_place *p, const struct dataset *d, const char *data_path, const char *dir, struct pool *pool, struct err *err);
void cell_place_fini(struct cell_place *p);

/* What a table needs. */
struct cell_result {
    char version[13];      // of the model code
    float *rank;           // [n] of the test targets in the order of evaluation.known
    size_t n;
    double valid_hr100, valid_hr50; // at the best epoch; NAN without a validation split
    uint64_t n_params;     // numbers in the model: tables, augmented vectors, layers; 0 where that says nothing
    uint32_t epochs, best_epoch;
    double cpu_s, wall_s;  // of training; NAN where it was interrupted
    uint32_t threads;
    bool collapsed;
    json_t *file;          // the whole JSON file
};

/* Canonical text of the configuration, for free(). */
char *cell_config(const struct cell *c, struct err *err);
const char *cell_version(const struct cell *c); // of the model code it runs
/* Name of its result without extension; out[64]. */
bool cell_name(const struct cell_place *p, const struct cell *c, char out[64], struct err *err);
/* DIR/runs/name + extension. */
bool cell_path(const struct cell_place *p, const char *name, const char *extension, char out[PATH_MAX], struct err *err);

/* Is there a result? *path (may be NULL) gets its .json. */
bool cell_done(const struct cell_place *p, const struct cell *c, char path[PATH_MAX]);
bool cell_load(const struct cell_place *p, const struct cell *c, struct cell_result *out, struct err *err);
void cell_result_fini(struct cell_result *r); // accepts zeroed

/* Train, rank, keep. Goes on from a killed run's checkpoint. */
bool cell_run(struct cell_place *p, const struct cell *c, uint32_t threads, struct err *err);

#endif
