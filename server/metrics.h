/* metrics.h - counters, gauges and histograms with fixed label sets, written as Prometheus text.
 * Place:   one registry per daemon. A series is registered once (name + labels) and gives an id; updates use the id.
 * Threads: values live in shards, one per event loop plus one that everybody else shares. An update is one relaxed atomic add in
 *          the caller's shard: lock-free, and never wrong when two threads share a shard, only slower. Registering takes a mutex:
 *          do it at start-up or when a model is loaded, not per request. Reading sums the shards.
 * Labels:  from sets that we choose (routes, codes, model names): never an id, a path or any other text of a client. */
#ifndef DUET_SERVER_METRICS_H
#define DUET_SERVER_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/mem.h"

struct metrics;

typedef uint32_t metric_id;
#define METRIC_NONE 0u // what a full registry gives: updates to it are dropped

/* n_shards >= 1; shard 0 is for threads that have none of their own. */
struct metrics *metrics_new(unsigned n_shards, struct err *err);
void metrics_free(struct metrics *m); // NULL is fine

/* Registering the same name and labels again gives the same id. `name` and `help` are static text; `labels` is the text between the
 * braces (`model="dat",code="200"`), "" or NULL for none, copied; metrics_label escapes a value. Counters end in _total, durations in
 * _seconds. Another kind under the same name is an error of ours and gives METRIC_NONE. */
metric_id metrics_counter(struct metrics *m, const char *name, const char *help, const char *labels);
metric_id metrics_gauge(struct metrics *m, const char *name, const char *help, const char *labels);
metric_id metrics_seconds(struct metrics *m, const char *name, const char *help, const char *labels); // histogram, 50 us .. 10 s
metric_id metrics_sizes(struct metrics *m, const char *name, const char *help, const char *labels);   // histogram, 1 .. 100,000
/* A gauge that is asked when it is written; `read` may run on any thread and must not block. */
metric_id metrics_gauge_fn(struct metrics *m, const char *name, const char *help, const char *labels, double (*read)(void *ctx), void *ctx);
/* The same for a count that only grows and is kept elsewhere. */
metric_id metrics_counter_fn(struct metrics *m, const char *name, const char *help, const char *labels, double (*read)(void *ctx), void *ctx);
/* Take a series out of the text (a model that is gone). Its id must not be used afterwards except by registering it again. */
void metrics_hide(struct metrics *m, metric_id id);

/* `value` into `out` as it may stand between quotes: backslash, quote and newline escaped, cut to fit. Returns out. */
const char *metrics_label(const char *value, char *out, size_t cap);

void metrics_add(struct metrics *m, unsigned shard, metric_id counter, uint64_t n);
void metrics_set(struct metrics *m, metric_id gauge, double value);
void metrics_observe_ns(struct metrics *m, unsigned shard, metric_id seconds, uint64_t ns);
void metrics_observe_size(struct metrics *m, unsigned shard, metric_id sizes, uint64_t n);

uint64_t metrics_value(struct metrics *m, metric_id counter); // sum over shards; for tests and status pages
void metrics_write(struct metrics *m, struct buf *out);       // text format 0.0.4

#endif
