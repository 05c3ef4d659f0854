/* experiment_report.h - what was seen of the experiments in force, for /metrics and for people.
 * Place:   service.c and handle_admin.c; the counts are tally.h's, which a published table carries.
 * Threads: preparing under `experiments_lock`; the rest from any thread. */
#ifndef DUET_SERVER_EXPERIMENT_REPORT_H
#define DUET_SERVER_EXPERIMENT_REPORT_H

#include "core/base/json.h"
#include "server/app.h"
#include "server/experiment.h"

struct experiment_gauges; // what /metrics asks for by the experiment's name

/* Before a table is published: each variant gets its counter, each experiment its tally - that of the table in force where it goes on
 * unchanged - and its gauges. A table that is in force already is left alone. ERR_NOMEM. */
bool experiment_report_prepare(struct app *app, struct experiment_table *t, struct err *err);
/* After `now` was published in the place of `before`: take the series of what is gone out of /metrics, or alerts would hold for ever. */
void experiment_report_forget(struct app *app, const struct experiment_table *before, const struct experiment_table *now);
void experiment_gauges_free(struct experiment_gauges *g); // after the last /metrics; NULL is fine

/* [{"experiment","srm_p_value","sampled","variants":[{"name","units","requests","error_share","empty_share","p99_ms"}]}] */
json_t *experiment_report_json(const struct experiment_table *t);

#endif
