/* hnsw_io.c - see hnsw_io.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "index/hnsw_io.h"

#define OUT_BUF ((size_t)1 << 20)

// -------------------------------------------------------------------------------------------------------- reading

bool hnsw_in_open(struct hnsw_in *in, const char *path, struct hnsw_err *err)
{
    struct stat st;
    *in = (struct hnsw_in){.name = path};
    hnsw_sum_init(&in->sum);
    in->fd = open(path, O_RDONLY | O_CLOEXEC);
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

static bool read_all(struct hnsw_in *in, unsigned char *out, size_t n, struct hnsw_err *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = read(in->fd, out + done, n - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return hnsw_fail(err, HNSW_IO, "%s: offset %llu: %s", in->name, (unsigned long long)(in->at + done),
                             strerror(errno));
        if (got == 0)
            return hnsw_fail(err, HNSW_FORMAT, "%s: offset %llu: the file ends while being read", in->name,
                             (unsigned long long)(in->at + done));
        done += (size_t)got;
    }
    return true;
}

bool hnsw_in_get(struct hnsw_in *in, void *out, size_t n, struct hnsw_err *err)
{
    if (n > in->size - in->at)
        return hnsw_fail(err, HNSW_FORMAT, "%s: offset %llu: found %llu more bytes, wanted %zu", in->name,
                         (unsigned long long)in->at, (unsigned long long)(in->size - in->at), n);
    if (n == 0)
        return true;
    if (in->mem)
        memcpy(out, in->mem + in->at, n);
    else if (!read_all(in, out, n, err))
        return false;
    in->at += n;
    hnsw_sum_add(&in->sum, out, n);
    return true;
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
