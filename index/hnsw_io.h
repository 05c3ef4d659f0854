/* hnsw_io.h - checksummed streams for hnsw_file.c and hnsw_import.c: a file or bytes in memory, front to back. */
#ifndef HNSW_IO_H
#define HNSW_IO_H

#include "index/hnsw_priv.h"

struct hnsw_in {
    const char *name;         // for messages; borrowed
    const unsigned char *mem; // [size] or NULL: fd
    int fd;
    uint64_t size, at;
    struct hnsw_sum sum; // of what has been read
};

bool hnsw_in_open(struct hnsw_in *in, const char *path, struct hnsw_err *err); // regular files only
void hnsw_in_mem(struct hnsw_in *in, const void *data, size_t n, const char *name);
void hnsw_in_close(struct hnsw_in *in);
bool hnsw_in_get(struct hnsw_in *in, void *out, size_t n,
                 struct hnsw_err *err); // all of n, or an error that names the offset

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
bool hnsw_out_close(struct hnsw_out *out,
                    bool ok); // writes the rest and fsyncs if ok; what is returned is whether all went well

/* What loading does last: label map, vectors, links, entry point, marks. Element i's record is at offset base + i *
 * step. */
bool hnsw_load_finish(struct hnsw *h, const char *name, uint64_t base, uint64_t step, struct hnsw_err *err);

/* hnsw_import from an open stream. */
struct hnsw *hnsw_import_from(struct hnsw_in *in, enum hnsw_metric metric, size_t dim, struct hnsw_err *err);

#endif
