/* strtab.h - a column of strings as one block of bytes and n + 1 offsets, with an optional hash index from string to row.
 * Place:   ids, vocabularies, titles; the same form in memory and in files (docs/formats.md).
 * Threads: lookups are const and may run from any number of threads. */
#ifndef DUET_BASE_STRTAB_H
#define DUET_BASE_STRTAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"

#define STRTAB_NONE UINT32_MAX

/* View: what readers use; points into memory that somebody else keeps. */
struct strtab {
    uint32_t n;
    const uint64_t *off; // [n + 1], off[0] = 0, ascending
    const char *bytes;   // [off[n]], no separators, not NUL-terminated
};

struct str {
    const char *p; // not NUL-terminated
    size_t n;
};

static inline struct str strtab_get(const struct strtab *t, uint32_t row)
{
    return (struct str){t->bytes + t->off[row], (size_t)(t->off[row + 1] - t->off[row])};
}

/* Offsets ascending from 0 and ending at n_bytes? Call it on every table that came out of a file. */
bool strtab_check(const struct strtab *t, uint64_t n_bytes, struct err *err);

/* Builder: append-only, keeps its own memory; `map` finds rows while building, so it also serves to intern values. */
struct strtab_builder {
    uint64_t *off; // [n + 1]
    char *bytes;
    uint32_t n, cap;
    size_t len, bytes_cap;
    uint32_t *slot; // open addressing, power of two, STRTAB_NONE = empty; NULL until the first intern
    uint32_t n_slots;
};
void strtab_builder_fini(struct strtab_builder *b); // zero-initialise to begin; accepts zeroed
bool strtab_add(struct strtab_builder *b, const char *p, size_t n, uint32_t *row, struct err *err); // duplicates allowed; row may be NULL
bool strtab_intern(struct strtab_builder *b, const char *p, size_t n, uint32_t *row, struct err *err); // existing row or a new one; do not mix with strtab_add
struct strtab strtab_view(const struct strtab_builder *b); // valid until the next add

/* Index over a view: string -> row. The view's memory must outlive it. Duplicate strings: ERR_FORMAT naming the string. */
struct strtab_index {
    struct strtab tab;
    uint32_t *slot;   // [n_slots] row or STRTAB_NONE
    uint32_t n_slots; // power of two, >= 2 n
};
bool strtab_index_init(struct strtab_index *x, struct strtab tab, struct err *err);
void strtab_index_fini(struct strtab_index *x);
uint32_t strtab_find(const struct strtab_index *x, const char *p, size_t n); // row or STRTAB_NONE

#endif
