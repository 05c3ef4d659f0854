/* index_io.c - inputs and outputs of `duet index`. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/index_cmd.h"
#include "core/base/fio.h"
#include "core/base/mem.h"

int index_wrong(const char *command, const char *usage, const char *why)
{
    fprintf(stderr, "duet index %s: %s\nusage: %s\n", command, why, usage);
    return 2;
}

bool index_err(const struct hnsw_err *e, struct err *err)
{
    return err_set(err, e->code == HNSW_NOMEM ? ERR_NOMEM : ERR_FORMAT, "%s", e->msg);
}

bool index_metric(const char *name, enum hnsw_metric *metric, struct err *err)
{
    for (enum hnsw_metric m = HNSW_IP; m <= HNSW_L2; m++)
        if (strcmp(name, hnsw_metric_name(m)) == 0) {
            *metric = m;
            return true;
        }
    return err_set(err, ERR_ARG, "--metric: found \"%s\", want ip, cosine or l2", name);
}

bool index_layout(const char *name, enum hnsw_layout *layout, struct err *err)
{
    for (enum hnsw_layout l = HNSW_PLAIN; l <= HNSW_COMPACT; l++)
        if (strcmp(name, hnsw_layout_name(l)) == 0) {
            *layout = l;
            return true;
        }
    return err_set(err, ERR_ARG, "--layout: found \"%s\", want plain, fast or compact", name);
}

// ----------------------------------------------------------------------------------------------------------- inputs

#define MAGIC "HNSWLIBC"         // docs/formats.md, "Index file"
#define MAGIC_COMPACT "HNSWCMPT" // the same, "Compact index file"

static bool is_ours(const char *path, bool *ours, struct err *err)
{
    char head[sizeof(MAGIC) - 1];
    uint64_t size;
    if (!fio_size(path, &size, err))
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_errno(err, "%s", path);
    bool ok = size < sizeof(head) || fio_read_full(fd, head, sizeof(head), 0, err) || err_prefix(err, "%s", path);
    *ours = ok && size >= sizeof(head) &&
            (memcmp(head, MAGIC, sizeof(head)) == 0 || memcmp(head, MAGIC_COMPACT, sizeof(head)) == 0);
    close(fd);
    return ok;
}

static struct hnsw *load_ours(const char *path, const struct index_from *from, struct err *err)
{
    struct hnsw_err e = {0};
    struct hnsw *h = hnsw_load(path, &e);
    if (!h) {
        index_err(&e, err);
        return NULL;
    }
    const char *metric = hnsw_metric_name(hnsw_get_metric(h));
    if ((!from->metric || strcmp(from->metric, metric) == 0) && (!from->dim || from->dim == hnsw_dim(h)))
        return h;
    err_set(err, ERR_MISMATCH, "%s tells its own metric and dimensions: found %s and %zu, not what the options say", path,
            metric, hnsw_dim(h));
    hnsw_free(h);
    return NULL;
}

struct hnsw *index_load(const char *path, const struct index_from *from, struct err *err)
{
    struct hnsw_err e = {0};
    enum hnsw_metric metric = HNSW_IP;
    bool ours = false;
    if ((from->metric && !index_metric(from->metric, &metric, err)) || !is_ours(path, &ours, err))
        return NULL;
    if (ours)
        return load_ours(path, from, err);
    if (!from->metric || !from->dim) {
        err_set(err, ERR_FORMAT,
                "%s: does not begin with %s or %s, so it is no index of ours; a file of hnswlib's wants --metric and --dim", path,
                MAGIC, MAGIC_COMPACT);
        return NULL;
    }
    struct hnsw *h = hnsw_import(path, metric, (size_t)from->dim, &e);
    if (!h)
        index_err(&e, err);
    return h;
}

struct hnsw_vecs *index_vectors(const char *path, size_t dim, struct err *err)
{
    struct hnsw_err e = {0};
    struct hnsw_vecs *v = hnsw_vecs_open(path, &e);
    if (!v)
        index_err(&e, err);
    else if (!hnsw_vecs_is_float(v))
        err_set(err, ERR_ARG, "%s: found ids, want vectors (.fbin or .fvecs)", path);
    else if (hnsw_vecs_n(v) == 0)
        err_set(err, ERR_ARG, "%s: found no vectors, want at least one", path);
    else if (dim && hnsw_vecs_dim(v) != dim)
        err_set(err, ERR_MISMATCH, "%s: found %zu dimensions, want %zu", path, hnsw_vecs_dim(v), dim);
    else
        return v;
    hnsw_vecs_close(v);
    return NULL;
}

// ---------------------------------------------------------------------------------------------------------- outputs

bool index_out_begin(char tmp[PATH_MAX], const char *path, struct err *err)
{
    if (fio_is_dir(path))
        return err_set(err, ERR_ARG, "%s: found a folder, want a file's name", path);
    if (!fio_tmp_name(tmp, path, err))
        return false;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_errno(err, "%s", path);
    close(fd);
    unlink(tmp);
    return true;
}

bool index_out_end(const char *tmp, const char *path, bool ok, struct err *err)
{
    if (ok)
        return fio_replace(tmp, path, err);
    unlink(tmp);
    return false;
}

bool index_hits_write(const char *path, const struct hnsw_hit *hit, size_t nq, size_t k, struct err *err)
{
    struct hnsw_err e = {0};
    enum hnsw_vecs_kind kind;
    char tmp[PATH_MAX];
    if (!hnsw_vecs_kind_of(path, &kind, &e))
        return index_err(&e, err);
    if (kind != HNSW_IBIN && kind != HNSW_IVECS)
        return err_set(err, ERR_ARG, "%s: ids go to .ibin or .ivecs", path);
    if (!index_out_begin(tmp, path, err))
        return false;
    uint32_t *row = mem_array(k, sizeof(*row), err);
    struct hnsw_vecs_out *out = row ? hnsw_vecs_create(tmp, kind, nq, k, &e) : NULL;
    bool ok = out != NULL;
    for (size_t i = 0; ok && i < nq; i++) {
        for (size_t j = 0; ok && j < k; j++, hit++) {
            row[j] = (uint32_t)hit->label;
            ok = hit->label <= UINT32_MAX || err_set(err, ERR_LIMIT, "%s: holds ids up to 4294967295, found %llu", path,
                                                     (unsigned long long)hit->label);
        }
        ok = ok && hnsw_vecs_put(out, row, &e);
    }
    ok = hnsw_vecs_finish(out, ok, &e);
    if (!ok && e.code != HNSW_OK)
        index_err(&e, err);
    free(row);
    return index_out_end(tmp, path, ok, err);
}
