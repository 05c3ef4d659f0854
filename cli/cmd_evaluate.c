/* duet evaluate: checkpoints and bundles against the held-out interactions of a dataset. The table goes to standard
 * output. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cmd.h"
#include "cli/opts.h"
#include "core/base/fio.h"
#include "core/blas.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/evaluate_bundle.h"
#include "train/evaluate_stored.h"
#include "train/report.h"

static const char usage[] =
    "duet evaluate --data FILE [--checkpoint DIR]... [--bundle DIR]... [options]   or   duet evaluate --show FILE.json";
static const char about[] =
    "Ranks the whole catalogue for every held-out interaction and prints HR@K and MRR beside popularity; also what "
    "strangers get.\n"
    "Writes metrics.json into each checkpoint folder, which `duet publish` puts into the manifest.\n";

#define REPORT_MAX ((size_t)64 << 20)

struct args {
    const char *data, *split, *json, *csv, *show, *k, *through, *yardsticks;
    struct opt_list checkpoint, bundle;
    bool per_category;
    uint64_t threads, ef;
    double ease_lambda;
};

// --------------------------------------------------------------------------------------------------------- options

static bool parse_ks(const char *text, struct metrics_spec *spec, struct err *err)
{
    const char *p = text;
    for (spec->n_k = 0; spec->n_k < METRICS_K_MAX; p++) {
        char *end;
        unsigned long k = strtoul(p, &end, 10);
        if (end == p || k < 1 || k > 100000 || (*end && *end != ','))
            break;
        spec->k[spec->n_k++] = (uint32_t)k;
        if (!*end)
            return true;
        p = end;
    }
    return err_set(err, ERR_ARG, "--k \"%s\", want 1 to %d numbers from 1 to 100000, as 50,100", text, METRICS_K_MAX);
}

static bool read_params(const struct args *a, struct evaluation_params *p, struct err *err)
{
    if (strcmp(a->split, "test") != 0 && strcmp(a->split, "valid") != 0)
        return err_set(err, ERR_ARG, "--split \"%s\", want test or valid", a->split);
    if (strcmp(a->through, "exact") != 0 && strcmp(a->through, "index") != 0)
        return err_set(err, ERR_ARG, "--through \"%s\", want exact or index", a->through);
    p->valid = strcmp(a->split, "valid") == 0;
    p->per_category = a->per_category;
    return parse_ks(a->k, &p->spec, err);
}

// --------------------------------------------------------------------------------------------------------- systems

/* What publishing puts into the manifest: the system's object, with what it was measured on. */
static bool write_metrics(const char *dir, const json_t *system, const struct evaluation *e, struct err *err)
{
    char path[PATH_MAX];
    json_t *o = json_deep_copy(system);
    json_object_set_new(o, "dataset_hash", json_string(e->p.data->hash));
    json_object_set_new(o, "split", json_string(e->p.valid ? "valid" : "test"));
    char *text = json_text(o, err);
    bool ok = text && fio_join(path, dir, "metrics.json", err) && fio_write_atomic(path, text, strlen(text), err);
    free(text);
    json_decref(o);
    return ok;
}

static bool add_checkpoint(struct evaluation *e, const char *dir, json_t *systems, struct err *err)
{
    struct checkpoint *c = checkpoint_load(dir, err);
    if (!c)
        return false;
    if (strcmp(c->info.dataset_hash, e->p.data->hash) != 0)
        fprintf(stderr, "duet evaluate: %s was trained on another dataset (%s, this one is %s)\n", dir,
                c->info.dataset_hash, e->p.data->hash);
    json_t *o = evaluation_model(e, dir, c->model, err);
    if (o && c->info.collapsed)
        json_object_set_new(o, "note", json_sprintf("collapsed in training: %s", c->info.reason));
    checkpoint_free(c);
    if (!o)
        return false;
    bool ok = write_metrics(dir, o, e, err);
    json_array_append_new(systems, o);
    return ok;
}

static bool add_bundle(const struct args *a, struct evaluation *e, const char *dir, json_t *systems, struct err *err)
{
    const struct evaluate_bundle_params p = {strcmp(a->through, "index") == 0, (size_t)a->ef};
    struct bundle *b = bundle_load(dir, &(struct bundle_load_params){.mode = BUNDLE_PRIVATE}, err);
    json_t *o = b ? evaluation_bundle(e, dir, b, &p, err) : NULL;
    bundle_free(b);
    return o && json_array_append_new(systems, o) == 0;
}

/* --yardsticks: a list of names. */
static bool add_yardsticks(const struct args *a, struct evaluation *e, json_t *systems, struct err *err)
{
    for (const char *p = a->yardsticks; *p;) {
        size_t n = strcspn(p, ",");
        json_t *o = NULL;
        if (n == 10 && memcmp(p, "popularity", n) == 0)
            o = evaluation_popularity(e, err);
        else if (n == 4 && memcmp(p, "ease", n) == 0)
            o = evaluation_ease(e, a->ease_lambda, err);
        else
            err_set(err, ERR_ARG, "--yardsticks \"%s\", want some of popularity,ease", a->yardsticks);
        if (!o)
            return false;
        json_array_append_new(systems, o);
        p += n + (p[n] == ',');
    }
    return true;
}

