/* staging.h - a folder under way: written aside as <parent>/.tmp-*, then renamed to its final name in one step.
 * Place:   publish.c. docs/formats.md, "Bundle", tells what readers may rely on.
 * Kill at any point leaves the old state or the new one: a folder without its owner's lock is a dead one's, which the next
 * staging_open removes. */
#ifndef DUET_STAGING_H
#define DUET_STAGING_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"

struct staging {
    char parent[PATH_MAX];
    char dir[PATH_MAX]; // the temporary folder; "" once it was renamed
    int fd;             // holds the lock on it
};

/* Creates `parent` if missing, removes what killed ones left, makes a fresh locked folder; staging_close
 * after either outcome. */
bool staging_open(struct staging *s, const char *parent, struct err *err);

/* fsync the folder, rename it to <parent>/<version>, fsync the parent. ERR_STATE if that name is taken: the folder is still there
 * and may be renamed to another. */
bool staging_commit(struct staging *s, uint64_t version, struct err *err);

void staging_close(struct staging *s); // removes the folder unless it was renamed

#endif
