/* pack.h - one file of named, typed, checksummed arrays: the container of datasets, items, users and probes.
 * Format:  docs/formats.md, "pack". Little-endian, sections 64-byte aligned, XXH3-64 for the table and for each section.
 * Threads: a reader is const once open. */
#ifndef DUET_BASE_PACK_H
#define DUET_BASE_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/strtab.h"

enum pack_type { PACK_U8 = 1, PACK_U32, PACK_U64, PACK_I64, PACK_F32, PACK_F64 };

// ------------------------------------------------------------------------------------------------------- reading

struct pack;

/* PACK_MAP: read-only mapping of the file (fast, shares the page cache; the file must not shrink while in use).
 * PACK_READ: private memory. Both check the header, the table and, when `verify`, each section's checksum. `kind` is the
 * file's kind word ("dataset", "items", ...): another kind is ERR_MISMATCH. Errors name the file, section and offset. */
enum pack_mode { PACK_MAP, PACK_READ };
struct pack *pack_open(const char *path, const char *kind, enum pack_mode mode, bool verify, struct err *err);
/* The same over bytes that are in memory already: `block` of n bytes from mem_block (PACK_READ) or fio_map (PACK_MAP), whose
 * ownership is taken, on failure too. `path` is for messages only. */
struct pack *pack_open_block(void *block, size_t n, const char *path, const char *kind, enum pack_mode mode, bool verify, struct err *err);
void pack_close(struct pack *p); // NULL is fine
size_t pack_bytes(const struct pack *p);
const char *pack_path(const struct pack *p);
void pack_touch(const struct pack *p); // read a byte of every page, so that none is fetched later

/* A section's data, checked to be of `type` with `cols` columns; its row count goes to *rows.
 * Missing: NULL, and ERR_FORMAT naming it. Use pack_has for optional ones. The data lives as long as the pack. */
const void *pack_get(const struct pack *p, const char *name, enum pack_type type, size_t cols, size_t *rows, struct err *err);
/* The same, and the row count must be `rows`. */
const void *pack_need(const struct pack *p, const char *name, enum pack_type type, size_t cols, size_t rows, struct err *err);
bool pack_has(const struct pack *p, const char *name);
uint32_t pack_cols(const struct pack *p, const char *name); // columns of a section, 0 if there is none of that name
/* A string table: sections "<name>.off" (u64) and "<name>.bytes" (u8), checked with strtab_check. */
bool pack_get_strtab(const struct pack *p, const char *name, struct strtab *out, struct err *err);

// ------------------------------------------------------------------------------------------------------- writing

struct pack_writer;

/* Writes to path (truncating); data is streamed to disk at each put. Fully written only after pack_writer_finish, which
 * fsyncs; pack_writer_free without it removes the file. Callers that need atomicity write into a temporary folder or name. */
struct pack_writer *pack_writer_new(const char *path, const char *kind, struct err *err);
bool pack_put(struct pack_writer *w, const char *name, enum pack_type type, size_t rows, size_t cols, const void *data, struct err *err);
bool pack_put_strtab(struct pack_writer *w, const char *name, const struct strtab *t, struct err *err);
bool pack_writer_finish(struct pack_writer *w, struct err *err);
void pack_writer_free(struct pack_writer *w);

#endif
