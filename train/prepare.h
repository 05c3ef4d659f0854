/* prepare.h - `duet prepare`: from a folder of raw logs to one dataset file.
 *   read (read.h) -> positives, pairs, k-core, splits, hold-out (split.h) -> users and items that are left -> schema and
 *   encoded features (features.h) -> dataset_save
 * The same input and parameters give the same bytes. */
#ifndef DUET_TRAIN_PREPARE_H
#define DUET_TRAIN_PREPARE_H

#include "train/split.h"

struct prepare_params {
    const char *in, *out;     // folder, file
    const char *layout;       // NULL: told by the files
    const char *schema;       // YAML file; NULL: derived from the columns
    struct log_params log;
    uint32_t min_count;       // default of fields: entities that must have a value, training interactions that an id must have
    bool all_items;           // keep items that nobody has touched
    uint64_t skip_bad;        // bad lines to tolerate
    void (*note)(void *user, const char *text); // progress, one line a step; may be NULL
    void *user;
};

struct prepare_report {
    const char *layout, *split;  // as chosen
    uint64_t n_read;             // interactions read
    uint64_t n_low, n_repeated, n_thin; // left out: value too small, pair repeated, k-core
    uint64_t n_bad;              // lines skipped
    uint32_t users_read, items_read;
};

bool prepare_run(const struct prepare_params *p, struct prepare_report *report, struct err *err);

#endif
