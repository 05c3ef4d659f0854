/* mem.h - allocation with checked sizes, aligned and huge-page blocks, and a growing byte buffer.
 * Ownership: what mem_array and mem_dup return goes back by free(); what mem_block returns by mem_block_free. */
#ifndef DUET_BASE_MEM_H
#define DUET_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/err.h"

/* Zeroed array of n elements of `size` bytes, for free(). NULL and ERR_NOMEM on overflow or lack; n = 0 gives one byte. */
void *mem_array(size_t n, size_t size, struct err *err);

/* Grow `p` (may be NULL) to n elements; on failure `p` stays valid and NULL is returned. New bytes are not zeroed. */
void *mem_grow(void *p, size_t n, size_t size, struct err *err);

/* Copy of n bytes with a NUL after them, for free(). */
char *mem_dup(const void *p, size_t n, struct err *err);

/* n zeroed bytes, 64-byte aligned; from MEM_MAPPED_MIN up an anonymous mapping that asks for transparent huge pages. */
void *mem_block(size_t n, struct err *err);
void mem_block_free(void *p, size_t n); // same n; NULL is fine. A large one goes piece by piece
#define MEM_MAPPED_MIN ((size_t)1 << 20)
/* Give back what is behind the first `to` bytes of a block of n; MEM_MAPPED_MIN <= to <= n. It is one of `to` bytes from now on. */
void mem_block_cut(void *p, size_t n, size_t to);

/* Growing bytes. Zero-initialise; `failed` stays set after an allocation failure, so a row of puts needs one check. */
struct buf {
    char *data; // NUL-terminated whenever not NULL
    size_t len, cap;
    bool failed;
};
bool buf_reserve(struct buf *b, size_t more); // room for `more` bytes and a NUL behind data[len], for writing there directly
void buf_put(struct buf *b, const void *p, size_t n);
void buf_puts(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_reset(struct buf *b); // keeps capacity
void buf_fini(struct buf *b);

#endif
