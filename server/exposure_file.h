/* exposure_file.h - a file of lines that is rotated by size: path, path.1 (the last one closed), .. path.<keep>.
 * A file always ends with a whole line: what a failed write has left is cut off again.
 * Threads: one user. */
#ifndef DUET_SERVER_EXPOSURE_FILE_H
#define DUET_SERVER_EXPOSURE_FILE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"

struct exposure_file {
    char path[PATH_MAX];
    int fd; // -1: could not be opened, tried again with the next lines
    uint64_t size, max_bytes;
    unsigned keep;
};

bool exposure_file_open(struct exposure_file *f, const char *path, uint64_t max_bytes, unsigned keep, struct err *err);
/* Could it be opened? Neither made nor changed. */
bool exposure_file_check(const char *path, struct err *err);
bool exposure_file_reopen(struct exposure_file *f, struct err *err);
/* n bytes of whole lines. False: *written bytes of them, whole lines too, are in the file. */
bool exposure_file_write(struct exposure_file *f, const char *lines, size_t n, size_t *written, struct err *err);
void exposure_file_close(struct exposure_file *f);

#endif
