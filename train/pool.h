/* pool.h - a few threads that run one function together and meet at its end.
 * Place:   training and evaluation: a step is a row of short parallel phases, so the threads are kept between them.
 * Threads: one caller at a time. With n_threads = 1 there are no threads at all and pool_run is a plain call. */
#ifndef DUET_TRAIN_POOL_H
#define DUET_TRAIN_POOL_H

#include <stddef.h>

#include "core/base/err.h"

#define POOL_THREADS_MAX 64

struct pool;

/* n_threads from 1 to POOL_THREADS_MAX, the caller's included. */
struct pool *pool_new(unsigned n_threads, struct err *err);
void pool_free(struct pool *p); // NULL is fine
unsigned pool_threads(const struct pool *p);

/* fn(ctx, i) for every i < n_threads, i = 0 on the caller's thread; returns when all are done. */
void pool_run(struct pool *p, void (*fn)(void *ctx, unsigned i), void *ctx);

/* The i-th of `parts` nearly equal ranges of 0 .. n. */
static inline void pool_range(size_t n, unsigned i, unsigned parts, size_t *lo, size_t *hi)
{
    *lo = n * i / parts;
    *hi = n * (i + 1) / parts;
}

#endif
