/* duet train: one dataset file -> a checkpoint folder. Progress on standard error, the result on standard output. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cmd.h"
#include "cli/opts.h"
#include "cli/train_fit.h"
#include "core/blas.h"
#include "train/baseline.h"
#include "train/defaults.h"
#include "train/dist.h"
#include "train/tfevents.h"
#include "train/trainer.h"

static const char usage[] = "duet train --data FILE --model KIND --out DIR [options]";
static const char about[] = "Trains the towers of docs/model.md on a dataset of `duet prepare` and keeps the epoch "
                            "with the best validation HR@100.\n"
                            "--recipe duet (default) is what works on public data; --recipe paper is the text to the "
                            "letter. Options change single choices.\n";

#define UNSET_U UINT64_MAX
#define UNSET_N (-1.0)

/* What the command line says; unset values leave the recipe's own. */
struct args {
    const char *data, *model, *out, *tensorboard, *recipe, *loss, *widths, *batching, *aug;
    bool amm, cal, fast, in_batch, no_in_batch, logq, linear_out, relu_out, learn_scale, resume, keep_going, quiet;
    bool cal_weighted, cal_plain, cal_positives, cal_detach_major, skip, spectral, aug_grad, id_tables, recency;
    uint64_t epochs, seed, threads, batch, k, negatives, patience, cal_min_rows, interests, history, ema_after, window;
    double lr, lr_decay, scale, lambda1, lambda2, lambda3, oov_dropout, feature_dropout, weight_decay, init_std, w0,
        reg;
    double alpha, denoise, item_dropout, user_weight, ema;
};

// --------------------------------------------------------------------------------------------------------- recipe

static void set_u32(uint32_t *to, uint64_t v)
{
    if (v != UNSET_U)
        *to = (uint32_t)v;
}

static void set_num(double *to, double v)
{
    if (v >= 0)
        *to = v;
}

static bool parse_widths(const char *text, struct recipe *r, struct err *err)
{
    const char *p = text;
    for (r->n_layers = 0; r->n_layers < TOWER_LAYERS_MAX; p++) {
        char *end;
        unsigned long w = strtoul(p, &end, 10);
        if (end == p || w < 1 || w > 8192 || (*end && *end != ','))
            break;
        r->width[r->n_layers++] = (uint32_t)w;
        if (!*end)
            return true;
        p = end;
    }
    return err_set(err, ERR_ARG, "--widths \"%s\", want 1 to %d numbers from 1 to 8192, as 256,128,32", text,
                   TOWER_LAYERS_MAX);
}

static void set_numbers(const struct args *a, struct recipe *r)
{
    set_u32(&r->epochs, a->epochs);
    set_u32(&r->batch, a->batch);
    set_u32(&r->k, a->k);
    set_u32(&r->negatives, a->negatives);
    set_u32(&r->patience, a->patience);
    set_u32(&r->cal_min_rows, a->cal_min_rows);
    set_num(&r->lr, a->lr);
    set_num(&r->lr_decay, a->lr_decay);
    set_num(&r->scale, a->scale);
    set_num(&r->lambda1, a->lambda1);
    set_num(&r->lambda2, a->lambda2);
    set_num(&r->lambda3, a->lambda3);
    set_num(&r->oov_dropout, a->oov_dropout);
    set_num(&r->feature_dropout, a->feature_dropout);
    set_num(&r->weight_decay, a->weight_decay);
    set_num(&r->init_std, a->init_std);
    set_num(&r->w0, a->w0);
    set_num(&r->reg, a->reg);
    set_u32(&r->n_interest, a->interests);
    set_u32(&r->history, a->history);
    set_num(&r->alpha, a->alpha);
    set_u32(&r->window, a->window);
    if (a->denoise > 0 && a->window == UNSET_U)
        r->window = 0; // one of the two
    set_num(&r->denoise, a->denoise);
    set_num(&r->item_dropout, a->item_dropout);
    set_num(&r->user_weight, a->user_weight);
    set_num(&r->ema, a->ema);
    set_u32(&r->ema_after, a->ema_after);
    r->seed = a->seed;
    r->threads = (uint32_t)a->threads;
}

