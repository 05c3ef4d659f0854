#include "train/study/study.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "core/base/mem.h"

// ---------------------------------------------------------------------------------------------------------- order

static void add(struct study_step *steps, size_t *n, struct study_step s)
{
    if (steps)
        steps[*n] = s;
    ++*n;
}

/* Counts where `steps` is NULL. */
static size_t list_steps(const struct study *s, struct study_step *steps)
{
    size_t n = 0;
    for (size_t point = 0; point < STUDY_POINTS_MAX; point++)
        for (size_t r = 0; r < s->n_rows; r++)
            if (point < s->row[r].n_points && !s->row[r].skipped)
                add(steps, &n, (struct study_step){.row = r, .point = point, .seed = 1});
    for (uint32_t seed = 2; seed <= s->n_seeds; seed++)
        for (size_t r = 0; r < s->n_rows; r++)
            if (!s->row[r].one_seed && !s->row[r].skipped)
                add(steps, &n, (struct study_step){.row = r, .seed = seed, .chosen = s->row[r].n_points > 1});
    return n;
}

struct study_step *study_steps(const struct study *s, size_t *n, struct err *err)
{
    *n = list_steps(s, NULL);
    struct study_step *steps = mem_array(*n, sizeof(*steps), err);
    if (steps)
        list_steps(s, steps);
    return steps;
}

static struct cell with_seed(const struct study_row *row, size_t point, uint32_t seed)
{
    struct cell c = row->point[point].cell;
    if (cell_is_trained(&c))
        c.recipe.seed = seed;
    return c;
}

size_t study_chosen(const struct study *s, const struct cell_place *p, size_t row, size_t *n_done)
{
    size_t best = 0, done = 0;
    double most = -1;
    for (size_t i = 0; i < s->row[row].n_points; i++) {
        struct cell c = with_seed(&s->row[row], i, 1);
        struct cell_result r;
        if (!cell_done(p, &c, NULL) || !cell_load(p, &c, &r, NULL))
            continue;
        done++;
        if (r.valid_hr100 > most) {
            most = r.valid_hr100;
            best = i;
        }
        cell_result_fini(&r);
    }
    if (n_done)
        *n_done = done;
    return best;
}

struct cell study_cell(const struct study *s, const struct cell_place *p, const struct study_step *step)
{
    size_t point = step->chosen ? study_chosen(s, p, step->row, NULL) : step->point;
    return with_seed(&s->row[step->row], point, step->seed);
}

// ------------------------------------------------------------------------------------------------------------ run

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool study_go(const struct study *s, struct cell_place *p, struct study_run *r, struct err *err)
{
    double started = now_s();
    bool ok = true, begun = false;
    struct study_step *steps = study_steps(s, &r->n_all, err);
    if (!steps)
        return false;
    r->n_done = 0;
    for (size_t i = 0; i < r->n_all; i++) {
        struct cell c = study_cell(s, p, &steps[i]);
        if (!cell_done(p, &c, NULL))
            continue;
        r->n_done++;
    }
    for (size_t i = 0; ok && i < r->n_all; i++) {
        struct cell c = study_cell(s, p, &steps[i]);
        if (cell_done(p, &c, NULL))
            continue;
        if (begun && r->budget_s > 0 && now_s() - started >= r->budget_s)
            break;
        begun = true;
        if (r->begin)
            r->begin(r->user, r, &s->row[steps[i].row], &steps[i]);
        ok = cell_run(p, &c, r->threads, err) || err_prefix(err, "%s, seed %u", s->row[steps[i].row].name, steps[i].seed);
        r->n_done += ok;
    }
    free(steps);
    return ok;
}
