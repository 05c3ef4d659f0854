#include "server/reload.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "server/problem.h"
#include "server/reload_priv.h"

// ------------------------------------------------------------------------------------------------------- models

struct rmodel *reload_find(struct reloads *rl, const char *name)
{
    for (size_t i = 0; i < rl->n_models; i++)
        if (!rl->model[i]->gone && strcmp(rl->model[i]->name, name) == 0)
            return rl->model[i];
    return NULL;
}

static void model_metrics(struct reloads *rl, struct rmodel *m)
{
    char name[128], labels[160];
    if (!rl->p.metrics)
        return;
    snprintf(labels, sizeof(labels), "model=\"%s\"", metrics_label(m->name, name, sizeof(name)));
    m->version_metric = metrics_gauge(rl->p.metrics, "duet_model_version", "Version in service, 0 if none.", labels);
    m->degraded_metric = metrics_gauge(rl->p.metrics, "duet_model_degraded",
                                       "1 if an older version serves because a newer one was refused.", labels);
    m->since_metric = metrics_gauge(rl->p.metrics, "duet_model_loaded_timestamp_seconds",
                                    "When the version in service was loaded.", labels);
    m->quarantined_metric = metrics_gauge(rl->p.metrics, "duet_model_quarantined_versions",
                                          "Versions that were refused and are not tried again as they are.", labels);
    m->retry_metric = metrics_gauge(rl->p.metrics, "duet_model_retry_seconds",
                                    "Pause before polling tries a newer version again that there was no room for; 0 if none waits.", labels);
    m->seconds_metric = metrics_seconds(rl->p.metrics, "duet_operation_seconds",
                                        "Duration of loads, reloads, rollbacks and verifications.", labels);
}

static const char *layout_of(const struct reload_model *from)
{
    return from->index_layout ? from->index_layout : "auto";
}

static void set_choices(struct rmodel *m, const struct reload_model *from)
{
    m->config_version = from->version;
    m->target_recall = from->target_recall;
    snprintf(m->index_layout, sizeof(m->index_layout), "%s", layout_of(from));
}

static struct rmodel *add_model(struct reloads *rl, const struct reload_model *from, struct err *err)
{
    size_t n = strlen(from->name);
    if (rl->n_models == RELOAD_MODELS_MAX || n > GENERATION_NAME_MAX) {
        err_set(err, ERR_LIMIT, "model '%.80s': at most %d models, names of at most %d bytes", from->name,
                RELOAD_MODELS_MAX, GENERATION_NAME_MAX);
        return NULL;
    }
    struct rmodel *m = mem_array(1, sizeof(*m), err);
    if (!m)
        return NULL;
    if (!(m->path = mem_dup(from->path, strlen(from->path), err))) {
        free(m);
        return NULL;
    }
    memcpy(m->name, from->name, n);
    set_choices(m, from);
    model_metrics(rl, m);
    reload_restore_quarantine(rl, m);
    rl->model[rl->n_models++] = m;
    return m;
}

static void free_model(struct rmodel *m)
{
    loaded_unref(m->cur);
    loaded_unref(m->prev);
    free(m->path);
    free(m);
}

// ------------------------------------------------------------------------------------------------------- answers to
// waiters

static void answer(const struct reloads *rl, const struct waiter *w, const struct operation *op)
{
    struct http_response resp = {0};
    if (op->state == OPERATION_SUCCEEDED) {
        json_t *o = operation_to_json(rl, op);
        char *text = json_text(o, NULL);
        resp.status = 200;
        if (text)
            buf_puts(&resp.body, text);
        buf_puts(&resp.body, "\n");
        free(text);
        json_decref(o);
    } else {
        problem_write_id(&resp, w->request_id, op->status, op->code, NULL, op->detail);
    }
    http_complete(w->pending, &resp);
}

static void answer_all(const struct reloads *rl, struct waiter *w, const struct operation *op)
{
    while (w) {
        struct waiter *next = w->next;
        answer(rl, w, op);
        free(w);
        w = next;
    }
}

// ------------------------------------------------------------------------------------------------------- the thread

/* Models that are gone give back what they hold here, on the loader's thread. The lock is held, and given up meanwhile.
 */
