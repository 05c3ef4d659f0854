#include "cli/train_fit.h"

#include <stdio.h>
#include <string.h>

#define DAT (1u << MODEL_DAT)
#define TOWERS (DAT | 1u << MODEL_TWO_TOWER)
#define WALS (1u << MODEL_WALS)
#define FM (1u << MODEL_FM)
#define MIND (1u << MODEL_MIND)
#define NETS (MIND | 1u << MODEL_YOUTUBE_DNN)
#define STEPS (TOWERS | FM | NETS) // what learns by batches

/* Options that are not here are for every model. */
static const struct {
    const char *option;
    unsigned kinds;
} uses[] = {
    {"aug", DAT},
    {"alpha", DAT},
    {"denoise", DAT},
    {"window", STEPS}, // what is asked for, and what is no candidate, whether or not the model reads the history
    {"recency", DAT},
    {"aug-grad", DAT},
    {"skip", TOWERS},
    {"spectral", TOWERS},
    {"id-tables", DAT},
    {"amm", DAT},
    {"cal", DAT},
    {"loss", STEPS},
    {"negatives", STEPS},
    {"in-batch", STEPS},
    {"only-sampled", STEPS},
    {"logq", STEPS},
    {"batching", TOWERS | FM},
    {"batch", STEPS},
    {"lr", STEPS},
    {"lr-decay", TOWERS | NETS},
    {"weight-decay", STEPS},
    {"k", TOWERS | NETS},
    {"relu-out", TOWERS | NETS},
    {"linear-out", TOWERS | NETS},
    {"scale", TOWERS | NETS},
    {"learn-scale", TOWERS},
    {"lambda1", DAT},
    {"lambda2", DAT},
    {"lambda3", DAT},
    {"cal-min-rows", DAT},
    {"cal-weighted", DAT},
    {"cal-plain", DAT},
    {"cal-positives", DAT},
    {"cal-detach-major", DAT},
    {"w0", WALS},
    {"reg", WALS},
    {"interests", MIND},
    {"history", NETS},
    {"oov-dropout", TOWERS},
    {"feature-dropout", TOWERS},
    {"item-dropout", TOWERS},
    {"user-weight", TOWERS | FM},
    {"ema", TOWERS | NETS},
    {"ema-after", TOWERS | NETS},
    {"keep-going", TOWERS},
};

static unsigned kinds_of(const char *option)
{
    for (size_t i = 0; i < sizeof(uses) / sizeof(*uses); i++)
        if (strcmp(uses[i].option, option) == 0)
            return uses[i].kinds;
    return ~0u;
}

static bool refuse(enum model_kind kind, const char *option, unsigned kinds, struct err *err)
{
    char list[96] = "";
    for (int k = MODEL_TWO_TOWER; k <= MODEL_MIND; k++)
        if (kinds >> k & 1) {
            size_t n = strlen(list);
            snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "", model_kind_name((enum model_kind)k));
        }
    return err_set(err, ERR_ARG, "--%s means nothing to --model %s; it is for %s", option, model_kind_name(kind), list);
}

bool train_options_fit(enum model_kind kind, const struct opt *opts, int argc, char **argv, struct err *err)
{
    const char *name;
    for (int i = 0; (name = opts_next(opts, argc, argv, &i));)
        if (!(kinds_of(name) >> kind & 1))
            return refuse(kind, name, kinds_of(name), err);
    return true;
}
