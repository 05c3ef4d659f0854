/* trainer.h - a training run: epochs of steps, validation, the best epoch kept, checkpoints, collapse found and explained.
 * Place:   called by `duet train`; reports through a callback and never prints.
 * Threads: runs on the caller's thread and a pool of recipe.threads; call blas_set_threads(1) first. */
#ifndef DUET_TRAIN_TRAINER_H
#define DUET_TRAIN_TRAINER_H

#include "train/checkpoint.h"
#include "train/dataset.h"
#include "train/dist.h"
#include "train/recipe.h"
#include "train/step.h"

struct trainer_report {
    uint32_t epoch, epochs;
    size_t batch, n_batches;     // batch = n_batches: the epoch is over, and `valid` is set
    struct loss_parts parts;     // means over the batches of this epoch so far
    struct step_health health;   // of the last batch
    double seconds, pairs_per_s; // of this epoch
    double eta_s;                // to the last epoch, if nothing stops it before
    float logit_scale;
    struct metrics_spec spec;
    struct metrics valid;
    bool best;                   // so far
};

struct trainer_params {
    const struct dataset *data;
    const struct dist *dist; // this process among the ranks that train one model; NULL: alone
    struct recipe recipe;
    const char *out_dir; // made if missing; NULL = keep nothing
    bool resume;         // go on from out_dir's last epoch; where there is none, begin
    bool keep_going;     // a collapse is reported and training goes on
    void (*progress)(void *user, const struct trainer_report *r); // about twice a second and at each epoch's end; may be NULL
    void *progress_user;
    double report_every_s; // least time between two reports within an epoch; 0 = half a second
};

struct trainer_result {
    uint32_t epochs_done, best_epoch;
    struct metrics_spec spec;
    struct metrics valid;             // at the best epoch
    double popularity_hr100;          // of the same validation pairs: a model below it has learned nothing
    bool collapsed;
    char reason[400];                 // what was seen, why, and what to change
    double seconds;
};

/* False on errors only: a collapse is a result, and its checkpoint says so. Several ranks make the same call with the same dataset and
 * recipe, and get the same result; rank 0 writes, reports progress and needs room for the whole model. After an error at one of them
 * the others wait for ever: dist_abort. */
bool trainer_run(const struct trainer_params *p, struct trainer_result *out, struct err *err);

#endif
