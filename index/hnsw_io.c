/* hnsw_io.c - see hnsw_io.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "index/hnsw_io.h"

#define OUT_BUF ((size_t)1 << 20)
#define IN_PIECE ((size_t)64 << 10) // of one read(2), before whose end some kernels let nobody else on the processor

// -------------------------------------------------------------------------------------------------------- reading

bool hnsw_in_open(struct hnsw_in *in, const char *path, struct hnsw_err *err)
{
    struct stat st;
    *in = (struct hnsw_in){.name = path};
    hnsw_sum_init(&in->sum);
    in->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // NONBLOCK: a FIFO must not hang us
    if (in->fd < 0 || fstat(in->fd, &st) != 0) {
        hnsw_fail(err, HNSW_IO, "%s: %s", path, strerror(errno));
        hnsw_in_close(in);
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        hnsw_fail(err, HNSW_IO, "%s: not a regular file", path);
        hnsw_in_close(in);
        return false;
    }
    in->size = (uint64_t)st.st_size;
    return true;
}

void hnsw_in_mem(struct hnsw_in *in, const void *data, size_t n, const char *name)
{
    *in = (struct hnsw_in){.name = name ? name : "index in memory", .mem = data, .fd = -1, .size = n};
    hnsw_sum_init(&in->sum);
}

void hnsw_in_close(struct hnsw_in *in)
{
    if (in->fd >= 0)
        close(in->fd);
    in->fd = -1;
}

bool hnsw_in_read(const struct hnsw_in *in, uint64_t at, void *out, size_t n, struct hnsw_err *err)
{
    if (in->mem) {
        memcpy(out, in->mem + at, n);
        return true;
    }
    for (size_t done = 0; done < n;) {
        size_t some = n - done < IN_PIECE ? n - done : IN_PIECE;
        ssize_t got = pread(in->fd, (char *)out + done, some, (off_t)(at + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return hnsw_fail(err, HNSW_IO, "%s: offset %llu: %s", in->name, (unsigned long long)(at + done),
                             strerror(errno));
        if (got == 0)
            return hnsw_fail(err, HNSW_FORMAT, "%s: offset %llu: the file ends while being read", in->name,
                             (unsigned long long)(at + done));
        done += (size_t)got;
        hnsw_pace(in->how);
    }
    return true;
}

bool hnsw_in_get(struct hnsw_in *in, void *out, size_t n, struct hnsw_err *err)
{
    if (n > in->size - in->at)
        return hnsw_fail(err, HNSW_FORMAT, "%s: offset %llu: found %llu more bytes, wanted %zu", in->name,
                         (unsigned long long)in->at, (unsigned long long)(in->size - in->at), n);
    for (size_t done = 0; done < n;) { // summed while it is still in the cache
        size_t some = n - done < IN_PIECE ? n - done : IN_PIECE;
        unsigned char *to = (unsigned char *)out + done;
        if (!hnsw_in_read(in, in->at, to, some, err))
            return false;
        in->at += some;
        done += some;
        hnsw_sum_add(&in->sum, to, some);
    }
    return true;
}

bool hnsw_in_wanted(const struct hnsw_in *in, size_t offset, const char *what, uint64_t found, uint64_t min,
                    uint64_t max, struct hnsw_err *err)
{
    return (found >= min && found <= max) ||
           hnsw_fail(err, HNSW_FORMAT, "%s: offset %zu: %s: found %llu, wanted %llu to %llu", in->name, offset, what,
                     (unsigned long long)found, (unsigned long long)min, (unsigned long long)max);
}

bool hnsw_in_get_padded(struct hnsw_in *in, void *out, size_t n, struct hnsw_err *err)
{
    unsigned char pad[HNSW_IO_ALIGN], any = 0;
    size_t n_pad = hnsw_io_pad(n) - n;
    if (!hnsw_in_get(in, out, n, err) || !hnsw_in_get(in, pad, n_pad, err))
        return false;
    for (size_t i = 0; i < n_pad; i++)
        any |= pad[i];
    return !any || hnsw_fail(err, HNSW_FORMAT, "%s: offset %llu: padding is not zero", in->name,
                             (unsigned long long)(in->at - n_pad));
}

bool hnsw_in_same_sum(const struct hnsw_in *in, uint64_t at, const char *what, uint64_t found, uint64_t sum,
                      struct hnsw_err *err)
{
    return found == sum ||
           hnsw_fail(err, HNSW_FORMAT, "%s: offset %llu: checksum%s: found %016llx, wanted %016llx", in->name,
                     (unsigned long long)at, what, (unsigned long long)found, (unsigned long long)sum);
}

bool hnsw_in_get_sum(struct hnsw_in *in, struct hnsw_err *err)
{
    uint64_t sum = hnsw_sum_end(&in->sum), at = in->at, found;
    return hnsw_in_get(in, &found, sizeof(found), err) && hnsw_in_same_sum(in, at, "", found, sum, err);
}

bool hnsw_in_header_sum(const struct hnsw_in *in, const void *header, size_t n, struct hnsw_err *err)
{
    uint64_t found;
    n -= sizeof(found);
    memcpy(&found, (const char *)header + n, sizeof(found));
    return hnsw_in_same_sum(in, n, " of the header", found, hnsw_sum_of(header, n), err);
}

void *hnsw_in_map(const struct hnsw_in *in, struct hnsw_err *err)
{
    struct stat st;
    if (fstat(in->fd, &st) != 0 || (uint64_t)st.st_size != in->size) {
        hnsw_fail(err, HNSW_FORMAT, "%s: its size changed while it was read", in->name);
        return NULL;
    }
    void *p = mmap(NULL, (size_t)in->size, PROT_READ, MAP_SHARED | MAP_POPULATE, in->fd, 0);
    if (p != MAP_FAILED)
        return p;
    hnsw_fail(err, HNSW_IO, "%s: mmap: %s", in->name, strerror(errno));
    return NULL;
}

// -------------------------------------------------------------------------------------------------------- writing

bool hnsw_out_open(struct hnsw_out *out, const char *path, struct hnsw_err *err)
{
    *out = (struct hnsw_out){.path = path, .fd = -1, .err = err};
    hnsw_sum_init(&out->sum);
    if (!(out->buf = hnsw_mem_new(OUT_BUF, 1)))
        return hnsw_fail(err, HNSW_NOMEM, "%s: no memory for writing", path);
    out->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (out->fd >= 0)
        return true;
    hnsw_fail(err, HNSW_IO, "%s: %s", path, strerror(errno));
    free(out->buf);
    return false;
}

static bool flush(struct hnsw_out *out)
{
    for (size_t done = 0; done < out->n;) {
        ssize_t put = write(out->fd, out->buf + done, out->n - done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return hnsw_fail(out->err, HNSW_IO, "%s: %s", out->path, strerror(errno));
        done += (size_t)put;
    }
    out->n = 0;
    return true;
}

bool hnsw_out_put(struct hnsw_out *out, const void *data, size_t n)
{
    const unsigned char *p = data;
    hnsw_sum_add(&out->sum, data, n);
    while (n > 0) {
        size_t some = OUT_BUF - out->n < n ? OUT_BUF - out->n : n;
        memcpy(out->buf + out->n, p, some);
        out->n += some;
        p += some;
        n -= some;
        if (out->n == OUT_BUF && !flush(out))
            return false;
    }
    return true;
}

bool hnsw_out_put_padded(struct hnsw_out *out, const void *data, size_t n)
{
    static const unsigned char zero[HNSW_IO_ALIGN];
    return hnsw_out_put(out, data, n) && hnsw_out_put(out, zero, hnsw_io_pad(n) - n);
}

bool hnsw_out_put_sum(struct hnsw_out *out)
{
    uint64_t sum = hnsw_sum_end(&out->sum);
    return hnsw_out_put(out, &sum, sizeof(sum));
}

void hnsw_out_end_part(struct hnsw_out *out, struct hnsw_sum *all)
{
    uint64_t sum = hnsw_sum_end(&out->sum);
    hnsw_sum_add(all, &sum, sizeof(sum));
    hnsw_sum_init(&out->sum);
}

bool hnsw_out_close(struct hnsw_out *out, bool ok)
{
    ok = ok && flush(out);
    if (ok && fsync(out->fd) != 0)
        ok = hnsw_fail(out->err, HNSW_IO, "%s: fsync: %s", out->path, strerror(errno));
    if (close(out->fd) != 0 && ok)
        ok = hnsw_fail(out->err, HNSW_IO, "%s: close: %s", out->path, strerror(errno));
    free(out->buf);
    return ok;
}
