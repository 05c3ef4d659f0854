#include "train/study/table.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

#define LEAST_BASE 1e-3 // below, a per cent of it says nothing: a model that has collapsed

struct out {
    const struct view *v;
    FILE *to;
    struct err *err;
};

// --------------------------------------------------------------------------------------------------------- numbers

/* ".4469", or ".4469 ± .0021" over seeds; "" where nothing is there. */
static void print_share(const struct out *o, double mean, double dev)
{
    char a[32], b[32];
    if (isnan(mean)) {
        fputs(" |", o->to);
        return;
    }
    snprintf(a, sizeof(a), "%.4f", mean);
    snprintf(b, sizeof(b), "%.4f", dev);
    fprintf(o->to, " %s", a[0] == '0' ? a + 1 : a);
    if (!isnan(dev))
        fprintf(o->to, " ± %s", b[0] == '0' ? b + 1 : b);
    fputs(" |", o->to);
}

static void print_signed(const struct out *o, double v)
{
    char text[32];
    snprintf(text, sizeof(text), "%+.4f", v);
    if (text[1] == '0')
        memmove(text + 1, text + 2, strlen(text + 1));
    fputs(text, o->to);
}

// ------------------------------------------------------------------------------------------------------- main table

static void print_row(const struct out *o, const struct view_row *r)
{
    const struct view_summary *s = &r->all;
    fprintf(o->to, "| %s | %zu |", r->def->name, r->n_seeds);
    print_share(o, s->mean[VIEW_HR50], s->dev[VIEW_HR50]);
    print_share(o, s->mean[VIEW_HR100], s->dev[VIEW_HR100]);
    print_share(o, s->mean[VIEW_MRR], s->dev[VIEW_MRR]);
    print_share(o, 10 * s->mean[VIEW_MRR], NAN);
    print_share(o, s->mean[VIEW_MRR10], s->dev[VIEW_MRR10]);
    double valid = 0;
    for (size_t i = 0; i < r->n_seeds; i++)
        valid += r->result[i].valid_hr100 / (double)r->n_seeds;
    print_share(o, r->n_seeds ? valid : NAN, NAN);
    if (r->n_seeds && r->result[0].n_params)
        fprintf(o->to, " %.3gM |", (double)r->result[0].n_params / 1e6);
    else
        fputs(" |", o->to);
    fputc('\n', o->to);
}

static void print_main(const struct out *o)
{
    fputs("| system | seeds | HR@50 | HR@100 | MRR | MRR x 10 | 1/ceil(rank/10) | validation HR@100 | parameters |\n"
          "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
          o->to);
    for (size_t i = 0; i < o->v->study->n_rows; i++)
        print_row(o, &o->v->row[i]);
    fprintf(o->to, "\n%s\n", o->v->study->about);
    for (size_t i = 0; i < o->v->study->n_rows; i++) {
        const struct view_row *r = &o->v->row[i];
        if (r->def->skipped)
            fprintf(o->to, "\n%s is not there. %s.\n", r->def->name, r->def->skipped);
        else if (r->n_seeds && r->result[0].collapsed)
            fprintf(o->to, "\n%s collapsed: %s\n", r->def->name,
                    json_string_value(json_object_get(r->result[0].file, "collapsed")));
    }
}

// ----------------------------------------------------------------------------------------------------- significance

static void print_p(const struct out *o, double p)
{
    if (p < 1e-4)
        fputs(" < .0001 |", o->to);
    else
        print_share(o, p, NAN);
}

static void print_difference(const struct out *o, const struct paired *t, double base)
{
    fputc(' ', o->to);
    print_signed(o, t->diff);
    if (base >= LEAST_BASE)
        fprintf(o->to, " (%+.1f %%)", 100 * t->diff / base);
    fprintf(o->to, ", ");
    print_signed(o, t->lo);
    fputs(" to ", o->to);
    print_signed(o, t->hi);
    fputs(" |", o->to);
}

/* Base minus row, as the question is whether the base is better. */
static bool print_paired(const struct out *o)
{
    static const enum view_metric metrics[] = {VIEW_HR50, VIEW_HR100, VIEW_MRR};
    const struct view *v = o->v;
    const struct view_row *base = &v->row[v->study->base];
    struct paired t[STUDY_ROWS_MAX][3];
    double p[STUDY_ROWS_MAX];
    size_t at[STUDY_ROWS_MAX], n = 0;
    for (size_t i = 0; i < v->study->n_rows; i++) {
        if (i == v->study->base || v->row[i].n_seeds == 0 || base->n_seeds == 0)
            continue;
        for (size_t m = 0; m < 3; m++)
            if (!view_paired(v, base, &v->row[i], metrics[m], &t[n][m], o->err))
                return false;
        p[n] = t[n][1].p;
        at[n++] = i;
    }
    if (n == 0)
        return true;
    paired_holm(p, n);
    fprintf(o->to,
            "\n## %s against each of them\n\nDifference (in per cent of the other), 95 %% interval, p: paired t-test over users, each "
            "user's gains averaged over the seeds first; two-sided. \"Holm\": the p of HR@100 corrected for the %zu comparisons.\n\n"
            "| %s minus | HR@50 | p | HR@100 | p | Holm | MRR | p |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
            base->def->name, n, base->def->name);
    for (size_t i = 0; i < n; i++) {
        const struct view_row *r = &v->row[at[i]];
        fprintf(o->to, "| %s |", r->def->name);
        for (size_t m = 0; m < 3; m++) {
            print_difference(o, &t[i][m], r->all.mean[metrics[m]]);
            print_p(o, t[i][m].p);
            if (m == 1)
                print_p(o, p[i]);
        }
        fputc('\n', o->to);
    }
    return true;
}

