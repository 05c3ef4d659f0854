/* service.c - what this daemon serves: routes, and the start, change and end of models and experiments. */
#include "server/service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/experiment_report.h"
#include "server/exposure.h"
#include "server/exposure_file.h"
#include "server/guardrail.h"
#include "server/record.h"
#include "server/route.h"
#include "server/serve.h"
#include "server/shadow.h"
#include "server/warm.h"
#include "server/workers.h"

static const struct route routes[] = {
    {.method = HTTP_POST,
     .pattern = "/v1/retrieve",
     .on = ROUTE_DATA,
     .name = "retrieve",
     .sheds = true,
     .handler = handle_retrieve},
    {.method = HTTP_POST,
     .pattern = "/v1/retrieve:batch",
     .on = ROUTE_DATA,
     .name = "retrieve_batch",
     .sheds = true,
     .handler = handle_batch},
    {.method = HTTP_POST,
     .pattern = "/v1/users:embed",
     .on = ROUTE_DATA,
     .name = "users_embed",
     .sheds = true,
     .handler = handle_embed},
    {.method = HTTP_POST,
     .pattern = "/v1/search",
     .on = ROUTE_DATA,
     .name = "search",
     .sheds = true,
     .handler = handle_search},
    {.method = HTTP_POST,
     .pattern = "/v1/score",
     .on = ROUTE_DATA,
     .name = "score",
     .sheds = true,
     .handler = handle_score},
    {.method = HTTP_POST,
     .pattern = "/v1/explain",
     .on = ROUTE_DATA,
     .name = "explain",
     .sheds = true,
     .handler = handle_explain},
    {.method = HTTP_GET,
     .pattern = "/v1/items/{id}/similar",
     .on = ROUTE_DATA,
     .name = "similar",
     .sheds = true,
     .handler = handle_similar},
    {.method = HTTP_GET, .pattern = "/v1/models", .on = ROUTE_BOTH, .name = "models", .handler = handle_models},
    {.method = HTTP_GET, .pattern = "/v1/models/{m}", .on = ROUTE_BOTH, .name = "model", .handler = handle_model},
    {.method = HTTP_GET,
     .pattern = "/v1/models/{m}/ready",
     .on = ROUTE_BOTH,
     .name = "model_ready",
     .handler = handle_model_ready},
    {.method = HTTP_GET,
     .pattern = "/v1/experiments:assign",
     .on = ROUTE_BOTH,
     .name = "experiments_assign",
     .handler = handle_assign},
    {.method = HTTP_GET,
     .pattern = "/v1/admin/models",
     .on = ROUTE_ADMIN,
     .name = "admin_models",
     .needs_token = true,
     .handler = handle_admin_models},
    {.method = HTTP_POST,
     .pattern = "/v1/admin/models/{m}:reload",
     .on = ROUTE_ADMIN,
     .name = "admin_reload",
     .needs_token = true,
     .handler = handle_admin_reload},
    {.method = HTTP_POST,
     .pattern = "/v1/admin/models/{m}:rollback",
     .on = ROUTE_ADMIN,
     .name = "admin_rollback",
     .needs_token = true,
     .handler = handle_admin_rollback},
    {.method = HTTP_POST,
     .pattern = "/v1/admin/models/{m}:verify",
     .on = ROUTE_ADMIN,
     .name = "admin_verify",
     .needs_token = true,
     .handler = handle_admin_verify},
    {.method = HTTP_GET,
     .pattern = "/v1/admin/operations",
     .on = ROUTE_ADMIN,
     .name = "admin_operations",
     .needs_token = true,
     .handler = handle_admin_operations},
    {.method = HTTP_GET,
     .pattern = "/v1/admin/operations/{id}",
     .on = ROUTE_ADMIN,
     .name = "admin_operation",
     .needs_token = true,
     .handler = handle_admin_operation},
    {.method = HTTP_GET,
     .pattern = "/v1/admin/labels",
     .on = ROUTE_ADMIN,
     .name = "admin_labels",
     .needs_token = true,
     .handler = handle_admin_labels_get},
    {.method = HTTP_PUT,
     .pattern = "/v1/admin/labels",
     .on = ROUTE_ADMIN,
     .name = "admin_labels",
     .needs_token = true,
     .handler = handle_admin_labels_put},
    {.method = HTTP_GET,
     .pattern = "/v1/admin/experiments",
     .on = ROUTE_ADMIN,
     .name = "admin_experiments",
     .needs_token = true,
     .handler = handle_admin_experiments_get},
    {.method = HTTP_PUT,
     .pattern = "/v1/admin/experiments",
     .on = ROUTE_ADMIN,
     .name = "admin_experiments",
     .needs_token = true,
     .handler = handle_admin_experiments_put},
    {.method = HTTP_GET,
     .pattern = "/v1/admin/config",
     .on = ROUTE_ADMIN,
     .name = "admin_config",
     .needs_token = true,
     .while_starting = true,
     .handler = handle_admin_config},
    {.method = HTTP_PUT,
     .pattern = "/v1/admin/log-level",
     .on = ROUTE_ADMIN,
     .name = "admin_log_level",
     .needs_token = true,
     .while_starting = true,
     .handler = handle_admin_log_level},
    {.method = HTTP_POST,
     .pattern = "/v1/admin/drain",
     .on = ROUTE_ADMIN,
     .name = "admin_drain",
     .needs_token = true,
     .while_starting = true,
     .handler = handle_admin_drain},
    {.handler = NULL},
};

