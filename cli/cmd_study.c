/* duet study: one command trains what a table needs, and writes the table, its figures and a plot. Killed, it goes on where it was. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cmd.h"
#include "cli/opts.h"
#include "core/base/fio.h"
#include "core/blas.h"
#include "train/study/rows.h"
#include "train/study/table.h"

static const char usage[] = "duet study NAME --data FILE --out DIR [options]      NAME: " STUDY_NAMES;
static const char about[] =
    "Trains and ranks every system of a study and writes NAME.md, NAME.csv and NAME.svg into DIR.\n"
    "Each run is kept in DIR/runs under its configuration, dataset and model code: a killed study goes on where it was, and studies\n"
    "of one DIR share their runs. The most telling runs come first, so --budget leaves a table that says something, and what is\n"
    "missing.\n";

struct args {
    const char *name, *data, *out, *recipe, *systems;
    uint64_t seeds, points, epochs, threads;
    double budget_min;
    bool dry_run, any_version, render;
};

// -------------------------------------------------------------------------------------------------------- progress

struct screen {
    bool tty;
    char what[160];
};

static void describe(char *to, size_t n, const struct study_row *row, const struct study_step *step)
{
    const char *what = step->chosen ? "chosen" : row->point[step->point].what;
    snprintf(to, n, "%s%s%s%s, seed %u", row->name, what[0] ? " (" : "", what, what[0] ? ")" : "", step->seed);
}

static void on_begin(void *user, const struct study_run *r, const struct study_row *row, const struct study_step *step)
{
    struct screen *s = user;
    char what[128];
    describe(what, sizeof(what), row, step);
    snprintf(s->what, sizeof(s->what), "%zu/%zu %s", r->n_done + 1, r->n_all, what);
    if (!s->tty)
        fprintf(stderr, "%s\n", s->what);
}

static void on_progress(void *user, const struct trainer_report *r)
{
    const struct screen *s = user;
    bool done = r->batch == r->n_batches && (r->valid.n || r->best);
    if (s->tty)
        fprintf(stderr, "\r\033[K%s: epoch %u/%u, batch %zu/%zu, at most %.0f s left%s", s->what, r->epoch, r->epochs, r->batch,
                r->n_batches, r->eta_s, done && r->epoch == r->epochs ? "\n" : "");
}

// ---------------------------------------------------------------------------------------------------------- output

static bool dry_run(const struct study *s, const struct cell_place *p, struct err *err)
{
    size_t n;
    struct study_step *steps = study_steps(s, &n, err);
    for (size_t i = 0; steps && i < n; i++) {
        const struct study_row *row = &s->row[steps[i].row];
        struct cell c = study_cell(s, p, &steps[i]);
        char name[64], what[128];
        size_t tuned = row->n_points;
        if (!cell_name(p, &c, name, err))
            break;
        if (steps[i].chosen)
            study_chosen(s, p, steps[i].row, &tuned);
        describe(what, sizeof(what), row, &steps[i]);
        printf("%-8s %-45s  %s\n", tuned < row->n_points ? "untuned" : cell_done(p, &c, NULL) ? "done" : "to do", name, what);
    }
    free(steps);
    return err->code == ERR_OK;
}

struct artefact {
    const struct view *v;
    const char *data_name;
};

static bool put_markdown(const struct artefact *a, FILE *f, struct err *err)
{
    return table_markdown(a->v, a->data_name, f, err);
}

static bool put_csv(const struct artefact *a, FILE *f, struct err *err)
{
    table_csv(a->v, f);
    return !ferror(f) || err_set(err, ERR_IO, "writing the figures failed");
}

static bool put_figure(const struct artefact *a, FILE *f, struct err *err)
{
    return figure_svg(a->v, a->data_name, f) || err_set(err, ERR_STATE, "there is no result to plot yet");
}

/* DIR/NAME.extension as a whole or not at all. */
static bool write_one(const struct artefact *a, const char *dir, const char *extension,
                      bool (*put)(const struct artefact *, FILE *, struct err *), struct err *err)
{
    char path[PATH_MAX], file[64], *text = NULL;
    size_t n;
    snprintf(file, sizeof(file), "%s.%s", a->v->study->name, extension);
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return err_set(err, ERR_NOMEM, "study: out of memory");
    bool ok = put(a, f, err);
    ok = (fclose(f) == 0 || err_set(err, ERR_NOMEM, "study: out of memory")) && ok && fio_join(path, dir, file, err) &&
         fio_write_atomic(path, text, n, err);
    free(text);
    if (ok)
        printf("%s\n", path);
    return ok;
}

/* The file's name without folder and extension. */
static void data_name(const char *path, char out[128])
{
    const char *slash = strrchr(path, '/');
    snprintf(out, 128, "%s", slash ? slash + 1 : path);
    char *dot = strrchr(out, '.');
    if (dot && dot > out)
        *dot = 0;
}

