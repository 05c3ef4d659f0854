#include "core/staging.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fio.h"

#define PREFIX ".tmp-"

/* Lock on a folder, as its descriptor, or -1: somebody holds it, or it has gone. */
static int lock_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Whoever made the folder may not have locked it yet: then we take it from under him, which he notices and makes
 * another. */
static void remove_dead(const char *parent)
{
    DIR *d = opendir(parent);
    for (struct dirent *e; d && (e = readdir(d));) {
        char dir[PATH_MAX];
        if (strncmp(e->d_name, PREFIX, sizeof(PREFIX) - 1) != 0 || !fio_join(dir, parent, e->d_name, NULL))
            continue;
        int fd = lock_dir(dir);
        if (fd < 0)
            continue;
        fio_remove_tree(dir, NULL); // what cannot be removed is only in the way of space
        close(fd);
    }
    if (d)
        closedir(d);
}

/* Is the folder that we locked still the one of that name? */
static bool still_there(int fd, const char *dir)
{
    struct stat mine, named;
    return fstat(fd, &mine) == 0 && stat(dir, &named) == 0 && mine.st_dev == named.st_dev &&
           mine.st_ino == named.st_ino;
}

/* One attempt at a folder of our own; false without a cause in *err: try the next name. */
static bool make_locked(struct staging *s, const char *name, struct err *err)
{
    if (!fio_join(s->dir, s->parent, name, err))
        return false;
    if (mkdir(s->dir, 0755) != 0)
        return errno == EEXIST ? false : err_errno(err, "%s: mkdir", s->dir);
    s->fd = lock_dir(s->dir);
    if (s->fd >= 0 && still_there(s->fd, s->dir))
        return true;
    if (s->fd >= 0)
        close(s->fd);
    rmdir(s->dir);
    return false;
}

bool staging_open(struct staging *s, const char *parent, struct err *err)
{
    struct err e = {0};
    *s = (struct staging){.fd = -1};
    snprintf(s->parent, sizeof(s->parent), "%s", parent);
    if (!fio_mkdirs(parent, err))
        return false;
    remove_dead(parent);
    for (unsigned i = 0; i < 1000 && !e.code; i++) {
        char name[64];
        snprintf(name, sizeof(name), PREFIX "%ld-%u", (long)getpid(), i);
        if (make_locked(s, name, &e))
            return true;
    }
    s->dir[0] = '\0';
    s->fd = -1;
    if (e.code)
        return err_set(err, e.code, "%s", e.msg);
    return err_set(err, ERR_IO, "%s: no temporary folder could be made and locked there", parent);
}

static bool rename_new(const char *from, const char *to, struct err *err)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return true;
    if (errno == EINVAL ||
        errno == ENOSYS) { // a file system without it: the same, but for an empty folder of that name
        if (fio_exists(to))
            errno = EEXIST;
        else if (rename(from, to) == 0)
            return true;
    }
    if (errno == EEXIST || errno == ENOTEMPTY)
        return err_set(err, ERR_STATE, "%s exists already; published versions are never overwritten", to);
    return err_errno(err, "%s: rename to %s", from, to);
}

bool staging_commit(struct staging *s, uint64_t version, struct err *err)
{
    char name[24], to[PATH_MAX];
    snprintf(name, sizeof(name), "%llu", (unsigned long long)version);
    if (!fio_join(to, s->parent, name, err) || !fio_sync_dir(s->dir, err) || !rename_new(s->dir, to, err))
        return false;
    s->dir[0] = '\0';
    return fio_sync_dir(s->parent, err);
}

void staging_close(struct staging *s)
{
    if (s->dir[0])
        fio_remove_tree(s->dir, NULL);
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->dir[0] = '\0';
}
