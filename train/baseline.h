/* baseline.h - training runs of the models that end as stored vectors: epochs, validation, the best epoch kept, checkpoints.
 * Place:   `duet train` calls it for kinds without towers, with the parameters, result and progress of trainer.h.
 * Threads: as trainer.h. */
#ifndef DUET_TRAIN_BASELINE_H
#define DUET_TRAIN_BASELINE_H

#include "core/stored.h"
#include "train/resume.h"
#include "train/trainer.h"

/* What a system has to bring. */
struct baseline_ops {
    const char *epoch_name; // of messages
    void *(*create)(const struct dataset *d, const struct recipe *r, struct pool *pool, struct err *err);
    bool (*epoch)(void *state, double *loss, struct err *err);        // mean loss of it
    struct stored *(*vectors)(void *state, struct err *err);          // as they are now; the caller frees
    void (*list)(void *state, struct resume_list *out);               // adds what the next epoch depends on
    void (*resumed)(void *state);                                     // the list was filled from a file; may be NULL
    void (*destroy)(void *state);
};

/* The tuned values of a kind without towers (docs/results/tuning.md says on what). */
void baseline_recipe(enum model_kind kind, struct recipe_data data, struct recipe *out);

bool baseline_run(const struct trainer_params *p, struct trainer_result *out, struct err *err);

#endif
