/* app.h - what one running daemon is made of, and what each event loop keeps for itself.
 * Place:   made by main.c; every handler gets it. The serving side (models, experiments, reload) hangs behind `struct service` and the
 *          opaque pointers below, so that listeners, health and drain know nothing of it.
 * Threads: pointers are set before the listeners' handlers may use them (`serving`) and stay until both listeners have stopped. What
 *          changes while running is atomic, or has its own lock in the module it points to. */
#ifndef DUET_SERVER_APP_H
#define DUET_SERVER_APP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "core/base/log.h"
#include "server/http.h"
#include "server/metrics.h"

struct app;
struct admission;
struct api_keys;     // api_keys.h
struct access;       // access.h: access log and request metrics
struct app_live;
struct generations;  // generation.h
struct reloads;      // reload.h
struct service_parts; // service.h
struct serve_state;  // the serving side's part of a loop's state

/* One per event loop and per worker, in http_request.thread_state. Used by that loop's thread alone. */
struct thread_state {
    struct app *app;
    unsigned shard;             // of metrics, for updates made on this thread
    bool is_worker;             // of the pool (workers.h): may take its time
    uint64_t n_requests;        // answered on this loop; samples the access log
    struct serve_state *serve;  // made by service.thread_new; NULL if it has none or on failure
};

struct route;

/* What the serving side provides. main.c calls, in this order: check; start; (thread_new per loop, possibly before start has run);
 * apply at each SIGHUP; stop_accepting at the end of the drain; stop after both listeners have stopped. */
struct service {
    const struct route *routes; // ends at handler = NULL
    /* Everything that can be said about a configuration without loading: --check-config, start and SIGHUP. */
    bool (*check)(const struct config *c, struct err *err);
    /* The files that start would open beside those, as far as they can be looked at without changing any: --check-config. */
    bool (*check_files)(const struct config *c, struct err *err);
    /* Starts loading in threads of its own and returns; the listeners are open already. */
    bool (*start)(struct app *app, struct err *err);
    /* SIGHUP: take models, experiments and whatever may change from `next` (main frees the old one afterwards, so copy), all or nothing. */
    bool (*apply)(struct app *app, const struct config *next, struct err *err);
    /* SIGHUP, whatever the configuration says: open anew the files that a log rotation may have renamed. */
    void (*reopen)(struct app *app);
    /* Is a validated generation serving? Otherwise false; `why` gets one short sentence either way for ?verbose ("loading dat: 40 %"). */
    bool (*ready)(struct app *app, struct buf *why);
    /* Has everything configured been loaded once (or finally failed)? */
    bool (*started)(struct app *app, struct buf *why);
    /* Answers every suspended request and takes no more: called while the listeners still run. */
    void (*stop_accepting)(struct app *app);
    void (*stop)(struct app *app); // joins, frees; also after a failed start
    struct serve_state *(*thread_new)(struct app *app);
    void (*thread_free)(struct app *app, struct serve_state *s);
};
extern const struct service duet_service; // service.c

struct app {
    const struct config *config; // as read at start, never replaced: what SIGHUP may change is copied and kept by its module
    struct log log;
    struct metrics *metrics;
    struct admission *admission;
    struct api_keys *api_keys; // of the data listener
    struct http_tls *tls[2];   // of the data and the admin listener; NULL: plain HTTP
    struct access *access;
    const struct service *service;
    struct generations *generations; // the serving side sets and frees these three
    struct reloads *reloads;
    struct service_parts *parts;
    _Atomic(struct http *) data, admin; // NULL until they listen: handlers of the first may run before the second is there
    int passed_data, passed_admin; // listening sockets that were passed to us (activate.h); below 1: bound here
    char *admin_token;       // NULL: admin is open (loopback only)
    uint64_t start_ns;       // CLOCK_MONOTONIC
    int64_t start_unix_s;
    _Atomic unsigned next_shard;
    unsigned n_shards;       // of the metrics: one per loop and worker, and shard 0
    bool service_started;    // service.start was called: app_fini owes it a stop
    _Atomic bool serving;    // service.start has returned true
    _Atomic bool draining;
    struct app_live *live;   // app.c: the configuration in force
    _Atomic uint64_t drain_delay_ms, drain_timeout_ms;
    int wake_fd;             // eventfd: app_request_drain wakes the main loop with it
};

/* Begin the drain as SIGTERM does (admin `drain`); any thread. */
void app_request_drain(struct app *app);

/* The configuration in force (after SIGHUPs) as YAML; any thread. */
void app_config_dump(struct app *app, struct buf *out);

/* A bearer token equal to the configured one? Compared in constant time. True if none is configured. */
bool app_admin_allowed(const struct app *app, const struct http_request *r);

/* NULL while it is not there. */
struct http *app_listener(struct app *app, bool admin);

/* A state for one more thread that runs handlers; NULL: out of memory. For loops and the pool: n_shards counts both. */
void *app_thread_new(void *app);
void app_thread_free(void *app, void *state);
unsigned app_worker_threads(const struct config *c);

uint64_t app_now_ns(void); // CLOCK_MONOTONIC

// ------------------------------------------------------------------------------------- for main.c and tests

/* What a configuration must keep beside each key's range: addresses are numeric, an admin listener that others can reach
 * has a token, the files of API keys and certificates can be read. */
bool app_check_config(const struct config *c, struct err *err);

/* The other files that a start needs: the token, and the service's. Changes none. */
bool app_check_files(const struct config *c, const struct service *service, struct err *err);

/* Metrics, admission, access log and token from `c`, which the app takes (freed on failure too). */
bool app_init(struct app *app, struct config *c, const struct service *service, struct err *err);
/* Both listeners, bound and open; app_start_service is the next step. */
bool app_listen(struct app *app, struct err *err);
bool app_start_service(struct app *app, struct err *err);
/* SIGHUP: takes `next`. False: nothing has changed. `frozen` gets the keys that differ but need a restart. */
bool app_reconfigure(struct app *app, struct config *next, struct buf *frozen, struct err *err);
/* From here on: not ready, and every answer says Connection: close. */
void app_begin_drain(struct app *app);
/* Nothing in flight, and nothing has been for quiet_ms? */
bool app_is_quiet(struct app *app, uint64_t quiet_ms);
void app_fini(struct app *app); // stops the service and both listeners; zeroed and half-initialised are fine

#endif
