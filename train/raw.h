/* raw.h - what every reader of `duet prepare` produces: two tables of text columns and one log of interactions.
 * Place:   filled by read_*.c, thinned and split by split.c, turned into a schema and encoded rows by features.c.
 * A column keeps each distinct value once and one number a row, so gender costs four bytes a user and counting values is free. */
#ifndef DUET_TRAIN_RAW_H
#define DUET_TRAIN_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/strtab.h"
#include "core/schema.h"

#define RAW_NO_TIME INT64_MIN
#define RAW_COLUMNS_MAX (SCHEMA_FIELDS_MAX - 1) // the id is a field too

enum raw_split { RAW_NONE, RAW_TRAIN, RAW_VALID, RAW_TEST, RAW_HELD };

struct raw_column {
    char name[SCHEMA_NAME_MAX + 1];
    struct strtab_builder values; // distinct; row 0 is ""
    uint32_t *cell;               // [rows] row of values
};

struct raw_table {
    const char *what;            // "user", "item": for messages
    struct strtab_builder ids;   // distinct; row = index of the entity in the source
    struct raw_column *col;      // [n_cols]
    uint32_t n_cols, cap;        // cap: cells allocated in each column
};

struct raw_event {
    uint32_t user, item;
    int64_t time;     // seconds since 1970 or RAW_NO_TIME
    uint32_t order;   // place in the source
    float value;      // NAN where missing
    uint8_t split;    // enum raw_split
};

/* Lines that are not what they should be: an error, or counted up to a limit that the user has set. */
struct bad_lines {
    uint64_t allowed, found;
    char first[256]; // why the first of them was skipped
};

struct raw {
    struct raw_table user, item;
    struct raw_event *event; // [n]
    size_t n, cap;
    bool has_split;          // the source has a column or files for splits
    struct bad_lines bad;
};

void raw_init(struct raw *raw);
void raw_fini(struct raw *raw); // accepts zeroed

/* Row of an id, a new one with empty cells if it was not known. ERR_FORMAT for ids that are empty, longer than 256 bytes or
 * have control characters. */
bool raw_row(struct raw_table *t, struct str id, uint32_t *row, struct err *err);

/* The column of that name, made if missing. */
bool raw_column(struct raw_table *t, const char *name, uint32_t *col, struct err *err);
bool raw_set(struct raw_table *t, uint32_t row, uint32_t col, struct str value, struct err *err);
struct str raw_get(const struct raw_table *t, uint32_t row, uint32_t col);
int raw_find_column(const struct raw_table *t, const char *name); // -1 if there is none

bool raw_event_add(struct raw *raw, struct raw_event e, struct err *err); // sets e.order

/* After ERR_FORMAT in *err: true and *err cleared if the line may be skipped, false if it is an error. */
bool raw_skip(struct raw *raw, struct err *err);

/* Whole text as a number or a time (whole seconds). Spaces are not allowed. */
bool raw_parse_number(struct str s, double *out);
bool raw_parse_time(struct str s, int64_t *out);
bool raw_parse_split(struct str s, uint8_t *out); // train | valid, validation, val, dev | test

#endif
