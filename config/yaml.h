/* yaml.h - the one user of libyaml: a small tree (prefix ynode_, since libyaml owns yaml_) of scalars, sequences and mappings, each with its place in the file.
 * Place:   the daemon's configuration and dataset schemas.
 * Limits:  libyaml 0.2.5 is quadratic in nesting and expands aliases without bound, so: size and depth are capped before and
 *          while parsing; anchors, aliases, tags, several documents and duplicate keys are refused. */
#ifndef DUET_CONFIG_YAML_H
#define DUET_CONFIG_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"

#define YAML_DEPTH_MAX 16

enum ynode_kind { YNODE_SCALAR, YNODE_SEQ, YNODE_MAP };

struct ynode {
    enum ynode_kind kind;
    int line, column;      // from 1
    char *text;            // SCALAR: NUL-terminated UTF-8 without NUL bytes
    bool quoted;           // SCALAR: was it quoted ("10" is a string, 10 a number)
    struct ynode *key;     // MAP: [n] scalars
    struct ynode *child;   // SEQ, MAP: [n]
    size_t n;
};

/* Parse one document; an empty one gives an empty mapping. `name` stands in messages ("duetd.yaml:3:5: ...").
 * NULL and ERR_FORMAT or ERR_LIMIT. */
struct ynode *ynode_parse(const char *text, size_t n, size_t max_bytes, const char *name, struct err *err);
struct ynode *ynode_read_file(const char *path, size_t max_bytes, struct err *err);
void ynode_free(struct ynode *root); // NULL is fine

const struct ynode *ynode_get(const struct ynode *map, const char *key); // NULL if absent or `map` is no mapping

/* The whole scalar as a value. Errors name file, place, what was found and what was wanted. */
bool ynode_uint(const struct ynode *v, const char *name, uint64_t *out, struct err *err);
bool ynode_double(const struct ynode *v, const char *name, double *out, struct err *err); // finite
bool ynode_bool(const struct ynode *v, const char *name, bool *out, struct err *err);     // true | false
const char *ynode_str(const struct ynode *v, const char *name, struct err *err);          // borrowed

/* ERR_ARG with "name:line:column: " before the message. Returns false. */
bool ynode_error(const struct ynode *at, const char *name, struct err *err, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* The entry of `known` (n of them) nearest to `word` by edit distance, or NULL if none is near (more than a third differs). */
const char *ynode_nearest(const char *word, const char *const *known, size_t n);

#endif
