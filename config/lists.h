/* lists.h - the lists of the configuration, `models`, `labels` and `experiments`: for config.c alone. */
#ifndef DUET_CONFIG_LISTS_H
#define DUET_CONFIG_LISTS_H

#include "config/config.h"
#include "config/yaml.h"

bool lists_read_models(struct config *c, const struct ynode *list, const char *name, struct err *err);
bool lists_read_labels(struct config *c, const struct ynode *map, const char *name, struct err *err); // labels.c
bool lists_read_experiments(struct config *c, const struct ynode *list, const char *name, struct err *err);
/* Names distinct, labels' and variants' models known, weights summing to 100. */
bool lists_check(const struct config *c, const char *name, struct err *err);
/* labels.c. Model c->model[i], of `versions` v[n], becomes n models name@version; there is room for `most` models. */
bool lists_expand_versions(struct config *c, size_t i, const uint64_t *v, size_t n, size_t most, struct err *err);
bool lists_known_model(const struct config *c, const char *model); // a model's name or a label
bool lists_read_model_name(const struct ynode *v, const char *name, char **out, struct err *err); // or a label's
bool lists_check_labels(const struct config *c, const char *name, struct err *err);
void lists_free_labels(struct config *c);

void lists_free(struct config *c);

#endif
