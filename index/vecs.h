/* vecs.h - files of vectors and of ids, as benchmarks and other libraries exchange them, little-endian:
 *
 *   .fbin   u32 n, u32 dim, then f32 [n][dim]          .ibin   the same of u32 ids; may be followed by f32 [n][dim] scores
 *   .fvecs  n times [u32 dim | f32 [dim]]              .ivecs  the same of u32 ids
 *
 * Source:  big-ann-benchmarks (fbin, ibin), corpus-texmex.irisa.fr (fvecs, ivecs).
 * Place:   usable with hnsw.h or without.
 * Threads: an open file may be read by any number of threads; a file being written belongs to one.
 * A reader maps the file, so memory is the page cache's: nobody may shorten the file while it is open. */
#ifndef HNSW_VECS_H
#define HNSW_VECS_H

#include "hnsw.h" // beside this file, in the source tree as where it is installed

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

enum hnsw_vecs_kind { HNSW_FBIN, HNSW_FVECS, HNSW_IBIN, HNSW_IVECS };
const char *hnsw_vecs_kind_name(enum hnsw_vecs_kind kind); // "fbin", "fvecs", "ibin", "ivecs"

/* The kind that a path's ending names; HNSW_ARG if it names none. */
bool hnsw_vecs_kind_of(const char *path, enum hnsw_vecs_kind *kind, struct hnsw_err *err);

// -------------------------------------------------------------------------------------------------------- reading

/* Opens a file and looks at all of it: sizes against the file's own, equal dimensions of 1 .. HNSW_DIM_MAX (ids: 1 .. 2^20 in a row),
 * vectors finite and of at most 1e15 as hnsw_add wants them. HNSW_FORMAT names offset, found and wanted. Ends with hnsw_vecs_close. */
struct hnsw_vecs;
struct hnsw_vecs *hnsw_vecs_open(const char *path, struct hnsw_err *err);
void hnsw_vecs_close(struct hnsw_vecs *v); // NULL is fine

enum hnsw_vecs_kind hnsw_vecs_get_kind(const struct hnsw_vecs *v);
size_t hnsw_vecs_n(const struct hnsw_vecs *v);   // rows; 0 in an empty fbin
size_t hnsw_vecs_dim(const struct hnsw_vecs *v); // values in a row; 0 in an empty fvecs
bool hnsw_vecs_is_float(const struct hnsw_vecs *v);

/* Row i < n, [dim], in the mapped file. Of a file of vectors; of a file of ids. */
const float *hnsw_vecs_row(const struct hnsw_vecs *v, size_t i);
const uint32_t *hnsw_vecs_ids(const struct hnsw_vecs *v, size_t i);

/* Adds all rows to an index as hnsw_add_batch does; labels [n], distinct, or NULL for 0 .. n - 1. A fbin is added from where it is
 * mapped, in one batch; of a fvecs an eighth at a time is copied. HNSW_ARG if it is a file of ids or has other dimensions. */
bool hnsw_vecs_add(struct hnsw *h, const struct hnsw_vecs *v, const uint64_t *label, unsigned threads,
                   void (*progress)(void *user, size_t done, size_t n), void *user, struct hnsw_err *err);

// -------------------------------------------------------------------------------------------------------- writing

/* Writes n rows of `dim` 4-byte values (floats or ids, as the kind says), each by one call of hnsw_vecs_put. hnsw_vecs_finish ends the
 * writer in any case: with `ok` it writes the rest and fsyncs (no rename; as hnsw_save), and HNSW_ARG says that rows are missing. */
struct hnsw_vecs_out;
struct hnsw_vecs_out *hnsw_vecs_create(const char *path, enum hnsw_vecs_kind kind, size_t n, size_t dim,
                                       struct hnsw_err *err);
bool hnsw_vecs_put(struct hnsw_vecs_out *out, const void *row, struct hnsw_err *err);
bool hnsw_vecs_finish(struct hnsw_vecs_out *out, bool ok, struct hnsw_err *err); // out may be NULL if ok is false

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