static void bury(struct reloads *rl)
{
    for (size_t i = 0; i < rl->n_models; i++) {
        struct rmodel *m = rl->model[i];
        if (!m->gone || m->busy)
            continue;
        rl->model[i--] = rl->model[--rl->n_models];
        pthread_mutex_unlock(&rl->lock);
        free_model(m);
        reload_forget_quarantines(rl);
        pthread_mutex_lock(&rl->lock);
    }
}

static bool any_to_bury(const struct reloads *rl)
{
    for (size_t i = 0; i < rl->n_models; i++)
        if (rl->model[i]->gone && !rl->model[i]->busy)
            return true;
    return false;
}

/* The lock is held. */
static bool serves(const struct reloads *rl)
{
    for (size_t i = 0; i < rl->n_models; i++)
        if (rl->model[i]->cur)
            return true;
    return false;
}

/* Run the operation at next_run. The lock is held, and given up meanwhile. */
static void run_next(struct reloads *rl)
{
    struct operation *slot = &rl->op[rl->next_run % OPERATIONS_KEPT];
    struct rmodel *m = NULL;
    for (size_t i = 0; i < rl->n_models && !m; i++)
        if (rl->model[i]->busy && strcmp(rl->model[i]->name, slot->model) == 0)
            m = rl->model[i];
    slot->state = OPERATION_RUNNING;
    struct operation op = *slot;
    op.waiters = NULL;
    bool rests = op.seq > rl->last_first && serves(rl);
    pthread_mutex_unlock(&rl->lock);
    pace_set(rests ? &rl->pace : NULL);
    reload_run(rl, m, &op);
    pace_set(NULL);
    pthread_mutex_lock(&rl->lock);
    struct waiter *w = slot->waiters; // some may have come meanwhile
    *slot = op;
    rl->next_run++;
    m->busy = false;
    m->tried = true;
    reload_note_progress(rl);
    bool tell = reload_put_off(rl, m, &op);
    struct retry retry = m->retry;
    snprintf(m->last_error, sizeof(m->last_error), "%s", op.state == OPERATION_FAILED ? op.detail : "");
    pthread_mutex_unlock(&rl->lock);
    if (tell)
        reload_tell_retry(rl, m, &op, &retry);
    answer_all(rl, w, &op);
    pthread_mutex_lock(&rl->lock);
}

static void add_ms(struct timespec *t, unsigned ms)
{
    t->tv_sec += ms / 1000;
    t->tv_nsec += (long)(ms % 1000) * 1000000;
    if (t->tv_nsec >= 1000000000) {
        t->tv_sec++;
        t->tv_nsec -= 1000000000;
    }
}

/* Until there may be something to do, or it is time to look for new versions, which is then done. The lock is held. */
static void wait_for_work(struct reloads *rl, struct timespec *poll_at)
{
    if (!rl->p.poll_ms) {
        pthread_cond_wait(&rl->work, &rl->lock);
    } else if (pthread_cond_timedwait(&rl->work, &rl->lock, poll_at) != 0) {
        reload_poll(rl);
        clock_gettime(CLOCK_MONOTONIC, poll_at);
        add_ms(poll_at, rl->p.poll_ms);
    }
}

static void *loader_main(void *arg)
{
    struct reloads *rl = arg;
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 10); // requests first; Linux keeps this per thread
    struct timespec poll_at;
    clock_gettime(CLOCK_MONOTONIC, &poll_at);
    add_ms(&poll_at, rl->p.poll_ms);
    pthread_mutex_lock(&rl->lock);
    for (;;) {
        bury(rl);
        while (!rl->stop && rl->next_run == rl->next_seq && !any_to_bury(rl))
            wait_for_work(rl, &poll_at);
        if (rl->stop)
            break;
        if (rl->next_run != rl->next_seq)
            run_next(rl);
    }
    pthread_mutex_unlock(&rl->lock);
    return NULL;
}

// ------------------------------------------------------------------------------------------------------- queue

