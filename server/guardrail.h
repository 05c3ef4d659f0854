/* guardrail.h - the thread that watches variants and takes traffic from those that break a limit of their experiment.
 * What:    four times a second, each variant with traffic but the control: share of errors, p99, share of empty answers, over the
 *          experiment's window, once min_requests are in it. One that breaks a limit loses its buckets to the control (the variant of that
 *          name, else the first), at once and for good: a PUT of the table gives them back.
 * Place:   beside service.c. The table that results is published as a PUT's is, and written to the state file where there is one.
 * Threads: one of its own; takes `experiments_lock`. */
#ifndef DUET_SERVER_GUARDRAIL_H
#define DUET_SERVER_GUARDRAIL_H

#include "server/app.h"
#include "server/ticker.h"

struct ticker *guardrail_watch(struct app *app, struct err *err); // ticker_free ends it

#endif
