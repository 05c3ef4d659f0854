/* workers.h - a few threads with a bounded queue, for requests that would hold up an event loop: scans, explanations, large batches.
 * Means:   a handler on a loop hands its request over and the request is suspended; a worker runs a handler for it, whose answer the loop
 *          sends. A full queue is 503 `queue_full` with Retry-After. What has waited past its deadline is 504, and nothing is computed.
 * Threads: workers_submit from loops; each worker has a thread_state of its own, with a shard of metrics and exposures. */
#ifndef DUET_SERVER_WORKERS_H
#define DUET_SERVER_WORKERS_H

#include "server/app.h"
#include "server/route.h"

struct workers;

/* app_worker_threads of them. */
struct workers *workers_new(struct app *app, size_t queue, struct err *err);
/* Answers what waits with 503 `draining`, and all that comes from now on; what is being worked on is finished. */
void workers_stop_accepting(struct workers *w);
void workers_free(struct workers *w); // after the listeners have stopped: joins. NULL is fine

/* False: suspended, `run` will be called on a worker, with *r as a copy that has the worker's thread_state, and without a route_match.
 * True: *resp has the refusal. To be returned by the handler. */
bool workers_submit(struct workers *w, route_handler run, struct http_request *r, struct http_response *resp);

#endif
