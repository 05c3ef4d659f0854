/* service.h - the serving side as a whole: what hangs behind app->generations and app->reloads, beside these two: app->parts.
 * Threads: `experiments_lock` orders changes of the experiment table (admin PUT, SIGHUP), so that what the state file says and what
 *          serves end up the same; taken before any other lock of the serving side. */
#ifndef DUET_SERVER_SERVICE_H
#define DUET_SERVER_SERVICE_H

#include <pthread.h>

#include "server/app.h"
#include "server/experiment.h"
#include "server/generation.h"
#include "server/reload.h"
#include "server/state.h"

struct service_parts {
    struct state *state;
    struct workers *workers;
    struct exposure *exposure; // NULL: none is configured
    struct recorder *recorder; // NULL: none is configured
    struct ticker *guardrails;
    struct shadow *shadow;
    struct experiment_gauges *gauges; // guarded by experiments_lock; experiment_report.h
    pthread_mutex_t experiments_lock;
    bool experiments_from_state; // guarded by it: set through the API, so the configuration's do not count
};

#endif
