#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "train/collapse.h"
#include "train/epoch_log.h"
#include "train/resume.h"
#include "train/spectral.h"

#define COLLAPSE_EVERY 100 // batches between two looks within an epoch
#define REPORT_EVERY_S 0.5
#define EMA_EVERY 4 // steps between two looks of the average at the parameters

struct trainer {
    const struct trainer_params *p;
    const struct dist *dist;
    struct recipe recipe;
    struct pool *pool;
    struct model *model;
    struct sampler sampler;
    struct step step;
    struct progress progress;

    uint32_t *valid_user; // [n_valid_users] with at least one validation item
    size_t n_valid_users;
    float *pu, *pv, *rank; // of validation
    size_t n_rank;
    struct metrics_spec spec;
    FILE *log; // train.jsonl
};

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ------------------------------------------------------------------------------------------------------- set-up

static struct schema *copy_schema(const struct schema *s, struct err *err)
{
    json_t *o = schema_to_json(s, err);
    struct schema *copy = o ? schema_from_json(o, err) : NULL;
    json_decref(o);
    return copy;
}

static bool make_model(struct trainer *t, struct err *err)
{
    struct schema *schema = copy_schema(t->p->data->schema, err);
    struct tower_params shape = recipe_tower(&t->recipe);
    t->model = schema ? model_new(t->recipe.model, schema, &shape, &shape, err) : NULL;
    return t->model != NULL;
}

static bool prepare_validation(struct trainer *t, struct err *err)
{
    const struct dataset *d = t->p->data;
    t->spec = (struct metrics_spec){{50, 100}, 2};
    if (!(t->valid_user = mem_array(d->n_users, sizeof(*t->valid_user), err)))
        return false;
    for (uint32_t u = 0; u < d->n_users; u++)
        if (d->valid.off[u + 1] > d->valid.off[u])
            t->valid_user[t->n_valid_users++] = u;
    t->n_rank = (size_t)d->valid.off[d->n_users];
    t->pu = mem_array(t->n_valid_users, t->model->user.d * sizeof(float), err);
    t->pv = mem_array(d->n_items, t->model->item.d * sizeof(float), err);
    t->rank = mem_array(t->n_rank, sizeof(*t->rank), err);
    return t->pu && t->pv && t->rank;
}

/* Rank 0 prepares the folder, and what it finds there decides for all. */
static bool prepare_out(struct trainer *t, bool *resume, struct err *err)
{
    const char *dir = t->p->out_dir;
    if (!fio_mkdirs(dir, err))
        return false;
    *resume = t->p->resume && resume_exists(dir);
    return *resume || resume_remove(dir, err);
}

static bool open_out(struct trainer *t, struct err *err)
{
    bool resume = false, first = t->dist->rank == 0;
    const char *dir = t->p->out_dir;
    if (!dir)
        return true;
    if (first && !prepare_out(t, &resume, err))
        return false;
    double found = resume;
    dist_sum_double(t->dist, &found, 1);
    if (found != 0 && !resume_load(dir, &t->step, &t->progress, t->p->data->hash, err))
        return false;
    return !first || (t->log = epoch_log_open(dir, t->progress.epoch, err)) != NULL;
}

/* Ranks that read another dataset would train nonsense: each holds its hash, in quarters, against the sum of all. */
static bool same_data(const struct trainer *t, struct err *err)
{
    double own[4] = {0}, sum[4];
    for (size_t i = 0; i < 4; i++) {
        char part[9] = {0};
        memcpy(part, t->p->data->hash + 8 * i, 8);
        sum[i] = own[i] = (double)strtoul(part, NULL, 16);
    }
    dist_sum_double(t->dist, sum, 4);
    for (size_t i = 0; i < 4; i++)
        if (sum[i] != own[i] * t->dist->size)
            return err_set(err, ERR_MISMATCH, "the dataset is not the same at every rank; here its hash is %s",
                           t->p->data->hash);
    return true;
}

/* Items' own vectors (a_v, or the id's embedding that goes past the layers) by the interactions' leading directions;
 * items without a row or an interaction keep what was drawn. */
