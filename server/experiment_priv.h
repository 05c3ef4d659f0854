/* experiment_priv.h - what experiment.c, experiment_io.c and experiment_guard.c share. */
#ifndef DUET_SERVER_EXPERIMENT_PRIV_H
#define DUET_SERVER_EXPERIMENT_PRIV_H

#include "server/experiment.h"

bool experiment_known_key(const char *key, const char *const *known, size_t n, struct err *err); // ERR_ARG naming the nearest
bool experiment_json_uint(const json_t *v, const char *key, uint64_t max, uint32_t *out, struct err *err); // 1 .. max
bool experiment_buckets(double weight, uint32_t *out, struct err *err); // a weight in percent, two decimals

/* Checks, and fills in what was not given. */
bool experiment_set_guardrails(struct experiment_guardrails *g, struct err *err);
bool experiment_guardrails_from_json(json_t *o, struct experiment_guardrails *g, struct err *err);
json_t *experiment_guardrails_to_json(const struct experiment_guardrails *g);
bool experiment_stop_from_json(json_t *o, struct experiment_stop *s, struct err *err);
json_t *experiment_stop_to_json(const struct experiment_stop *s);

#endif
