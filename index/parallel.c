/* parallel.c - the threads of parallel.h; they live for one loop. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "index/parallel.h"

struct loop {
    hnsw_part_fn *fn;
    void *ctx;
    size_t n, step;
    atomic_size_t next;
};

static void *take_parts(void *arg)
{
    struct loop *l = arg;
    for (size_t from; (from = atomic_fetch_add(&l->next, l->step)) < l->n;)
        l->fn(l->ctx, from, l->n - from < l->step ? l->n : from + l->step);
    return NULL;
}

void hnsw_parallel(unsigned threads, size_t n, size_t step, hnsw_part_fn *fn, void *ctx)
{
    struct loop l = {.fn = fn, .ctx = ctx, .n = n, .step = step};
    pthread_t thread[HNSW_THREADS_MAX];
    unsigned started = 0, wanted = threads < HNSW_THREADS_MAX ? threads : HNSW_THREADS_MAX;
    while (started + 1 < wanted && started * step + step < n &&
           pthread_create(&thread[started], NULL, take_parts, &l) == 0)
        started++;
    take_parts(&l);
    while (started > 0)
        pthread_join(thread[--started], NULL);
}
