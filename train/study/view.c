#include "train/study/view.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

// -------------------------------------------------------------------------------------------------------- loading

static bool load_seeds(struct view *v, size_t at, struct err *err)
{
    const struct study *s = v->study;
    struct view_row *row = &v->row[at];
    uint32_t n_seeds = row->def->one_seed ? 1 : s->n_seeds;
    if (!(row->result = mem_array(n_seeds, sizeof(*row->result), err)))
        return false;
    row->chosen = study_chosen(s, v->place, at, &row->n_points);
    for (uint32_t seed = 1; seed <= n_seeds; seed++) {
        const struct study_step step = {.row = at, .point = row->chosen, .seed = seed};
        struct cell c = study_cell(s, v->place, &step);
        if (!cell_done(v->place, &c, NULL))
            continue;
        if (!cell_load(v->place, &c, &row->result[row->n_seeds], err))
            return false;
        row->seed[row->n_seeds++] = seed;
    }
    return true;
}

static void load_grid(struct view *v, size_t at)
{
    struct view_row *row = &v->row[at];
    for (size_t i = 0; i < row->def->n_points; i++) {
        const struct study_step step = {.row = at, .point = i, .seed = 1};
        struct cell c = study_cell(v->study, v->place, &step);
        struct cell_result r = {0};
        row->valid_hr100[i] = NAN;
        if (cell_done(v->place, &c, NULL) && cell_load(v->place, &c, &r, NULL))
            row->valid_hr100[i] = r.valid_hr100;
        cell_result_fini(&r);
    }
}

static bool count_steps(struct view *v, struct err *err)
{
    struct study_step *steps = study_steps(v->study, &v->n_steps, err);
    for (size_t i = 0; steps && i < v->n_steps; i++) {
        struct cell c = study_cell(v->study, v->place, &steps[i]);
        v->n_done += cell_done(v->place, &c, NULL);
    }
    free(steps);
    return steps != NULL;
}

static bool find_groups(struct view *v, struct err *err)
{
    const struct dataset *d = v->place->data;
    const struct target_set *t = &v->place->test.known;
    const struct interactions *x = v->place->test.target;
    v->item_group = mem_array(d->n_items, 1, err);
    v->user_group = mem_array(d->n_users, 1, err);
    v->target_user = mem_array(t->n, sizeof(*v->target_user), err);
    v->keep = mem_array(t->n, 1, err);
    if (!v->item_group || !v->user_group || !v->target_user || !v->keep || !groups_of_items(d, v->item_group, err) ||
        !groups_of_users(d, v->user_group, err))
        return false;
    size_t at = 0;
    for (size_t i = 0; i < t->n_users; i++)
        for (uint64_t k = x->off[t->user[i]]; k < x->off[t->user[i] + 1]; k++)
            v->target_user[at++] = t->user[i];
    return true;
}

bool view_init(struct view *v, const struct study *s, const struct cell_place *p, struct err *err)
{
    *v = (struct view){.study = s, .place = p};
    bool ok = (v->row = mem_array(s->n_rows, sizeof(*v->row), err)) && find_groups(v, err) && count_steps(v, err);
    for (size_t i = 0; ok && i < s->n_rows; i++) {
        v->row[i].def = &s->row[i];
        ok = load_seeds(v, i, err);
        load_grid(v, i);
        if (ok)
            v->row[i].all = view_summary(v, &v->row[i], NULL);
    }
    if (!ok)
        view_fini(v);
    return ok;
}

void view_fini(struct view *v)
{
    for (size_t i = 0; v->row && i < v->study->n_rows; i++) {
        for (size_t k = 0; k < v->row[i].n_seeds; k++)
            cell_result_fini(&v->row[i].result[k]);
        free(v->row[i].result);
    }
    free(v->row);
    free(v->item_group);
    free(v->user_group);
    free(v->target_user);
    free(v->keep);
    *v = (struct view){0};
}

// ------------------------------------------------------------------------------------------------------- summaries

static void values_of(const struct view *v, const struct cell_result *r, const uint8_t *keep, size_t *n, double out[VIEW_METRICS])
{
    struct metrics m = metrics_of(&v->place->test.p.spec, r->rank, keep, r->n);
    *n = m.n;
    out[VIEW_HR50] = m.hr[0];
    out[VIEW_HR100] = m.hr[1];
    out[VIEW_MRR] = m.mrr;
    out[VIEW_MRR10] = m.mrr10;
}

struct view_summary view_summary(const struct view *v, const struct view_row *row, const uint8_t *keep)
{
    struct view_summary s = {0};
    double value[STUDY_SEEDS_MAX][VIEW_METRICS];
    keep = keep ? keep : v->place->test.known.keep_known;
    for (size_t i = 0; i < row->n_seeds; i++)
        values_of(v, &row->result[i], keep, &s.n, value[i]);
    for (size_t m = 0; m < VIEW_METRICS; m++) {
        double sum = 0, squares = 0, n = (double)row->n_seeds;
        for (size_t i = 0; i < row->n_seeds; i++)
            sum += value[i][m];
        s.mean[m] = n > 0 ? sum / n : NAN;
        for (size_t i = 0; i < row->n_seeds; i++)
            squares += (value[i][m] - s.mean[m]) * (value[i][m] - s.mean[m]);
        s.dev[m] = n > 1 ? sqrt(squares / (n - 1)) : NAN;
    }
    return s;
}

void view_keep_items(const struct view *v, enum group g, uint8_t *keep)
{
    const struct target_set *t = &v->place->test.known;
    for (size_t i = 0; i < t->n; i++)
        keep[i] = t->keep_known[i] && v->item_group[t->item[i]] == g;
}

void view_keep_users(const struct view *v, enum group g, uint8_t *keep)
{
    const struct target_set *t = &v->place->test.known;
    for (size_t i = 0; i < t->n; i++)
        keep[i] = t->keep_known[i] && v->user_group[v->target_user[i]] == g;
}

void view_keep_category(const struct view *v, uint32_t category, uint8_t *keep)
{
    const struct target_set *t = &v->place->test.known;
    for (size_t i = 0; i < t->n; i++)
        keep[i] = t->keep_known[i] && v->place->data->item_category[t->item[i]] == category;
}

// ---------------------------------------------------------------------------------------------------- comparisons

static double gain(enum view_metric m, double rank)
{
    switch (m) {
    case VIEW_HR50:
        return rank <= 50;
    case VIEW_HR100:
        return rank <= 100;
    case VIEW_MRR:
        return 1 / rank;
    default:
        return 1 / ceil(rank / 10);
    }
}

static double mean_gain(const struct view_row *row, enum view_metric m, size_t target)
{
    double sum = 0;
    for (size_t i = 0; i < row->n_seeds; i++)
        sum += gain(m, row->result[i].rank[target]);
    return sum / (double)row->n_seeds;
}

bool view_paired(const struct view *v, const struct view_row *row, const struct view_row *base, enum view_metric m, struct paired *out,
                 struct err *err)
{
    const struct target_set *t = &v->place->test.known;
    size_t n_users = v->place->data->n_users;
    double *d = mem_array(n_users, sizeof(*d), err), *n = mem_array(n_users, sizeof(*n), err);
    bool ok = d && n;
    for (size_t i = 0; ok && i < t->n; i++) {
        if (!t->keep_known[i])
            continue;
        d[v->target_user[i]] += mean_gain(row, m, i) - mean_gain(base, m, i);
        n[v->target_user[i]] += 1;
    }
    if (ok)
        *out = paired_test(d, n, n_users);
    free(d);
    free(n);
    return ok;
}
