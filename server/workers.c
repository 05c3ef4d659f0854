#include "server/workers.h"

#include <pthread.h>
#include <stdlib.h>

#include "server/admission.h"
#include "server/problem.h"

struct task {
    struct http_pending *pending;
    route_handler run;
    uint64_t since_ns;
};

struct worker {
    struct workers *w;
    struct thread_state *state;
    pthread_t thread;
    bool runs;
};

struct workers {
    struct app *app;
    metric_id wait_s, full, late;
    pthread_mutex_t lock; // guards all below but what is set once
    pthread_cond_t some;  // to the workers: `n` or `stopping` has changed
    struct task *queue;   // [cap] ring
    size_t cap, first, n;
    bool refuses, stopping;
    unsigned n_threads;
    struct worker *worker; // [n_threads]
};

static void too_late(const struct http_request *r, struct http_response *resp)
{
    problem_write(resp, r, 504, "deadline_exceeded", NULL, "the request's deadline passed while it waited for a worker");
}

static void work(struct worker *me, const struct task *t)
{
    struct workers *w = me->w;
    struct http_request r = *http_pending_request(t->pending);
    struct http_response resp = {0};
    uint64_t now = app_now_ns();
    r.thread_state = me->state;
    metrics_observe_ns(w->app->metrics, me->state->shard, w->wait_s, now - t->since_ns);
    if (now > r.deadline_ns) {
        metrics_add(w->app->metrics, me->state->shard, w->late, 1);
        too_late(&r, &resp);
    } else {
        t->run(w->app, &r, NULL, &resp);
    }
    http_complete(t->pending, &resp);
}

static void *worker_main(void *arg)
{
    struct worker *me = arg;
    struct workers *w = me->w;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (w->n == 0 && !w->stopping)
            pthread_cond_wait(&w->some, &w->lock);
        if (w->n == 0)
            break;
        struct task t = w->queue[w->first];
        w->first = (w->first + 1) % w->cap;
        w->n--;
        pthread_mutex_unlock(&w->lock);
        work(me, &t);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static double queue_length(void *ctx)
{
    struct workers *w = ctx;
    pthread_mutex_lock(&w->lock);
    size_t n = w->n;
    pthread_mutex_unlock(&w->lock);
    return (double)n;
}

static bool start(struct workers *w, struct err *err)
{
    for (unsigned i = 0; i < w->n_threads; i++) {
        struct worker *me = &w->worker[i];
        me->w = w;
        if (!(me->state = app_thread_new(w->app)))
            return err_set(err, ERR_NOMEM, "no memory for a worker's state");
        me->state->is_worker = true;
        if (pthread_create(&me->thread, NULL, worker_main, me) != 0)
            return err_set(err, ERR_NOMEM, "cannot start a worker's thread");
        me->runs = true;
    }
    return true;
}

struct workers *workers_new(struct app *app, size_t queue, struct err *err)
{
    static const char refused[] = "Requests refused before any work was done, by reason.";
    struct workers *w = mem_array(1, sizeof(*w), err);
    if (!w)
        return NULL;
    w->app = app;
    w->cap = queue;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->some, NULL);
    w->n_threads = app_worker_threads(app->config);
    w->queue = mem_array(queue, sizeof(*w->queue), err);
    w->worker = mem_array(w->n_threads, sizeof(*w->worker), err);
    if (!w->queue || !w->worker || !start(w, err)) {
        workers_free(w);
        return NULL;
    }
    w->wait_s = metrics_seconds(app->metrics, "duet_workers_wait_seconds", "Time that requests waited for a worker.", "");
    w->full = metrics_counter(app->metrics, "duet_requests_refused_total", refused, "reason=\"queue_full\"");
    w->late = metrics_counter(app->metrics, "duet_requests_refused_total", refused, "reason=\"deadline\"");
    metrics_gauge_fn(app->metrics, "duet_workers_queue_length", "Requests that wait for a worker.", NULL, queue_length, w);
    return w;
}

void workers_stop_accepting(struct workers *w)
{
    pthread_mutex_lock(&w->lock);
    w->refuses = true;
    while (w->n > 0) {
        struct task t = w->queue[w->first];
        struct http_response resp = {0};
        w->first = (w->first + 1) % w->cap;
        w->n--;
        pthread_mutex_unlock(&w->lock);
        admission_refuse(w->app->admission, http_pending_request(t.pending), &resp, "draining", "the daemon is stopping");
        http_complete(t.pending, &resp);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
}

void workers_free(struct workers *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_broadcast(&w->some);
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; w->worker && i < w->n_threads; i++) {
        if (w->worker[i].runs)
            pthread_join(w->worker[i].thread, NULL);
        if (w->worker[i].state)
            app_thread_free(w->app, w->worker[i].state);
    }
    pthread_cond_destroy(&w->some);
    pthread_mutex_destroy(&w->lock);
    free(w->queue);
    free(w->worker);
    free(w);
}

bool workers_submit(struct workers *w, route_handler run, struct http_request *r, struct http_response *resp)
{
    const struct thread_state *t = r->thread_state;
    struct app *app = w->app;
    pthread_mutex_lock(&w->lock);
    bool refuses = w->refuses, full = w->n == w->cap;
    struct http_pending *p = refuses || full ? NULL : http_suspend(r);
    if (p) {
        w->queue[(w->first + w->n++) % w->cap] = (struct task){p, run, app_now_ns()};
        pthread_cond_signal(&w->some);
    }
    pthread_mutex_unlock(&w->lock);
    if (p)
        return false;
    if (refuses) {
        admission_refuse(app->admission, r, resp, "draining", "the daemon is stopping");
    } else if (full) {
        metrics_add(app->metrics, t->shard, w->full, 1);
        admission_refuse(app->admission, r, resp, "queue_full", "too many requests wait for a worker (workers.queue)");
    } else {
        admission_refuse(app->admission, r, resp, "out_of_memory", "out of memory");
    }
    return true;
}
