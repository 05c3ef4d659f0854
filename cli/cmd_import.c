/* duet import: the state dict of a PyTorch module -> a checkpoint folder. */
#include <math.h>
#include <stdio.h>

#include "cli/cmd.h"
#include "cli/opts.h"
#include "train/import.h"

static const char usage[] = "duet import --data FILE --state FILE.safetensors --out DIR [options]";
static const char about[] =
    "Takes a two-tower or DAT that was trained in PyTorch: its state dict as a safetensors file, with the names of\n"
    "docs/formats.md, \"State dict of PyTorch\", which also says how to write one. The folder is what `duet train` "
    "leaves\n"
    "of a model: `duet evaluate` and `duet publish` take it.\n";

struct args {
    const char *data, *state, *out, *kind;
    bool relu_out, skip_aug;
    double history_alpha;
    struct opt_list rename;
};

static bool choose(const struct args *a, struct import_params *p, struct err *err)
{
    bool has_kind;
    if (!import_check_renames(p, err) || !import_defaults(a->state, p, &has_kind, err))
        return false;
    if (!a->kind && !has_kind)
        return err_set(err, ERR_ARG, "--kind is needed, %s does not say: dat or two_tower", a->state);
    if (a->kind && !model_kind_parse(a->kind, &p->kind))
        return err_set(err, ERR_ARG, "--kind \"%s\", want dat or two_tower", a->kind);
    if (model_kind_stored(p->kind))
        return err_set(err, ERR_ARG, "kind %s has no towers; dat and two_tower can be imported",
                       model_kind_name(p->kind));
    p->relu_out |= a->relu_out;
    p->skip_aug |= a->skip_aug;
    p->history_alpha = isnan(a->history_alpha) ? p->history_alpha : a->history_alpha;
    return true;
}

static int run(const struct args *a)
{
    struct err err = {0};
    struct import_params p = {.state = a->state, .rename = a->rename.v, .n_rename = a->rename.n};
    if (!choose(a, &p, &err)) {
        cmd_fail("import", &err);
        return err.code == ERR_ARG ? 2 : 1; // 1: a file that cannot be read
    }
    struct dataset *d = dataset_open(a->data, &err);
    p.data = d;
    bool ok = d && import_checkpoint(&p, a->out, &err);
    if (ok)
        printf("%s: %s out of %s\n", a->out, model_kind_name(p.kind), a->state);
    dataset_close(d);
    return ok ? 0 : cmd_fail("import", &err);
}

int cmd_import(int argc, char **argv)
{
    struct args a = {.history_alpha = NAN};
    const struct opt opts[] = {
        {"data", OPT_STR, &a.data, "FILE", "dataset of `duet prepare` whose users and items the model knows", 0, 0},
        {"state", OPT_STR, &a.state, "FILE", "the state dict, in safetensors", 0, 0},
        {"out", OPT_STR, &a.out, "DIR", "checkpoint folder, made if missing", 0, 0},
        {"kind", OPT_STR, &a.kind, "KIND", "dat or two_tower; what the file's metadata say if not given", 0, 0},
        {"relu-out", OPT_FLAG, &a.relu_out, NULL, "ReLU after the last layer too", 0, 0},
        {"skip-aug", OPT_FLAG, &a.skip_aug, NULL,
         "the augmented vector (two_tower: the id's embedding) is added to the last layer's outputs", 0, 0},
        {"history-alpha", OPT_NUM, &a.history_alpha, "A",
         "a_u of a stranger with n items is n^-A times the sum of their vectors; 1, the mean, if nothing says "
         "otherwise",
         0, 1},
        {"rename", OPT_LIST, &a.rename, "OLD=NEW",
         "names that begin with OLD begin with NEW, as query_tower.=user.; may be given several times", 0, 0},
        {0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    if (!a.data || !a.state || !a.out) {
        fprintf(stderr, "duet import: --data, --state and --out are needed (usage: %s)\n", usage);
        return 2;
    }
    return run(&a);
}
