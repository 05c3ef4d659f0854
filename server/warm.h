/* warm.h - recorded requests through a version that has just been loaded, before it gets traffic.
 * What:    those of the bundle itself, then those of warm.path: of each the newest warm.requests lines that this model can be asked
 *          (record.h's format, or bare bodies), for at most warm.max_ms in all, by the code that answers requests, on the loader's thread and
 *          at its low priority. They count in no metric, log or experiment.
 * Failure: none of it fails a load: the file may be missing or be of another time. The event `warm_up` says what was run and what not;
 *          bundle_warm has touched the pages and run the probes before.
 * Place:   reload_run.c calls it through reload_params.warm, which service.c sets. */
#ifndef DUET_SERVER_WARM_H
#define DUET_SERVER_WARM_H

#include "server/generation.h"

/* reload_params.warm; app is the struct app. */
void warm_up(void *app, const char *model, struct loaded *l);

#endif
