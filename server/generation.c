#include "server/generation.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/mem.h"
#include "core/base/utf8.h"

// ---------------------------------------------------------------------------------------------- a bundle in service

/* A stack of idle workspaces: the one put last is taken first, so a quiet server keeps using the same warm one. */
struct loaded_pool {
    pthread_mutex_t lock; // guards the rest
    struct retrieve_ws **idle;
    size_t n, cap;
};

static struct loaded_pool *pool_new(size_t cap, struct err *err)
{
    struct loaded_pool *p = mem_array(1, sizeof(*p), err);
    if (!p)
        return NULL;
    pthread_mutex_init(&p->lock, NULL);
    p->cap = cap ? cap : 1;
    if (!(p->idle = mem_array(p->cap, sizeof(struct retrieve_ws *), err))) {
        pthread_mutex_destroy(&p->lock);
        free(p);
        return NULL;
    }
    return p;
}

static void pool_free(struct loaded_pool *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n; i++)
        retrieve_ws_free(p->idle[i]);
    pthread_mutex_destroy(&p->lock);
    free(p->idle);
    free(p);
}

static void loaded_free(struct loaded *l)
{
    if (!l)
        return;
    pool_free(l->pool);
    bundle_free(l->bundle);
    free(l);
}

struct loaded *loaded_new(struct bundle *b, unsigned n_ws, struct err *err)
{
    struct loaded *l = mem_array(1, sizeof(*l), err);
    if (!l) {
        bundle_free(b);
        return NULL;
    }
    l->bundle = b;
    l->bytes = bundle_memory(b);
    l->loaded_at = (int64_t)time(NULL);
    atomic_init(&l->refs, 1);
    if (!(l->pool = pool_new(n_ws, err)))
        goto fail;
    while (l->pool->n < n_ws) {
        struct retrieve_ws *ws = retrieve_ws_new(b, err);
        if (!ws)
            goto fail;
        l->pool->idle[l->pool->n++] = ws;
    }
    return l;
fail:
    loaded_free(l);
    return NULL;
}

struct loaded *loaded_ref(struct loaded *l)
{
    if (l)
        atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
    return l;
}

void loaded_unref(struct loaded *l)
{
    if (l && atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) == 1)
        loaded_free(l);
}

struct retrieve_ws *loaded_take_ws(struct loaded *l, struct err *err)
{
    struct loaded_pool *p = l->pool;
    pthread_mutex_lock(&p->lock);
    struct retrieve_ws *ws = p->n ? p->idle[--p->n] : NULL;
    pthread_mutex_unlock(&p->lock);
    return ws ? ws : retrieve_ws_new(l->bundle, err);
}

void loaded_put_ws(struct loaded *l, struct retrieve_ws *ws)
{
    if (!ws)
        return;
    struct loaded_pool *p = l->pool;
    pthread_mutex_lock(&p->lock);
    bool kept = p->n < p->cap;
    if (kept)
        p->idle[p->n++] = ws;
    pthread_mutex_unlock(&p->lock);
    if (!kept)
        retrieve_ws_free(ws);
}

// ------------------------------------------------------------------------------------------------------- generation

struct generations {
    pthread_mutex_t publish_lock; // held by whoever builds and publishes a generation; taken before `lock`
    pthread_mutex_t lock;         // guards all below
    pthread_cond_t retired_some;  // to the reaper: `retired` or `stop` has changed
    pthread_cond_t settled;       // from the reaper: `alive` has changed
    struct generation *current;
    struct generation *retired; // nobody holds these any more
    size_t alive;               // generations not yet freed, the current one included
    bool stop;
    pthread_t reaper;
    bool reaper_runs;
};

static int find_model(const struct generation *g, const char *name, size_t n)
{
    for (size_t i = 0; i < g->n_models; i++)
        if (strlen(g->model[i].name) == n && memcmp(g->model[i].name, name, n) == 0)
            return (int)i;
    return -1;
}

int generation_find(const struct generation *g, const char *name, size_t n)
{
    int i = find_model(g, name, n);
    const char *model = i < 0 ? labels_find(g->labels, name, n) : NULL;
    return model ? find_model(g, model, strlen(model)) : i;
}

size_t generation_names(const struct generation *g, const struct labels *l, const char **out)
{
    const char *models[GENERATION_MODELS_MAX];
    for (size_t i = 0; i < g->n_models; i++)
        models[i] = g->model[i].name;
    return labels_and_models(l, models, g->n_models, out);
}