static bool spectral_start(struct trainer *t, struct err *err)
{
    const struct dataset *d = t->p->data;
    const struct tower *item = &t->model->item;
    const struct schema_side *side = &d->schema->item;
    size_t n = item->d, slot = side->field[side->id_field].slot;
    size_t field = item->skip_at / (item->shape.k ? item->shape.k : 1);
    const struct adam_rows *own = item->aug ? &t->step.item.adam.aug : &t->step.item.adam.emb;
    size_t first = item->aug ? 0 : item->shape.field[field].first_row;
    float *v = mem_array(d->n_items, n * sizeof(*v), err);
    bool ok = v && spectral_items(d, n, t->recipe.init_std, &t->sampler.rng, t->pool, v, err);
    for (size_t i = 0; ok && i < d->n_items; i++) {
        uint32_t row = d->item_x[i * side->n_slots + slot];
        if (row && d->item_count[i] && first + row >= own->lo && first + row < own->hi)
            memcpy(own->param + (first + row) * n, v + i * n, n * sizeof(*v));
    }
    free(v);
    return ok;
}

static bool trainer_init(struct trainer *t, const struct trainer_params *p, struct err *err)
{
    *t = (struct trainer){.p = p, .dist = p->dist ? p->dist : &dist_alone, .recipe = p->recipe};
    if (!recipe_check(&t->recipe, err) || !(t->pool = pool_new(t->recipe.threads, err)) || !make_model(t, err) ||
        !sampler_init(&t->sampler, p->data, &t->recipe, err) || !same_data(t, err) ||
        !step_init(&t->step, t->dist, &t->recipe, p->data, t->model, &t->sampler, t->pool, err))
        return false;
    step_init_params(t->model, &t->recipe, &t->step, &t->sampler.rng);
    if (t->recipe.recency)
        recency_begin(&t->step.recency, &t->model->history);
    if (t->recipe.spectral && t->model->item.shape.skip_aug && !spectral_start(t, err))
        return false;
    return step_derive_aug(&t->step, err) && prepare_validation(t, err) && open_out(t, err);
}

static void trainer_fini(struct trainer *t)
{
    if (t->log)
        fclose(t->log);
    step_fini(&t->step);
    sampler_fini(&t->sampler);
    model_free(t->model);
    pool_free(t->pool);
    free(t->valid_user);
    free(t->pu);
    free(t->pv);
    free(t->rank);
}

// --------------------------------------------------------------------------------------------------- validation

static struct rank_input validation_input(const struct trainer *t)
{
    const struct dataset *d = t->p->data;
    return (struct rank_input){.pu = t->pu,
                               .user = t->valid_user,
                               .n_users = t->n_valid_users,
                               .pv = t->pv,
                               .n_items = d->n_items,
                               .d = t->model->user.d,
                               .target = &d->valid,
                               .exclude = {&d->train, NULL}};
}

/* Each rank ranks for its share of the users; their targets lie one after the other in t->rank. */
static bool rank_users(struct trainer *t, struct rank_input in, struct err *err)
{
    size_t lo, hi, first = 0;
    dist_range(in.n_users, t->dist->rank, t->dist->size, &lo, &hi);
    for (size_t i = 0; i < lo; i++)
        first += (size_t)(in.target->off[in.user[i] + 1] - in.target->off[in.user[i]]);
    memset(t->rank, 0, t->n_rank * sizeof(*t->rank));
    in.user += lo;
    in.n_users = hi - lo;
    in.pu += lo * in.d;
    if (!rank_targets(&in, t->pool, t->rank + first, err))
        return false;
    dist_sum(t->dist, t->rank, t->n_rank);
    return true;
}

static bool validate(struct trainer *t, struct metrics *out, struct err *err)
{
    if (!step_embed_users(&t->step, t->valid_user, t->n_valid_users, t->pu, err) ||
        !step_embed_items(&t->step, t->pv, err) || !rank_users(t, validation_input(t), err))
        return err_prefix(err, "validation");
    *out = metrics_of(&t->spec, t->rank, NULL, t->n_rank);
    return true;
}