static void set_flags(const struct args *a, struct recipe *r)
{
    r->amm = r->amm && a->amm;
    r->cal = r->cal && a->cal;
    r->in_batch = a->in_batch || (r->in_batch && !a->no_in_batch);
    r->logq = a->logq && r->loss == LOSS_SAMPLED;
    r->relu_out = a->relu_out || (r->relu_out && !a->linear_out);
    r->learn_scale |= a->learn_scale;
    r->skip = r->skip && a->skip;
    r->spectral = r->spectral && a->spectral && r->skip;
    r->aug_grad = r->aug_grad && a->aug_grad;
    r->id_tables |= a->id_tables;
    r->recency = a->recency && r->recency;
    r->cal_weighted = a->cal_weighted || (r->cal_weighted && !a->cal_plain);
    r->cal_positives |= a->cal_positives;
    r->cal_detach_major |= a->cal_detach_major;
}

static bool make_recipe(const struct args *a, const struct dataset *d, struct recipe *r, struct err *err)
{
    enum model_kind kind;
    if (!model_kind_parse(a->model, &kind))
        return err_set(err, ERR_ARG, "--model \"%s\", want " MODEL_KINDS, a->model);
    if (model_kind_stored(kind) && strcmp(a->recipe, "duet") != 0)
        return err_set(err, ERR_ARG, "--recipe %s is for dat and two_tower; %s has one of its own", a->recipe,
                       a->model);
    if (!defaults_of(a->recipe, kind, recipe_data_of(d), r))
        return err_set(err, ERR_ARG, "--recipe \"%s\", want duet, plain or paper", a->recipe);
    enum aug_kind aug;
    if (a->aug && !aug_kind_parse(a->aug, &aug))
        return err_set(err, ERR_ARG, "--aug \"%s\", want table or closed", a->aug);
    if (a->aug && strcmp(a->recipe, "duet") == 0)
        recipe_duet(kind, aug, recipe_data_of(d), r);
    if (a->aug)
        r->aug = aug;
    if (a->fast)
        recipe_fast(r);
    if (a->loss && !loss_kind_parse(a->loss, &r->loss))
        return err_set(err, ERR_ARG, "--loss \"%s\", want bce, softmax or sampled", a->loss);
    if (a->batching && strcmp(a->batching, "pairs") != 0 && strcmp(a->batching, "users") != 0)
        return err_set(err, ERR_ARG, "--batching \"%s\", want pairs or users", a->batching);
    if (a->batching)
        r->batching = strcmp(a->batching, "users") == 0 ? BATCH_USERS : BATCH_PAIRS;
    if (a->loss && r->loss == LOSS_BCE && a->negatives == UNSET_U)
        r->negatives = 4; // the text's S; what the recipe has is for sampled softmax
    if (a->loss && r->loss == LOSS_SAMPLED && a->negatives == UNSET_U)
        r->negatives = 2000;
    set_numbers(a, r);
    set_flags(a, r);
    return (!a->widths || parse_widths(a->widths, r, err)) && recipe_check(r, err);
}

// ------------------------------------------------------------------------------------------------------- progress

struct screen {
    bool tty, dat, quiet;
    FILE *events; // --tensorboard
};

/* What train.jsonl has of an epoch, but for its counts. A disk that is full ends the events, not the training. */
static void put_events(struct screen *s, const struct trainer_report *r)
{
    const struct tfscalar scalar[] = {{"loss/total", r->parts.total},
                                      {"loss/main", r->parts.main},
                                      {"validation/hr@50", r->valid.hr[0]},
                                      {"validation/hr@100", r->valid.hr[1]},
                                      {"validation/mrr", r->valid.mrr},
                                      {"pairs_per_s", r->pairs_per_s},
                                      {"logit_scale", (double)r->logit_scale},
                                      {"loss/mimic_u", r->parts.mimic_u},
                                      {"loss/mimic_v", r->parts.mimic_v},
                                      {"loss/cal", r->parts.cal}};
    struct err err = {0};
    size_t n = sizeof(scalar) / sizeof(*scalar) - (s->dat ? 0 : 3);
    if (tfevents_put(s->events, (double)time(NULL), r->epoch, scalar, n, &err))
        return;
    cmd_fail("train", &err);
    fclose(s->events);
    s->events = NULL;
}

