/* index_cost.h - what the graph costs a trained model: its bundle is published, and the test users ask it for 100 items, exactly and
 * through the index at several ef, by the code that answers requests. */
#ifndef DUET_TRAIN_STUDY_INDEX_COST_H
#define DUET_TRAIN_STUDY_INDEX_COST_H

#include "train/evaluate.h"

/* Array, the ef that is served first: {ef, served, hr@50, hr@100, exact_hr@50, exact_hr@100, queries_per_s}. The bundle goes into a new
 * folder below `checkpoint`. NULL on failure. */
json_t *index_cost(struct evaluation *test, const char *data_path, const char *checkpoint, struct err *err);

#endif
