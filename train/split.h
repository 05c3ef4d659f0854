/* split.h - from a raw log to training, validation and test rows.
 *   log_new (minimum value, repeated pairs, order) -> log_k_core -> log_split -> log_hold_out
 * Rows keep the source's indices of users and items; prepare.c renumbers what is left.
 * Everything random comes from the seed, in the order of the source: the same input gives the same splits. */
#ifndef DUET_TRAIN_SPLIT_H
#define DUET_TRAIN_SPLIT_H

#include "train/raw.h"

enum split_how {
    SPLIT_AUTO,   // given where the source has test rows, else last where every row has a time, else random
    SPLIT_GIVEN,  // the source's own; without validation rows, one training row of each user becomes one
    SPLIT_LAST,   // per user: the last in time = test, the one before = validation; users of less than three rows only train
    SPLIT_DAY,    // the log's last days = test, as many before = validation
    SPLIT_RANDOM  // per user: one row at random = test, another = validation; users of less than three rows only train
};

bool split_parse(const char *name, enum split_how *out); // auto | given | last | day | random
const char *split_name(enum split_how how);

struct log_params {
    enum split_how how;
    bool has_min_value;
    double min_value;               // smallest value of a positive
    uint32_t k_core_user, k_core_item; // fewest interactions of a user, of an item; 0 or 1 = no limit
    uint32_t days;                  // SPLIT_DAY
    double hold_out;                // share of users, and of items, withheld from training
    uint64_t seed;
};

struct log {
    uint32_t n_users, n_items;      // of the source
    struct raw_event *e;            // [off[n_users]] by user, then time and item (where all have times), else by place in the source
    uint64_t *off;                  // [n_users + 1]
    bool has_time;                  // every row has one
    enum split_how how;             // as chosen
    uint8_t *user_held, *item_held; // [n_users], [n_items]
    uint64_t n_low, n_repeated, n_thin; // rows left out: value too small, pair repeated, k-core
};

/* All steps in order. NULL and ERR_ARG when the source lacks what the split needs. */
struct log *log_new(const struct raw *raw, const struct log_params *p, struct err *err);
void log_free(struct log *l);
uint64_t log_count(const struct log *l, enum raw_split split);

#endif
