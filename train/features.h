/* features.h - from a specification of fields (derived or written in YAML) and raw columns to a sealed schema and encoded rows.
 * Vocabularies and bounds are learnt only from entities with training interactions: a row that training never touches would
 * be a random vector in the answer. */
#ifndef DUET_TRAIN_FEATURES_H
#define DUET_TRAIN_FEATURES_H

#include "train/raw.h"

#define FEATURE_BUCKETS 16 // of a numeric field when the specification does not say

struct field_spec {
    char name[SCHEMA_NAME_MAX + 1]; // column of the source; "user_id" or "item_id" for FIELD_ID
    enum field_kind kind;
    bool category, segment;
    char sep;            // MULTI
    uint32_t min_count;  // ID: training interactions, CATEGORICAL, MULTI: entities that have the value; 0 = the default
    uint32_t buckets;    // NUMERIC, by quantiles; 0 = FEATURE_BUCKETS
    double *bounds;      // NUMERIC: [n_bounds] given instead of quantiles; owned
    uint32_t n_bounds;
};

struct side_spec {
    struct field_spec *field; // [n]
    uint32_t n;
};

struct features_spec {
    struct side_spec user, item;
};
void features_spec_free(struct features_spec *spec); // NULL is fine
struct field_spec *features_spec_add(struct side_spec *side, const char *name, enum field_kind kind, struct err *err);

/* The entities of a dataset: rows of the table that are kept, and how often each occurs in training. */
struct entities {
    const struct raw_table *table;
    const uint32_t *row;       // [n]
    const uint32_t *n_train;   // [n]
    uint32_t n;
};

/* Sealed, or NULL. min_count is the default of fields that name none. */
struct schema *features_schema(const struct features_spec *spec, const struct entities *users, const struct entities *items,
                               uint32_t min_count, struct err *err);

/* x[n][n_slots], for free(). The id slot holds index + 1, or 0 below the id field's minimum count. */
uint32_t *features_encode(const struct schema_side *side, const struct side_spec *spec, const struct entities *e, uint32_t min_count,
                          struct err *err);

/* train/derive_schema.c: a specification from what the columns hold (docs/data.md, "Derived schema"). */
struct features_spec *derive_schema(const struct entities *users, const struct entities *items, uint32_t min_count, struct err *err);

/* train/schema_yaml.c: a specification from a file (docs/data.md, "YAML schema"), its columns checked against the tables. */
struct features_spec *schema_yaml_load(const char *path, const struct raw_table *users, const struct raw_table *items, struct err *err);

#endif
