/* run.c - see cell.h: one cell from its configuration to its two files. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "core/base/pack.h"
#include "train/baseline.h"
#include "train/checkpoint.h"
#include "train/evaluate_stored.h"
#include "train/study/cell.h"
#include "train/study/index_cost.h"
#include "train/study/parameters.h"

struct run {
    struct cell_place *p;
    const struct cell *c;
    char name[64], train[PATH_MAX]; // runs/NAME.train
    struct trainer_result trained;
    struct metrics valid;
    struct metrics_spec spec;
    double cpu_s, wall_s; // NAN: interrupted
    float *rank;          // [p->test.known.n]
    json_t *index;        // CELL_INDEX: what index_cost found
    uint32_t threads;
    bool collapsed;
    char reason[400];
};

static double clock_s(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// --------------------------------------------------------------------------------------------------------- towers

static bool train(struct run *r, struct err *err)
{
    char state[PATH_MAX];
    bool stored = model_kind_stored(r->c->recipe.model);
    if (!fio_join(state, r->train, "optimizer.safetensors", err))
        return false;
    struct trainer_params p = {.data = r->p->data,
                               .recipe = r->c->recipe,
                               .out_dir = r->train,
                               .resume = fio_exists(state),
                               .progress = r->p->progress,
                               .progress_user = r->p->progress_user};
    p.recipe.threads = r->threads;
    double cpu = clock_s(CLOCK_PROCESS_CPUTIME_ID);
    if (!(stored ? baseline_run : trainer_run)(&p, &r->trained, err))
        return false;
    r->cpu_s = p.resume ? NAN : clock_s(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    r->wall_s = p.resume ? NAN : r->trained.seconds;
    return true;
}

/* One view of the evaluator's object, with the ranks behind it. */
static json_t *evaluate(struct run *r, const struct model *m, struct err *err)
{
    r->p->test.kept = r->rank;
    json_t *o = evaluation_model(&r->p->test, r->name, m, err);
    r->p->test.kept = NULL;
    return o;
}

