/* report.c - what bench_ann measured, as tables at equal recall and as plots.
 *
 *   bench_ann_report OUT_DIR FILE...      FILE: JSON lines of bench_ann's out=
 *
 * Writes OUT_DIR/ann.md, for each data set, size and k a plot of queries per second over recall, and, where data of one kind were
 * measured at several sizes, one of how speed falls as they grow. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/ann/curve.h"
#include "bench/ann/results.h"
#include "core/base/plot.h"

#define SYSTEMS_MAX PLOT_SERIES_MAX
#define POINTS_MAX 64
#define SIZES_MAX 16
#define LEAST_RECALL 0.8 // below, nobody serves
#define GROWTH_RECALL 0.99
#define GROWTH_K 100

static const double TARGETS[] = {0.95, 0.963, 0.98, 0.99, 0.993, 0.9955, 0.999, 0.9994};
enum { N_TARGETS = sizeof(TARGETS) / sizeof(TARGETS[0]) };

/* The points of one data set, size and k, by system in the order of their appearance. */
struct group {
    const char *data;
    size_t n, k, n_systems;
    const char *system[SYSTEMS_MAX];
    struct curve_point point[SYSTEMS_MAX][POINTS_MAX];
    size_t n_points[SYSTEMS_MAX];
};

static void group_fill(struct group *g, const struct results *r, const struct result_point *like)
{
    *g = (struct group){.data = like->data, .n = like->n, .k = like->k};
    for (size_t i = 0; i < r->n_points; i++) {
        const struct result_point *p = &r->point[i];
        size_t s = 0;
        if (p->n != g->n || p->k != g->k || strcmp(p->data, g->data) != 0)
            continue;
        while (s < g->n_systems && strcmp(g->system[s], p->system) != 0)
            s++;
        if (s == SYSTEMS_MAX || g->n_points[s] == POINTS_MAX)
            continue;
        if (s == g->n_systems)
            g->system[g->n_systems++] = p->system;
        g->point[s][g->n_points[s]++] = (struct curve_point){p->recall, p->qps};
    }
}

static bool is_first(const struct results *r, size_t i)
{
    const struct result_point *p = &r->point[i];
    for (size_t j = 0; j < i; j++)
        if (r->point[j].n == p->n && r->point[j].k == p->k && strcmp(r->point[j].data, p->data) == 0)
            return false;
    return true;
}

static bool is_exact(const struct group *g, size_t s)
{
    for (size_t i = 0; i < g->n_points[s]; i++)
        if (g->point[s][i].recall < 0.999999)
            return false;
    return true;
}

// ---------------------------------------------------------------------------------------------------------- tables

/* The same graph is in every file of its data. */
static bool was_before(const struct results *r, size_t i)
{
    const struct result_build *b = &r->build[i];
    for (size_t j = 0; j < i; j++)
        if (r->build[j].n == b->n && strcmp(r->build[j].data, b->data) == 0 && strcmp(r->build[j].system, b->system) == 0)
            return true;
    return false;
}

static void builds_table(FILE *f, const struct results *r, const char *data, size_t n)
{
    double first = NAN;
    fprintf(f, "| system | build, CPU s | of hnswlib | layout, CPU s | bytes an item, ids included |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < r->n_builds; i++) {
        const struct result_build *b = &r->build[i];
        if (b->n != n || strcmp(b->data, data) != 0 || was_before(r, i))
            continue;
        if (isnan(first))
            first = b->cpu_s;
        fprintf(f, "| %s |", b->system);
        if (b->cpu_s >= 0)
            fprintf(f, " %.1f | %.2f |", b->cpu_s, b->cpu_s / first);
        else
            fputs(" - | - |", f);
        if (b->layout_cpu_s >= 0)
            fprintf(f, " %.2f |", b->layout_cpu_s);
        else
            fputs(" - |", f);
        fprintf(f, " %.0f |\n", b->bytes_per_item);
    }
    fputs("\n", f);
}

/* Queries per CPU second at equal recall, and the ratio to the first system. */
static void recall_table(FILE *f, struct group *g)
{
    fprintf(f, "| recall@%zu |", g->k);
    for (size_t s = 0; s < g->n_systems; s++)
        fprintf(f, " %s |", g->system[s]);
    fputs("\n|---|", f);
    for (size_t s = 0; s < g->n_systems; s++)
        fputs("---|", f);
    fputs("\n", f);
    for (size_t t = 0; t < N_TARGETS; t++) {
        double first = curve_qps(g->point[0], g->n_points[0], TARGETS[t]);
        fprintf(f, "| %g |", TARGETS[t]);
        for (size_t s = 0; s < g->n_systems; s++) {
            double qps = curve_qps(g->point[s], g->n_points[s], TARGETS[t]);
            if (isnan(qps))
                fputs(" - |", f);
            else if (isnan(first))
                fprintf(f, " %.0f |", qps);
            else
                fprintf(f, " %.0f (%.2f) |", qps, qps / first);
        }
        fputs("\n", f);
    }
    fputs("\n", f);
}