static void print_parts(const struct trainer_report *r, bool dat)
{
    fprintf(stderr, "loss %.4f", r->parts.total);
    if (dat)
        fprintf(stderr, " (main %.4f, mimic %.4f %.4f, align %.2e)", r->parts.main, r->parts.mimic_u, r->parts.mimic_v,
                r->parts.cal);
}

static void on_progress(void *user, const struct trainer_report *r)
{
    struct screen *s = user;
    bool done = r->batch == r->n_batches && (r->valid.n || r->best);
    if (done && s->events)
        put_events(s, r);
    if (s->quiet || (!done && !s->tty))
        return;
    fprintf(stderr, "%sepoch %u/%u ", s->tty ? "\r\033[K" : "", r->epoch, r->epochs);
    if (!done)
        fprintf(stderr, "batch %zu/%zu ", r->batch, r->n_batches);
    print_parts(r, s->dat);
    if (done)
        fprintf(stderr, "  valid HR@50 %.4f HR@100 %.4f MRR %.4f%s", r->valid.hr[0], r->valid.hr[1], r->valid.mrr,
                r->best ? " *" : "");
    fprintf(stderr, "  %.0f pairs/s, at most %.0f s left%s", r->pairs_per_s, r->eta_s, done || !s->tty ? "\n" : "");
}

/* A resumed run without a better epoch has not seen the best one: the folder knows. */
static void recall_best(const struct args *a, struct trainer_result *res)
{
    struct checkpoint_info info;
    if (res->valid.n == 0 && res->best_epoch && checkpoint_info_load(a->out, &info, NULL) &&
        info.epoch == res->best_epoch)
        res->valid = info.valid;
}

static int finish(const struct args *a, struct trainer_result *res)
{
    recall_best(a, res);
    printf("%s: %u epochs in %.1f s, best epoch %u: validation HR@50 %.4f, HR@100 %.4f, MRR %.4f (popularity HR@100 "
           "%.4f)\n",
           a->out, res->epochs_done, res->seconds, res->best_epoch, res->valid.hr[0], res->valid.hr[1], res->valid.mrr,
           res->popularity_hr100);
    if (res->valid.n && res->valid.hr[1] < res->popularity_hr100)
        fprintf(stderr,
                "duet train: the model ranks worse than popularity on validation; it has learned nothing of use\n");
    if (!res->collapsed)
        return 0;
    fprintf(stderr, "duet train: collapse after %u epochs: %s%s\n", res->epochs_done, res->reason,
            a->keep_going ? "" : " (--keep-going trains on regardless)");
    return a->keep_going ? 0 : 1;
}

/* Every rank finds the same fault in the command line: one tells it. */
static int usage_fault(const struct dist *dist, const struct err *err)
{
    if (dist->rank == 0)
        cmd_fail("train", err);
    return 2;
}

/* What ends one of several ranks ends all: the others would wait for it. */
static int run_fault(const struct dist *dist, struct err *err)
{
    if (dist->size > 1)
        err_prefix(err, "rank %u of %u", dist->rank, dist->size);
    int status = cmd_fail("train", err);
    if (dist->size > 1)
        dist_abort(dist, status);
    return status;
}

static bool recipe_fits_ranks(const struct dist *dist, const struct recipe *r, struct err *err)
{
    return dist->size == 1 || !model_kind_stored(r->model) ||
           err_set(err, ERR_ARG,
                   "--model %s trains in one process, %u were started; dat and two_tower train in several",
                   model_kind_name(r->model), dist->size);
}

static bool options_fit(const struct args *a, const struct opt *opts, int argc, char **argv, struct err *err)
{
    enum model_kind kind; // one that is unknown is told later
    return !model_kind_parse(a->model, &kind) || train_options_fit(kind, opts, argc, argv, err);
}

