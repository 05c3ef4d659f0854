/* schema.h - the features of users and items: which fields exist, what kind each is, and how a value becomes a table row.
 * Source:  docs/model.md, z_u and z_v: every feature goes through an embedding, a numeric one by its bucket.
 * Place:   made by `duet prepare`, stored in datasets, checkpoints and bundles (schema.json, docs/formats.md); read by all.
 * Threads: const once built.
 *
 * An encoded entity is one row x[n_slots] of uint32. A field owns n_slots consecutive slots: one, or for multi-valued
 * fields up to SCHEMA_MULTI_MAX. A slot holds a row of the field's own embedding table, or SLOT_EMPTY (multi-valued fields
 * only, after the last value). Row 0 of every table is out-of-vocabulary (OOV): unknown, rare or missing values. */
#ifndef DUET_SCHEMA_H
#define DUET_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/strtab.h"

#define SLOT_EMPTY UINT32_MAX
#define SCHEMA_MULTI_MAX 16
#define SCHEMA_NAME_MAX 63
#define SCHEMA_FIELDS_MAX 256
#define SCHEMA_ROWS_MAX (1u << 30)  // of one field's table
#define SCHEMA_BOUNDS_MAX 65535

enum field_kind {
    FIELD_ID,          // the entity's own id; row = 1 + index in training, given by the dataset, no vocabulary here
    FIELD_CATEGORICAL, // one value out of a vocabulary
    FIELD_NUMERIC,     // bucketed by bounds
    FIELD_MULTI,       // several values out of one vocabulary, separated by `sep`; embedded as the mean of their rows
    FIELD_DISPLAY      // kept for answers (titles), never fed to a tower; has no slot
};

struct schema_field {
    char name[SCHEMA_NAME_MAX + 1];
    enum field_kind kind;
    bool category;                   // items: the one categorical field that CAL, per-category metrics and filters use
    char sep;                        // FIELD_MULTI
    uint32_t slot, n_slots;          // place in x; 0 slots for FIELD_DISPLAY. MULTI: n_slots set before seal (0 = SCHEMA_MULTI_MAX)
    uint32_t n_rows;                 // rows of its embedding table, row 0 included; 0 for FIELD_DISPLAY. ID: set before seal
    struct strtab_builder vocab;     // CATEGORICAL, MULTI: vocab row r stands for table row r + 1; n_rows = vocab.n + 1
    struct strtab_index index;       // over vocab, built by schema_seal
    double *bounds;                  // NUMERIC: [n_bounds] ascending; row = 1 + count of bounds <= value; n_rows = n_bounds + 2
    uint32_t n_bounds;
};

struct schema_side {
    struct schema_field *field; // [n_fields]
    uint32_t n_fields;
    uint32_t n_slots;           // width of x
    int id_field;               // index of the FIELD_ID field, or -1
    int segment_field;          // categorical field whose rows are the segments of mean augmented vectors, or -1 (one segment)
};

struct schema {
    struct schema_side user, item;
};

void schema_free(struct schema *s); // heap object; NULL is fine

/* After fields, vocabularies, bounds and segment_field are in place (fields and bounds from malloc): assigns slots, row counts and
 * id_field, builds indexes, checks every rule of docs/formats.md (names unique and not empty, one id at most, one category at most
 * and categorical, bounds ascending and finite). Rounds bounds to 9 significant digits, which every text form of ours keeps. */
bool schema_seal(struct schema *s, struct err *err);

/* JSON form (docs/formats.md, schema.json). From: sealed object or NULL. */
struct schema *schema_from_json(const json_t *v, struct err *err);
json_t *schema_to_json(const struct schema *s, struct err *err);
struct schema *schema_load(const char *path, struct err *err);
bool schema_save(const struct schema *s, const char *path, struct err *err); // atomic, fsynced
struct schema *schema_copy(const struct schema *s, struct err *err);         // of a sealed one, sealed

const struct schema_field *schema_find(const struct schema_side *s, const char *name, size_t n); // NULL if none
const struct schema_field *schema_category(const struct schema_side *s);                         // NULL if none
const char *schema_kind_name(enum field_kind kind);                                              // "id", "categorical", ...
bool schema_kind_parse(const char *name, enum field_kind *out);

/* All slots of x[n_slots] to OOV (multi-valued: first slot OOV, the rest empty). */
void schema_encode_unknown(const struct schema_side *s, uint32_t *x);

/* Write one field's value, given as text, into its slots of x. Returns false if (part of) the value was unknown and the OOV
 * row was used; more values than slots are dropped from the end. FIELD_ID and FIELD_DISPLAY: no effect, true. Cannot fail. */
bool schema_encode_value(const struct schema_side *s, const struct schema_field *f, const char *value, size_t n, uint32_t *x);

/* The next value of a multi-valued text: cut at `sep`, spaces around it removed, empty ones skipped. Moves *text and *n on; false at
 * the end. What schema_encode_value uses, for those who build vocabularies. */
bool schema_multi_next(char sep, const char **text, size_t *n, struct str *value);

/* A finite decimal number, spaces around it allowed; neither nan, inf nor hexadecimal. */
bool schema_parse_number(const char *p, size_t n, double *out);

/* The segment of an encoded entity: the row in its segment field, 0 where there is none. Less than schema_n_segments. */
uint32_t schema_segment(const struct schema_side *s, const uint32_t *x);
uint32_t schema_n_segments(const struct schema_side *s); // n_rows of the segment field, or 1

/* Every row of x[n][n_slots], read from a file, inside its table? ERR_FORMAT names entity, field, row. */
bool schema_check_x(const struct schema_side *s, const uint32_t *x, size_t n, struct err *err);

#endif
