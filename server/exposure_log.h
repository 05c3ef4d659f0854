/* exposure_log.h - what an answer to /v1/retrieve exposed its user to: counted, and written down.
 * Place:   between handle_retrieve.c and exposure.c. Where no exposure log is configured the lines go to the daemon's own log.
 * Threads: on a loop's thread; `shard` is its own. */
#ifndef DUET_SERVER_EXPOSURE_LOG_H
#define DUET_SERVER_EXPOSURE_LOG_H

#include "server/serve.h"

/* One exposure for each experiment that chose a variant for the answer in `s`. Allocates nothing once `s` is warm. */
void exposure_log(struct app *app, unsigned shard, const struct http_request *r, const struct serve_choice *c,
                  struct serve_state *s);

#endif