static void points_table(FILE *f, const struct results *r, const struct group *g)
{
    fprintf(f, "<details><summary>as measured</summary>\n\n| ef | system | recall@%zu | q/CPU s [min, max] | p50 us | p99 us | of hnswlib at this ef | "
               "load |\n|---|---|---|---|---|---|---|---|\n",
            g->k);
    for (size_t i = 0; i < r->n_points; i++) {
        const struct result_point *p = &r->point[i];
        if (p->n == g->n && p->k == g->k && strcmp(p->data, g->data) == 0)
            fprintf(f, "| %zu | %s | %.4f | %.0f [%.0f, %.0f] | %.1f | %.1f | %.2f | %.1f |\n", p->ef, p->system, p->recall, p->qps,
                    p->qps_min, p->qps_max, p->p50_us, p->p99_us, p->ratio, p->load);
    }
    fputs("\n</details>\n\n", f);
}

// ----------------------------------------------------------------------------------------------------------- plots

static bool write_plot(const struct plot *p, const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    bool ok = f && plot_write(p, f);
    if (f && fclose(f) != 0)
        ok = false;
    if (!ok)
        fprintf(stderr, "bench_ann_report: cannot draw %s\n", path);
    return ok;
}

static bool plot_recall(struct group *g, const char *dir, const char *name)
{
    double x[SYSTEMS_MAX][POINTS_MAX], y[SYSTEMS_MAX][POINTS_MAX];
    struct plot_series series[SYSTEMS_MAX];
    char title[200], x_label[64];
    bool a_curve = false; // without one there is nothing to draw a level across
    for (size_t s = 0; s < g->n_systems; s++)
        a_curve = a_curve || !is_exact(g, s);
    for (size_t s = 0; s < g->n_systems; s++) {
        bool across = a_curve && is_exact(g, s);
        for (size_t i = 0; i < g->n_points[s]; i++) { // curve_qps has sorted them
            x[s][i] = fmin(g->point[s][i].recall, 0.99999);
            y[s][i] = g->point[s][i].qps;
        }
        series[s] = (struct plot_series){.name = g->system[s], .x = x[s], .y = y[s], .n = across ? 1 : g->n_points[s], .across = across};
    }
    snprintf(title, sizeof(title), "%s, %zu items: queries per CPU second, k = %zu", g->data, g->n, g->k);
    snprintf(x_label, sizeof(x_label), "recall@%zu", g->k);
    struct plot p = {.title = title, .x_label = x_label, .y_label = "queries per CPU second", .x_scale = PLOT_NINES};
    p.x_min = LEAST_RECALL;
    p.x_max = 1;
    p.series = series;
    p.n_series = g->n_systems;
    return write_plot(&p, dir, name);
}

