/* labels.h - names that stand for models: "dat@canary" for "dat@4". Immutable and counted; a generation holds one table, so a label moves
 * for a request as a whole or not at all.
 * Place:   built from the configuration, a state file or PUT /v1/admin/labels; read by generation_find.
 * Threads: const but for the count, which is atomic. */
#ifndef DUET_SERVER_LABELS_H
#define DUET_SERVER_LABELS_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "core/base/err.h"
#include "core/base/json.h"

#define LABEL_NAME_MAX 64
#define LABELS_MAX 256

struct labels;

struct labels *labels_from_config(const struct config_label *l, size_t n, struct err *err); // count 1
/* {"dat@canary": "dat@4", ..}. ERR_ARG says which member is wrong and why. Count 1. */
struct labels *labels_from_json(const json_t *o, struct err *err);
/* Those that were given, or those that labels_complete added. */
json_t *labels_to_json(const struct labels *l);
json_t *labels_implied_json(const struct labels *l);
/* The same names for the same models, in whatever order? What labels_complete added does not count. */
bool labels_same(const struct labels *a, const struct labels *b);
struct labels *labels_ref(struct labels *l);  // NULL is fine
void labels_unref(struct labels *l);          // NULL is fine

/* The model that the label names, or NULL; `l` may be NULL. */
const char *labels_find(const struct labels *l, const char *name, size_t n);

/* ERR_ARG for a label that is a model's name, or names none of models[n]. */
bool labels_check(const struct labels *l, const char *const *models, size_t n, struct err *err);
/* The same table, and for each model of which several versions are served (name@version) and whose bare name is no label, that name for its
 * last version. Count 1. */
struct labels *labels_complete(const struct labels *l, const char *const *models, size_t n, struct err *err);
/* Labels first, then the models: names that a request may use. Returns how many are in out[LABELS_MAX + n], borrowed. */
size_t labels_and_models(const struct labels *l, const char *const *models, size_t n, const char **out);

#endif
