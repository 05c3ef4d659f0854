/* verified.h - a bundle's file in memory, every byte compared with the manifest's hashes on its way in.
 * Place:   bundle.c only.
 * Private: read once into memory of our own, hashed chunk by chunk while it is still in the processor's cache, and the page cache
 *          dropped behind, so a reload costs the bundle's size once and not twice.
 * Shared:  hashed through read(2), then mapped: a file that shrinks meanwhile is a short read, not a signal. */
#ifndef DUET_VERIFIED_H
#define DUET_VERIFIED_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/err.h"
#include "core/manifest.h"

struct block {
    void *p;
    size_t n;
    bool mapped;
};

/* File `name` of the folder `dirfd`; a link, another size or another hash is refused: ERR_FORMAT with file, chunk, offset, found and
 * wanted. `map` asks for the shared form. The private one is read by `threads`, 0 = 1, if it is large, and into `spare`
 * where that fits: memory of a file that is done with, which the kernel need not clear once more. Taken if so, and then zeroed; NULL: none. */
bool verified_read(int dirfd, const char *name, const struct manifest_file *want, bool map, unsigned threads, struct block *spare,
                   struct block *out, struct err *err);
/* The same comparison alone, through a small buffer: for a file that somebody else reads from its path afterwards. */
bool verified_check(int dirfd, const char *name, const struct manifest_file *want, struct err *err);
void block_free(struct block *b); // accepts zeroed

/* Has the file still the size that the manifest wants? */
bool verified_size(int dirfd, const char *name, const struct manifest_file *want, struct err *err);

#endif
