/* record.h - whole requests to /v1/retrieve, /v1/retrieve:batch and /v1/search, written down so that they can be made again (docs/operations.md, "Recorded requests").
 * What:    two files of JSON lines in one format: the slow log has requests that took longer than a threshold (or one in so many of
 *          them), the other one in so many of those that were answered. `duet replay` and warm-up (warm.h) read both.
 * Place:   the handlers of those paths offer each request that reached a model, a batch as one; lines go the way of the exposure log (exposure.h): a ring a loop,
 *          a thread that writes, nothing waits. The user ids and features of a body are in it: none is written unless it is configured.
 * Threads: record_request on a loop's or worker's thread, with its own shard; record_tune and record_reopen from any. */
#ifndef DUET_SERVER_RECORD_H
#define DUET_SERVER_RECORD_H

#include "server/serve.h"

#define RECORD_BODY_MAX (1u << 20) // bytes; the line of a longer body goes without it

struct record_file {
    const char *path; // "" = none
    uint64_t max_bytes;
    unsigned keep;
};

struct record_rates {
    uint64_t slow_ms, slow_sample; // slower than this; one in so many of them
    uint64_t sample;               // one in so many answers
};

struct record_params {
    struct record_file slow, all;
    struct record_rates rates;
    unsigned n_rings; // one per shard of the metrics
    struct metrics *metrics;
    struct log *log;
};

struct recorder;
/* A file at least is given. ERR_IO naming the key where one cannot be opened. */
struct recorder *recorder_new(const struct record_params *p, struct err *err);
void recorder_free(struct recorder *rec); // after the loops have stopped; NULL is fine
void record_tune(struct recorder *rec, const struct record_rates *rates); // NULL is fine
void record_reopen(struct recorder *rec);                                 // at the next lines; NULL is fine

/* After *resp has been written, before serve_choice_done. Allocates nothing once `s` is warm; rec NULL does nothing. */
void record_request(struct recorder *rec, unsigned shard, const struct http_request *r, const struct serve_choice *c,
                    struct serve_state *s, const struct http_response *resp);
/* The same for a batch of n requests, which names no model: `sum` has the times of all. */
void record_batch(struct recorder *rec, unsigned shard, const struct http_request *r, size_t n, const struct retrieve_result *sum,
                  struct serve_state *s, const struct http_response *resp);

#endif