/* What the data decide of this model, unless the command line does. */
static void print_weights(const struct args *a, const struct dataset *d, const struct recipe *r)
{
    if (r->model == MODEL_WALS && !a->quiet)
        fprintf(stderr, "w0 %.3g%s, reg %.3g%s; %.3g of all pairs of a user and an item are there\n", r->w0,
                a->w0 >= 0 ? " (given)" : "", r->reg, a->reg >= 0 ? " (given)" : "",
                (double)d->train.off[d->n_users] / ((double)d->n_users * d->n_items));
}

static bool open_events(const struct args *a, const struct dist *dist, struct screen *s, struct err *err)
{
    if (!a->tensorboard || dist->rank)
        return true;
    s->events = tfevents_open(a->tensorboard, (double)time(NULL), err);
    return s->events != NULL;
}

static int run(const struct args *a, const struct dist *dist)
{
    struct err err = {0};
    struct trainer_result res;
    struct screen screen = {isatty(STDERR_FILENO), strcmp(a->model, "dat") == 0, a->quiet, NULL};
    struct dataset *d = dataset_open(a->data, &err);
    struct trainer_params p = {.data = d,
                               .dist = dist,
                               .out_dir = a->out,
                               .resume = a->resume,
                               .keep_going = a->keep_going,
                               .progress = on_progress,
                               .progress_user = &screen};
    if (!d)
        return run_fault(dist, &err);
    if (!make_recipe(a, d, &p.recipe, &err) || !recipe_fits_ranks(dist, &p.recipe, &err)) {
        dataset_close(d);
        return usage_fault(dist, &err);
    }
    print_weights(a, d, &p.recipe);
    blas_set_threads(1); // the pool's threads are the parallelism
    bool ok = open_events(a, dist, &screen, &err) &&
              (model_kind_stored(p.recipe.model) ? baseline_run : trainer_run)(&p, &res, &err);
    if (screen.events)
        fclose(screen.events);
    dataset_close(d);
    if (!ok)
        return run_fault(dist, &err);
    return dist->rank ? (res.collapsed && !a->keep_going) : finish(a, &res);
}

// -------------------------------------------------------------------------------------------------------- command

