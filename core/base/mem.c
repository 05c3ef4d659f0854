#include "core/base/mem.h"

#include <assert.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/pace.h"

#define HUGE_MIN MEM_MAPPED_MIN // below this an mmap costs more than huge pages give
#define PAGE ((size_t)4096)
#define HUGE_PAGE ((size_t)2 << 20)
#define UNMAP_PIECE (4 * HUGE_PAGE)

void *mem_array(size_t n, size_t size, struct err *err)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) {
        err_set(err, ERR_NOMEM, "out of memory: %zu elements of %zu bytes overflow", n, size);
        return NULL;
    }
    void *p = calloc(bytes ? bytes : 1, 1);
    if (!p)
        err_set(err, ERR_NOMEM, "out of memory: %zu bytes", bytes);
    return p;
}

void *mem_grow(void *p, size_t n, size_t size, struct err *err)
{
    size_t bytes;
    void *q = NULL;
    if (!__builtin_mul_overflow(n, size, &bytes))
        q = realloc(p, bytes ? bytes : 1);
    if (!q)
        err_set(err, ERR_NOMEM, "out of memory: %zu elements of %zu bytes", n, size);
    return q;
}

char *mem_dup(const void *p, size_t n, struct err *err)
{
    char *s = mem_array(n + 1, 1, err);
    if (s && n)
        memcpy(s, p, n);
    return s;
}

void *mem_block(size_t n, struct err *err)
{
    if (n < HUGE_MIN) {
        size_t bytes = (n + 63) & ~(size_t)63;
        void *p = aligned_alloc(64, bytes ? bytes : 64);
        if (p)
            return memset(p, 0, bytes ? bytes : 64);
        err_set(err, ERR_NOMEM, "out of memory: %zu bytes", n);
        return NULL;
    }
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        err_set(err, ERR_NOMEM, "out of memory: %zu bytes", n);
        return NULL;
    }
    madvise(p, n, MADV_HUGEPAGE); // a wish: without huge pages everything still works
    return p;
}

/* From its end, in pieces: giving a huge page back takes some 20 us, and a kernel that does not preempt itself lets nobody else on the
 * processor before the call returns. */
static void unmap(char *p, size_t n)
{
    while (n > UNMAP_PIECE) {
        char *from = p + n - UNMAP_PIECE;
        from += -(uintptr_t)from % HUGE_PAGE; // no huge page is split
        munmap(from, (size_t)(p + n - from));
        n = (size_t)(from - p);
        pace_point();
    }
    munmap(p, n);
}

void mem_block_free(void *p, size_t n)
{
    if (!p)
        return;
    if (n < HUGE_MIN)
        free(p);
    else
        unmap(p, n);
}

void mem_block_cut(void *p, size_t n, size_t to)
{
    size_t keep = (to + PAGE - 1) / PAGE * PAGE;
    assert(HUGE_MIN <= to && to <= n);
    if (keep < n)
        munmap((char *)p + keep, n - keep);
}

bool buf_reserve(struct buf *b, size_t more)
{
    size_t want;
    if (b->failed)
        return false;
    if (__builtin_add_overflow(b->len, more, &want) || want == SIZE_MAX)
        return !(b->failed = true);
    if (b->data && want + 1 <= b->cap)
        return true;
    size_t cap = b->cap ? b->cap : 256;
    while (cap < want + 1) {
        if (cap > SIZE_MAX / 2)
            return !(b->failed = true);
        cap *= 2;
    }
    char *p = realloc(b->data, cap);
    if (!p)
        return !(b->failed = true);
    b->data = p;
    b->cap = cap;
    return true;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
    if (!buf_reserve(b, n))
        return;
    if (n)
        memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void buf_puts(struct buf *b, const char *s)
{
    buf_put(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->failed = true;
    } else if (buf_reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = '\0';
}

void buf_fini(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}
