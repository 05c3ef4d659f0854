#include "core/base/fio.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/mem.h"
#include "core/base/pace.h"

/* Bytes of one read(2): a kernel that does not preempt itself lets nobody else on the processor before the call returns
 * (bench/results.md, "Reload under load"). */
#define READ_PIECE ((size_t)64 << 10)

bool fio_join(char out[PATH_MAX], const char *dir, const char *name, struct err *err)
{
    int n = snprintf(out, PATH_MAX, "%s/%s", dir, name);
    if (n < 0 || n >= PATH_MAX)
        return err_set(err, ERR_LIMIT, "path too long: %.80s.../%.80s", dir, name);
    return true;
}

// ------------------------------------------------------------------------------------------------------- reading

static int open_regular(const char *path, uint64_t *size, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // NONBLOCK: a FIFO must not hang us
    if (fd < 0) {
        err_errno(err, "%s", path);
        return -1;
    }
    struct stat st;
    if (fstat(fd, &st) != 0) {
        err_errno(err, "%s", path);
    } else if (!S_ISREG(st.st_mode)) {
        err_set(err, ERR_IO, "%s: not a regular file", path);
    } else {
        *size = (uint64_t)st.st_size;
        return fd;
    }
    close(fd);
    return -1;
}

bool fio_size(const char *path, uint64_t *size, struct err *err)
{
    int fd = open_regular(path, size, err);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

bool fio_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool fio_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool fio_read_full(int fd, void *p, size_t n, uint64_t offset, struct err *err)
{
    char *at = p;
    while (n > 0) {
        ssize_t r = pread(fd, at, n < READ_PIECE ? n : READ_PIECE, (off_t)offset);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_errno(err, "read at offset %llu", (unsigned long long)offset);
        if (r == 0)
            return err_set(err, ERR_FORMAT, "file ends at offset %llu, %zu bytes short", (unsigned long long)offset, n);
        at += r;
        offset += (uint64_t)r;
        n -= (size_t)r;
        pace_point();
    }
    return true;
}

char *fio_read_all(const char *path, size_t max_bytes, size_t *n, struct err *err)
{
    uint64_t size = 0;
    int fd = open_regular(path, &size, err);
    if (fd < 0)
        return NULL;
    char *text = NULL;
    if (size > max_bytes)
        err_set(err, ERR_LIMIT, "%s: %llu bytes, at most %zu allowed", path, (unsigned long long)size, max_bytes);
    else
        text = mem_array((size_t)size + 1, 1, err);
    if (text && !fio_read_full(fd, text, (size_t)size, 0, err)) {
        err_prefix(err, "%s", path);
        free(text);
        text = NULL;
    }
    close(fd);
    *n = (size_t)size;
    return text;
}

void *fio_map(const char *path, size_t *n, struct err *err)
{
    uint64_t size = 0;
    int fd = open_regular(path, &size, err);
    if (fd < 0)
        return NULL;
    void *p = NULL;
    if (size == 0) {
        err_set(err, ERR_FORMAT, "%s: empty file", path);
    } else if ((p = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED) {
        err_errno(err, "%s: mmap", path);
        p = NULL;
    }
    close(fd);
    *n = (size_t)size;
    return p;
}

void fio_map_random(void *p, size_t n)
{
    (void)posix_madvise(p, n, POSIX_MADV_RANDOM);
}

void fio_unmap(void *p, size_t n)
{
    if (p)
        munmap(p, n);
}

// ------------------------------------------------------------------------------------------------------- writing

bool fio_write_full(int fd, const void *p, size_t n, struct err *err)
{
    const char *at = p;
    while (n > 0) {
        ssize_t w = write(fd, at, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return err_errno(err, "write");
        at += w;
        n -= (size_t)w;
    }
    return true;
}

static bool parent_dir(const char *path, char out[PATH_MAX], struct err *err)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= PATH_MAX)
        return err_set(err, ERR_LIMIT, "path too long: %.80s...", path);
    if (!slash)
        strcpy(out, ".");
    else if (n == 0)
        strcpy(out, "/");
    else
        snprintf(out, PATH_MAX, "%.*s", (int)n, path);
    return true;
}

bool fio_sync_dir(const char *dir, struct err *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "%s", dir);
    bool ok = fsync(fd) == 0;
    if (!ok)
        err_errno(err, "%s: fsync", dir);
    close(fd);
    return ok;
}

bool fio_tmp_name(char out[PATH_MAX], const char *path, struct err *err)
{
    int len = snprintf(out, PATH_MAX, "%s.tmp-%ld", path, (long)getpid());
    return (len >= 0 && len < PATH_MAX) || err_set(err, ERR_LIMIT, "path too long: %.80s...", path);
}

bool fio_replace(const char *tmp, const char *path, struct err *err)
{
    char dir[PATH_MAX];
    if (parent_dir(path, dir, err) && rename(tmp, path) == 0)
        return fio_sync_dir(dir, err);
    err_errno(err, "rename");
    unlink(tmp);
    return err_prefix(err, "%s", path);
}

bool fio_write_atomic(const char *path, const void *data, size_t n, struct err *err)
{
    char tmp[PATH_MAX];
    if (!fio_tmp_name(tmp, path, err))
        return false;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_errno(err, "%s", tmp);
    bool ok = fio_write_full(fd, data, n, err);
    if (ok && fsync(fd) != 0)
        ok = err_errno(err, "fsync");
    if (close(fd) != 0 && ok)
        ok = err_errno(err, "close");
    if (ok)
        return fio_replace(tmp, path, err);
    unlink(tmp);
    return err_prefix(err, "%s", path);
}

bool fio_mkdirs(const char *path, struct err *err)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof(part))
        return err_set(err, ERR_ARG, "folder name is empty or too long");
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        char keep = part[i];
        part[i] = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST)
            return err_errno(err, "%s: mkdir", part);
        part[i] = keep;
    }
    return fio_is_dir(path) || err_set(err, ERR_IO, "%s: exists and is not a folder", path);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

bool fio_remove_tree(const char *path, struct err *err)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
        return err_errno(err, "%s: remove", path);
    return true;
}
