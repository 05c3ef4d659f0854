/* effort.h - how far a search goes while requests wait: a share of its ef, as admission.c says, so that a loop near its limit gets by with
 * less before it refuses anything.
 * Place:   between the resolved query and retrieve_topk, for serve_topk.c; explanations and shadows are not for traffic and keep theirs.
 * Threads: none of its own, the bundle is const. */
#ifndef DUET_SERVER_EFFORT_H
#define DUET_SERVER_EFFORT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/bundle.h"
#include "core/retrieve.h"

/* The ef that retrieve_topk would walk with, whatever says so; 0 = it would scan all items. */
size_t effort_full(const struct bundle *b, const struct retrieve_query *rq);

/* With a share below 1 (0 is none): rq with that share of its full ef, but for k, into *less, which borrows what rq does. Returns the full
 * ef, or 0 where there is nothing to save, and *less is not set. */
size_t effort_lower(const struct bundle *b, const struct retrieve_query *rq, float share, struct retrieve_query *less);

#endif
