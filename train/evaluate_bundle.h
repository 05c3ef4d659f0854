/* evaluate_bundle.h - a published bundle against a dataset's held-out interactions, asked one query after the other through
 * retrieve_topk, the code that answers requests: what the table says is what is served.
 * Ranks are known down to the largest K only; an item that is not among the hits counts as not found, also in MRR.
 * Threads: users are split over the pool, each thread with its own workspace. */
#ifndef DUET_TRAIN_EVALUATE_BUNDLE_H
#define DUET_TRAIN_EVALUATE_BUNDLE_H

#include "core/bundle.h"
#include "train/evaluate.h"

struct evaluate_bundle_params {
    bool through_index; // false: every item is scored
    size_t ef;          // 0 = the bundle's default
};

/* The system's object as of evaluation_model, without cold_start; through the index also "exact_metrics", "ef", "queries_per_s"
 * and a note of what the graph costs in HR. Users that the bundle lacks are answered as it answers strangers, and counted. */
json_t *evaluation_bundle(struct evaluation *e, const char *name, const struct bundle *b, const struct evaluate_bundle_params *p,
                          struct err *err);

#endif
