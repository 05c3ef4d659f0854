#include "train/baseline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "train/epoch_log.h"
#include "train/fm.h"
#include "train/history_net.h"
#include "train/resume.h"
#include "train/wals.h"

#define HISTORY_ALL 1000000 // as many as recipe_check allows

struct baseline {
    const struct trainer_params *p;
    const struct baseline_ops *ops;
    struct pool *pool;
    void *state;
    struct schema *schema;
    uint32_t *valid_user; // [n_valid_users] with at least one validation item
    size_t n_valid_users, n_rank;
    float *rank;
    struct metrics_spec spec;
    uint32_t done[2]; // epochs, and which of them was the best; 0 = none yet
    double best[5];   // its metrics, in the order of best_of
    FILE *log;        // train.jsonl
};

static const struct baseline_ops *ops_of(enum model_kind kind)
{
    switch (kind) {
    case MODEL_WALS:
        return &wals_ops;
    case MODEL_FM:
        return &fm_ops;
    case MODEL_YOUTUBE_DNN:
        return &youtube_dnn_ops;
    case MODEL_MIND:
        return &mind_ops;
    default:
        return NULL;
    }
}

void baseline_recipe(enum model_kind kind, struct recipe_data data, struct recipe *out)
{
    recipe_named("plain", kind, data, out);
    snprintf(out->name, sizeof(out->name), "tuned");
    out->amm = out->cal = false;
    out->oov_dropout = out->feature_dropout = 0;
    out->k = 32;
    out->init_std = 0.05;
    out->learn_scale = false;
    out->weight_decay = 0;
    out->lr = 3e-3;
    out->lr_decay = 1;
    out->scale = 10;
    out->patience = 5;
    out->n_layers = 1;
    out->width[0] = 64;
    if (kind == MODEL_WALS) {
        out->width[0] = 128;
        out->epochs = 12;
        out->patience = 3;
        wals_weights(data, out);
    }
    if (kind == MODEL_FM) {
        out->epochs = 80;
        out->weight_decay = 0.3;
    }
    if (kind == MODEL_YOUTUBE_DNN || kind == MODEL_MIND) {
        out->ema = 0.99;
        out->ema_after = data.timed ? 1 : 4;
        out->epochs = data.timed ? 20 : 60;
        out->scale = kind == MODEL_MIND ? 10 : 20;
        out->history = data.timed ? 20 : HISTORY_ALL; // without times none is later than another
        out->window = data.timed ? recipe_window(data) : 0;
        out->n_interest = kind == MODEL_MIND ? 2 : 1;
    }
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ------------------------------------------------------------------------------------------------------- set-up

static bool find_valid_users(struct baseline *b, struct err *err)
{
    const struct dataset *d = b->p->data;
    b->n_rank = (size_t)d->valid.off[d->n_users];
    b->valid_user = mem_array(d->n_users, sizeof(*b->valid_user), err);
    b->rank = mem_array(b->n_rank, sizeof(*b->rank), err);
    if (!b->valid_user || !b->rank)
        return false;
    for (uint32_t u = 0; u < d->n_users; u++)
        if (d->valid.off[u + 1] > d->valid.off[u])
            b->valid_user[b->n_valid_users++] = u;
    return true;
}

static struct resume_list list_of(struct baseline *b)
{
    struct resume_list l = {.n = 0};
    b->ops->list(b->state, &l);
    resume_add(&l, "epochs", ST_U32, b->done, 2);
    resume_add(&l, "best", ST_F64, b->best, 5);
    return l;
}

static bool load_state(struct baseline *b, struct err *err)
{
    const struct resume_list l = list_of(b);
    if (!resume_read(b->p->out_dir, &l, &b->p->recipe, b->p->data->hash, err))
        return false;
    if (b->ops->resumed)
        b->ops->resumed(b->state);
    return true;
}

/* Of what was there before, a run that does not go on from it leaves nothing to go on from. */
static bool open_out(struct baseline *b, struct err *err)
{
    const char *dir = b->p->out_dir;
    if (!dir)
        return true;
    bool resume = b->p->resume && resume_exists(dir);
    if (!fio_mkdirs(dir, err) || !(resume ? load_state(b, err) : resume_remove(dir, err)))
        return false;
    return (b->log = epoch_log_open(dir, b->done[0], err)) != NULL;
}

static bool init(struct baseline *b, const struct trainer_params *p, struct err *err)
{
    *b = (struct baseline){.p = p, .ops = ops_of(p->recipe.model), .spec = {{50, 100}, 2}};
    if (!b->ops)
        return err_set(err, ERR_ARG, "%s is not one of the baselines", model_kind_name(p->recipe.model));
    return recipe_check(&p->recipe, err) && (b->pool = pool_new(p->recipe.threads, err)) && find_valid_users(b, err) &&
           (b->state = b->ops->create(p->data, &p->recipe, b->pool, err)) && open_out(b, err);
}

static void fini(struct baseline *b)
{
    if (b->log)
        fclose(b->log);
    if (b->ops)
        b->ops->destroy(b->state);
    pool_free(b->pool);
    free(b->valid_user);
    free(b->rank);
}

// --------------------------------------------------------------------------------------------------- validation

static struct rank_input rank_input(const struct baseline *b)
{
    const struct dataset *d = b->p->data;
    return (struct rank_input){.user = b->valid_user,
                               .n_users = b->n_valid_users,
                               .n_items = d->n_items,
                               .target = &d->valid,
                               .exclude = {&d->train, NULL}};
}

static bool validate(struct baseline *b, const struct stored *s, struct metrics *out, struct err *err)
{
    struct rank_input in = rank_input(b);
    size_t row = (size_t)s->n_interest * s->d;
    float *pu = mem_array(b->n_valid_users, row * sizeof(*pu), err);
    for (size_t i = 0; pu && i < b->n_valid_users; i++)
        memcpy(pu + i * row, s->user + b->valid_user[i] * row, row * sizeof(*pu));
    in.pu = pu;
    in.pv = s->item;
    in.d = s->d;
    in.n_interest = s->n_interest;
    bool ok = pu && rank_targets(&in, b->pool, b->rank, err);
    free(pu);
    if (ok)
        *out = metrics_of(&b->spec, b->rank, NULL, b->n_rank);
    return ok || err_prefix(err, "validation");
}

static void popularity_scores(const void *ctx, size_t first, size_t n, float *scores)
{
    const struct dataset *d = ctx;
    (void)first;
    for (size_t i = 0; i < n * d->n_items; i++)
        scores[i] = (float)d->item_count[i % d->n_items];
}

static bool popularity_hr100(struct baseline *b, double *hr, struct err *err)
{
    struct rank_input in = rank_input(b);
    in.score = popularity_scores;
    in.score_ctx = b->p->data;
    if (!rank_targets(&in, b->pool, b->rank, err))
        return false;
    *hr = metrics_of(&b->spec, b->rank, NULL, b->n_rank).hr[1];
    return true;
}

// ------------------------------------------------------------------------------------------------------- epochs

static struct schema *copy_schema(const struct schema *s, struct err *err)
{
    json_t *o = schema_to_json(s, err);
    struct schema *copy = o ? schema_from_json(o, err) : NULL;
    json_decref(o);
    return copy;
}

/* Takes the vectors. */
static bool save(struct baseline *b, struct stored *s, const struct trainer_report *r, struct err *err)
{
    struct checkpoint_info info = {.recipe = b->p->recipe, .epoch = r->epoch, .spec = b->spec, .valid = r->valid};
    snprintf(info.dataset_hash, sizeof(info.dataset_hash), "%s", b->p->data->hash);
    struct schema *schema = b->p->out_dir ? copy_schema(b->p->data->schema, err) : NULL;
    if (!schema) {
        stored_free(s);
        return !b->p->out_dir;
    }
    struct model *m = model_new_stored(b->p->recipe.model, schema, s, err);
    bool ok = m && checkpoint_save(b->p->out_dir, m, &info, err);
    model_free(m);
    return ok;
}

static void write_log(struct baseline *b, const struct trainer_report *r)
{
    if (!b->log)
        return;
    epoch_log_put(b->log, json_pack("{s:i,s:f,s:f,s:f,s:o,s:b}", "epoch", (int)r->epoch, "loss", r->parts.total,
                                    "seconds", r->seconds, "pairs_per_s", r->pairs_per_s, "validation",
                                    metrics_to_json(&r->spec, &r->valid), "best", r->best));
}

static void fill_report(const struct baseline *b, struct trainer_report *r, double loss, double seconds)
{
    const struct dataset *d = b->p->data;
    r->batch = r->n_batches = 1;
    r->parts.total = r->parts.main = loss;
    r->seconds = seconds;
    r->pairs_per_s = seconds > 0 ? (double)d->train.off[d->n_users] / seconds : 0;
    r->eta_s = seconds * (double)(r->epochs - r->epoch);
    r->spec = b->spec;
    r->logit_scale = (float)b->p->recipe.scale;
}

static struct metrics best_of(const struct baseline *b)
{
    return (struct metrics){
        .n = (size_t)b->best[0], .hr = {b->best[1], b->best[2]}, .mrr = b->best[3], .mrr10 = b->best[4]};
}

static void note_best(struct baseline *b, const struct trainer_report *r)
{
    const double m[] = {(double)r->valid.n, r->valid.hr[0], r->valid.hr[1], r->valid.mrr, r->valid.mrr10};
    b->done[1] = r->epoch;
    memcpy(b->best, m, sizeof(m));
}

static bool save_state(struct baseline *b, struct err *err)
{
    const struct resume_list l = list_of(b);
    return !b->p->out_dir || resume_write(b->p->out_dir, &l, &b->p->recipe, b->p->data->hash, err);
}

static bool one_epoch(struct baseline *b, struct trainer_report *r, struct err *err)
{
    double loss, started = now_s();
    if (!b->ops->epoch(b->state, &loss, err))
        return false;
    fill_report(b, r, loss, now_s() - started);
    struct stored *s = b->ops->vectors(b->state, err);
    if (!s)
        return false;
    if (!validate(b, s, &r->valid, err)) {
        stored_free(s);
        return false;
    }
    r->best = b->done[1] == 0 || r->valid.hr[1] > best_of(b).hr[1] || r->valid.n == 0;
    b->done[0] = r->epoch;
    if (r->best) {
        note_best(b, r);
        if (!save(b, s, r, err))
            return false;
    } else {
        stored_free(s);
    }
    write_log(b, r);
    if (!save_state(b, err))
        return false;
    if (b->p->progress)
        b->p->progress(b->p->progress_user, r);
    return true;
}

static bool run(struct baseline *b, struct trainer_result *out, struct err *err)
{
    const struct recipe *r = &b->p->recipe;
    out->spec = b->spec;
    if (!popularity_hr100(b, &out->popularity_hr100, err))
        return false;
    while (b->done[0] < r->epochs && (r->patience == 0 || b->done[0] < b->done[1] + r->patience)) {
        struct trainer_report report = {.epoch = b->done[0] + 1, .epochs = r->epochs};
        if (!one_epoch(b, &report, err))
            return err_prefix(err, "%s %u", b->ops->epoch_name, report.epoch);
    }
    out->epochs_done = b->done[0];
    out->best_epoch = b->done[1];
    out->valid = best_of(b);
    return true;
}

bool baseline_run(const struct trainer_params *p, struct trainer_result *out, struct err *err)
{
    struct baseline b;
    double started = now_s();
    *out = (struct trainer_result){0};
    bool ok = init(&b, p, err) && run(&b, out, err);
    fini(&b);
    out->seconds = now_s() - started;
    return ok;
}
