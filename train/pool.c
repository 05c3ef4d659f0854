#include "train/pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "core/base/mem.h"

struct worker {
    struct pool *pool;
    unsigned i;
};

struct pool {
    unsigned n; // the caller's thread included
    pthread_t thread[POOL_THREADS_MAX];
    struct worker worker[POOL_THREADS_MAX];
    unsigned started; // workers 1 .. started run

    pthread_mutex_t lock; // guards everything below
    pthread_cond_t go, done;
    unsigned long round; // grows with each pool_run
    unsigned busy;       // workers that have not finished this round
    bool stop;
    void (*fn)(void *ctx, unsigned i);
    void *ctx;
};

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    unsigned long seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->round == seen && !p->stop)
            pthread_cond_wait(&p->go, &p->lock);
        if (p->stop)
            break;
        seen = p->round;
        pthread_mutex_unlock(&p->lock);
        p->fn(p->ctx, w->i);
        pthread_mutex_lock(&p->lock);
        if (--p->busy == 0)
            pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

struct pool *pool_new(unsigned n_threads, struct err *err)
{
    if (n_threads < 1 || n_threads > POOL_THREADS_MAX) {
        err_set(err, ERR_ARG, "threads: %u given, want 1 to %d", n_threads, POOL_THREADS_MAX);
        return NULL;
    }
    struct pool *p = mem_array(1, sizeof(*p), err);
    if (!p)
        return NULL;
    p->n = n_threads;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->go, NULL);
    pthread_cond_init(&p->done, NULL);
    for (unsigned i = 1; i < n_threads; i++) {
        p->worker[i] = (struct worker){p, i};
        if (pthread_create(&p->thread[i], NULL, worker_main, &p->worker[i]) != 0) {
            err_set(err, ERR_IO, "cannot start thread %u of %u; try fewer with --threads", i, n_threads);
            pool_free(p);
            return NULL;
        }
        p->started = i;
    }
    return p;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->go);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 1; i <= p->started; i++)
        pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->go);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

unsigned pool_threads(const struct pool *p)
{
    return p->n;
}

void pool_run(struct pool *p, void (*fn)(void *ctx, unsigned i), void *ctx)
{
    if (p->n == 1) {
        fn(ctx, 0);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->ctx = ctx;
    p->busy = p->n - 1;
    p->round++;
    pthread_cond_broadcast(&p->go);
    pthread_mutex_unlock(&p->lock);
    fn(ctx, 0);
    pthread_mutex_lock(&p->lock);
    while (p->busy)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
