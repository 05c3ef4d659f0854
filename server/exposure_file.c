#include "server/exposure_file.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fio.h"

#define SUFFIX_MAX 12 // ".4294967295"

/* create: O_CREAT or 0. O_NONBLOCK: a FIFO is refused at once, not when somebody reads it. */
static bool open_path(struct exposure_file *f, int create, struct err *err)
{
    struct stat st;
    f->fd = open(f->path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK | create, 0640);
    if (f->fd < 0)
        return err_errno(err, "cannot open %s", f->path);
    if (fstat(f->fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        exposure_file_close(f);
        return err_set(err, ERR_IO, "%s is no regular file", f->path);
    }
    f->size = (uint64_t)st.st_size;
    return true;
}

static bool open_file(struct exposure_file *f, struct err *err)
{
    return open_path(f, O_CREAT, err);
}

static bool set_path(struct exposure_file *f, const char *path, struct err *err)
{
    size_t n = strlen(path);
    if (n + SUFFIX_MAX >= sizeof(f->path))
        return err_set(err, ERR_ARG, "a path of %zu bytes is too long", n);
    memcpy(f->path, path, n + 1);
    return true;
}

bool exposure_file_open(struct exposure_file *f, const char *path, uint64_t max_bytes, unsigned keep, struct err *err)
{
    *f = (struct exposure_file){.fd = -1, .max_bytes = max_bytes, .keep = keep};
    return set_path(f, path, err) && open_file(f, err);
}

/* One that is not there could be made where its folder may be written. */
bool exposure_file_check(const char *path, struct err *err)
{
    struct exposure_file f = {.fd = -1};
    if (!set_path(&f, path, err))
        return false;
    if (access(path, F_OK) == 0) {
        bool ok = open_path(&f, 0, err);
        exposure_file_close(&f);
        return ok;
    }
    const char *dir = dirname(f.path);
    return faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) == 0 || err_errno(err, "%s cannot be made: folder %s", path, dir);
}

void exposure_file_close(struct exposure_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

bool exposure_file_reopen(struct exposure_file *f, struct err *err)
{
    exposure_file_close(f);
    return open_file(f, err);
}

static void name_of(const struct exposure_file *f, unsigned i, char out[PATH_MAX])
{
    if (i == 0)
        memcpy(out, f->path, strlen(f->path) + 1);
    else
        snprintf(out, PATH_MAX, "%.*s.%u", PATH_MAX - SUFFIX_MAX - 1, f->path, i);
}

/* path.<keep - 1> over path.<keep>, .., path to path.1. A gap in the row is no error. */
static bool rotate(struct exposure_file *f, struct err *err)
{
    char from[PATH_MAX], to[PATH_MAX];
    if (f->keep == 0)
        unlink(f->path);
    for (unsigned i = f->keep; i > 0; i--) {
        name_of(f, i - 1, from);
        name_of(f, i, to);
        if (rename(from, to) != 0 && i == 1)
            return err_errno(err, "cannot rename %s to %s", from, to);
    }
    return exposure_file_reopen(f, err);
}

/* Bytes of the whole lines that fit into `room`; at least one line, for an empty file takes any. */
static size_t that_fit(const char *lines, size_t n, uint64_t room, bool at_least_one)
{
    if (n <= room)
        return n;
    const char *end = room ? memrchr(lines, '\n', (size_t)room) : NULL;
    if (!end && at_least_one)
        end = memchr(lines, '\n', n);
    return end ? (size_t)(end - lines) + 1 : 0;
}

static bool write_part(struct exposure_file *f, const char *lines, size_t n, struct err *err)
{
    if (fio_write_full(f->fd, lines, n, err)) {
        f->size += n;
        return true;
    }
    if (ftruncate(f->fd, (off_t)f->size) != 0)
        err_prefix(err, "and half a line stays in it");
    return err_prefix(err, "writing %s", f->path);
}

bool exposure_file_write(struct exposure_file *f, const char *lines, size_t n, size_t *written, struct err *err)
{
    *written = 0;
    if (f->fd < 0 && !open_file(f, err))
        return false;
    while (*written < n) {
        uint64_t room = f->size < f->max_bytes ? f->max_bytes - f->size : 0;
        size_t part = that_fit(lines + *written, n - *written, room, f->size == 0);
        if (part == 0 && !rotate(f, err))
            return false;
        if (part > 0 && !write_part(f, lines + *written, part, err))
            return false;
        *written += part;
    }
    return true;
}
