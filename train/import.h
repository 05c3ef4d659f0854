/* import.h - the state dict of a PyTorch module, in a safetensors file -> a checkpoint folder that evaluation and publishing take.
 * Names:   docs/formats.md, "State dict of PyTorch". Shapes are held against the dataset's schema before anything is written.
 * Threads: one user at a time. */
#ifndef DUET_TRAIN_IMPORT_H
#define DUET_TRAIN_IMPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/err.h"
#include "core/model.h"
#include "train/dataset.h"

struct import_params {
    const struct dataset *data; // its schema gives the tables' rows, its interactions the segments' means where the file has none
    const char *state;          // safetensors file
    const char *const *rename;  // [n_rename] "OLD=NEW": names that begin with OLD begin with NEW; the first that fits counts
    size_t n_rename;
    enum model_kind kind;       // dat or two_tower
    bool relu_out, skip_aug;
    double history_alpha;
};

/* Kind and flags as the file's metadata have them (what `duet train` and deploy/export_pytorch.py wrote has some); what it does not say
 * is false, and alpha 1. ERR_FORMAT for a value that is none of these. */
bool import_defaults(const char *state, struct import_params *p, bool *has_kind, struct err *err);

/* Has each its "="? ERR_ARG names the one that has none. import_state asks too. */
bool import_check_renames(const struct import_params *p, struct err *err);

/* The model; NULL where a tensor is missing, superfluous, of another shape or type or not finite: the message names it as the file does and
 * as we do, and the shape found and wanted. */
struct model *import_state(const struct import_params *p, struct err *err);

/* import_state, and the checkpoint folder `out_dir`, made if missing. Refuses a folder that holds a training run's state. */
bool import_checkpoint(const struct import_params *p, const char *out_dir, struct err *err);

#endif
