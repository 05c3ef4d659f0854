/* config.h - duetd's configuration as plain structs: defaults < YAML file < DUET__SECTION__KEY < --set section.key=value.
 * Place:   main.c copies what each module needs into that module's params; nothing below server/ and cli/ reads this.
 * Scalars: come from the key table (keys.h), which also gives ranges, defaults, the sample file and docs/operations.md's table.
 * Lists:   `models`, `labels` and `experiments` come from the file alone.
 * Threads: const once read; a reload reads a second one and compares. */
#ifndef DUET_CONFIG_CONFIG_H
#define DUET_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/mem.h"

struct config_model {
    char *name;       // [A-Za-z0-9._-]{1,64}; one entry of several `versions`: name@version
    char *path;       // <repository>/<model>: the folder of versions
    uint64_t version; // 0 = the newest
    char *index_layout;   // auto | plain | fast | compact; NULL = auto
    double target_recall; // 0.5 to 1; 0 = the bundle's
    int line;         // in the file, for messages
};

/* Another name for a model, that can be moved to another one. */
struct config_label {
    char *name;  // as a model's, '@' allowed
    char *model;
    int line;
};

struct config_variant {
    char *name, *model;
    double weight; // percent of the experiment's traffic
    uint64_t ef;   // 0 = not overridden
    uint64_t k;    // 0 = not overridden
    bool shadow;   // compared, never chosen
    double share;  // percent of the answers that a shadow is compared with; 0 = not given
    char *filter;  // JSON, as a request's; NULL = none
    int line;
};

/* Limits on a variant; 0 = none. */
struct config_guardrails {
    bool given;
    double error_share, empty_share, p99_ms;
    uint64_t window_s, min_requests; // 0 = default
};

struct config_experiment {
    char *name, *salt;
    char *unit; // "user_id"
    struct config_variant *variant;
    size_t n_variants;
    struct config_guardrails guardrails;
    int line;
};

struct config_listener {
    char *address;
    uint64_t port; // 0 = any free one
    uint64_t threads;
    uint64_t max_connections;
};

/* PEM files; "" = none. */
struct config_tls {
    char *cert_file, *key_file, *client_ca_file;
};

/* Where a scalar's value came from. */
enum config_source { CONFIG_DEFAULT, CONFIG_FILE, CONFIG_ENVIRONMENT, CONFIG_FLAG };

struct config_origin {
    enum config_source source;
    int line; // CONFIG_FILE: from 1
};

struct config {
    char *file;                   // its name in messages
    struct config_origin *origin; // [n_keys], of each key of the table
    struct config_listener data, admin;
    char *admin_token_file; // "" = none
    char *data_keys_file;   // "" = none: the data listener is open
    struct config_tls tls, admin_tls; // of the data and the admin listener
    struct {
        uint64_t header_ms, body_ms, idle_ms, deadline_ms;
    } http;
    struct {
        uint64_t body_bytes, header_bytes, json_depth, k, ef, ids, id_bytes, history, batch;
    } limits;
    struct {
        uint64_t threads, queue, batch, exact_items;
    } workers;
    struct {
        uint64_t max_lag_ms, retry_after_s, ef_percent;
    } admission;
    struct {
        char *mode; // private | shared
        uint64_t threads;
        bool check_memory;
        uint64_t poll_seconds; // 0 = never
    } load;
    struct {
        char *path; // "" = none
        uint64_t max_bytes, keep, sample, items;
        char *kafka_brokers, *kafka_topic, *kafka_config; // "" = none
    } exposure;
    struct {
        char *path; // "" = none
        uint64_t threshold_ms, sample, max_bytes, keep;
    } slow_log;
    struct {
        char *path; // "" = none
        uint64_t sample, max_bytes, keep;
    } record;
    struct {
        char *path; // "" = none
        uint64_t requests, max_ms;
    } warm;
    char *state_path; // "" = no state file
    struct {
        char *level, *format;
        uint64_t slow_ms, sample;
    } log;
    struct {
        uint64_t delay_ms, timeout_ms;
    } drain;
    struct config_model *model;
    size_t n_models;
    struct config_label *label;
    size_t n_labels;
    struct config_experiment *experiment;
    size_t n_experiments;
};

/* One `section.key=value`, from --set. */
struct config_override {
    const char *text;
};

/* Read a whole configuration. `path` may be NULL (defaults, environment and overrides only); `environ_` is main's environ, NULL = none.
 * NULL and ERR_ARG naming file and line, variable or flag, what was found, what was wanted, and the nearest known key. */
struct config *config_read(const char *path, char *const *environ_, const struct config_override *set, size_t n_set, struct err *err);
/* The same over text that is in memory; `name` stands in messages. */
struct config *config_parse(const char *text, size_t n, const char *name, char *const *environ_, const struct config_override *set,
                            size_t n_set, struct err *err);
void config_free(struct config *c); // NULL is fine

/* The effective configuration as YAML: what --dump-config and GET /v1/admin/config show. A comment behind each value says where it came
 * from: `default`, file:line, the variable, `--set`. Reading it again gives the same values. */
void config_dump(const struct config *c, struct buf *out);
/* The sample file: every key with its default, range and meaning. deploy/duetd.yaml is this text (a test compares). */
void config_sample(struct buf *out);
/* The same as a Markdown table, which docs/operations.md holds (a test compares). */
void config_table(struct buf *out);

/* Keys that differ between the two and cannot change while running, comma-separated ("data.port, limits.k"), into out; "" if none. */
void config_frozen_changes(const struct config *now, const struct config *next, struct buf *out);
/* Give `next` the values of `now` for those keys, since they are what goes on being in force. */
bool config_keep_frozen(struct config *next, const struct config *now, struct err *err); // false: out of memory

#endif