static bool write_all(const struct args *a, const struct study *s, const struct cell_place *p, struct err *err)
{
    struct view v = {0};
    char name[128];
    data_name(a->data, name);
    if (!view_init(&v, s, p, err))
        return false;
    const struct artefact art = {&v, name};
    bool ok = write_one(&art, a->out, "md", put_markdown, err) && write_one(&art, a->out, "csv", put_csv, err) &&
              write_one(&art, a->out, "svg", put_figure, err);
    printf("%zu of %zu runs done%s\n", v.n_done, v.n_steps, v.n_done < v.n_steps ? "; the same command goes on" : "");
    view_fini(&v);
    return ok;
}

// ------------------------------------------------------------------------------------------------------------ run

static bool go(const struct args *a, const struct study *s, struct cell_place *p, struct err *err)
{
    struct screen screen = {.tty = isatty(STDERR_FILENO)};
    struct study_run r = {.budget_s = 60 * a->budget_min, .threads = (uint32_t)a->threads, .begin = on_begin, .user = &screen};
    p->any_version = a->any_version;
    p->progress = on_progress;
    p->progress_user = &screen;
    if (a->dry_run)
        return dry_run(s, p, err);
    return (a->render || study_go(s, p, &r, err)) && write_all(a, s, p, err);
}

static int run(const struct args *a)
{
    struct err err = {0};
    struct cell_place place = {0};
    const struct study_options o = {.recipe = a->recipe,
                                    .n_seeds = (uint32_t)a->seeds,
                                    .n_points = (uint32_t)a->points,
                                    .epochs = (uint32_t)a->epochs,
                                    .systems = a->systems};
    blas_set_threads(1); // the pool's threads are the parallelism
    struct dataset *d = dataset_open(a->data, &err);
    struct study *s = d ? malloc(sizeof(*s)) : NULL;
    struct pool *pool = s ? pool_new((unsigned)a->threads, &err) : NULL;
    bool made = pool && study_make(s, a->name, &o, d, &err);
    bool ok = made && cell_place_init(&place, d, a->data, a->out, pool, &err) && go(a, s, &place, &err);
    cell_place_fini(&place);
    pool_free(pool);
    free(s);
    dataset_close(d);
    if (ok)
        return 0;
    cmd_fail("study", &err);
    return pool && !made ? 2 : 1;
}

int cmd_study(int argc, char **argv)
{
    struct args a = {.recipe = "duet", .seeds = 5, .points = STUDY_GRID};
    struct opt_list name = {0};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    a.threads = cpus < 1 ? 1 : cpus > 16 ? 16 : (uint64_t)cpus;
    const struct opt opts[] = {
        {"data", OPT_STR, &a.data, "FILE", "dataset of `duet prepare`", 0, 0},
        {"out", OPT_STR, &a.out, "DIR", "tables, plots and the results of runs, made if missing; one for each dataset", 0, 0},
        {"seeds", OPT_UINT, &a.seeds, "N", "of every system with something random in it", 1, STUDY_SEEDS_MAX},
        {"points", OPT_UINT, &a.points, "N", "compare: runs that each system is tuned with on validation; 1 = not at all", 1, STUDY_GRID},
        {"recipe", OPT_STR, &a.recipe, "NAME", "of dat and two_tower: duet, plain or paper", 0, 0},
        {"systems", OPT_STR, &a.systems, "LIST", "some rows only, as dat,two_tower,wals", 0, 0},
        {"epochs", OPT_UINT, &a.epochs, "N", "at most, whatever the recipes say: to see it work, not to compare", 1, 1e6},
        {"budget", OPT_NUM, &a.budget_min, "MIN", "begin no run after that many minutes, but one at least; 0 = all of them", 0, 1e6},
        {"threads", OPT_UINT, &a.threads, "N", "of each run; default: one for each processor, at most 16", 1, POOL_THREADS_MAX},
        {"dry-run", OPT_FLAG, &a.dry_run, NULL, "list the runs in their order, and which are done", 0, 0},
        {"render", OPT_FLAG, &a.render, NULL, "train nothing: table and plot of what is there", 0, 0},
        {"any-version", OPT_FLAG, &a.any_version, NULL, "where there is no run of this model code take one of another; the table says so",
         0, 0},
        {NULL, OPT_FLAG, NULL, NULL, NULL, 0, 0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, &name);
    if (rc >= 0)
        return rc;
    if (name.n != 1 || !a.data || !a.out) {
        fprintf(stderr, "duet study: %s (usage: %s)\n",
                name.n != 1 ? "the name of one study is needed" : "--data and --out are needed", usage);
        return 2;
    }
    a.name = name.v[0];
    return run(&a);
}