/* Popularity as a model with d = 1: p_u = 1, p_v = count. */
static bool popularity_hr100(struct trainer *t, double *hr, struct err *err)
{
    const struct dataset *d = t->p->data;
    struct rank_input in = validation_input(t);
    in.d = 1;
    for (uint32_t i = 0; i < d->n_items; i++)
        t->pv[i] = (float)d->item_count[i];
    for (size_t u = 0; u < t->n_valid_users; u++)
        t->pu[u] = 1;
    if (!rank_users(t, in, err))
        return false;
    *hr = metrics_of(&t->spec, t->rank, NULL, t->n_rank).hr[1];
    return true;
}

// ------------------------------------------------------------------------------------------------------- epochs

static void add_parts(struct loss_parts *sum, const struct loss_parts *p)
{
    sum->total += p->total;
    sum->main += p->main;
    sum->mimic_u += p->mimic_u;
    sum->mimic_v += p->mimic_v;
    sum->cal += p->cal;
}

static struct loss_parts mean_parts(const struct loss_parts *sum, size_t n)
{
    double f = n ? 1 / (double)n : 0;
    return (struct loss_parts){sum->total * f, sum->main * f, sum->mimic_u * f, sum->mimic_v * f, sum->cal * f};
}

static void report(struct trainer *t, struct trainer_report *r, const struct loss_parts *sum, size_t pairs,
                   double started)
{
    r->parts = mean_parts(sum, r->batch);
    r->health = t->step.health;
    r->seconds = now_s() - started;
    r->pairs_per_s = r->seconds > 0 ? (double)pairs / r->seconds : 0;
    r->logit_scale = t->model->logit_scale;
    double done = (double)r->batch / (double)r->n_batches;
    r->eta_s = done > 0 ? r->seconds / done * ((double)(r->epochs - r->epoch) + 1 - done) : 0;
    if (t->p->progress && t->dist->rank == 0)
        t->p->progress(t->p->progress_user, r);
}

static bool dead(struct trainer *t, struct trainer_result *out)
{
    if (out->collapsed || !collapse_seen(&t->recipe, &t->step.parts, &t->step.health, out->reason, sizeof(out->reason)))
        return false;
    out->collapsed = true;
    return true;
}

static void set_rate(struct trainer *t)
{
    float lr = (float)(t->recipe.lr * pow(t->recipe.lr_decay, t->progress.epoch));
    t->step.user.adam.p.lr = t->step.item.adam.p.lr = lr;
}

static void average(struct trainer *t)
{
    const struct recipe *r = &t->recipe;
    if (r->ema <= 0 || t->progress.epoch < r->ema_after || t->step.user.adam.step % EMA_EVERY)
        return;
    ema_take(&t->step.user.ema, pow(r->ema, EMA_EVERY));
    ema_take(&t->step.item.ema, pow(r->ema, EMA_EVERY));
}

static void swap_average(struct trainer *t)
{
    ema_swap(&t->step.user.ema);
    ema_swap(&t->step.item.ema);
}

/* One epoch of steps; ends early where the model is found dead (unless that is to be ignored). */
static void run_epoch(struct trainer *t, struct trainer_report *r, struct trainer_result *out)
{
    struct loss_parts sum = {0};
    size_t pairs = 0;
    double started = now_s(), told = started, every = t->p->report_every_s > 0 ? t->p->report_every_s : REPORT_EVERY_S;
    set_rate(t);
    for (sampler_epoch(&t->sampler); sampler_next(&t->sampler);) {
        step_gradients(&t->step);
        if (!t->step.health.finite && dead(t, out) && !t->p->keep_going)
            break;
        step_update(&t->step);
        average(t);
        add_parts(&sum, &t->step.parts);
        pairs += t->sampler.batch.n_pos;
        r->batch++;
        if ((r->batch % COLLAPSE_EVERY == 0 || r->batch == r->n_batches) && dead(t, out) && !t->p->keep_going)
            break;
        if (now_s() - told > every && r->batch < r->n_batches) {
            report(t, r, &sum, pairs, started);
            told = now_s();
        }
    }
    adam_flush(&t->step.user.adam);
    adam_flush(&t->step.item.adam);
    report(t, r, &sum, pairs, started);
}

