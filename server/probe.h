/* probe.h - `duetd --probe livez`: ask a running daemon's admin listener, for health checks where there is no curl. */
#ifndef DUET_SERVER_PROBE_H
#define DUET_SERVER_PROBE_H

#include "config/config.h"

/* GET /<what> on the configured admin listener; an address that stands for all of them is asked on loopback. 200 is
 * true; `err` has the status or why nobody answered. 3 s at most. */
bool probe_ask(const struct config *c, const char *what, struct err *err);

#endif
