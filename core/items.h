/* items.h - the items of a bundle: ids, attributes, categories, encoded features, popularity. File items.pack.
 * Threads: const once loaded. item_idx is dense, 0 .. n - 1, the label in the index and the row of the embeddings. */
#ifndef DUET_ITEMS_H
#define DUET_ITEMS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/hash.h"
#include "core/base/pack.h"
#include "core/base/strtab.h"
#include "core/facet.h"
#include "core/schema.h"

#define ITEM_ID_MAX 256 // bytes, of users' ids too
#define ITEM_ATTRS_MAX 256

struct item_attr {
    char name[SCHEMA_NAME_MAX + 1];
    struct strtab values; // [n] UTF-8, "" where missing
};

/* An id as answers have it, in one piece of a cache line: `ids` costs two misses an item, its offset and then its text. */
#define ITEM_SHORT_MAX 15
struct item_short_id {
    char text[ITEM_SHORT_MAX]; // zero-padded
    uint8_t n;                 // 0: longer, or with a quote or a backslash, which JSON escapes
};

struct items {
    struct pack *pack;
    char fingerprint[33]; // of the model that embedded them
    uint32_t n;
    struct strtab ids;
    struct strtab_index by_id;
    struct item_short_id *short_id; // [n], on 64 bytes; built at load
    struct item_attr *attr; // [n_attrs]
    uint32_t n_attrs;
    struct facet *facet;             // [n_facets] of the attributes, then of the category; built at load
    uint32_t n_facets;
    struct strtab category;          // names, row 0 = "" (none)
    struct strtab_index category_index;
    const uint32_t *category_of;     // [n] < category.n
    const uint32_t *x;               // [n][n_slots] encoded features; NULL if n_slots = 0
    const uint32_t *popularity;      // [n] training interactions
    uint64_t popularity_sum;         // of all items
    uint32_t *by_popularity;         // [n] item_idx, most popular first, ties by idx; built at load
    uint32_t *category_off;          // [category.n + 1] CSR of category_item; built at load
    uint32_t *category_item;         // [n] item_idx grouped by category, ascending within one
};

struct items *items_load(const char *path, const struct schema *schema, enum pack_mode mode, struct err *err);
struct items *items_from_pack(struct pack *p, const struct schema *schema, struct err *err); // takes p, on failure too
void items_free(struct items *it);
size_t items_memory(const struct items *it); // bytes it holds, the file's included

/* it->short_id out of it->ids; loading does it, and who makes an items by hand (bench/wire.c). */
bool items_shorten_ids(struct items *it, struct err *err);

/* item_idx or STRTAB_NONE. */
uint32_t items_find(const struct items *it, const char *id, size_t n);
int items_attr(const struct items *it, const char *name, size_t n); // column or -1

/* What filters by this name look at: facet of items->facet or -1. "category" is the category, whatever attributes are called. */
int items_facet(const struct items *it, const char *name, size_t n);

/* What a file is written from; everything is borrowed and must pass the rules of docs/formats.md, which items_save checks. */
struct items_columns {
    uint32_t n, n_slots, n_attrs;
    struct strtab ids, category;
    const struct item_attr *attr;      // [n_attrs]
    const uint32_t *x;                 // [n][n_slots]
    const uint32_t *category_of;       // [n]
    const uint32_t *popularity;        // [n]
};
bool items_save(const char *path, const struct items_columns *c, const char *fingerprint, struct err *err); // fsynced, not renamed

/* The part of the fingerprint that covers the ids (docs/formats.md). */
bool items_ids_hash(const struct strtab *ids, struct hash128 *out, struct err *err);

/* Ids as all tables of a bundle have them: distinct (the index sees to that), 1 to 256 bytes, UTF-8 without control characters. */
bool items_check_ids(const struct strtab *ids, struct err *err);

#endif
