#include "server/ticker.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/mem.h"

struct ticker {
    pthread_t thread;
    unsigned ms;
    void (*turn)(void *ctx);
    void *ctx;
    pthread_mutex_t lock; // guards stop
    pthread_cond_t wake;
    bool stop;
};

/* Sleep. False: it is to end. */
static bool wait_turn(struct ticker *t)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += t->ms / 1000;
    until.tv_nsec += (long)(t->ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&t->lock);
    while (!t->stop && pthread_cond_timedwait(&t->wake, &t->lock, &until) == 0)
        ;
    bool stop = t->stop;
    pthread_mutex_unlock(&t->lock);
    return !stop;
}

static void *run(void *arg)
{
    struct ticker *t = arg;
    while (wait_turn(t))
        t->turn(t->ctx);
    return NULL;
}

static void destroy(struct ticker *t)
{
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

struct ticker *ticker_new(unsigned ms, void (*turn)(void *ctx), void *ctx, const char *what, struct err *err)
{
    pthread_condattr_t attr;
    struct ticker *t = mem_array(1, sizeof(*t), err);
    if (!t)
        return NULL;
    t->ms = ms;
    t->turn = turn;
    t->ctx = ctx;
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->wake, &attr);
    pthread_condattr_destroy(&attr);
    int rc = pthread_create(&t->thread, NULL, run, t);
    if (rc == 0)
        return t;
    err_set(err, ERR_NOMEM, "cannot start the thread of %s: %s", what, strerror(rc));
    destroy(t);
    return NULL;
}

void ticker_free(struct ticker *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    destroy(t);
}