// ------------------------------------------------------------------------------------------------------- experiments

static size_t model_names(const struct config *c, const char **names)
{
    size_t n = c->n_models < GENERATION_MODELS_MAX ? c->n_models : GENERATION_MODELS_MAX;
    for (size_t i = 0; i < n; i++)
        names[i] = c->model[i].name;
    return n;
}

static size_t model_list(const struct config *c, struct reload_model *list)
{
    size_t n = c->n_models < GENERATION_MODELS_MAX ? c->n_models : GENERATION_MODELS_MAX;
    for (size_t i = 0; i < n; i++)
        list[i] = (struct reload_model){c->model[i].name, c->model[i].path, c->model[i].version,
                                        c->model[i].index_layout, c->model[i].target_recall};
    return n;
}

/* The labels in force for a configuration: those set through the API, if there are any. Count 1. */
static struct labels *labels_for(struct state *state, const struct config *c, struct err *err)
{
    const char *names[GENERATION_MODELS_MAX];
    size_t n = model_names(c, names);
    struct labels *set = state ? state_labels(state) : NULL, *l = set ? set : labels_from_config(c->label, c->n_labels, err);
    struct labels *all = l && labels_check(l, names, n, err) ? labels_complete(l, names, n, err) : NULL;
    if (!all && set)
        err_prefix(err, "the state file's labels (state.path) do not fit the configured models");
    labels_unref(l);
    return all;
}

/* The table in force for a configuration: the one set through the API, if there is one. Count 1. */
static struct experiment_table *table_for(struct state *state, const struct config *c, const struct labels *labels, bool *from_state,
                                          struct err *err)
{
    const char *names[GENERATION_MODELS_MAX], *all[LABELS_MAX + GENERATION_MODELS_MAX];
    size_t n = labels_and_models(labels, names, model_names(c, names), all);
    struct experiment_table *t = state ? state_experiments(state) : NULL;
    *from_state = t != NULL;
    if (!t && !(t = experiment_table_from_config(c->experiment, c->n_experiments, err)))
        return NULL;
    if (experiment_table_check_models(t, all, n, err))
        return t;
    if (*from_state)
        err_prefix(err, "the state file's experiments (state.path) do not fit the configured models");
    experiment_table_unref(t);
    return NULL;
}

/* Somebody who edits the configuration's experiments must learn why nothing changes. */
static void tell_which_table(struct app *app, const struct config *c, bool from_state)
{
    if (from_state && c->n_experiments > 0)
        log_event(&app->log, LOG_WARN, "experiments_of_state_file_hold", LOG_STR("state_path", c->state_path),
                  LOG_STR("note", "set through the API; the configuration's are not used"));
}

// ------------------------------------------------------------------------------------------------------- the service

static struct exposure_kafka_params kafka_params(const struct config *c)
{
    return (struct exposure_kafka_params){c->exposure.kafka_brokers, c->exposure.kafka_topic, c->exposure.kafka_config};
}

/* Each log rotates a file of its own. */
static bool check_paths(const struct config *c, struct err *err)
{
    const char *const key[] = {"exposure.path", "slow_log.path", "record.path"};
    const char *const path[] = {c->exposure.path, c->slow_log.path, c->record.path};
    for (int i = 0; i < 3; i++)
        for (int j = i + 1; j < 3; j++)
            if (path[i][0] && strcmp(path[i], path[j]) == 0)
                return err_set(err, ERR_ARG, "%s and %s are both %s, want a file each", key[i], key[j], path[i]);
    return true;
}

static bool check(const struct config *c, struct err *err)
{
    bool from_state;
    struct exposure_kafka_params kafka = kafka_params(c);
    if (!exposure_kafka_check(&kafka, err) || !check_paths(c, err))
        return false;
    if (c->n_models > GENERATION_MODELS_MAX)
        return err_set(err, ERR_LIMIT, "%zu models are configured, at most %d can be served", c->n_models,
                       GENERATION_MODELS_MAX);
    struct labels *l = labels_for(NULL, c, err);
    struct experiment_table *t = l ? table_for(NULL, c, l, &from_state, err) : NULL;
    experiment_table_unref(t);
    labels_unref(l);
    return t != NULL;
}