static void write_log(struct trainer *t, const struct trainer_report *r)
{
    if (!t->log)
        return;
    epoch_log_put(t->log, json_pack("{s:i,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:o,s:b}", "epoch", (int)r->epoch, "loss",
                                    r->parts.total, "main", r->parts.main, "mimic_u", r->parts.mimic_u, "mimic_v",
                                    r->parts.mimic_v, "cal", r->parts.cal, "logit_scale", (double)r->logit_scale,
                                    "zero_outputs", fmax(r->health.zero_users, r->health.zero_items), "seconds",
                                    r->seconds, "pairs_per_s", r->pairs_per_s, "validation",
                                    metrics_to_json(&r->spec, &r->valid), "best", r->best));
}

static bool save(struct trainer *t, const struct trainer_result *out, bool best, const struct metrics *valid,
                 struct err *err)
{
    struct checkpoint_info info = {
        .recipe = t->recipe, .epoch = t->progress.epoch, .spec = t->spec, .valid = *valid, .collapsed = out->collapsed};
    snprintf(info.dataset_hash, sizeof(info.dataset_hash), "%s", t->p->data->hash);
    snprintf(info.reason, sizeof(info.reason), "%s", out->reason);
    if (!t->p->out_dir)
        return true;
    if (!best)
        return !out->collapsed || t->dist->rank || checkpoint_flag(t->p->out_dir, out->reason, err);
    part_collect(&t->step.user.part, t->model->user.block);
    part_collect(&t->step.item.part, t->model->item.block);
    bool ok = t->dist->rank || checkpoint_save(t->p->out_dir, t->model, &info, err);
    part_forget(&t->step.user.part, t->model->user.block);
    part_forget(&t->step.item.part, t->model->item.block);
    return ok;
}

/* Validate, remember the best, write the checkpoint. Where no epoch was better than a dead model, that is saved, and
 * says so. */
static bool judge_epoch(struct trainer *t, struct trainer_report *r, struct trainer_result *out, struct err *err)
{
    if (!step_derive_aug(&t->step, err) || !validate(t, &r->valid, err))
        return false;
    t->progress.epoch = r->epoch;
    r->best = t->progress.best_epoch == 0 || r->valid.hr[1] > t->progress.best || r->valid.n == 0;
    if (r->best) {
        t->progress.best = r->valid.hr[1];
        t->progress.best_epoch = r->epoch;
        out->valid = r->valid;
    }
    return save(t, out, r->best, &r->valid, err);
}

/* Judged and kept is the average, where there is one; training goes on from the parameters, and so does a resumed run.
 */
static bool end_epoch(struct trainer *t, struct trainer_report *r, struct trainer_result *out, struct err *err)
{
    swap_average(t);
    bool ok = judge_epoch(t, r, out, err);
    swap_average(t);
    if (!ok)
        return false;
    write_log(t, r);
    if (t->p->out_dir && !resume_save(t->p->out_dir, &t->step, &t->progress, t->p->data->hash, err))
        return false;
    if (t->p->progress && t->dist->rank == 0)
        t->p->progress(t->p->progress_user, r);
    return true;
}

static bool out_of_patience(const struct trainer *t)
{
    return t->recipe.patience && t->progress.epoch >= t->progress.best_epoch + t->recipe.patience;
}

static bool run(struct trainer *t, struct trainer_result *out, struct err *err)
{
    bool stop = false;
    if (!popularity_hr100(t, &out->popularity_hr100, err))
        return false;
    while (!stop && t->progress.epoch < t->recipe.epochs && !out_of_patience(t)) {
        struct trainer_report r = {.epoch = t->progress.epoch + 1,
                                   .epochs = t->recipe.epochs,
                                   .n_batches = t->sampler.n_batches,
                                   .spec = t->spec};
        run_epoch(t, &r, out);
        stop = out->collapsed && !t->p->keep_going;
        r.batch = r.n_batches;
        if (!end_epoch(t, &r, out, err))
            return false;
    }
    out->epochs_done = t->progress.epoch;
    out->best_epoch = t->progress.best_epoch;
    out->spec = t->spec;
    return true;
}

bool trainer_run(const struct trainer_params *p, struct trainer_result *out, struct err *err)
{
    struct trainer *t = mem_array(1, sizeof(*t), err);
    double started = now_s();
    *out = (struct trainer_result){0};
    bool ok = t && trainer_init(t, p, err) && run(t, out, err);
    if (t)
        trainer_fini(t);
    free(t);
    out->seconds = now_s() - started;
    return ok;
}