/* The lock is held; the model is not busy. Fewer are queued than operations are kept, for a model has one at a time. */
struct operation *reload_enqueue(struct reloads *rl, enum operation_kind kind, struct rmodel *m, uint64_t version,
                                 const char *request_id)
{
    struct operation *op = &rl->op[rl->next_seq % OPERATIONS_KEPT];
    memset(op, 0, sizeof(*op));
    op->seq = rl->next_seq++;
    op->kind = kind;
    op->wanted = version;
    op->created = (int64_t)time(NULL);
    snprintf(op->model, sizeof(op->model), "%s", m->name);
    snprintf(op->request_id, sizeof(op->request_id), "%s", request_id);
    m->busy = true;
    pthread_cond_signal(&rl->work);
    return op;
}

bool reloads_submit(struct reloads *rl, enum operation_kind kind, const char *model, uint64_t version,
                    const char *request_id, char *id, struct err *err)
{
    pthread_mutex_lock(&rl->lock);
    struct rmodel *m = reload_find(rl, model);
    bool ok = false;
    if (!m)
        err_set(err, ERR_NOT_FOUND, "no model '%s' is configured", model);
    else if (rl->refuse)
        err_set(err, ERR_STATE, "the daemon is draining");
    else if (m->busy || rl->next_seq - rl->next_run >= OPERATIONS_KEPT - 1)
        err_set(err, ERR_STATE, "an operation on model '%s' is under way: wait for it, see /v1/admin/operations",
                model);
    else
        ok = true;
    if (ok) {
        const struct operation *op = reload_enqueue(rl, kind, m, version, request_id);
        snprintf(id, OPERATION_ID_MAX, "%" PRIx64 "-%" PRIu64, rl->boot, op->seq);
    }
    pthread_mutex_unlock(&rl->lock);
    return ok;
}

static struct operation *find_by_id(struct reloads *rl, const char *id)
{
    const char *dash = strchr(id, '-');
    uint64_t seq = dash ? strtoull(dash + 1, NULL, 10) : 0;
    struct operation *op = &rl->op[seq % OPERATIONS_KEPT];
    return seq && op->seq == seq ? op : NULL;
}

void reloads_wait(struct reloads *rl, const char *id, const char *request_id, struct http_pending *p)
{
    struct waiter now = {.pending = p}, *w = mem_array(1, sizeof(*w), NULL);
    struct operation ended = {
        .state = OPERATION_FAILED, .status = 503, .code = "out_of_memory", .detail = "out of memory"};
    snprintf(now.request_id, sizeof(now.request_id), "%s", request_id);
    pthread_mutex_lock(&rl->lock);
    struct operation *op = find_by_id(rl, id);
    if (rl->refuse) {
        ended.code = "draining";
        snprintf(ended.detail, sizeof(ended.detail), "the daemon is draining; the operation may still end");
    }
    bool later = op && w && !rl->refuse && (op->state == OPERATION_QUEUED || op->state == OPERATION_RUNNING);
    if (later) {
        *w = now;
        w->next = op->waiters;
        op->waiters = w;
    } else if (op && (op->state == OPERATION_SUCCEEDED || op->state == OPERATION_FAILED)) {
        ended = *op;
    }
    pthread_mutex_unlock(&rl->lock);
    if (later)
        return;
    free(w);
    answer(rl, &now, &ended);
}

// ------------------------------------------------------------------------------------------------------- life

struct reloads *reloads_new(const struct reload_params *p, const struct reload_model *m, size_t n, struct err *err)
{
    struct reloads *rl = mem_array(1, sizeof(*rl), err);
    if (!rl)
        return NULL;
    rl->p = *p;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    rl->boot = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    rl->next_seq = rl->next_run = 1;
    rl->pace.clock = p->clock;
    pthread_mutex_init(&rl->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&rl->work, &attr);
    pthread_condattr_destroy(&attr);
    for (size_t i = 0; i < n; i++)
        if (!add_model(rl, &m[i], err)) {
            reloads_free(rl);
            return NULL;
        }
    reload_forget_quarantines(rl);
    return rl;
}

bool reloads_start(struct reloads *rl, struct err *err)
{
    pthread_mutex_lock(&rl->lock);
    for (size_t i = 0; i < rl->n_models; i++)
        reload_enqueue(rl, OPERATION_LOAD, rl->model[i], 0, "");
    rl->last_first = rl->next_seq - 1;
    pthread_mutex_unlock(&rl->lock);
    if (pthread_create(&rl->thread, NULL, loader_main, rl) != 0)
        return err_set(err, ERR_NOMEM, "cannot start the loader's thread");
    rl->thread_runs = true;
    return true;
}

