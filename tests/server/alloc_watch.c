/* Linked with --wrap: every allocation of our own code comes by here, those of shared libraries do not. A thread is watched from the
 * first request of the data listener on that it dispatches. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "server/route.h"
#include "tests/server/live.h"

static _Thread_local bool watched;
static _Atomic size_t seen, countdown;
static _Atomic bool failed;

void alloc_watch_reset(void)
{
    atomic_store(&seen, 0);
}

size_t alloc_watch_seen(void)
{
    return atomic_load(&seen);
}

void alloc_watch_fail_at(size_t n)
{
    atomic_store(&failed, false);
    atomic_store(&countdown, n);
}

bool alloc_watch_failed(void)
{
    return atomic_load(&failed);
}

static bool refuse(void)
{
    if (!watched)
        return false;
    atomic_fetch_add(&seen, 1);
    if (atomic_load(&countdown) == 0 || atomic_fetch_sub(&countdown, 1) > 1)
        return false;
    errno = ENOMEM;
    atomic_store(&failed, true);
    return true;
}

bool __real_route_dispatch(void *ctx, struct http_request *r, struct http_response *resp);
bool __wrap_route_dispatch(void *ctx, struct http_request *r, struct http_response *resp);
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);

bool __wrap_route_dispatch(void *ctx, struct http_request *r, struct http_response *resp)
{
    watched = !r->is_admin;
    return __real_route_dispatch(ctx, r, resp);
}

void *__wrap_malloc(size_t n)
{
    return refuse() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return refuse() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return refuse() ? NULL : __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return refuse() ? NULL : __real_aligned_alloc(align, n);
}
