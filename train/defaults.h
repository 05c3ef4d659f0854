/* defaults.h - the values that a model of any kind is trained with unless told otherwise.
 * Place:   `duet train` and `duet study` begin with them. */
#ifndef DUET_TRAIN_DEFAULTS_H
#define DUET_TRAIN_DEFAULTS_H

#include "train/recipe.h"

/* Towers: the named recipe (recipe_named); false if there is none of that name. Other kinds have one recipe of their own. */
bool defaults_of(const char *recipe, enum model_kind kind, struct recipe_data data, struct recipe *out);

#endif