static int by_size(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

/* Speed at GROWTH_RECALL over the number of items. False: fewer than two sizes. */
static bool plot_growth(FILE *md, const struct results *r, const char *data, const char *dir)
{
    size_t size[SIZES_MAX], n_sizes = 0, n_systems = 0;
    const char *system[SYSTEMS_MAX];
    double x[SYSTEMS_MAX][SIZES_MAX], y[SYSTEMS_MAX][SIZES_MAX];
    size_t n[SYSTEMS_MAX] = {0};
    for (size_t i = 0; i < r->n_points; i++)
        if (is_first(r, i) && r->point[i].k == GROWTH_K && strcmp(r->point[i].data, data) == 0 && n_sizes < SIZES_MAX)
            size[n_sizes++] = r->point[i].n;
    if (n_sizes < 2)
        return false;
    qsort(size, n_sizes, sizeof(*size), by_size);
    for (size_t i = 0; i < n_sizes; i++) {
        struct group *g = malloc(sizeof(*g));
        struct result_point like = {.n = size[i], .k = GROWTH_K};
        if (!g)
            return false;
        snprintf(like.data, sizeof(like.data), "%s", data);
        group_fill(g, r, &like);
        for (size_t s = 0; s < g->n_systems; s++) {
            double qps = curve_qps(g->point[s], g->n_points[s], GROWTH_RECALL);
            size_t at = 0;
            while (at < n_systems && strcmp(system[at], g->system[s]) != 0)
                at++;
            if (isnan(qps) || at == SYSTEMS_MAX)
                continue;
            if (at == n_systems)
                system[n_systems++] = g->system[s];
            x[at][n[at]] = (double)size[i];
            y[at][n[at]++] = qps;
        }
        free(g);
    }
    fprintf(md, "## %s: growth\n\nQueries per CPU second at recall@%d = %g.\n\n| items |", data, GROWTH_K, GROWTH_RECALL);
    for (size_t s = 0; s < n_systems; s++)
        fprintf(md, " %s |", system[s]);
    fputs("\n|---|", md);
    for (size_t s = 0; s < n_systems; s++)
        fputs("---|", md);
    for (size_t i = 0; i < n_sizes; i++) {
        fprintf(md, "\n| %zu |", size[i]);
        for (size_t s = 0; s < n_systems; s++) {
            size_t at = 0;
            while (at < n[s] && x[s][at] != (double)size[i])
                at++;
            if (at < n[s])
                fprintf(md, " %.0f |", y[s][at]);
            else
                fputs(" - |", md);
        }
    }
    struct plot_series series[SYSTEMS_MAX];
    for (size_t s = 0; s < n_systems; s++)
        series[s] = (struct plot_series){.name = system[s], .x = x[s], .y = y[s], .n = n[s]};
    char title[200], name[200];
    snprintf(title, sizeof(title), "%s: queries per CPU second at recall@%d = %g", data, GROWTH_K, GROWTH_RECALL);
    snprintf(name, sizeof(name), "ann-%s-growth.svg", data);
    struct plot p = {.title = title, .x_label = "items", .y_label = "queries per CPU second", .series = series, .n_series = n_systems};
    fprintf(md, "\n\n![%s](%s)\n\n", title, name);
    return write_plot(&p, dir, name);
}

// ------------------------------------------------------------------------------------------------------------ main

static bool report(FILE *md, const struct results *r, const char *dir)
{
    struct group *g = malloc(sizeof(*g));
    bool ok = g != NULL;
    char last[RESULTS_NAME_MAX + 32] = "";
    for (size_t i = 0; ok && i < r->n_points; i++) {
        if (!is_first(r, i))
            continue;
        char name[RESULTS_NAME_MAX + 64], head[RESULTS_NAME_MAX + 32];
        group_fill(g, r, &r->point[i]);
        snprintf(head, sizeof(head), "%s, %zu items", g->data, g->n);
        if (strcmp(head, last) != 0) {
            fprintf(md, "## %s\n\n", head);
            builds_table(md, r, g->data, g->n);
            strcpy(last, head);
        }
        snprintf(name, sizeof(name), "ann-%s-%zu-k%zu.svg", g->data, g->n, g->k);
        fprintf(md, "### k = %zu\n\nQueries per CPU second at equal recall (of %s).\n\n", g->k, g->system[0]);
        recall_table(md, g);
        ok = plot_recall(g, dir, name);
        fprintf(md, "![%s, k = %zu](%s)\n\n", head, g->k, name);
        points_table(md, r, g);
    }
    free(g);
    for (size_t i = 0; ok && i < r->n_points; i++) {
        size_t before = 0;
        while (before < i && strcmp(r->point[before].data, r->point[i].data) != 0)
            before++;
        if (before == i) // the first of its data
            plot_growth(md, r, r->point[i].data, dir);
    }
    return ok;
}

int main(int argc, char **argv)
{
    struct results r = {0};
    struct err err = {0};
    char path[4096];
    if (argc < 3) {
        fprintf(stderr, "usage: bench_ann_report OUT_DIR FILE...\n");
        return 2;
    }
    for (int i = 2; i < argc; i++)
        if (!results_read(&r, argv[i], &err)) {
            fprintf(stderr, "bench_ann_report: %s\n", err.msg);
            return 1;
        }
    snprintf(path, sizeof(path), "%s/ann.md", argv[1]);
    FILE *md = fopen(path, "w");
    if (!md) {
        fprintf(stderr, "bench_ann_report: cannot write %s\n", path);
        return 1;
    }
    fputs("# The index beside its peers\n\nWritten by `bench/ann.sh`; what was measured, and how: results.md, \"Index\".\n\n", md);
    bool ok = report(md, &r, argv[1]);
    ok = fclose(md) == 0 && ok;
    results_fini(&r);
    return ok ? 0 : 1;
}
