/* checkpoint.h - the folder that training leaves: what evaluation and publishing take, and what a killed run goes on from.
 * Format:  docs/formats.md, "Checkpoint": model.safetensors and schema.json of the best epoch, checkpoint.json naming both how
 *          they came about and the model file's hash, optimizer.safetensors (resume.h) of the last epoch, train.jsonl.
 * Files are replaced one by one by rename; the hash tells a model from a neighbouring epoch's checkpoint.json. */
#ifndef DUET_TRAIN_CHECKPOINT_H
#define DUET_TRAIN_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/json.h"
#include "core/model.h"
#include "train/rank.h"
#include "train/recipe.h"

struct checkpoint_info {
    struct recipe recipe;
    char dataset_hash[33];
    uint32_t epoch;            // that the model is from, counted from 1
    struct metrics_spec spec;  // of `valid`
    struct metrics valid;      // n = 0: the dataset has no validation split
    bool collapsed;            // training found the model dead: `reason`
    char reason[400];
};

struct checkpoint {
    struct model *model; // with *.aug
    struct checkpoint_info info;
};

/* Writes schema.json, model.safetensors and checkpoint.json into an existing folder. */
bool checkpoint_save(const char *dir, const struct model *m, const struct checkpoint_info *info, struct err *err);

/* Notes in an existing checkpoint.json that the run it is from collapsed later; the model stays. */
bool checkpoint_flag(const char *dir, const char *reason, struct err *err);

/* ERR_NOT_FOUND where there is none, ERR_MISMATCH where the model is not the one that checkpoint.json names. */
struct checkpoint *checkpoint_load(const char *dir, struct err *err);
void checkpoint_free(struct checkpoint *c); // NULL is fine
bool checkpoint_info_load(const char *dir, struct checkpoint_info *out, struct err *err); // checkpoint.json alone

/* Object of metrics for people and for the manifest: n, hr@<k>.., mrr, mrr_x10, mrr_ceil10. */
json_t *metrics_to_json(const struct metrics_spec *spec, const struct metrics *m);

#endif