/* What start reads of the state file, against the configuration. */
static bool check_state(const struct config *c, struct err *err)
{
    bool from_state;
    struct state *state = state_open(c->state_path, err);
    struct labels *l = state ? labels_for(state, c, err) : NULL;
    struct experiment_table *t = l ? table_for(state, c, l, &from_state, err) : NULL;
    bool ok = t != NULL;
    experiment_table_unref(t);
    labels_unref(l);
    state_free(state);
    return ok;
}

static bool check_files(const struct config *c, struct err *err)
{
    const char *const key[] = {"exposure.path", "slow_log.path", "record.path"};
    const char *const path[] = {c->exposure.path, c->slow_log.path, c->record.path};
    for (int i = 0; i < 3; i++)
        if (path[i][0] && !exposure_file_check(path[i], err))
            return err_prefix(err, "%s", key[i]);
    return check_state(c, err);
}

static unsigned loops(const struct config *c)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return c->data.threads ? (unsigned)c->data.threads : cores > 0 ? (unsigned)cores : 1;
}

/* Half of the cores: more would be done sooner, and felt by requests through the caches they share. */
static unsigned load_threads(const struct config *c)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return c->load.threads ? (unsigned)c->load.threads : cores > 1 ? (unsigned)cores / 2 : 1;
}

static double read_revision(void *ctx)
{
    return (double)state_revision(ctx);
}

static bool start_loading(struct app *app, struct err *err)
{
    const struct config *c = app->config;
    struct reload_model list[GENERATION_MODELS_MAX];
    struct reload_params p = {
        .generations = app->generations,
        .state = app->parts->state,
        .log = &app->log,
        .metrics = app->metrics,
        .mode = strcmp(c->load.mode, "shared") == 0 ? BUNDLE_SHARED : BUNDLE_PRIVATE,
        .check_memory = c->load.check_memory,
        .poll_ms = (unsigned)c->load.poll_seconds * 1000,
        .warm = warm_up,
        .warm_ctx = app,
        .load_threads = load_threads(c),
        .workspaces = loops(c) + app_worker_threads(c),
    };
    app->reloads = reloads_new(&p, list, model_list(c, list), err);
    return app->reloads && reloads_start(app->reloads, err);
}

/* The exposure log, where one is configured. */
static bool open_exposure(struct app *app, struct err *err)
{
    const struct config *c = app->config;
    struct exposure_params p = {.path = c->exposure.path,
                                .max_bytes = c->exposure.max_bytes,
                                .keep = (unsigned)c->exposure.keep,
                                .kafka = kafka_params(c),
                                .n_rings = app->n_shards,
                                .sample = c->exposure.sample,
                                .metrics = app->metrics,
                                .log = &app->log};
    if (!p.path[0] && !p.kafka.brokers[0])
        return true;
    app->parts->exposure = exposure_new(&p, err);
    return app->parts->exposure != NULL;
}

static struct record_rates record_rates(const struct config *c)
{
    return (struct record_rates){c->slow_log.threshold_ms, c->slow_log.sample, c->record.sample};
}

/* The files of recorded requests, where one is configured. */
static bool open_records(struct app *app, struct err *err)
{
    const struct config *c = app->config;
    struct record_params p = {.slow = {c->slow_log.path, c->slow_log.max_bytes, (unsigned)c->slow_log.keep},
                              .all = {c->record.path, c->record.max_bytes, (unsigned)c->record.keep},
                              .rates = record_rates(c),
                              .n_rings = app->n_shards,
                              .metrics = app->metrics,
                              .log = &app->log};
    if (!p.slow.path[0] && !p.all.path[0])
        return true;
    return (app->parts->recorder = recorder_new(&p, err)) != NULL;
}

