/* reload.h - loading, swapping, rolling back: one thread that does it all, and the operations that tell what became of
 * each.
 * Place:   service.c starts it; handle_admin.c submits; generation.c gets what it loads. Knows no routes.
 * Flow:    find the version -> enough memory? -> bundle_load (verifies and probes) -> workspaces -> warm -> pin in the
 *          state file -> swap. Whatever fails before the swap leaves the old version serving, is logged, counted, and
 *          told by the operation.
 * Pace:    while something is served, whoever loads works in slices of 0.3 ms and rests between them (core/base/pace.h): a load takes at most
 *          1.7 times the processor time that it needs, and a daemon that is to stop does not rest.
 * Single flight: one operation runs at a time; a model with one queued or running refuses another (busy).
 * Threads: one lock guards queue, operations and the models' bookkeeping; it is never held while loading or while an
 *          answer is sent. */
#ifndef DUET_SERVER_RELOAD_H
#define DUET_SERVER_RELOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/base/pace.h"
#include "core/bundle.h"
#include "server/generation.h"
#include "server/http.h"
#include "server/metrics.h"
#include "server/state.h"

#define OPERATION_ID_MAX 40
#define OPERATIONS_KEPT 100

struct reload_model {
    const char *name, *path; // path: the folder of versions
    uint64_t version;        // of the configuration: 0 = the newest
    const char *index_layout; // "auto", "plain", "fast", "compact"; NULL = auto
    double target_recall;     // for requests that give neither ef nor a target; 0 = the bundle's
};

struct reload_params {
    struct generations *generations;
    struct state *state;
    struct log *log;
    struct metrics *metrics; // may be NULL: tests
    enum bundle_load_mode mode;
    bool check_memory;
    unsigned load_threads;              // see bundle_load_params
    unsigned workspaces;                // per bundle, built ahead
    unsigned poll_ms;                   // look for newer versions that often; 0 = never
    void (*warm)(void *ctx, const char *model, struct loaded *l); // before a version may serve, on the loader's thread; NULL = no more
    void *warm_ctx;                                               // than bundle_warm
    uint64_t (*memory_available)(void); // NULL = sysmem_available
    const struct pace_clock *clock;     // of the rests that loads take while something is served; NULL = the system's
};

struct reloads;
struct reloads *reloads_new(const struct reload_params *p, const struct reload_model *m, size_t n, struct err *err);
/* Starts the thread, which first loads every model: the version wanted, else the newest older one that verifies. */
bool reloads_start(struct reloads *rl, struct err *err);
/* From now on nothing is accepted; who waits is answered 503. */
void reloads_stop_accepting(struct reloads *rl);
void reloads_free(struct reloads *rl); // joins the thread; NULL is fine

/* A new list of models (SIGHUP), which generations must have been given already. Models that are new, or whose path or
 * version changed, are loaded. */
bool reloads_set_models(struct reloads *rl, const struct reload_model *m, size_t n, struct err *err);

enum operation_kind { OPERATION_LOAD, OPERATION_RELOAD, OPERATION_ROLLBACK, OPERATION_VERIFY };

/* Queue one. version 0: reload and verify take what the configuration says or the newest; a rollback takes no version.
 * Its id goes to id[OPERATION_ID_MAX]. ERR_NOT_FOUND: no such model; ERR_STATE: busy or draining. */
bool reloads_submit(struct reloads *rl, enum operation_kind kind, const char *model, uint64_t version,
                    const char *request_id, char *id, struct err *err);

/* Answer `p` when the operation has ended (now, if it has); takes `p` always. */
void reloads_wait(struct reloads *rl, const char *id, const char *request_id, struct http_pending *p);

/* New reference, or NULL if there is no such operation (any more). */
json_t *reloads_operation(struct reloads *rl, const char *id);
json_t *reloads_operations(struct reloads *rl); // newest first
json_t *reloads_models(struct reloads *rl);     // for GET /v1/admin/models

/* One short sentence goes to `why` either way. ready: every model has a version in service, or had once and some has: one that is
 * configured later and loads, or cannot, does not take the others away. started: each was loaded once, or has failed. */
bool reloads_ready(struct reloads *rl, struct buf *why);
bool reloads_started(struct reloads *rl, struct buf *why);

#endif