// ----------------------------------------------------------------------------------------------------------- groups

static void print_groups(const struct out *o, const char *title, void (*keep)(const struct view *, enum group, uint8_t *))
{
    const struct view *v = o->v;
    fprintf(o->to, "\n## %s\n\nHR@50, HR@100 and MRR of the test items of each group.\n\n| system |", title);
    for (enum group g = GROUP_HEAD; g < GROUP_N; g++) {
        size_t n = 0;
        keep(v, g, v->keep);
        for (size_t i = 0; i < v->place->test.known.n; i++)
            n += v->keep[i];
        fprintf(o->to, " %s, n = %zu: HR@50 | HR@100 | MRR |", group_name(g), n);
    }
    fputs("\n| --- |", o->to);
    for (int i = 0; i < 3 * GROUP_N; i++)
        fputs(" --- |", o->to);
    fputc('\n', o->to);
    for (size_t i = 0; i < v->study->n_rows; i++) {
        if (v->row[i].n_seeds == 0)
            continue;
        fprintf(o->to, "| %s |", v->row[i].def->name);
        for (enum group g = GROUP_HEAD; g < GROUP_N; g++) {
            keep(v, g, v->keep);
            struct view_summary s = view_summary(v, &v->row[i], v->keep);
            print_share(o, s.mean[VIEW_HR50], NAN);
            print_share(o, s.mean[VIEW_HR100], NAN);
            print_share(o, s.mean[VIEW_MRR], NAN);
        }
        fputc('\n', o->to);
    }
}

static size_t in_category(const struct view *v, uint32_t c)
{
    size_t n = 0;
    view_keep_category(v, c, v->keep);
    for (size_t i = 0; i < v->place->test.known.n; i++)
        n += v->keep[i];
    return n;
}

static void print_category_name(const struct out *o, uint32_t c)
{
    struct str name = strtab_get(&o->v->place->data->category, c);
    fprintf(o->to, "| %.*s |", name.n ? (int)name.n : 6, name.n ? name.p : "(none)");
}

static void print_categories(const struct out *o)
{
    const struct view *v = o->v;
    fputs("\n## By category of the test item\n\nHR@100.\n\n| category | n |", o->to);
    for (size_t i = 0; i < v->study->n_rows; i++)
        if (v->row[i].n_seeds)
            fprintf(o->to, " %s |", v->row[i].def->name);
    fputs("\n| --- | --- |", o->to);
    for (size_t i = 0; i < v->study->n_rows; i++)
        if (v->row[i].n_seeds)
            fputs(" --- |", o->to);
    fputc('\n', o->to);
    for (uint32_t c = 0; c < v->place->data->category.n; c++) {
        size_t n = in_category(v, c);
        if (n == 0)
            continue;
        print_category_name(o, c);
        fprintf(o->to, " %zu |", n);
        for (size_t i = 0; i < v->study->n_rows; i++)
            if (v->row[i].n_seeds)
                print_share(o, view_summary(v, &v->row[i], v->keep).mean[VIEW_HR100], NAN);
        fputc('\n', o->to);
    }
}

static void print_all_groups(const struct out *o)
{
    print_groups(o, "By how often the test item is in the training data", view_keep_items);
    print_groups(o, "By how much the user has done", view_keep_users);
    fputs("\nHead: the first tenth of all items (users) by their number of training interactions; middle: the next four tenths; tail: "
          "the other half.\n",
          o->to);
    print_categories(o);
}

// ----------------------------------------------------------------------------------------------- how it came about

