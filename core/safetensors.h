/* safetensors.h - read and write safetensors files: named tensors, one after the other, behind a JSON header.
 * Format:  docs/formats.md, "Model". The reader trusts no byte: header size and syntax, types, shapes, offsets without holes or
 *          overlaps are checked when it opens, values when a tensor is taken.
 * Threads: a reader is const once open. */
#ifndef DUET_SAFETENSORS_H
#define DUET_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"

#define ST_DIMS_MAX 8
#define ST_NAME_MAX 255
#define ST_HEADER_MAX ((size_t)1 << 20)

enum st_dtype { ST_BOOL, ST_U8, ST_I8, ST_F8_E5M2, ST_F8_E4M3, ST_I16, ST_U16, ST_F16, ST_BF16, ST_I32, ST_U32, ST_F32, ST_F64, ST_I64, ST_U64, ST_N_DTYPES };

struct st_tensor {
    const char *name;
    enum st_dtype dtype;
    uint32_t n_dims;
    uint64_t dim[ST_DIMS_MAX];
    size_t n_bytes; // = product of dims * size of dtype
    const void *data; // of a reader only; any alignment
};

const char *st_dtype_name(enum st_dtype t); // "F32"
size_t st_dtype_size(enum st_dtype t);

// ------------------------------------------------------------------------------------------------------- reading

struct safetensors;

/* Maps the file, which must not shrink while open. */
struct safetensors *safetensors_open(const char *path, struct err *err);
/* Over n bytes that somebody else keeps for as long as the reader lives. `name` is for messages. */
struct safetensors *safetensors_open_mem(const void *bytes, size_t n, const char *name, struct err *err);
void safetensors_close(struct safetensors *s); // NULL is fine

size_t safetensors_count(const struct safetensors *s);
const struct st_tensor *safetensors_at(const struct safetensors *s, size_t i);                   // in file order
const struct st_tensor *safetensors_find(const struct safetensors *s, const char *name);         // NULL if there is none
const char *safetensors_meta(const struct safetensors *s, const char *key);                      // NULL if there is none

/* The F32 tensor `name` of shape dim[n_dims], its values checked to be finite, copied to `out`; NULL: only checked. */
bool safetensors_read_f32(const struct safetensors *s, const char *name, uint32_t n_dims, const uint64_t *dim, float *out, struct err *err);
/* The same in place, without a copy; it must begin at a multiple of 4 bytes. NULL on failure. */
const float *safetensors_view_f32(const struct safetensors *s, const char *name, uint32_t n_dims, const uint64_t *dim, struct err *err);

/* All n values neither NaN nor infinite? `p` may have any alignment. */
bool st_all_finite(const void *p, size_t n);

// ------------------------------------------------------------------------------------------------------- writing

struct st_meta {
    const char *key, *value;
};

/* What will be in the file, known before the first byte: the header comes first. */
struct st_layout {
    const struct st_tensor *tensor; // [n_tensors] name, dtype and shape; n_bytes and data are ignored
    size_t n_tensors;
    const struct st_meta *meta;     // [n_meta]
    size_t n_meta;
};

/* Writes to path (truncating). Data are put in the order of the layout, in pieces of any size. The file is whole only after
 * safetensors_finish, which fsyncs; safetensors_writer_free without it removes the file. */
struct safetensors_writer;
struct safetensors_writer *safetensors_writer_new(const char *path, const struct st_layout *layout, struct err *err);
bool safetensors_put(struct safetensors_writer *w, const void *data, size_t n_bytes, struct err *err);
bool safetensors_finish(struct safetensors_writer *w, struct err *err);
void safetensors_writer_free(struct safetensors_writer *w); // NULL is fine

#endif
