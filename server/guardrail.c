#include "server/guardrail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/experiment_report.h"
#include "server/outcome.h"
#include "server/service.h"
#include "server/tally.h"

#define TICK_MS 250

/* A limit that a variant has broken. */
struct broken {
    size_t experiment, variant;
    const char *reason; // NULL: none is
    double value, limit;
};

// ------------------------------------------------------------------------------------------------------- looking

static void look_at(const struct experiment_guardrails *l, const struct outcome_window *w, struct broken *b)
{
    double n = (double)w->n;
    if (w->n < l->min_requests || w->n == 0)
        return;
    if (l->error_share > 0 && (double)w->errors / n > l->error_share)
        *b = (struct broken){b->experiment, b->variant, "error_share", (double)w->errors / n, l->error_share};
    else if (l->p99_ms > 0 && w->p99_ms > l->p99_ms)
        *b = (struct broken){b->experiment, b->variant, "p99_ms", w->p99_ms, l->p99_ms};
    else if (l->empty_share > 0 && (double)w->empty / n > l->empty_share)
        *b = (struct broken){b->experiment, b->variant, "empty_share", (double)w->empty / n, l->empty_share};
}

/* The first broken limit of a table, if there is one. */
static struct broken look(const struct experiment_table *t, uint64_t now_ns)
{
    struct broken b = {0};
    for (size_t i = 0; i < experiment_table_n(t) && !b.reason; i++) {
        const struct experiment *e = experiment_table_get(t, i);
        struct outcomes *o = tally_outcomes(e->tally);
        size_t control = experiment_control(e);
        for (size_t v = 0; v < e->n_variants && !b.reason && e->guardrails.window_s; v++) {
            struct outcome_window w;
            b.experiment = i;
            b.variant = v;
            if (v == control || e->variant[v].buckets == 0)
                continue;
            outcome_window(o, v, &w);
            look_at(&e->guardrails, &w, &b);
        }
        outcome_turn(o, now_ns, (uint64_t)(e->guardrails.window_s ? e->guardrails.window_s : EXPERIMENT_WINDOW_S) * 1000000000u);
    }
    return b;
}

// ------------------------------------------------------------------------------------------------------- stopping

static struct experiment_table *without(const struct experiment_table *t, const struct broken *b, struct err *err)
{
    size_t n = experiment_table_n(t);
    struct experiment *e = mem_array(n, sizeof(*e), err);
    if (!e)
        return NULL;
    for (size_t i = 0; i < n; i++)
        e[i] = *experiment_table_get(t, i);
    struct experiment *x = &e[b->experiment];
    struct experiment_variant *v = &x->variant[b->variant];
    v->stopped = (struct experiment_stop){.value = b->value, .limit = b->limit, .at_s = (int64_t)time(NULL), .buckets = v->buckets};
    snprintf(v->stopped.reason, sizeof(v->stopped.reason), "%s", b->reason);
    experiment_give(x, b->variant, experiment_control(x));
    struct experiment_table *next = experiment_table_build(e, n, err);
    free(e);
    return next;
}

/* With experiments_lock. A state file that cannot be written does not save the variant: it is only told. */
static bool publish(struct app *app, struct experiment_table *next, bool *persisted, struct err *err)
{
    struct err why = {0};
    if (!experiment_report_prepare(app, next, err))
        return false;
    *persisted = state_persistent(app->parts->state) &&
                 state_set_experiments(app->parts->state, next, STATE_ANY_REVISION, NULL, &why);
    if (why.msg[0])
        log_event(&app->log, LOG_ERROR, "guardrail_not_persisted", LOG_STR("error", why.msg));
    if (!generation_swap_experiments(app->generations, next, NULL, err))
        return false;
    app->parts->experiments_from_state |= *persisted;
    return true;
}

static void tell(struct app *app, const struct experiment *e, const struct broken *b, bool ok, bool persisted, const struct err *err)
{
    char labels[2 * EXPERIMENT_NAME_MAX + 80];
    const char *variant = e->variant[b->variant].name;
    log_event(&app->log, LOG_ERROR, ok ? "guardrail_broken" : "guardrail_failed", LOG_STR("experiment", e->name),
              LOG_STR("variant", variant), LOG_STR("reason", b->reason), LOG_NUM("value", b->value), LOG_NUM("limit", b->limit),
              LOG_STR("traffic_to", e->variant[experiment_control(e)].name), LOG_BOOL("persisted", persisted),
              LOG_STR("error", err->msg));
    if (!ok)
        return;
    snprintf(labels, sizeof(labels), "experiment=\"%s\",variant=\"%s\",reason=\"%s\"", e->name, variant, b->reason);
    metrics_add(app->metrics, 0, metrics_counter(app->metrics, "duet_experiment_guardrail_total", "Variants that broke a limit.", labels), 1);
}

static void watch_once(void *ctx)
{
    struct app *app = ctx;
    struct err err = {0};
    bool persisted = false;
    pthread_mutex_lock(&app->parts->experiments_lock); // what is looked at is what is changed
    const struct generation *g = generation_acquire(app->generations);
    struct broken b = look(g->experiments, app_now_ns());
    if (b.reason) {
        struct experiment_table *next = without(g->experiments, &b, &err);
        bool ok = next && publish(app, next, &persisted, &err);
        if (!ok)
            experiment_table_unref(next);
        tell(app, experiment_table_get(g->experiments, b.experiment), &b, ok, persisted, &err);
    }
    generation_release(app->generations, g);
    pthread_mutex_unlock(&app->parts->experiments_lock);
}

struct ticker *guardrail_watch(struct app *app, struct err *err)
{
    return ticker_new(TICK_MS, watch_once, app, "the guardrails", err);
}
