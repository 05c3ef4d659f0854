/* Question: how many training pairs does a CPU second of `duet train` take, and what do threads add?
 *
 *     bench_train DATASET RECIPE MODEL THREADS SECONDS     one JSON line as bench/train_torch.py's, which is the peer;
 * bench/train.sh asks both
 *
 * Counted are whole steps (a batch drawn, both towers, losses, gradients, Adam) between the reports of the trainer,
 * until they come to SECONDS of CPU time; what lies before an epoch's first report and its validation are not. What the
 * peer leaves out, dropped ids and features, is off. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/util.h"
#include "core/blas.h"
#include "train/trainer.h"

#define REPORT_EVERY_S 0.05 // an epoch of the fastest recipe is half a second, and what lies before its first report does not count

struct count {
    uint32_t epoch; // that `at` is of
    struct point {
        double pairs, wall, cpu;
    } at, sum; // the last report of the epoch; all that counts
    double seconds;
};

static void die(const char *why)
{
    fprintf(stderr, "bench_train: %s\n", why);
    exit(1);
}

static void print_and_exit(const struct point *p)
{
    printf("{\"system\": \"duet " DUET_VERSION
           "\", \"pairs\": %.0f, \"wall_s\": %.4f, \"cpu_s\": %.4f, \"pairs_per_cpu_s\": %.1f, "
           "\"pairs_per_s\": %.1f}\n",
           p->pairs, p->wall, p->cpu, p->pairs / p->cpu, p->pairs / p->wall);
    exit(0);
}

static void on_report(void *user, const struct trainer_report *r)
{
    struct count *c = user;
    if (r->valid.n) // validation lies between this report and the one before
        return;
    struct point now = {r->pairs_per_s * r->seconds, bench_seconds(CLOCK_MONOTONIC),
                        bench_seconds(CLOCK_PROCESS_CPUTIME_ID)};
    if (c->epoch == r->epoch) {
        c->sum.pairs += now.pairs - c->at.pairs;
        c->sum.wall += now.wall - c->at.wall;
        c->sum.cpu += now.cpu - c->at.cpu;
    }
    c->epoch = r->epoch;
    c->at = now;
    if (c->sum.cpu >= c->seconds)
        print_and_exit(&c->sum);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    struct trainer_result res;
    enum model_kind kind;
    struct count c = {0};
    if (argc != 6 || !model_kind_parse(argv[3], &kind))
        die("usage: bench_train DATASET RECIPE MODEL THREADS SECONDS");
    struct dataset *d = dataset_open(argv[1], &err);
    if (!d)
        die(err.msg);
    struct trainer_params p = {.data = d, .keep_going = true, .progress = on_report, .progress_user = &c, .report_every_s = REPORT_EVERY_S};
    if (!recipe_named(argv[2], kind, recipe_data_of(d), &p.recipe))
        die("RECIPE is duet, plain or paper");
    p.recipe.oov_dropout = p.recipe.feature_dropout = 0;
    p.recipe.threads = (uint32_t)atoi(argv[4]);
    p.recipe.epochs = 1000000;
    p.recipe.patience = 0;
    c.seconds = atof(argv[5]);
    blas_set_threads(1);
    if (!trainer_run(&p, &res, &err))
        die(err.msg);
    die("the epochs are over; ask for fewer seconds");
    return 1;
}
