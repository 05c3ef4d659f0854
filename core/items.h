/* items.h - the items of a bundle: ids, attributes, categories, encoded features, popularity. File items.pack.
 * Threads: const once loaded. item_idx is dense, 0 .. n - 1, the label in the index and the row of the embeddings. */
#ifndef DUET_ITEMS_H
#define DUET_ITEMS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/pack.h"
#include "core/base/strtab.h"
#include "core/schema.h"

struct item_attr {
    char name[SCHEMA_NAME_MAX + 1];
    struct strtab values; // [n] UTF-8, "" where missing
};

struct items {
    struct pack *pack;
    uint32_t n;
    struct strtab ids;
    struct strtab_index by_id;
    struct item_attr *attr; // [n_attrs]
    uint32_t n_attrs;
    struct strtab category;          // names, row 0 = "" (none)
    struct strtab_index category_index;
    const uint32_t *category_of;     // [n] < category.n
    const uint32_t *x;               // [n][n_slots] encoded features
    const uint32_t *popularity;      // [n] training interactions
    uint32_t *by_popularity;         // [n] item_idx, most popular first, ties by idx; built at load
};

struct items *items_load(const char *path, const struct schema *schema, enum pack_mode mode, struct err *err);
void items_free(struct items *it);

/* item_idx or STRTAB_NONE. */
uint32_t items_find(const struct items *it, const char *id, size_t n);
int items_attr(const struct items *it, const char *name, size_t n); // column or -1

#endif
