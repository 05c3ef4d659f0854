/* generation.h - what serves right now: all models and the experiment table behind one pointer.
 * Place:   published by reload.c and handle_admin.c, read by every handler. A request acquires the current generation
 *          once and uses nothing else until it releases it, so one answer never mixes two versions.
 * Life:    loaded (a bundle with its pool of workspaces) and experiment tables are counted and shared from generation
 *          to generation; the last holder of a generation hands it to the store's own thread, which frees it:
 *          unmapping gigabytes never happens on a request's thread.
 * Threads: `lock` of the store guards `current` and the list of retired generations and is held for a pointer copy and
 *          a count; `publish_lock` orders publishers and is taken before it. The lock of a `loaded` guards its pool
 *          and is taken alone. */
#ifndef DUET_SERVER_GENERATION_H
#define DUET_SERVER_GENERATION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/bundle.h"
#include "core/retrieve.h"
#include "server/experiment.h"
#include "server/labels.h"

#define GENERATION_MODELS_MAX 64
#define GENERATION_NAME_MAX 64

// ---------------------------------------------------------------------------------------------- a bundle in service

/* Ids of a model's series (metrics.h), set before the bundle is published; all 0 = none. */
struct loaded_metrics {
    uint32_t answers[4]; // by enum retrieve_fallback
    uint32_t embed_s, search_s, returned, unknown_values, ef_lowered;
};

struct loaded {
    struct bundle *bundle;
    struct loaded_metrics metric;
    size_t bytes;      // bundle_memory when loaded
    uint64_t load_ms;  // time it took to load and verify
    int64_t loaded_at; // seconds since 1970
    double target_recall; // of the configuration: for requests that give neither ef nor a target; 0 = the bundle's
    struct loaded_pool *pool;
    _Atomic unsigned refs;
};

/* Takes `b` (freed on failure too) and builds n_ws workspaces ahead, one for each thread that may ask at once. Count 1.
 */
struct loaded *loaded_new(struct bundle *b, unsigned n_ws, struct err *err);
struct loaded *loaded_ref(struct loaded *l);
void loaded_unref(struct loaded *l); // NULL is fine; the last one frees the bundle: not on a request's thread

/* A workspace that fits l->bundle, on loan; builds one if the pool is empty (NULL: out of memory). */
struct retrieve_ws *loaded_take_ws(struct loaded *l, struct err *err);
void loaded_put_ws(struct loaded *l, struct retrieve_ws *ws); // NULL is fine

// ------------------------------------------------------------------------------------------------------- generation

struct generation_model {
    char name[GENERATION_NAME_MAX + 1];
    struct loaded *loaded; // NULL: no version of it could be loaded
    char degraded[200];    // why what serves is not what was wanted ("version 8 is broken: ..."); "" if all is well
};

struct generation {
    uint64_t serial; // 1, 2, 3, ...
    size_t n_models;
    struct generation_model *model; // [n_models], in the order of the configuration
    struct experiment_table *experiments;
    struct labels *labels; // NULL: none
    size_t first;          // the model of requests that name none, where no experiment does
    _Atomic unsigned refs;
    struct generation *next_retired;
};

/* Index of the model of that name or label, or -1. */
int generation_find(const struct generation *g, const char *name, size_t n);

/* Names that a request may use with the labels `l` (NULL: the models alone), borrowed, into out[LABELS_MAX + GENERATION_MODELS_MAX]. */
size_t generation_names(const struct generation *g, const struct labels *l, const char **out);

struct generations;

/* A store whose first generation has the named models, none loaded, and no experiment. names [n], distinct. */
struct generations *generations_new(const char *const *names, size_t n, struct err *err);
/* All generations must have been released by then. NULL is fine. */
void generations_free(struct generations *s);

const struct generation *generation_acquire(struct generations *s);         // never NULL
void generation_release(struct generations *s, const struct generation *g); // any thread

/* Each of these publishes a new generation made from the current one. False: nothing has changed, and counts stay the
 * caller's. One model: takes a count of `l` (NULL: none serves); `degraded` NULL = "". ERR_NOT_FOUND if there is no
 * such model. */
bool generation_swap_model(struct generations *s, const char *name, struct loaded *l, const char *degraded,
                           struct err *err);
/* The last thing that may fail, called when the next generation is made and before it is published: the state file is written there, so
 * that an error means that nothing has changed, neither here nor on disk. Other publishers wait for it, readers do not. */
struct generation_gate {
    bool (*pass)(void *ctx, struct err *err);
    void *ctx;
};
/* The experiment table: takes a count of `t`. gate: may be NULL. */
bool generation_swap_experiments(struct generations *s, struct experiment_table *t, const struct generation_gate *gate, struct err *err);
/* The list of models (those of the same name keep what they have loaded) together with the experiment table and the labels: takes counts of
 * `t` and `l` (NULL: none). */
/* `once` (may be NULL): an earlier generation, for those that the current one lacks. */
bool generation_swap_names(struct generations *s, const char *const *names, size_t n, struct experiment_table *t,
                           struct labels *l, const struct generation *once, struct err *err);
/* The labels alone: takes a count of `l`. gate: may be NULL. */
bool generation_swap_labels(struct generations *s, struct labels *l, const struct generation_gate *gate, struct err *err);

/* Wait until every generation but the current one has been freed, at most timeout_ms. For tests and shutdown. */
bool generation_settle(struct generations *s, unsigned timeout_ms);

#endif
