/* fio.h - whole files, folders, and writes that are either complete or not there.
 * Paths are joined with snprintf into PATH_MAX buffers; a path that does not fit is an error, never a cut one. */
#ifndef DUET_BASE_FIO_H
#define DUET_BASE_FIO_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/base/err.h"

/* dir + "/" + name into out[PATH_MAX]. */
bool fio_join(char out[PATH_MAX], const char *dir, const char *name, struct err *err);

/* Regular file's size. */
bool fio_size(const char *path, uint64_t *size, struct err *err);
bool fio_exists(const char *path);
bool fio_is_dir(const char *path);

/* Whole regular file into memory, NUL-terminated, for free(). Larger than max_bytes: ERR_LIMIT. */
char *fio_read_all(const char *path, size_t max_bytes, size_t *n, struct err *err);

/* n bytes to path.tmp, fsync, rename over path, fsync of the folder: at any kill the old file or the new one. */
bool fio_write_atomic(const char *path, const void *data, size_t n, struct err *err);

/* The same in steps, for what others write: the name to write to, and, once that is written and fsynced, the rename. A tmp that
 * cannot be renamed is removed. */
bool fio_tmp_name(char out[PATH_MAX], const char *path, struct err *err);
bool fio_replace(const char *tmp, const char *path, struct err *err);

bool fio_write_full(int fd, const void *p, size_t n, struct err *err);              // retries short writes and EINTR
bool fio_read_full(int fd, void *p, size_t n, uint64_t offset, struct err *err);    // pread; a short file is ERR_FORMAT
bool fio_sync_dir(const char *dir, struct err *err);
bool fio_mkdirs(const char *path, struct err *err);     // like mkdir -p
bool fio_remove_tree(const char *path, struct err *err); // like rm -rf; does not follow links

/* Read-only private mapping of a whole regular file. n = 0 is an error (nothing of ours is empty). */
void *fio_map(const char *path, size_t *n, struct err *err);
/* A mapping will be read here and there from now on: a page that is not in memory is fetched without its neighbours, which
 * would drive out others where memory is short. Advice only, so it cannot fail. */
void fio_map_random(void *p, size_t n);
void fio_unmap(void *p, size_t n);

#endif
