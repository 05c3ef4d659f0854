/* access.h - what each answer leaves behind: metrics by route and status, and lines in the log.
 * Logged are: every request at level debug; one in log.sample at info; those slower than log.slow_ms at warn; answers of 500 at error.
 * A line names the route, never the path or the query: those carry ids. */
#ifndef DUET_SERVER_ACCESS_H
#define DUET_SERVER_ACCESS_H

#include <stdint.h>

#include "core/base/err.h"
#include "server/http.h"

struct app;
struct access;

struct access *access_new(struct app *app, struct err *err);
void access_free(struct access *a); // NULL is fine
void access_tune(struct access *a, uint64_t slow_ms, uint64_t sample);
uint64_t access_last_answer_ns(const struct access *a); // CLOCK_MONOTONIC of the last answer to anything but health and metrics; 0 = none

/* http_params.done of both listeners; ctx is the struct app. */
void access_done(void *ctx, const struct http_request *r, unsigned status, size_t bytes, uint64_t total_ns, uint64_t lag_ns);

#endif
