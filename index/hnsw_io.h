/* hnsw_io.h - checksummed streams for hnsw_file.c and hnsw_import.c: a file or bytes in memory, front to back. */
#ifndef HNSW_IO_H
#define HNSW_IO_H

#include "index/hnsw_priv.h"

#define HNSW_IO_HEADER 128 // bytes of a header, whichever the format
#define HNSW_COMPACT_MAGIC "HNSWCMPT"
#define HNSW_IO_ALIGN 64 // sections of a file begin at multiples

static inline uint64_t hnsw_io_pad(uint64_t n)
{
    return (n + HNSW_IO_ALIGN - 1) / HNSW_IO_ALIGN * HNSW_IO_ALIGN;
}

struct hnsw_in {
    const char *name;         // for messages; borrowed
    const unsigned char *mem; // [size] or NULL: fd
    int fd;
    uint64_t size, at;
    const struct hnsw_load_opts *how; // whose pace reading keeps, or NULL; borrowed
    struct hnsw_sum sum; // of what has been read
};

bool hnsw_in_open(struct hnsw_in *in, const char *path, struct hnsw_err *err); // regular files only
void hnsw_in_mem(struct hnsw_in *in, const void *data, size_t n, const char *name);
void hnsw_in_close(struct hnsw_in *in);
bool hnsw_in_get(struct hnsw_in *in, void *out, size_t n,
                 struct hnsw_err *err); // all of n, or an error that names the offset

bool hnsw_in_read(const struct hnsw_in *in, uint64_t at, void *out, size_t n,
                  struct hnsw_err *err); // within size, from anywhere, by any number of threads; not summed
void *hnsw_in_map(const struct hnsw_in *in, struct hnsw_err *err); // the file, read-only; NULL: failed, or its size changed

/* Whether a field of a header, at `offset`, is within bounds; the padding behind n bytes must be zeros, and the checksum of all that
 * was read follows next; that of a header is in its last 8 bytes. */
bool hnsw_in_wanted(const struct hnsw_in *in, size_t offset, const char *what, uint64_t found, uint64_t min, uint64_t max,
                    struct hnsw_err *err);
bool hnsw_in_get_padded(struct hnsw_in *in, void *out, size_t n, struct hnsw_err *err);
bool hnsw_in_get_sum(struct hnsw_in *in, struct hnsw_err *err);
bool hnsw_in_same_sum(const struct hnsw_in *in, uint64_t at, const char *what, uint64_t found, uint64_t sum,
                      struct hnsw_err *err);
bool hnsw_in_header_sum(const struct hnsw_in *in, const void *header, size_t n, struct hnsw_err *err);

struct hnsw_out {
    const char *path;
    int fd;
    unsigned char *buf; // [OUT_BUF]
    size_t n;
    struct hnsw_sum sum; // of what has been put
    struct hnsw_err *err;
};

bool hnsw_out_open(struct hnsw_out *out, const char *path, struct hnsw_err *err);
bool hnsw_out_put(struct hnsw_out *out, const void *data, size_t n);
bool hnsw_out_put_padded(struct hnsw_out *out, const void *data, size_t n);
bool hnsw_out_put_sum(struct hnsw_out *out); // of all that was put
void hnsw_out_end_part(struct hnsw_out *out, struct hnsw_sum *all); // adds the sum of what was put since the last one to `all`
bool hnsw_out_close(struct hnsw_out *out,
                    bool ok); // writes the rest and fsyncs if ok; what is returned is whether all went well

/* Not over the file that the index is mapped from: opening it for writing would cut it off under the index. */
bool hnsw_may_write(const struct hnsw *h, const char *path, struct hnsw_err *err);

/* What is known before the elements are read: labels distinct, into the map; entry point, marks. */
bool hnsw_load_begin(struct hnsw *h, const char *name, struct hnsw_err *err);

/* hnsw_elements.c: the elements that follow in `in`, h->stride bytes each, and the checksum at the end: of one stream (version 1), or of
 * the sums of what was read before and of each group. Into h->block; without a block they are only checked. */
bool hnsw_elements_load(struct hnsw *h, struct hnsw_in *in, bool one_stream, unsigned threads, struct hnsw_err *err);
size_t hnsw_elements_per_group(size_t stride);

/* hnsw_load from an open stream whose header [HNSW_IO_HEADER], just read, begins with HNSW_COMPACT_MAGIC. */
struct hnsw *hnsw_compact_load(struct hnsw_in *in, const void *header, struct hnsw_err *err);

/* hnsw_import from an open stream. */
struct hnsw *hnsw_import_from(struct hnsw_in *in, enum hnsw_metric metric, size_t dim, struct hnsw_err *err);

#endif
