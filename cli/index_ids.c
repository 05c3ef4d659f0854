/* index_ids.c - labels of vectors, a file of ids beside a file of vectors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/index_cmd.h"
#include "core/base/fio.h"
#include "core/base/mem.h"

static bool is_text(const char *path)
{
    size_t n = strlen(path);
    return n >= 4 && strcmp(path + n - 4, ".txt") == 0;
}

// ---------------------------------------------------------------------------------------------------------- reading

static bool read_binary(const char *path, uint64_t *id, size_t n, struct err *err)
{
    struct hnsw_err e = {0};
    struct hnsw_vecs *v = hnsw_vecs_open(path, &e);
    bool ok = v || index_err(&e, err);
    if (ok && hnsw_vecs_is_float(v))
        ok = err_set(err, ERR_ARG, "%s: found vectors, want ids (.ibin, .ivecs or .txt)", path);
    if (ok && (hnsw_vecs_n(v) != n || hnsw_vecs_dim(v) != 1))
        ok = err_set(err, ERR_MISMATCH, "%s: found %zu x %zu ids, want %zu x 1, one for each vector", path, hnsw_vecs_n(v),
                     hnsw_vecs_dim(v), n);
    for (size_t i = 0; ok && i < n; i++)
        id[i] = *hnsw_vecs_ids(v, i);
    hnsw_vecs_close(v);
    return ok;
}

static bool number(const char *p, const char *end, uint64_t *out)
{
    *out = 0;
    if (p == end)
        return false;
    for (; p < end; p++)
        if (*p < '0' || *p > '9' || __builtin_mul_overflow(*out, 10, out) ||
            __builtin_add_overflow(*out, (uint64_t)(*p - '0'), out))
            return false;
    return true;
}

static bool read_text(const char *path, uint64_t *id, size_t n, struct err *err)
{
    size_t size, lines = 0;
    const char *text = fio_map(path, &size, err), *at = text, *end = text + size;
    if (!text)
        return false;
    bool ok = true;
    for (; ok && at < end; lines++) {
        const char *feed = memchr(at, '\n', (size_t)(end - at)), *stop = feed ? feed : end;
        uint64_t x;
        if (!number(at, stop > at && stop[-1] == '\r' ? stop - 1 : stop, &x))
            ok = err_set(err, ERR_FORMAT, "%s: line %zu: found \"%.*s\", want a whole number below 2^64", path, lines + 1,
                         stop - at < 40 ? (int)(stop - at) : 40, at);
        else if (lines < n)
            id[lines] = x;
        at = feed ? feed + 1 : end;
    }
    if (ok && lines != n)
        ok = err_set(err, ERR_MISMATCH, "%s: found %zu ids, want %zu, one for each vector", path, lines, n);
    fio_unmap((void *)(uintptr_t)text, size);
    return ok;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool distinct(const char *path, const uint64_t *id, size_t n, struct err *err)
{
    uint64_t *sorted = mem_array(n, sizeof(*sorted), err);
    bool ok = sorted != NULL;
    if (ok) {
        memcpy(sorted, id, n * sizeof(*id));
        qsort(sorted, n, sizeof(*sorted), ascending);
    }
    for (size_t i = 1; ok && i < n; i++)
        if (sorted[i] == sorted[i - 1])
            ok = err_set(err, ERR_FORMAT, "%s: found id %llu twice, want each once", path, (unsigned long long)sorted[i]);
    free(sorted);
    return ok;
}

uint64_t *index_ids_read(const char *path, size_t n, struct err *err)
{
    uint64_t *id = mem_array(n, sizeof(*id), err);
    if (id && (is_text(path) ? read_text(path, id, n, err) : read_binary(path, id, n, err)) && distinct(path, id, n, err))
        return id;
    free(id);
    return NULL;
}

// ---------------------------------------------------------------------------------------------------------- writing

static bool write_text(const char *path, const uint64_t *id, size_t n, struct err *err)
{
    struct buf b = {0};
    for (size_t i = 0; i < n; i++)
        buf_printf(&b, "%llu\n", (unsigned long long)id[i]);
    bool ok = b.failed ? err_set(err, ERR_NOMEM, "%s: out of memory", path) : fio_write_atomic(path, b.data, b.len, err);
    buf_fini(&b);
    return ok;
}

bool index_ids_write(const char *path, const uint64_t *id, size_t n, struct err *err)
{
    if (is_text(path))
        return write_text(path, id, n, err);
    struct hnsw_hit *hit = mem_array(n, sizeof(*hit), err);
    for (size_t i = 0; hit && i < n; i++)
        hit[i].label = id[i];
    bool ok = hit && index_hits_write(path, hit, n, 1, err);
    free(hit);
    return ok;
}
