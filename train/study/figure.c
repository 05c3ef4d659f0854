/* figure.c - a study's plot; see table.h. */
#include <math.h>
#include <string.h>

#include "core/base/plot.h"
#include "train/study/table.h"

static bool rows_figure(const struct view *v, const char *title, FILE *to)
{
    struct plot_row row[STUDY_ROWS_MAX];
    struct plot_rows p = {
        .title = title, .x_label = "share of test items found; whiskers: deviation of one seed", .dot = {"HR@50", "HR@100"}, .n_dots = 2, .row = row};
    for (size_t i = 0; i < v->study->n_rows; i++) {
        const struct view_summary *s = &v->row[i].all;
        if (v->row[i].n_seeds == 0)
            continue;
        struct plot_row *r = &row[p.n_rows++];
        *r = (struct plot_row){.name = v->row[i].def->name};
        for (size_t m = 0; m < 2; m++) {
            r->value[m] = s->mean[m]; // VIEW_HR50, VIEW_HR100
            r->dev[m] = isnan(s->dev[m]) ? 0 : s->dev[m];
        }
    }
    return plot_write_rows(&p, to);
}

struct lines {
    struct plot_series series[PLOT_SERIES_MAX];
    double x[PLOT_SERIES_MAX][STUDY_ROWS_MAX], y[PLOT_SERIES_MAX][STUDY_ROWS_MAX], dev[PLOT_SERIES_MAX][STUDY_ROWS_MAX];
    size_t n;
};

static void add_point(struct lines *l, const struct view_row *r)
{
    size_t s = 0;
    while (s < l->n && strcmp(l->series[s].name, r->def->series) != 0)
        s++;
    if (s == PLOT_SERIES_MAX)
        return;
    if (s == l->n)
        l->series[l->n++] = (struct plot_series){.name = r->def->series, .x = l->x[s], .y = l->y[s], .dev = l->dev[s]};
    size_t at = l->series[s].n++;
    l->x[s][at] = r->def->x;
    l->y[s][at] = r->all.mean[VIEW_HR100];
    l->dev[s][at] = isnan(r->all.dev[VIEW_HR100]) ? 0 : r->all.dev[VIEW_HR100];
}

static void add_index(struct lines *l, const struct view_row *r)
{
    size_t s = l->n, n = table_index_points(r, l->x[s], l->y[s], STUDY_ROWS_MAX);
    if (n)
        l->series[l->n++] = (struct plot_series){.name = r->def->name, .x = l->x[s], .y = l->y[s], .n = n};
}

static bool lines_figure(const struct view *v, const char *title, FILE *to)
{
    struct lines l = {.n = 0};
    for (size_t i = 0; i < v->study->n_rows; i++)
        if (v->row[i].n_seeds)
            (v->study->figure == STUDY_INDEX ? add_index : add_point)(&l, &v->row[i]);
    const struct plot p = {.title = title,
                           .x_label = v->study->x_label,
                           .y_label = v->study->y_label,
                           .x_scale = PLOT_LOG,
                           .y_scale = PLOT_LINEAR,
                           .series = l.series,
                           .n_series = l.n};
    return plot_write(&p, to);
}

bool figure_svg(const struct view *v, const char *data_name, FILE *to)
{
    char title[256];
    snprintf(title, sizeof(title), "%.100s: %s", data_name, v->study->title);
    return (v->study->figure == STUDY_ROWS ? rows_figure : lines_figure)(v, title, to);
}
