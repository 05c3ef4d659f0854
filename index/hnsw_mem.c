/* hnsw_mem.c - allocation: checked products, and large blocks on huge pages.
 * A search jumps about in the whole block, so with 4 KB pages nearly every jump misses the TLB: huge pages gave hnswlib
 * 5 to 17 %, our wider blocks more. Where the kernel has none to give, the advice does nothing. */
#include <stdlib.h>
#include <sys/mman.h>

#include "index/hnsw_priv.h"

#define HUGE_PAGE ((size_t)2 << 20)
#define GIVE_BACK (4 * HUGE_PAGE)

void *hnsw_mem_new(size_t n, size_t size)
{
    return calloc(n ? n : 1, size);
}

void *hnsw_mem_grow(void *p, size_t n, size_t size)
{
    return reallocarray(p, n ? n : 1, size);
}

void *hnsw_mem_block(size_t n, size_t size)
{
    size_t bytes, align = HNSW_ALIGN;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX - HUGE_PAGE)
        return NULL;
    if (bytes >= 2 * HUGE_PAGE)
        align = HUGE_PAGE;
    bytes = (bytes + HNSW_ALIGN) / HNSW_ALIGN * HNSW_ALIGN; // never zero
    void *p = NULL;
    if (posix_memalign(&p, align, bytes) != 0)
        return NULL;
    if (align == HUGE_PAGE)
        madvise(p, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    return p;
}

/* Pages go back piece by piece before the rest does: a kernel that does not preempt itself lets nobody else on the processor while it takes
 * hundreds of megabytes in one call, which is milliseconds. */
void hnsw_mem_block_free(void *p, size_t bytes)
{
    for (size_t at = 0; p && bytes - at >= GIVE_BACK; at += GIVE_BACK)
        madvise((char *)p + at, GIVE_BACK, MADV_DONTNEED); // where it fails, free does all
    free(p);
}

bool hnsw_grow_array(void **p, size_t *cap, size_t want, size_t size)
{
    if (want <= *cap)
        return true;
    void *q = hnsw_mem_block(want, size);
    if (!q)
        return false;
    free(*p);
    *p = q;
    *cap = want;
    return true;
}
