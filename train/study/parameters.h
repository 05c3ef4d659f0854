/* parameters.h - how large a model of two towers is, and a two-tower as large as another model. */
#ifndef DUET_TRAIN_STUDY_PARAMETERS_H
#define DUET_TRAIN_STUDY_PARAMETERS_H

#include "core/schema.h"
#include "train/recipe.h"

/* Numbers in the tables that are in use, in a_u and a_v (also where a_u is computed: a user is stored by it) and in the layers.
 * 0 for systems without towers. */
bool parameters_count(const struct schema *s, const struct recipe *r, uint64_t *out, struct err *err);

/* A two-tower by `base` (a recipe for two_tower) whose embeddings (and last layer, where the id's embedding goes past the layers) are so
 * wide that it has about as many numbers as `want`. */
bool parameters_equal(const struct schema *s, const struct recipe *base, uint64_t want, struct recipe *out, struct err *err);

#endif
