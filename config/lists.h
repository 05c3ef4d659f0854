/* lists.h - the two lists of the configuration, `models` and `experiments`: for config.c alone. */
#ifndef DUET_CONFIG_LISTS_H
#define DUET_CONFIG_LISTS_H

#include "config/config.h"
#include "config/yaml.h"

bool lists_read_models(struct config *c, const struct ynode *list, const char *name, struct err *err);
bool lists_read_experiments(struct config *c, const struct ynode *list, const char *name, struct err *err);
/* Names distinct, variants' models known, weights summing to 100. */
bool lists_check(const struct config *c, const char *name, struct err *err);
void lists_dump(const struct config *c, struct buf *out);
void lists_free(struct config *c);

#endif
