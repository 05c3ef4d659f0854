/* dataset.h - what `duet prepare` writes and training, evaluation and publishing map: one pack file, kind "dataset".
 * Format:  docs/formats.md, "Dataset".
 * Threads: const once open. */
#ifndef DUET_TRAIN_DATASET_H
#define DUET_TRAIN_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/pack.h"
#include "core/base/strtab.h"
#include "core/schema.h"

/* Interactions of one split, by user: user u's are item[off[u] .. off[u + 1]), by time where there is time. */
struct interactions {
    const uint64_t *off;   // [n_users + 1]
    const uint32_t *item;  // [off[n_users]] item indices
    const int64_t *time;   // seconds since 1970, same length; NULL where the data has no time
};

struct dataset_attr {
    char name[SCHEMA_NAME_MAX + 1];
    struct strtab values; // [n_items] as in the source, UTF-8; "" where missing
};

struct dataset {
    struct pack *pack;
    struct schema *schema;
    char hash[33];               // XXH3-128 of the file, hex: what checkpoints name
    uint32_t n_users, n_items;
    struct strtab user_id, item_id;       // the data's own ids; index = our dense user / item index
    const uint32_t *user_x;               // [n_users][schema->user.n_slots]; the id slot holds index + 1, or 0 where rarer than min_count
    const uint32_t *item_x;               // [n_items][schema->item.n_slots]
    struct dataset_attr *attr;            // [n_attrs] item attributes for answers: every item column but the id
    uint32_t n_attrs;
    struct strtab category;               // names; row 0 = "" (none)
    const uint32_t *item_category;        // [n_items] < category.n
    const uint32_t *item_count;           // [n_items] training interactions
    struct interactions train, valid, test;
    struct interactions held;             // rows withheld from training by --hold-out: a held-out user's history, a held-out item's users
    const uint8_t *user_held_out;         // [n_users] 1 = its training rows were withheld (cold-start measurement)
    const uint8_t *item_held_out;         // [n_items]
};

struct dataset *dataset_open(const char *path, struct err *err); // mapped, checksums and every index verified
void dataset_close(struct dataset *d);                           // NULL is fine

/* Write a dataset from arrays in memory (pack, hash: ignored): checked as a reader would, written beside and renamed, fsynced.
 * info: JSON text about how it was made, may be NULL. `d->schema` sealed; x may be NULL where a side has no slots. */
bool dataset_save(const struct dataset *d, const char *info, const char *path, struct err *err);

/* The JSON text of section `info`, not NUL-terminated. */
struct str dataset_info(const struct dataset *d);

#endif
