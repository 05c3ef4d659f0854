/* collapse.h - is the model dead? Seen during training, so that a run ends with a reason instead of a metric.
 * Source: docs/model.md, "Why the literal recipe collapses". */
#ifndef DUET_TRAIN_COLLAPSE_H
#define DUET_TRAIN_COLLAPSE_H

#include <stdbool.h>
#include <stddef.h>

#include "train/recipe.h"
#include "train/step.h"

/* Looks at the last step; true and a text that says what was seen, why it happens and what to change. */
bool collapse_seen(const struct recipe *r, const struct loss_parts *parts, const struct step_health *h, char *reason, size_t n);

#endif
