/* handle_health.h - GET /livez /readyz /startupz and /metrics.
 *   livez     do the event loops turn? 503 asks for a restart, so it depends on nothing else
 *   readyz    send traffic here? Not while draining, nor before a validated generation serves; a reload, or a failed one, changes nothing
 *   startupz  has everything configured been loaded once?
 * Each answers "ok" or one line that says why not; with ?verbose a line for each check. */
#ifndef DUET_SERVER_HANDLE_HEALTH_H
#define DUET_SERVER_HANDLE_HEALTH_H

#include "server/route.h"

extern const struct route health_routes[];

#endif