int cmd_train(int argc, char **argv)
{
    struct args a = {.model = "dat",
                     .recipe = "duet",
                     .amm = true,
                     .cal = true,
                     .skip = true,
                     .spectral = true,
                     .aug_grad = true,
                     .recency = true,
                     .logq = true,
                     .seed = 1,
                     .threads = 1,
                     .epochs = UNSET_U,
                     .batch = UNSET_U,
                     .k = UNSET_U,
                     .negatives = UNSET_U,
                     .patience = UNSET_U,
                     .cal_min_rows = UNSET_U,
                     .lr = UNSET_N,
                     .lr_decay = UNSET_N,
                     .scale = UNSET_N,
                     .lambda1 = UNSET_N,
                     .lambda2 = UNSET_N,
                     .lambda3 = UNSET_N,
                     .oov_dropout = UNSET_N,
                     .feature_dropout = UNSET_N,
                     .weight_decay = UNSET_N,
                     .init_std = UNSET_N,
                     .interests = UNSET_U,
                     .history = UNSET_U,
                     .window = UNSET_U,
                     .w0 = UNSET_N,
                     .reg = UNSET_N,
                     .alpha = UNSET_N,
                     .denoise = UNSET_N,
                     .item_dropout = UNSET_N,
                     .user_weight = UNSET_N,
                     .ema = UNSET_N,
                     .ema_after = UNSET_U};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    a.threads = cpus < 1 || dist_launched() ? 1 : cpus > 16 ? 16 : (uint64_t)cpus;
    const struct opt opts[] = {
        {"data", OPT_STR, &a.data, "FILE", "dataset of `duet prepare`", 0, 0},
        {"model", OPT_STR, &a.model, "KIND", MODEL_KINDS, 0, 0},
        {"out", OPT_STR, &a.out, "DIR", "checkpoint folder, made if missing", 0, 0},
        {"recipe", OPT_STR, &a.recipe, "NAME", "duet, plain or paper: where all values below start from", 0, 0},
        {"fast", OPT_FLAG, &a.fast, NULL, "few epochs: to see everything work, not to compare", 0, 0},
        {"aug", OPT_STR, &a.aug, "KIND", "dat: a_u is `closed` (computed from the history) or a learned `table`", 0, 0},
        {"alpha", OPT_NUM, &a.alpha, "X", "closed: a_u = n^-X times the sum of the history's p_v; 1 = mean", 0, 1},
        {"denoise", OPT_NUM, &a.denoise, "P", "closed: chance that a positive is asked for instead of being history", 0,
         0.95},
        {"window", OPT_UINT, &a.window, "N",
         "data with times: a history ends at some moment and the next N items are asked for; 0 = not in time", 0, 1e6},
        {"recency", OPT_FLAG, &a.recency, NULL,
         "closed, data with times: --no-recency: all items of a history weigh alike", 0, 0},
        {"aug-grad", OPT_FLAG, &a.aug_grad, NULL, "closed: --no-aug-grad: p_v in a_u is a constant, as in equation 2",
         0, 0},
        {"skip", OPT_FLAG, &a.skip, NULL, "--no-skip: a (two_tower: the id's embedding) is not added to the outputs", 0,
         0},
        {"spectral", OPT_FLAG, &a.spectral, NULL, "--no-spectral: items start from random vectors", 0, 0},
        {"id-tables", OPT_FLAG, &a.id_tables, NULL, "closed: embed ids beside the augmented vectors", 0, 0},
        {"amm", OPT_FLAG, &a.amm, NULL, "--no-amm: no mimic losses; a_u, a_v stay as extra inputs", 0, 0},
        {"cal", OPT_FLAG, &a.cal, NULL, "--no-cal: no category alignment", 0, 0},
        {"loss", OPT_STR, &a.loss, "KIND", "bce, softmax (whole catalogue) or sampled (softmax over sampled items)", 0,
         0},
        {"negatives", OPT_UINT, &a.negatives, "S", "bce: for each positive; sampled: shared by the batch", 0, 1e6},
        {"in-batch", OPT_FLAG, &a.in_batch, NULL, "sampled: other users' positives are negatives too (duet: on)", 0, 0},
        {"only-sampled", OPT_FLAG, &a.no_in_batch, NULL, "sampled: they are not", 0, 0},
        {"logq", OPT_FLAG, &a.logq, NULL, "--no-logq: sampled softmax without its correction", 0, 0},
        {"batching", OPT_STR, &a.batching, "HOW", "pairs: random pairs; users: random users with all their pairs", 0,
         0},
        {"batch", OPT_UINT, &a.batch, "N", "pairs or users in a batch", 1, 1e6},
        {"epochs", OPT_UINT, &a.epochs, "N", "at most", 1, 1e6},
        {"patience", OPT_UINT, &a.patience, "N", "stop after N epochs without a better validation HR@100; 0 = never", 0,
         1e6},
        {"lr", OPT_NUM, &a.lr, "X", "Adam's rate", 1e-9, 10},
        {"lr-decay", OPT_NUM, &a.lr_decay, "X", "factor on the rate after each epoch", 1e-3, 1},
        {"weight-decay", OPT_NUM, &a.weight_decay, "X", "of the embedding tables, decoupled", 0, 10},
        {"init-std", OPT_NUM, &a.init_std, "X", "of the embedding tables at the start", 0, 10},
        {"k", OPT_UINT, &a.k, "K", "columns of the embedding tables", 1, 1024},
        {"widths", OPT_STR, &a.widths, "LIST", "outputs of the layers, as 256,128,32; the last is d", 0, 0},
        {"relu-out", OPT_FLAG, &a.relu_out, NULL, "ReLU after the last layer (equation 1 to the letter)", 0, 0},
        {"linear-out", OPT_FLAG, &a.linear_out, NULL, "no ReLU after the last layer", 0, 0},
        {"scale", OPT_NUM, &a.scale, "X", "logit = X * cosine", 1e-3, 1000},
        {"learn-scale", OPT_FLAG, &a.learn_scale, NULL, "let the scale be learned, from --scale on", 0, 0},
        {"lambda1", OPT_NUM, &a.lambda1, "X", "weight of loss_u", 0, 1e6},
        {"lambda2", OPT_NUM, &a.lambda2, "X", "weight of loss_v", 0, 1e6},
        {"lambda3", OPT_NUM, &a.lambda3, "X", "weight of category alignment", 0, 1e6},
        {"cal-min-rows", OPT_UINT, &a.cal_min_rows, "N", "leave out categories with fewer rows in the batch", 2, 1e9},
        {"cal-weighted", OPT_FLAG, &a.cal_weighted, NULL, "weigh a category by its share of the rows", 0, 0},
        {"cal-plain", OPT_FLAG, &a.cal_plain, NULL, "weigh all categories alike, as in the text", 0, 0},
        {"cal-positives", OPT_FLAG, &a.cal_positives, NULL, "align over rows of positives only", 0, 0},
        {"cal-detach-major", OPT_FLAG, &a.cal_detach_major, NULL, "no gradient to the largest category", 0, 0},
        {"w0", OPT_NUM, &a.w0, "X", "wals: weight of what was not seen, against 1; by default from the data's density", 0, 1},
        {"reg", OPT_NUM, &a.reg, "X", "wals: penalty, multiplied by a row's count", 0, 1e6},
        {"interests", OPT_UINT, &a.interests, "N", "mind: query vectors of a user", 1, 64},
        {"history", OPT_UINT, &a.history, "N", "youtube_dnn, mind: at most the latest N items describe a user", 1, 1e6},
        {"oov-dropout", OPT_NUM, &a.oov_dropout, "P", "chance that an id is dropped, which trains the unknown row", 0,
         0.9},
        {"feature-dropout", OPT_NUM, &a.feature_dropout, "P", "the same for every other field", 0, 0.9},
        {"item-dropout", OPT_NUM, &a.item_dropout, "P", "chance that a component of an item's output is dropped", 0,
         0.9},
        {"user-weight", OPT_NUM, &a.user_weight, "X", "a user of n positives weighs n^X; 1 = all pairs alike", 0, 1},
        {"ema", OPT_NUM, &a.ema, "X", "decay of the average of the parameters that is kept; 0 = no average", 0,
         0.99999},
        {"ema-after", OPT_UINT, &a.ema_after, "N", "epochs before the average begins", 0, 1e6},
        {"seed", OPT_UINT, &a.seed, "N", "of everything random", 0, 9e18},
        {"threads", OPT_UINT, &a.threads, "N", "default: one for each processor, at most 16; of a rank of mpirun: 1", 1,
         64},
        {"resume", OPT_FLAG, &a.resume, NULL, "go on from the last epoch in --out", 0, 0},
        {"keep-going", OPT_FLAG, &a.keep_going, NULL, "train on after a collapse", 0, 0},
        {"tensorboard", OPT_STR, &a.tensorboard, "DIR",
         "also write each epoch's losses and validation as TensorBoard's event files", 0, 0},
        {"quiet", OPT_FLAG, &a.quiet, NULL, "no progress", 0, 0},
        {NULL, OPT_FLAG, NULL, NULL, NULL, 0, 0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    if (!a.data || !a.out) {
        fprintf(stderr, "duet train: --data and --out are needed (usage: %s)\n", usage);
        return 2;
    }
    struct dist dist;
    struct err err = {0};
    if (!dist_open(&dist, &err))
        return cmd_fail("train", &err);
    if (!options_fit(&a, opts, argc, argv, &err)) {
        rc = usage_fault(&dist, &err);
        dist_close(&dist);
        return rc;
    }
    rc = run(&a, &dist);
    dist_close(&dist);
    return rc;
}