/* The first model, or, if it is one of several versions, the one that its bare name stands for. */
static void set_labels(struct generation *g, struct labels *l)
{
    g->labels = l;
    int i = g->n_models ? generation_find(g, g->model[0].name, strcspn(g->model[0].name, "@")) : 0;
    g->first = i < 0 ? 0 : (size_t)i;
}

static void generation_free(struct generation *g)
{
    if (!g)
        return;
    for (size_t i = 0; g->model && i < g->n_models; i++)
        loaded_unref(g->model[i].loaded);
    experiment_table_unref(g->experiments);
    labels_unref(g->labels);
    free(g->model);
    free(g);
}

static struct generation *generation_alloc(size_t n_models, struct err *err)
{
    struct generation *g = mem_array(1, sizeof(*g), err);
    if (!g)
        return NULL;
    g->n_models = n_models;
    atomic_init(&g->refs, 1); // the store's own, while current
    if (!(g->model = mem_array(n_models, sizeof(*g->model), err))) {
        free(g);
        return NULL;
    }
    return g;
}

/* The next generation, equal to `from`, with counts of its own on everything in it. */
static struct generation *generation_copy(const struct generation *from, struct err *err)
{
    struct generation *g = generation_alloc(from->n_models, err);
    if (!g)
        return NULL;
    g->serial = from->serial + 1;
    memcpy(g->model, from->model, from->n_models * sizeof(*g->model));
    for (size_t i = 0; i < g->n_models; i++)
        loaded_ref(g->model[i].loaded);
    g->experiments = experiment_table_ref(from->experiments);
    set_labels(g, labels_ref(from->labels));
    return g;
}

/* Frees what nobody holds; the one thread on which unmapping a bundle may take its time. */
static void *reaper_main(void *arg)
{
    struct generations *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->retired && !s->stop)
            pthread_cond_wait(&s->retired_some, &s->lock);
        struct generation *g = s->retired;
        if (!g)
            break;
        s->retired = g->next_retired;
        pthread_mutex_unlock(&s->lock);
        generation_free(g);
        pthread_mutex_lock(&s->lock);
        s->alive--;
        pthread_cond_broadcast(&s->settled);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static struct generation *generation_of_names(const char *const *names, size_t n, struct err *err)
{
    if (n > GENERATION_MODELS_MAX) {
        err_set(err, ERR_LIMIT, "%zu models, at most %d are served by one daemon", n, GENERATION_MODELS_MAX);
        return NULL;
    }
    struct generation *g = generation_alloc(n, err);
    if (!g)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(names[i]);
        if (len == 0 || len > GENERATION_NAME_MAX || find_model(g, names[i], len) >= 0) {
            err_set(err, ERR_ARG, "model name '%.80s': need 1 to %d bytes, each name once", names[i],
                    GENERATION_NAME_MAX);
            generation_free(g);
            return NULL;
        }
        memcpy(g->model[i].name, names[i], len + 1);
    }
    return g;
}

struct generations *generations_new(const char *const *names, size_t n, struct err *err)
{
    struct generations *s = mem_array(1, sizeof(*s), err);
    if (!s)
        return NULL;
    pthread_mutex_init(&s->publish_lock, NULL);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->retired_some, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->settled, &attr);
    pthread_condattr_destroy(&attr);
    s->alive = 1;
    if (!(s->current = generation_of_names(names, n, err)) || !(s->current->experiments = experiment_table_new(err)))
        goto fail;
    s->current->serial = 1;
    if (pthread_create(&s->reaper, NULL, reaper_main, s) != 0) {
        err_set(err, ERR_NOMEM, "cannot start the thread that frees old generations");
        goto fail;
    }
    s->reaper_runs = true;
    return s;
fail:
    generations_free(s);
    return NULL;
}

void generations_free(struct generations *s)
{
    if (!s)
        return;
    if (s->reaper_runs) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->retired_some);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->reaper, NULL);
    }
    generation_free(s->current);
    pthread_cond_destroy(&s->settled);
    pthread_cond_destroy(&s->retired_some);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->publish_lock);
    free(s);
}

const struct generation *generation_acquire(struct generations *s)
{
    pthread_mutex_lock(&s->lock);
    struct generation *g = s->current;
    atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&s->lock);
    return g;
}