static void print_grids(const struct out *o)
{
    const struct view *v = o->v;
    bool any = false;
    for (size_t i = 0; i < v->study->n_rows; i++)
        any |= v->row[i].def->n_points > 1 && !v->row[i].def->skipped;
    if (!any)
        return;
    fputs("\n## What was tuned\n\nEvery system that has a choice gets the same number of runs with seed 1; the best validation HR@100 (bold) is "
          "what the seeds above are of. \"own\": the values of its recipe.\n\n| system | validation HR@100 of each point |\n| --- | --- |\n",
          o->to);
    for (size_t i = 0; i < v->study->n_rows; i++) {
        const struct view_row *r = &v->row[i];
        if (r->def->n_points < 2 || r->def->skipped)
            continue;
        fprintf(o->to, "| %s |", r->def->name);
        for (size_t k = 0; k < r->def->n_points; k++) {
            const char *bold = k == r->chosen && r->n_points ? "**" : "", *what = r->def->point[k].what;
            fprintf(o->to, "%s %s%s", k ? "," : "", bold, what[0] ? what : "own");
            if (isnan(r->valid_hr100[k]))
                fputs(": not done", o->to);
            else
                fprintf(o->to, " %.4f%s", r->valid_hr100[k], bold);
        }
        fputs(" |\n", o->to);
    }
}

static double middle(const struct view_row *r, bool cpu)
{
    double v[STUDY_SEEDS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < r->n_seeds; i++) {
        double x = cpu ? r->result[i].cpu_s : r->result[i].wall_s;
        if (isnan(x))
            continue;
        size_t at = n++;
        for (; at > 0 && v[at - 1] > x; at--)
            v[at] = v[at - 1];
        v[at] = x;
    }
    return n ? (v[(n - 1) / 2] + v[n / 2]) / 2 : NAN;
}

static void print_times(const struct out *o)
{
    const struct view *v = o->v;
    fputs("\n## Training time\n\nMedians over the seeds that were not interrupted, validation of every epoch included; of a yardstick: what its "
          "validation takes. Wall-clock seconds say little where the machine was shared.\n\n"
          "| system | CPU s | wall s | threads | epochs, best |\n| --- | --- | --- | --- | --- |\n",
          o->to);
    for (size_t i = 0; i < v->study->n_rows; i++) {
        const struct view_row *r = &v->row[i];
        if (r->n_seeds == 0)
            continue;
        double cpu = middle(r, true), wall = middle(r, false);
        fprintf(o->to, "| %s |", r->def->name);
        isnan(cpu) ? fputs(" interrupted | |", o->to) : fprintf(o->to, " %.1f | %.1f |", cpu, wall);
        fprintf(o->to, " %u | %u, %u |\n", r->result[0].threads, r->result[0].epochs, r->result[0].best_epoch);
    }
}

/* Distinct versions of the model code behind a row. */
static void print_versions(const struct out *o)
{
    const struct view *v = o->v;
    fputs("\n## Model code\n\nHashes of the sources that decide a system's figures (cmake/model_version.cmake).\n\n", o->to);
    for (size_t i = 0; i < v->study->n_rows; i++) {
        const struct view_row *r = &v->row[i];
        for (size_t k = 0; k < r->n_seeds; k++) {
            bool known = false;
            for (size_t q = 0; q < k; q++)
                known |= strcmp(r->result[q].version, r->result[k].version) == 0;
            if (!known)
                fprintf(o->to, "%s%s", k ? ", " : i ? "; " : "", k ? "" : r->def->name);
            if (!known)
                fprintf(o->to, " %s%s", r->result[k].version,
                        strcmp(r->result[k].version, cell_version(&r->def->point[0].cell)) ? " (not this program's)" : "");
        }
    }
    fputs(".\n", o->to);
}

static void print_head(const struct out *o, const char *data_name)
{
    const struct view *v = o->v;
    const struct dataset *d = v->place->data;
    const struct target_set *t = &v->place->test.known;
    fprintf(o->to, "# %s: %s\n\n", data_name, v->study->title);
    fprintf(o->to, "%u users, %u items, %llu training pairs, %zu test pairs of %zu users; dataset %s. ", d->n_users, d->n_items,
            (unsigned long long)d->train.off[d->n_users], t->n - t->n_cold, t->n_users, d->hash);
    fprintf(o->to, "Seeds 1 to %u are asked for; done: %zu of %zu runs%s.\n\n", v->study->n_seeds, v->n_done, v->n_steps,
            v->n_done == v->n_steps ? "" : ", what is not there yet is left out");
    fputs("Protocol: every interaction is a positive; the whole catalogue is ranked, the user's training and validation items left out; an "
          "equal score counts half against the model; model of the epoch with the best validation HR@100; ± is the deviation of one seed.\n\n",
          o->to);
}

bool table_markdown(const struct view *v, const char *data_name, FILE *to, struct err *err)
{
    const struct out o = {v, to, err};
    print_head(&o, data_name);
    print_main(&o);
    if (!print_paired(&o))
        return false;
    if (v->study->figure == STUDY_INDEX)
        table_index(v, to);
    if (v->study->figure == STUDY_ROWS)
        print_all_groups(&o);
    print_grids(&o);
    print_versions(&o);
    print_times(&o);
    return !ferror(to) || err_set(err, ERR_IO, "writing the table failed");
}
