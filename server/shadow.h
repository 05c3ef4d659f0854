/* shadow.h - shadow variants: answers that nobody gets, computed beside the real ones and compared with them.
 * What:    a share of the answers of /v1/retrieve and /v1/retrieve:batch is put into a queue, body and items; a thread of nice 19 computes what the shadow
 *          variant would have answered and adds the agreement (agreement.h) to the experiment's tally and to /metrics.
 * Never felt: a request copies its body and its items, and only where the queue has room and nobody holds its lock; else the comparison is
 *          dropped and counted. No memory is allocated once the slots are warm.
 * Threads: shadow_offer from any loop; the rest runs on the thread. */
#ifndef DUET_SERVER_SHADOW_H
#define DUET_SERVER_SHADOW_H

#include "server/serve.h"

#define SHADOW_QUEUE 64          // comparisons that may wait
#define SHADOW_BODY_MAX 65536u   // larger requests are not compared

struct shadow;

struct shadow *shadow_new(struct app *app, struct err *err);
void shadow_free(struct shadow *s); // after the loops have stopped; NULL is fine

/* An answer that was just written: its request (one of a batch's: that part of the body), its choice, and its hits in `ss`. */
void shadow_offer(struct shadow *s, unsigned shard, struct str body, const struct serve_choice *c, struct serve_state *ss, size_t k);

#endif
