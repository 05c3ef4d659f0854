/* read.h - one reader for each layout in which people keep interactions, and the choice between them.
 * docs/data.md describes the layouts. Every reader fills `raw`; every message names file and line, what was found and what
 * was wanted; lines that raw->bad allows are skipped. */
#ifndef DUET_TRAIN_READ_H
#define DUET_TRAIN_READ_H

#include "train/csv.h"
#include "train/raw.h"

struct read_layout {
    const char *name;                                           // what --layout takes: "generic", "ml-1m", ...
    const char *files;                                          // for messages
    bool (*found)(const char *dir);                             // are its files there?
    bool (*read)(const char *dir, struct raw *raw, struct err *err);
};

extern const struct read_layout read_layouts[]; // ends at name = NULL

/* The layout of that name, or, name NULL, the only one whose files are in `dir`. NULL and ERR_ARG or ERR_NOT_FOUND. */
const struct read_layout *read_layout_find(const char *dir, const char *name, struct err *err);

bool read_generic(const char *dir, struct raw *raw, struct err *err);
bool read_ml_1m(const char *dir, struct raw *raw, struct err *err);
bool read_ml_100k(const char *dir, struct raw *raw, struct err *err);
bool read_ml_latest(const char *dir, struct raw *raw, struct err *err);
bool read_lightgcn(const char *dir, struct raw *raw, struct err *err);
bool read_amazon(const char *dir, struct raw *raw, struct err *err);
bool read_amazon_found(const char *dir);

// ------------------------------------------------------------------------------------------- parts that readers share

/* dir/name or dir/name.gz, whichever exists, into path. false if neither does; no error. */
bool read_find(const char *dir, const char *name, char path[]);

/* A CSV table of entities: its id column, and one raw column for each other. An id that appears twice is an error. */
bool read_csv_table(const char *path, const char *id_column, struct raw *raw, struct raw_table *t, struct err *err);

/* A CSV log. Columns that the log lacks are NULL. */
struct read_log_columns {
    const char *user, *item, *value, *time, *split;
};
bool read_csv_log(const char *path, const struct read_log_columns *names, struct raw *raw, struct err *err);

/* Turn "Title (1999)" into column year where there is none, and the first of `genres` into column category where there is none. */
bool read_movie_columns(struct raw *raw, struct err *err);

#endif
