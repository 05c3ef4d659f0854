/* keys.h - the one typed table of duetd's scalar keys: parsing, ranges, defaults, --dump-config, the sample file and the table in
 * docs/operations.md all come from it. A new key is one line here and one field in config.h.
 * Threads: const. */
#ifndef DUET_CONFIG_KEYS_H
#define DUET_CONFIG_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "core/base/err.h"
#include "core/base/mem.h"

enum key_kind { KEY_UINT, KEY_BOOL, KEY_STR, KEY_WORD };

struct key {
    const char *name;    // "section.key"
    enum key_kind kind;
    size_t offset;       // in struct config: uint64_t, bool or char *
    uint64_t min, max;   // UINT
    const char *words;   // WORD: "private|shared"
    const char *def;     // default, as text
    bool live;           // SIGHUP may change it
    const char *help;    // one line
};

extern const struct key keys[];
extern const size_t n_keys;

const struct key *key_find(const char *name);        // NULL if unknown
const char *key_nearest(const char *name);           // nearest known name, or NULL
/* Value from text. ERR_ARG: `found "x", want a whole number from 0 to 65535`, without the key's name. */
bool key_set(struct config *c, const struct key *k, const char *text, struct err *err);
void key_text(const struct config *c, const struct key *k, struct buf *out); // as it stands in YAML
bool key_equal(const struct config *a, const struct config *b, const struct key *k);
void key_range(const struct key *k, struct buf *out); // "0 .. 65535", "private | shared", "true | false", "text"
void key_free(struct config *c, const struct key *k);
void key_quote(struct buf *out, const char *s);       // YAML double-quoted

#endif
