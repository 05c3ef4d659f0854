#include "server/experiment_report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/service.h"
#include "server/tally.h"

/* One experiment's, by name: experiments come and go, series of a registry stay. */
struct experiment_gauges {
    struct app *app;
    char name[EXPERIMENT_NAME_MAX + 1];
    metric_id p_value;
    struct experiment_gauges *next;
};

// ------------------------------------------------------------------------------------------------------- metrics

static double read_p_value(void *ctx)
{
    const struct experiment_gauges *x = ctx;
    const struct generation *g = generation_acquire(x->app->generations);
    int i = experiment_table_find(g->experiments, x->name, strlen(x->name));
    struct tally_units u = {.p = NAN};
    if (i >= 0)
        tally_units(experiment_table_get(g->experiments, (size_t)i)->tally, &u);
    generation_release(x->app->generations, g);
    return u.p;
}

static struct experiment_gauges *gauges_of(struct app *app, const char *name, struct err *err)
{
    struct experiment_gauges *x = app->parts->gauges;
    while (x && strcmp(x->name, name) != 0)
        x = x->next;
    if (x || !(x = mem_array(1, sizeof(*x), err)))
        return x;
    x->app = app;
    memcpy(x->name, name, strlen(name) + 1);
    x->next = app->parts->gauges;
    app->parts->gauges = x;
    return x;
}

void experiment_gauges_free(struct experiment_gauges *g)
{
    while (g) {
        struct experiment_gauges *next = g->next;
        free(g);
        g = next;
    }
}

static bool register_gauges(struct app *app, const struct experiment_table *t, struct err *err)
{
    char labels[2 * EXPERIMENT_NAME_MAX];
    for (size_t i = 0; i < experiment_table_n(t); i++) {
        struct experiment_gauges *x = gauges_of(app, experiment_table_get(t, i)->name, err);
        if (!x)
            return false;
        snprintf(labels, sizeof(labels), "experiment=\"%s\"", x->name); // names hold nothing to escape
        x->p_value = metrics_gauge_fn(app->metrics, "duet_experiment_srm_p_value",
                                      "Chi-squared p-value of the distinct users of the variants under their weights.",
                                      labels, read_p_value, x);
    }
    return true;
}

static const char *const variant_gauge[] = {"duet_experiment_variant_stopped", "duet_shadow_overlap", "duet_shadow_rbo",
                                            "duet_shadow_score_drift"}; // the last three: shadow.c
static const char stopped_help[] = "1: the variant broke a limit, and the control has its traffic.";

#define VARIANT_LABELS_MAX (2 * EXPERIMENT_NAME_MAX + 40)

static void variant_labels(const struct experiment *e, size_t v, char out[VARIANT_LABELS_MAX])
{
    snprintf(out, VARIANT_LABELS_MAX, "experiment=\"%s\",variant=\"%s\"", e->name, e->variant[v].name);
}

static void register_counters(struct app *app, struct experiment_table *t)
{
    char labels[VARIANT_LABELS_MAX];
    for (size_t i = 0; i < experiment_table_n(t); i++) {
        const struct experiment *e = experiment_table_get(t, i);
        for (size_t v = 0; v < e->n_variants; v++) {
            variant_labels(e, v, labels);
            experiment_table_set_metric(t, i, v,
                                        metrics_counter(app->metrics, "duet_experiment_exposures_total",
                                                        "Answers that exposed a user to a variant.", labels));
            metrics_set(app->metrics,
                        metrics_gauge(app->metrics, variant_gauge[0], stopped_help, labels),
                        e->variant[v].stopped.reason[0] != '\0');
        }
    }
}

bool experiment_report_prepare(struct app *app, struct experiment_table *t, struct err *err)
{
    bool fresh;
    const struct generation *g = app->generations ? generation_acquire(app->generations) : NULL;
    bool ok = experiment_table_tally(t, g ? g->experiments : NULL, &fresh, err);
    if (g)
        generation_release(app->generations, g);
    if (ok && fresh)
        register_counters(app, t);
    return ok && register_gauges(app, t, err);
}

static bool has_variant(const struct experiment_table *t, const char *experiment, const struct experiment_variant *v)
{
    int i = experiment_table_find(t, experiment, strlen(experiment));
    const struct experiment *e = i >= 0 ? experiment_table_get(t, (size_t)i) : NULL;
    for (size_t x = 0; e && x < e->n_variants; x++)
        if (strcmp(e->variant[x].name, v->name) == 0 && e->variant[x].shadow == v->shadow)
            return true;
    return false;
}

void experiment_report_forget(struct app *app, const struct experiment_table *before, const struct experiment_table *now)
{
    char labels[VARIANT_LABELS_MAX];
    for (const struct experiment_gauges *x = app->parts->gauges; x; x = x->next)
        if (experiment_table_find(now, x->name, strlen(x->name)) < 0)
            metrics_hide(app->metrics, x->p_value);
    for (size_t i = 0; i < experiment_table_n(before); i++) {
        const struct experiment *e = experiment_table_get(before, i);
        for (size_t v = 0; v < e->n_variants; v++) {
            if (has_variant(now, e->name, &e->variant[v]))
                continue;
            variant_labels(e, v, labels);
            for (size_t m = 0; m < (e->variant[v].shadow ? 4 : 1); m++)
                metrics_hide(app->metrics, metrics_gauge(app->metrics, variant_gauge[m], stopped_help, labels));
        }
    }
}

// ------------------------------------------------------------------------------------------------------- people

static json_t *variant(const struct experiment *e, size_t v, uint64_t units)
{
    struct outcome_window w;
    outcome_window(tally_outcomes(e->tally), v, &w);
    double n = w.n ? (double)w.n : 1;
    json_t *o = json_pack("{s:s, s:I, s:I, s:f, s:f, s:f}", "name", e->variant[v].name, "units", (json_int_t)units, "requests",
                     (json_int_t)w.n, "error_share", (double)w.errors / n, "empty_share", (double)w.empty / n, "p99_ms", w.p99_ms);
    if (e->variant[v].shadow) {
        struct tally_shadow s;
        tally_shadow(e->tally, v, &s);
        json_object_set_new(o, "shadow", json_pack("{s:I, s:f, s:f, s:f}", "compared", (json_int_t)s.n, "overlap", s.overlap, "rbo",
                                                   s.rbo, "score_drift", s.drift));
    }
    return o;
}

static json_t *one(const struct experiment *e)
{
    struct tally_units u;
    json_t *variants = json_array();
    tally_units(e->tally, &u);
    for (size_t v = 0; v < e->n_variants; v++)
        json_array_append_new(variants, variant(e, v, u.count[v]));
    return json_pack("{s:s, s:f, s:f, s:o}", "experiment", e->name, "srm_p_value", u.p, "sampled", u.sampled,
                     "variants", variants);
}

json_t *experiment_report_json(const struct experiment_table *t)
{
    json_t *a = json_array();
    for (size_t i = 0; i < experiment_table_n(t); i++)
        json_array_append_new(a, one(experiment_table_get(t, i)));
    return a;
}