static bool add_all(const struct args *a, struct evaluation *e, json_t *systems, struct err *err)
{
    if (!add_yardsticks(a, e, systems, err))
        return false;
    for (size_t i = 0; i < a->checkpoint.n; i++)
        if (!add_checkpoint(e, a->checkpoint.v[i], systems, err))
            return false;
    for (size_t i = 0; i < a->bundle.n; i++)
        if (!add_bundle(a, e, a->bundle.v[i], systems, err))
            return false;
    return true;
}

// ---------------------------------------------------------------------------------------------------------- output

static bool write_csv(const char *path, const json_t *report, struct err *err)
{
    FILE *f = fopen(path, "w");
    if (!f)
        return err_errno(err, "open %s", path);
    report_csv(report, f);
    bool ok = !ferror(f);
    return (fclose(f) == 0 && ok) || err_errno(err, "write %s", path);
}

static bool put_out(const struct args *a, const json_t *report, struct err *err)
{
    char *text = a->json ? json_text(report, err) : NULL;
    bool ok = !a->json || (text && fio_write_atomic(a->json, text, strlen(text), err));
    free(text);
    report_print(report, stdout);
    return ok && (!a->csv || write_csv(a->csv, report, err));
}

static int show(const struct args *a)
{
    struct err err = {0};
    json_t *report = json_read_file(a->show, REPORT_MAX, &err);
    bool ok = report && (report_check(report, &err) || err_prefix(&err, "%s", a->show));
    if (ok)
        report_print(report, stdout);
    ok = ok && (!a->csv || write_csv(a->csv, report, &err));
    json_decref(report);
    return ok ? 0 : cmd_fail("evaluate", &err);
}

static bool evaluate(const struct args *a, const struct evaluation_params *p, struct pool *pool, struct err *err)
{
    struct evaluation e = {0};
    json_t *systems = json_array();
    if (!evaluation_init(&e, p, pool, err) || !add_all(a, &e, systems, err)) {
        json_decref(systems);
        evaluation_fini(&e);
        return false;
    }
    json_t *report = evaluation_report(&e, a->data, systems);
    bool ok = put_out(a, report, err);
    json_decref(report);
    evaluation_fini(&e);
    return ok;
}

static int run(const struct args *a)
{
    struct err err = {0};
    struct evaluation_params p = {0};
    if (!read_params(a, &p, &err)) {
        cmd_fail("evaluate", &err);
        return 2;
    }
    blas_set_threads(1); // the pool's threads are the parallelism
    struct dataset *d = dataset_open(a->data, &err);
    struct pool *pool = d ? pool_new((unsigned)a->threads, &err) : NULL;
    p.data = d;
    bool ok = pool && evaluate(a, &p, pool, &err);
    pool_free(pool);
    dataset_close(d);
    return ok ? 0 : cmd_fail("evaluate", &err);
}

int cmd_evaluate(int argc, char **argv)
{
    struct args a = {.split = "test", .k = "50,100", .through = "exact", .yardsticks = "popularity", .ease_lambda = 500};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    a.threads = cpus < 1 ? 1 : cpus > 16 ? 16 : (uint64_t)cpus;
    const struct opt opts[] = {
        {"data", OPT_STR, &a.data, "FILE", "dataset of `duet prepare`", 0, 0},
        {"checkpoint", OPT_LIST, &a.checkpoint, "DIR", "folder of `duet train`; may be given several times", 0, 0},
        {"bundle", OPT_LIST, &a.bundle, "DIR",
         "version folder of a bundle, asked as the daemon asks; may be given several times", 0, 0},
        {"through", OPT_STR, &a.through, "HOW", "bundles: exact, or index (and what it costs)", 0, 0},
        {"ef", OPT_UINT, &a.ef, "N", "bundles through the index: default the bundle's own", 0, 20000},
        {"yardsticks", OPT_STR, &a.yardsticks, "LIST", "beside them: popularity, ease (EASE^R, up to 25,000 items)", 0, 0},
        {"ease-lambda", OPT_NUM, &a.ease_lambda, "X", "its penalty", 1e-6, 1e12},
        {"split", OPT_STR, &a.split, "NAME", "test or valid", 0, 0},
        {"k", OPT_STR, &a.k, "LIST", "K of HR@K", 0, 0},
        {"per-category", OPT_FLAG, &a.per_category, NULL, "each category of the target item for itself", 0, 0},
        {"json", OPT_STR, &a.json, "FILE", "also write the report as JSON", 0, 0},
        {"csv", OPT_STR, &a.csv, "FILE", "also write it as CSV", 0, 0},
        {"show", OPT_STR, &a.show, "FILE", "print the table of a JSON report again", 0, 0},
        {"threads", OPT_UINT, &a.threads, "N", "default: one for each processor, at most 16", 1, 64},
        {NULL, OPT_FLAG, NULL, NULL, NULL, 0, 0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    if (a.show)
        return show(&a);
    if (!a.data) {
        fprintf(stderr, "duet evaluate: --data (or --show) is needed (usage: %s)\n", usage);
        return 2;
    }
    return run(&a);
}
