/* admission.h - the one place that decides whether a request that computes is taken, or refused because there is too much to do.
 *
 * Overload is seen as lag: the time from a request being readable to its handler's start. Each loop keeps a moving mean of it. While
 * the mean stays below max_lag nothing is refused, and one slow moment does not lift it; above, a request that has itself waited
 * long is refused with a probability that grows with the excess, so the queue settles at less than twice max_lag and what is
 * served is served in time. Refusing is cheap, tells the client when to come back (with jitter, lest they all come back together),
 * and happens far below the limits at which connections would hang. Health and administration are never asked.
 * Before it comes to that, from half of max_lag on, searches take a share of their ef that falls as the mean grows, and has fallen to
 * ef_percent where refusing begins.
 * Threads: admission_admit from any loop, each with its own shard; admission_tune from any thread. */
#ifndef DUET_SERVER_ADMISSION_H
#define DUET_SERVER_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "server/http.h"
#include "server/metrics.h"

struct admission;

struct admission_params {
    unsigned n_shards;      // as of the metrics
    uint64_t max_lag_ms;    // 0 = never refuse for lag
    uint64_t retry_after_s; // the answer says 1 to 2 times this
    uint64_t ef_percent;    // share of ef left where refusing begins; 100 = all
};

struct admission *admission_new(const struct admission_params *p, struct metrics *m, struct err *err);
void admission_free(struct admission *a); // NULL is fine
void admission_tune(struct admission *a, uint64_t max_lag_ms, uint64_t retry_after_s, uint64_t ef_percent);

/* True: go on. False: *resp holds the 503 (or the 504, if the deadline has passed already). `shard`: the calling loop's. */
bool admission_admit(struct admission *a, unsigned shard, const struct http_request *r, struct http_response *resp);

/* Share of its ef, above 0 and at most 1, that a request may search with which has waited so long. After admission_admit. */
float admission_ef_share(const struct admission *a, unsigned shard, uint64_t lag_ns);

/* A 503 for another reason ("pool_full"), with the same Retry-After: for bounded queues elsewhere. Any thread. */
void admission_refuse(struct admission *a, const struct http_request *r, struct http_response *resp, const char *code, const char *detail);

#endif
