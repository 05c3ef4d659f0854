/* evaluate_stored.h - systems without towers in the evaluator: models of stored vectors, and the yardstick EASE^R.
 * Objects and protocol are those of evaluate.h. */
#ifndef DUET_TRAIN_EVALUATE_STORED_H
#define DUET_TRAIN_EVALUATE_STORED_H

#include "train/evaluate.h"

/* evaluation_model for a model with m->stored. Strangers are those with a history alone, answered as serving does. */
json_t *evaluation_stored(struct evaluation *e, const char *name, const struct model *m, struct err *err);

json_t *evaluation_ease(struct evaluation *e, double lambda, struct err *err);

#endif
