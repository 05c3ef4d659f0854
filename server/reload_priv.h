/* reload_priv.h - shared by reload.c (queue, thread, answers), reload_run.c (what an operation does) and
 * reload_json.c. */
#ifndef DUET_SERVER_RELOAD_PRIV_H
#define DUET_SERVER_RELOAD_PRIV_H

#include <pthread.h>

#include "core/base/pace.h"
#include "server/quarantine.h"
#include "server/reload.h"

enum operation_state { OPERATION_QUEUED, OPERATION_RUNNING, OPERATION_SUCCEEDED, OPERATION_FAILED };

struct waiter {
    struct http_pending *pending;
    char request_id[HTTP_REQUEST_ID_MAX + 1];
    struct waiter *next;
};

struct operation {
    uint64_t seq; // 1, 2, ...; 0 = a free place
    enum operation_kind kind;
    enum operation_state state;
    char model[GENERATION_NAME_MAX + 1];
    char request_id[HTTP_REQUEST_ID_MAX + 1];
    uint64_t wanted;        // version asked for, 0 = none
    uint64_t from, version; // served before; loaded, verified or refused
    unsigned status;        // as HTTP would say it: 200, 404, 409, 422, 503, 507
    const char *code;       // static: "swapped", "bundle_invalid", ...
    char detail[512];
    bool pinned, persisted;
    bool polled; // by polling, not by anybody
    bool broken; // the version was refused for what is in it, not for what this moment lacks
    int64_t created, ended; // seconds since 1970
    uint64_t duration_ms;
    struct waiter *waiters;
};

/* A newer version that polling found and that could not be loaded for what this moment lacks: tried again ever later. */
struct retry {
    uint64_t version;
    unsigned failures;   // in a row; 0 = none
    const char *code;    // of the last one; static
    uint64_t pause_ms, at_ms; // how long from the last one to the next, which is when; CLOCK_MONOTONIC
};

struct rmodel {
    char name[GENERATION_NAME_MAX + 1];
    char *path;
    uint64_t config_version;
    char index_layout[8]; // "auto", "plain", "fast" or "compact"
    double target_recall; // 0 = the bundle's
    bool busy, tried, gone; // has an unfinished operation; was loaded or failed once; no longer configured
    struct loaded *cur;     // what generations serve; one count
    struct loaded *prev;    // kept for an immediate rollback; one count, NULL if there was no room
    uint64_t prev_version;  // what a rollback goes to; 0 = the newest below the current one
    char last_error[512];
    struct quarantined quarantined[QUARANTINED_MAX]; // written by the loader's thread under the lock
    size_t n_quarantined;
    struct retry retry; // under the lock
    metric_id version_metric, degraded_metric, since_metric, seconds_metric, quarantined_metric, retry_metric;
};

struct reload_progress {
    const char *phase; // static; NULL = not yet
    uint64_t done, total; // bytes of the bundle's files
};

#define RELOAD_MODELS_MAX 256 // configured now or in the past

struct reloads {
    struct reload_params p;
    uint64_t boot;        // microseconds, in ids of operations, so that those of an earlier run are unknown, not confused
    pthread_mutex_t lock; // guards all below
    pthread_cond_t work;
    struct rmodel *model[RELOAD_MODELS_MAX];
    size_t n_models;
    struct operation op[OPERATIONS_KEPT]; // [seq % OPERATIONS_KEPT]
    uint64_t next_seq, next_run;          // those in between are queued
    bool refuse, stop;
    bool was_ready, was_started; // every configured model served, every one was tried: once, which is enough
    struct reload_progress progress; // of the operation that runs
    uint64_t last_first;  // the last of the loads that the start queues: nobody is served yet, so they do not rest
    struct pace pace;     // of all that come after them
    pthread_t thread;
    bool thread_runs;
};

struct rmodel *reload_find(struct reloads *rl, const char *name); // not the gone ones; the lock is held

/* Do what `op` says (a copy of the loader's own); fills its outcome. Called without the lock, by the loader's thread
 * alone. */
void reload_run(struct reloads *rl, struct rmodel *m, struct operation *op);

// reload_versions.c: what there is on disk, and what of it is worth trying. Called by the loader's thread alone, without the lock.
/* The newest version under `path` below `below` that is not in quarantine for that index_layout; 0: none, or `err` is set. *skipped (may be NULL): the newest in
 * quarantine that is above what is returned, or 0. */
uint64_t reload_newest(struct reloads *rl, struct rmodel *m, const char *path, const char *layout, uint64_t below, uint64_t *skipped, struct err *err);
void reload_quarantine(struct reloads *rl, struct rmodel *m, uint64_t version, const char *dir, const char *reason);
void reload_release(struct reloads *rl, struct rmodel *m, uint64_t version); // it has loaded
const char *reload_quarantine_reason(const struct rmodel *m, uint64_t version); // "" if it is not there

void reload_restore_quarantine(struct reloads *rl, struct rmodel *m); // what the state file has
void reload_forget_quarantines(struct reloads *rl); // of models that are not configured (any more)

/* An operation on `m` has ended: of polling, failed and not for what is in the version, it is tried again after a pause, twice as long each time;
 * once something has loaded nothing waits. The lock is held. True: the pause has changed, which reload_tell_retry logs, without the lock. */
bool reload_put_off(struct reloads *rl, struct rmodel *m, const struct operation *op);
void reload_tell_retry(struct reloads *rl, const struct rmodel *m, const struct operation *op, const struct retry *r); // m->retry as it was then
void reload_retry_now(struct reloads *rl, struct rmodel *m); // at the next poll. The lock is held

/* Look for newer versions of the models that follow the newest, and queue their reloads. The lock is held, and given up meanwhile. */
void reload_poll(struct reloads *rl);
struct operation *reload_enqueue(struct reloads *rl, enum operation_kind kind, struct rmodel *m, uint64_t version, const char *request_id);

void reload_note_progress(struct reloads *rl); // reload_health.c: after an operation, before other models; the lock is held

json_t *operation_to_json(const struct reloads *rl, const struct operation *op);

#endif