static bool start(struct app *app, struct err *err)
{
    const struct config *c = app->config;
    const char *names[GENERATION_MODELS_MAX];
    if (!(app->parts = mem_array(1, sizeof(*app->parts), err)))
        return false;
    pthread_mutex_init(&app->parts->experiments_lock, NULL);
    if (!(app->parts->state = state_open(c->state_path, err)) || !open_exposure(app, err) || !open_records(app, err) ||
        !(app->parts->workers = workers_new(app, (size_t)c->workers.queue, err)))
        return false;
    struct labels *l = labels_for(app->parts->state, c, err);
    struct experiment_table *t = l ? table_for(app->parts->state, c, l, &app->parts->experiments_from_state, err) : NULL;
    if (!t) {
        labels_unref(l);
        return false;
    }
    tell_which_table(app, c, app->parts->experiments_from_state);
    size_t n = model_names(c, names);
    if (!experiment_report_prepare(app, t, err) || !(app->generations = generations_new(names, n, err)) ||
        !generation_swap_names(app->generations, names, n, t, l, NULL, err)) {
        experiment_table_unref(t);
        labels_unref(l);
        return false;
    }
    metrics_gauge_fn(app->metrics, "duet_state_revision", "Revision of the state file.", NULL, read_revision,
                     app->parts->state);
    return (app->parts->shadow = shadow_new(app, err)) != NULL && start_loading(app, err) &&
           (app->parts->guardrails = guardrail_watch(app, err)) != NULL;
}

static bool apply_models(struct app *app, const struct config *next, struct experiment_table *t, struct labels *l, struct err *err)
{
    const char *names[GENERATION_MODELS_MAX], *old[GENERATION_MODELS_MAX];
    struct reload_model list[GENERATION_MODELS_MAX];
    const struct generation *g = generation_acquire(app->generations);
    for (size_t i = 0; i < g->n_models; i++)
        old[i] = g->model[i].name;
    struct experiment_table *before = experiment_table_ref(g->experiments);
    struct labels *labels_before = labels_ref(g->labels);
    bool ok = generation_swap_names(app->generations, names, model_names(next, names), t, l, NULL, err);
    if (ok && !reloads_set_models(app->reloads, list, model_list(next, list), err)) {
        ok = false; // back to what was; the counts of `t` and `l` went with the generation that is gone again
        experiment_table_ref(t);
        labels_ref(l);
        if (generation_swap_names(app->generations, old, g->n_models, before, labels_before, g, err)) {
            before = NULL;
            labels_before = NULL;
        }
    }
    labels_unref(labels_before);
    if (ok)
        experiment_report_forget(app, before, t);
    experiment_table_unref(before);
    generation_release(app->generations, g);
    return ok;
}

static bool apply(struct app *app, const struct config *next, struct err *err)
{
    bool from_state = false;
    pthread_mutex_lock(&app->parts->experiments_lock);
    struct labels *l = labels_for(app->parts->state, next, err);
    struct experiment_table *t = l ? table_for(app->parts->state, next, l, &from_state, err) : NULL;
    bool ok = t != NULL;
    if (!ok) {
        labels_unref(l);
    } else {
        const struct generation *g = generation_acquire(app->generations);
        experiment_table_keep_stopped(t, g->experiments);
        generation_release(app->generations, g);
        ok = experiment_report_prepare(app, t, err) && apply_models(app, next, t, l, err);
        if (ok) {
            const struct record_rates rates = record_rates(next);
            exposure_tune(app->parts->exposure, next->exposure.sample);
            record_tune(app->parts->recorder, &rates);
            tell_which_table(app, next, from_state);
        } else {
            experiment_table_unref(t);
            labels_unref(l);
        }
    }
    pthread_mutex_unlock(&app->parts->experiments_lock);
    return ok;
}

static void reopen(struct app *app)
{
    exposure_reopen(app->parts->exposure);
    record_reopen(app->parts->recorder);
}

static bool ready(struct app *app, struct buf *why)
{
    return reloads_ready(app->reloads, why);
}

static bool started(struct app *app, struct buf *why)
{
    return reloads_started(app->reloads, why);
}

static void stop_accepting(struct app *app)
{
    if (app->parts && app->parts->workers)
        workers_stop_accepting(app->parts->workers);
    if (app->reloads)
        reloads_stop_accepting(app->reloads);
}

static void stop(struct app *app)
{
    if (app->parts) {
        workers_free(app->parts->workers); // before what they use
        shadow_free(app->parts->shadow);
        ticker_free(app->parts->guardrails);
    }
    reloads_free(app->reloads);
    generations_free(app->generations);
    app->reloads = NULL;
    app->generations = NULL;
    if (!app->parts)
        return;
    exposure_free(app->parts->exposure);
    recorder_free(app->parts->recorder);
    experiment_gauges_free(app->parts->gauges);
    state_free(app->parts->state);
    pthread_mutex_destroy(&app->parts->experiments_lock);
    free(app->parts);
    app->parts = NULL;
}

const struct service duet_service = {
    .routes = routes,
    .check = check,
    .check_files = check_files,
    .start = start,
    .apply = apply,
    .reopen = reopen,
    .ready = ready,
    .started = started,
    .stop_accepting = stop_accepting,
    .stop = stop,
    .thread_new = serve_state_new,
    .thread_free = serve_state_free,
};