static json_t *run_trained(struct run *r, struct err *err)
{
    struct checkpoint *c = train(r, err) ? checkpoint_load(r->train, err) : NULL;
    if (!c)
        return NULL;
    r->valid = c->info.valid;
    r->spec = c->info.spec;
    r->trained.best_epoch = c->info.epoch;
    r->collapsed = c->info.collapsed;
    memcpy(r->reason, c->info.reason, sizeof(r->reason));
    json_t *o = evaluate(r, c->model, err);
    checkpoint_free(c);
    if (o && r->c->kind == CELL_INDEX && !(r->index = index_cost(&r->p->test, r->p->data_path, r->train, err))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

// ----------------------------------------------------------------------------------------------------- yardsticks

static json_t *yardstick(struct evaluation *e, const struct cell *c, struct err *err)
{
    return c->kind == CELL_EASE ? evaluation_ease(e, c->lambda, err) : evaluation_popularity(e, err);
}

static json_t *run_yardstick(struct run *r, struct err *err)
{
    struct cell_place *p = r->p;
    double cpu = clock_s(CLOCK_PROCESS_CPUTIME_ID), wall = clock_s(CLOCK_MONOTONIC);
    if (p->valid.target) {
        float *rank = mem_array(p->valid.known.n, sizeof(*rank), err);
        p->valid.kept = rank;
        json_t *o = rank ? yardstick(&p->valid, r->c, err) : NULL;
        p->valid.kept = NULL;
        r->spec = p->valid.p.spec;
        if (o)
            r->valid = metrics_of(&r->spec, rank, p->valid.known.keep_known, p->valid.known.n);
        free(rank);
        json_decref(o);
        if (!o)
            return NULL;
    }
    r->cpu_s = clock_s(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    r->wall_s = clock_s(CLOCK_MONOTONIC) - wall;
    p->test.kept = r->rank;
    json_t *o = yardstick(&p->test, r->c, err);
    p->test.kept = NULL;
    return o;
}

// --------------------------------------------------------------------------------------------------------- result

static bool write_ranks(const struct run *r, struct err *err)
{
    char path[PATH_MAX], tmp[PATH_MAX];
    size_t n = r->p->test.known.n;
    uint32_t *rank = mem_array(n, sizeof(*rank), err);
    for (size_t i = 0; rank && i < n; i++)
        rank[i] = (uint32_t)r->rank[i];
    bool ok = rank && cell_path(r->p, r->name, ".ranks", path, err) && fio_tmp_name(tmp, path, err);
    struct pack_writer *w = ok ? pack_writer_new(tmp, "study-ranks", err) : NULL;
    ok = w && pack_put(w, "rank", PACK_U32, n, 1, rank, err) && pack_writer_finish(w, err);
    pack_writer_free(w);
    free(rank);
    return ok && fio_replace(tmp, path, err);
}

static void put_time(json_t *o, const char *key, double seconds)
{
    json_object_set_new(o, key, isnan(seconds) ? json_null() : json_real(seconds));
}

static json_t *result_json(const struct run *r, json_t *evaluated, uint64_t n_params, struct err *err)
{
    char *text = cell_config(r->c, err);
    json_t *o = json_object(), *config = text ? json_parse(text, strlen(text), err) : NULL;
    free(text);
    json_object_set_new(o, "format", json_string("duet-study-run"));
    json_object_set_new(o, "format_version", json_integer(1));
    json_object_set_new(o, "dataset_hash", json_string(r->p->data->hash));
    json_object_set_new(o, "model_code", json_string(cell_version(r->c)));
    json_object_set_new(o, "configuration", config);
    json_object_set_new(o, "parameters", json_integer((json_int_t)n_params));
    json_object_set_new(o, "epochs", json_integer(r->trained.epochs_done));
    json_object_set_new(o, "best_epoch", json_integer(r->trained.best_epoch));
    json_object_set_new(o, "threads", json_integer(r->threads));
    put_time(o, "cpu_s", r->cpu_s);
    put_time(o, "wall_s", r->wall_s);
    if (r->collapsed)
        json_object_set_new(o, "collapsed", json_string(r->reason));
    if (r->valid.n)
        json_object_set_new(o, "validation", metrics_to_json(&r->spec, &r->valid));
    json_object_set(o, "test", json_object_get(evaluated, "metrics"));
    if (r->index)
        json_object_set(o, "index", r->index);
    json_object_set(o, "cold_start", json_object_get(evaluated, "cold_start"));
    if (config)
        return o;
    json_decref(o);
    return NULL;
}

static bool keep(struct run *r, json_t *evaluated, struct err *err)
{
    char path[PATH_MAX];
    uint64_t n_params = 0;
    if (cell_is_trained(r->c) && !parameters_count(r->p->data->schema, &r->c->recipe, &n_params, err))
        return false;
    json_t *o = result_json(r, evaluated, n_params, err);
    char *text = o ? json_text(o, err) : NULL;
    bool ok = text && cell_path(r->p, r->name, ".json", path, err) && write_ranks(r, err) && fio_write_atomic(path, text, strlen(text), err);
    free(text);
    json_decref(o);
    return ok && (!fio_is_dir(r->train) || fio_remove_tree(r->train, err));
}

bool cell_run(struct cell_place *p, const struct cell *c, uint32_t threads, struct err *err)
{
    struct run *r = mem_array(1, sizeof(*r), err);
    if (!r)
        return false;
    *r = (struct run){.p = p, .c = c, .threads = threads};
    bool ok = cell_name(p, c, r->name, err) && cell_path(p, r->name, ".train", r->train, err) &&
              (r->rank = mem_array(p->test.known.n, sizeof(*r->rank), err));
    json_t *o = !ok ? NULL : cell_is_trained(c) ? run_trained(r, err) : run_yardstick(r, err);
    ok = o && keep(r, o, err);
    json_decref(o);
    json_decref(r->index);
    free(r->rank);
    free(r);
    return ok;
}