void reloads_stop_accepting(struct reloads *rl)
{
    static const struct operation draining = {.state = OPERATION_FAILED,
                                              .status = 503,
                                              .code = "draining",
                                              .detail = "the daemon is draining; the operation may still end"};
    struct waiter *all = NULL;
    atomic_store(&rl->pace.hurry, true); // whoever stops waits for what is under way
    pthread_mutex_lock(&rl->lock);
    rl->refuse = true;
    for (size_t i = 0; i < OPERATIONS_KEPT; i++) {
        struct waiter **end = &rl->op[i].waiters;
        while (*end)
            end = &(*end)->next;
        *end = all;
        all = rl->op[i].waiters;
        rl->op[i].waiters = NULL;
    }
    pthread_mutex_unlock(&rl->lock);
    answer_all(rl, all, &draining);
}

void reloads_free(struct reloads *rl)
{
    if (!rl)
        return;
    reloads_stop_accepting(rl);
    pthread_mutex_lock(&rl->lock);
    rl->stop = true;
    pthread_cond_signal(&rl->work);
    pthread_mutex_unlock(&rl->lock);
    if (rl->thread_runs)
        pthread_join(rl->thread, NULL);
    for (size_t i = 0; i < rl->n_models; i++)
        free_model(rl->model[i]);
    pthread_cond_destroy(&rl->work);
    pthread_mutex_destroy(&rl->lock);
    free(rl);
}

// ------------------------------------------------------------------------------------------------------- a new
// configuration

static bool differs(const struct rmodel *m, const struct reload_model *from)
{
    return strcmp(m->path, from->path) != 0 || m->config_version != from->version ||
           m->target_recall < from->target_recall || m->target_recall > from->target_recall ||
           strcmp(m->index_layout, layout_of(from)) != 0;
}

/* The loader reads a busy model's path and choices without the lock. What is queued must fit beside what is. */
static bool check_busy(struct reloads *rl, const struct reload_model *list, size_t n, struct err *err)
{
    uint64_t queued = rl->next_seq - rl->next_run;
    for (size_t i = 0; i < n; i++) {
        const struct rmodel *m = reload_find(rl, list[i].name);
        queued += !m || differs(m, &list[i]);
        if (queued >= OPERATIONS_KEPT)
            return err_set(err, ERR_STATE, "%d operations are queued: try again when some have ended", OPERATIONS_KEPT - 1);
        if (m && m->busy && differs(m, &list[i]))
            return err_set(err, ERR_STATE, "model '%s' has an operation under way: try again when it has ended",
                           m->name);
    }
    return true;
}

/* A model that is new or has changed is loaded. */
static bool take(struct reloads *rl, const struct reload_model *from, struct err *err)
{
    struct rmodel *m = reload_find(rl, from->name);
    if (m && !differs(m, from))
        return true;
    if (!m && !(m = add_model(rl, from, err)))
        return false;
    char *path = mem_dup(from->path, strlen(from->path), err);
    if (!path)
        return false;
    free(m->path);
    m->path = path;
    set_choices(m, from);
    reload_enqueue(rl, OPERATION_LOAD, m, 0, "");
    return true;
}

static bool is_listed(const struct rmodel *m, const struct reload_model *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].name, m->name) == 0)
            return true;
    return false;
}

bool reloads_set_models(struct reloads *rl, const struct reload_model *list, size_t n, struct err *err)
{
    pthread_mutex_lock(&rl->lock);
    bool ok = check_busy(rl, list, n, err);
    reload_note_progress(rl); // as it was with the models so far
    for (size_t i = 0; i < n && ok; i++)
        ok = take(rl, &list[i], err);
    for (size_t i = 0; i < rl->n_models && ok; i++)
        rl->model[i]->gone = rl->model[i]->gone || !is_listed(rl->model[i], list, n);
    for (size_t i = 0; i < rl->n_models && ok; i++) // who asks for this may have made room
        reload_retry_now(rl, rl->model[i]);
    pthread_cond_signal(&rl->work);
    pthread_mutex_unlock(&rl->lock);
    return ok;
}
