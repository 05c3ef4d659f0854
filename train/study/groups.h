/* groups.h - test targets by how much was known: of the item, of the user. */
#ifndef DUET_TRAIN_STUDY_GROUPS_H
#define DUET_TRAIN_STUDY_GROUPS_H

#include "train/dataset.h"

enum group { GROUP_HEAD, GROUP_MIDDLE, GROUP_TAIL, GROUP_N };

const char *group_name(enum group g); // "head", ...

/* By number of training interactions: the first tenth is the head, the next four tenths the middle, the other half the tail; among
 * equal counts the lower index is ahead.  count [n], out [n] */
bool groups_by_count(const uint32_t *count, size_t n, uint8_t *out, struct err *err);

bool groups_of_items(const struct dataset *d, uint8_t *out, struct err *err); // out [n_items]
bool groups_of_users(const struct dataset *d, uint8_t *out, struct err *err); // out [n_users]; of all users, also those without targets

#endif
