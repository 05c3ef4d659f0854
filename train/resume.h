/* resume.h - optimizer.safetensors: everything that the next epoch depends on, so that a run that was killed goes on and ends
 * with the same bits as one that was not (same threads).
 * Format:  docs/formats.md, "Checkpoint". Of towers it is written after adam_flush, when every row is up to date. */
#ifndef DUET_TRAIN_RESUME_H
#define DUET_TRAIN_RESUME_H

#include "core/safetensors.h"
#include "train/step.h"

#define RESUME_ARRAYS_MAX 20

/* Where the arrays lie that make up a state; borrowed. */
struct resume_list {
    struct st_tensor tensor[RESUME_ARRAYS_MAX]; // name (kept, not copied), type, size
    void *at[RESUME_ARRAYS_MAX];
    const struct part *part[RESUME_ARRAYS_MAX]; // whose rows a tower's block has; NULL: all of it is here
    size_t n;
};

void resume_add(struct resume_list *l, const char *name, enum st_dtype type, void *at, size_t n); // n = 0 adds nothing

/* Is there a state in `dir`? */
bool resume_exists(const char *dir);
bool resume_remove(const char *dir, struct err *err); // fine where there is none

bool resume_write(const char *dir, const struct resume_list *l, const struct recipe *r, const char *dataset_hash,
                  struct err *err);

/* Fills the arrays. ERR_MISMATCH where the state is of another dataset or recipe (epochs, patience and threads may differ). After
 * a failure they may be filled in part. */
bool resume_read(const char *dir, const struct resume_list *l, const struct recipe *r, const char *dataset_hash,
                 struct err *err);

struct progress {
    uint32_t epoch;       // epochs done
    uint32_t best_epoch;  // 0 = none yet
    double best;          // its validation HR@100
};

/* All ranks call it; rank 0 writes, one array at a time brought together there. */
bool resume_save(const char *dir, const struct step *s, const struct progress *p, const char *dataset_hash, struct err *err);

/* Fills parameters, moments, generator and progress of a step made for the same recipe and dataset. */
bool resume_load(const char *dir, struct step *s, struct progress *p, const char *dataset_hash, struct err *err);

#endif
