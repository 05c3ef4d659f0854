/* experiment.h - A/B tests: which variant of each experiment a unit (a user) gets, the same on every replica and after
 * every restart.
 * Assignment: bucket = XXH64(salt 0x1F unit, seed 0) mod 10,000, then the variant that owns the bucket. The table
 *          holds explicit bucket ranges; new weights become new ranges from the current ones, moving as few buckets as
 *          possible.
 * Layers:  several experiments run at once, independent by their salts; two that set the same parameter are a
 *          configuration error.
 * Threads: const once built; counted. */
#ifndef DUET_SERVER_EXPERIMENT_H
#define DUET_SERVER_EXPERIMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/strtab.h"

#define EXPERIMENT_BUCKETS 10000
#define EXPERIMENT_MAX 16 // experiments at once
#define EXPERIMENT_VARIANTS_MAX 16
#define EXPERIMENT_NAME_MAX 64 // [A-Za-z0-9._-]{1,64}
#define EXPERIMENT_SALT_MAX 64

#define EXPERIMENT_FILTER_MAX 1023 // bytes

#define EXPERIMENT_NO_OWNER 255

/* Limits on a variant's answers over a window; 0 = no limit. Of an experiment without any, all are 0. */
struct experiment_guardrails {
    double error_share, empty_share; // 0 to 1
    double p99_ms;
    uint32_t window_s, min_requests;
};
#define EXPERIMENT_WINDOW_S 60 // unless it says another

/* A variant that broke one: its traffic went to the control. */
struct experiment_stop {
    char reason[16]; // "error_share", "p99_ms", "empty_share"; "" = it was not stopped
    double value, limit;
    int64_t at_s;     // seconds since 1970
    uint32_t buckets; // what it had
};

struct experiment_variant {
    char name[EXPERIMENT_NAME_MAX + 1];
    uint32_t buckets;                    // weight in hundredths of a percent; a table's sum to 10,000
    char model[EXPERIMENT_NAME_MAX + 1]; // "" = does not set it
    uint32_t ef, k;                      // 0 = does not set it
    char filter[EXPERIMENT_FILTER_MAX + 1]; // JSON, as a request's; "" = does not set it
    bool shadow;    // never chosen (buckets is 0), but compared with what was: shadow.h
    uint32_t share; // of the answers, in hundredths of a percent; shadows only
    struct experiment_stop stopped;      // only while buckets is 0
    uint32_t metric;                     // id of its counter (metrics.h); set before the table is published
};

struct tally; // tally.h

struct experiment {
    char name[EXPERIMENT_NAME_MAX + 1];
    char salt[EXPERIMENT_SALT_MAX + 1]; // default: the name
    size_t n_variants;
    struct experiment_variant variant[EXPERIMENT_VARIANTS_MAX];
    uint8_t owner[EXPERIMENT_BUCKETS]; // variant of each bucket
    struct experiment_guardrails guardrails;
    struct tally *tally;               // the table's count of it; NULL until experiment_table_tally
};

struct experiment_table; // n experiments, counted

/* Copies and checks e[n]: names, weights that sum to 100, owners within the variants, no parameter set twice. Owners
 * that are EXPERIMENT_NO_OWNER everywhere are laid out in order. ERR_ARG says which experiment and why. Count 1. */
struct experiment_table *experiment_table_build(const struct experiment *e, size_t n, struct err *err);

/* A table of no experiments. Count 1. */
struct experiment_table *experiment_table_new(struct err *err);
struct experiment_table *experiment_table_ref(struct experiment_table *t);
void experiment_table_unref(struct experiment_table *t); // NULL is fine

size_t experiment_table_n(const struct experiment_table *t);
const struct experiment *experiment_table_get(const struct experiment_table *t, size_t i);
size_t experiment_control(const struct experiment *e); // index of the variant named "control", else of the first; no shadow
void experiment_give(struct experiment *e, size_t from, size_t to); // all buckets of one variant to another

/* While the table has one owner: before it is published. */
void experiment_table_set_metric(struct experiment_table *t, size_t experiment, size_t variant, uint32_t id);
/* While the table has one owner: each experiment gets a tally (tally.h), that of `before` (may be NULL) where the same experiment is
 * there, else a new one. *fresh: false if the table has its tallies already, and nothing was done. */
bool experiment_table_tally(struct experiment_table *t, const struct experiment_table *before, bool *fresh, struct err *err);
/* While the table has one owner: a variant that `before` has stopped stays so, its buckets the control's, unless its definition (weight
 * among it) or the experiment's guardrails are others now. */
void experiment_table_keep_stopped(struct experiment_table *t, const struct experiment_table *before);
bool experiment_table_has_shadow(const struct experiment_table *t);
/* Index or -1. */
int experiment_table_find(const struct experiment_table *t, const char *name, size_t n);

/* From the configuration's experiments, ranges laid out in order. Messages name file line and experiment. Count 1. */
struct experiment_table *experiment_table_from_config(const struct config_experiment *e, size_t n, struct err *err);

/* JSON form
 * {"experiments":[{"name","salt","unit","variants":[{"name","weight","model","ef","k","ranges":[[first,last],..]}]}]}.
 * `ranges` (inclusive) are optional on the way in: where a variant's are missing, all are derived from those of the
 * same experiment (name and salt) in `current` (may be NULL), moving as few buckets as possible. Count 1. */
struct experiment_table *experiment_table_from_json(const json_t *o, const struct experiment_table *current,
                                                    struct err *err);
json_t *experiment_table_to_json(const struct experiment_table *t, struct err *err);

/* ERR_ARG naming the first model that is not among names[n]. */
bool experiment_table_check_models(const struct experiment_table *t, const char *const *names, size_t n,
                                   struct err *err);

#define EXPERIMENT_UNIT_MAX 256                                           // bytes
uint32_t experiment_bucket(const char *salt, const char *unit, size_t n); // 0 .. 9,999; n <= EXPERIMENT_UNIT_MAX

/* What a unit gets from all experiments together. */
struct experiment_assignment {
    size_t n;                        // = experiment_table_n
    uint8_t variant[EXPERIMENT_MAX]; // EXPERIMENT_NO_OWNER: none, for there is no unit
    uint16_t bucket[EXPERIMENT_MAX];
    bool overridden[EXPERIMENT_MAX]; // by the header
    const char *model;               // borrowed from the table; NULL = none sets it
    uint32_t ef, k;                  // 0 = none sets it
    struct str filter[EXPERIMENT_MAX]; // [n_filters] of all variants, borrowed too: all must hold
    size_t n_filters;
};

/* Variants of unit[n] (n = 0: no unit is known, so no experiment applies). `override`: text of X-Experiment-Override,
 * "exp=variant,exp2=variant2", or NULL. ERR_ARG for a malformed one or an unknown experiment or variant in it.
 * Allocates nothing. */
bool experiment_assign(const struct experiment_table *t, const char *unit, size_t n, const char *override,
                       struct experiment_assignment *a, struct err *err);

/* New owners from old ones: variant v of n is to own want[v] buckets (sum 10,000). A variant that has too many gives up
 * its highest buckets; these and the unowned are handed, lowest first, to those that lack some, in order. No way moves
 * fewer. */
void experiment_rebalance(uint8_t owner[EXPERIMENT_BUCKETS], const uint32_t *want, size_t n);

#endif