void generation_release(struct generations *s, const struct generation *held)
{
    struct generation *g = (struct generation *)held; // only the store and its counts ever write it
    if (!g || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1)
        return;
    pthread_mutex_lock(&s->lock);
    g->next_retired = s->retired;
    s->retired = g;
    pthread_cond_signal(&s->retired_some);
    pthread_mutex_unlock(&s->lock);
}

/* Make `next` current; the store's count on the old one goes. The caller holds publish_lock. */
static void publish(struct generations *s, struct generation *next)
{
    pthread_mutex_lock(&s->lock);
    struct generation *old = s->current;
    s->current = next;
    s->alive++;
    pthread_mutex_unlock(&s->lock);
    generation_release(s, old);
}

static void set_model(struct generation_model *m, struct loaded *l, const char *degraded)
{
    loaded_unref(m->loaded); // never the last: the current generation holds it too
    m->loaded = l;
    size_t n = degraded ? strnlen(degraded, sizeof(m->degraded) - 1) : 0;
    if (n)
        memcpy(m->degraded, degraded, n);
    m->degraded[n] = '\0';
    utf8_mend(m->degraded);
}

bool generation_swap_model(struct generations *s, const char *name, struct loaded *l, const char *degraded,
                           struct err *err)
{
    pthread_mutex_lock(&s->publish_lock);
    int i = find_model(s->current, name, strlen(name)); // only publishers write `current`, and we are the one
    struct generation *next = NULL;
    if (i < 0)
        err_set(err, ERR_NOT_FOUND, "no model '%s' is configured", name);
    else if ((next = generation_copy(s->current, err))) {
        set_model(&next->model[i], l, degraded);
        publish(s, next);
    }
    pthread_mutex_unlock(&s->publish_lock);
    return next != NULL;
}

/* A copy of the current generation that may be published: all that can fail is behind it. The caller holds publish_lock. */
static struct generation *copy_and_pass(struct generations *s, const struct generation_gate *gate, struct err *err)
{
    struct generation *next = generation_copy(s->current, err);
    if (!next || !gate || gate->pass(gate->ctx, err))
        return next;
    generation_free(next); // never the last count of anything: the current one holds it too
    return NULL;
}

bool generation_swap_experiments(struct generations *s, struct experiment_table *t, const struct generation_gate *gate, struct err *err)
{
    pthread_mutex_lock(&s->publish_lock);
    struct generation *next = copy_and_pass(s, gate, err);
    if (next) {
        experiment_table_unref(next->experiments);
        next->experiments = t;
        publish(s, next);
    }
    pthread_mutex_unlock(&s->publish_lock);
    return next != NULL;
}

bool generation_swap_labels(struct generations *s, struct labels *l, const struct generation_gate *gate, struct err *err)
{
    pthread_mutex_lock(&s->publish_lock);
    struct generation *next = copy_and_pass(s, gate, err);
    if (next) {
        labels_unref(next->labels);
        set_labels(next, l);
        publish(s, next);
    }
    pthread_mutex_unlock(&s->publish_lock);
    return next != NULL;
}

bool generation_swap_names(struct generations *s, const char *const *names, size_t n, struct experiment_table *t,
                           struct labels *l, const struct generation *once, struct err *err)
{
    pthread_mutex_lock(&s->publish_lock);
    const struct generation *now = s->current;
    struct generation *next = generation_of_names(names, n, err);
    if (next) {
        next->serial = now->serial + 1;
        next->experiments = t;
        set_labels(next, l);
        for (size_t i = 0; i < n; i++) {
            const struct generation *from = now;
            int was = find_model(from, names[i], strlen(names[i]));
            if (was < 0 && once)
                was = find_model(from = once, names[i], strlen(names[i]));
            if (was >= 0)
                set_model(&next->model[i], loaded_ref(from->model[was].loaded), from->model[was].degraded);
        }
        publish(s, next);
    }
    pthread_mutex_unlock(&s->publish_lock);
    return next != NULL;
}

bool generation_settle(struct generations *s, unsigned timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&s->lock);
    int rc = 0;
    while (s->alive > 1 && rc == 0)
        rc = pthread_cond_timedwait(&s->settled, &s->lock, &until);
    bool ok = s->alive <= 1;
    pthread_mutex_unlock(&s->lock);
    return ok;
}
