/* main.c - the `duet` command: one subcommand a job, from raw logs to a published bundle and back. */
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "config/yaml.h"

static const struct {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} commands[] = {
    // In the order of the work; one line a command.
    {"synth", "made-up city services: raw logs to try things on", cmd_synth},
    {"prepare", "raw logs -> one dataset file", cmd_prepare},
    {"train", "dataset -> checkpoint: DAT, two-tower, WALS, FM, YoutubeDNN or MIND", cmd_train},
    {"import", "a model trained in PyTorch -> checkpoint", cmd_import},
    {"evaluate", "HR@K and MRR of checkpoints and bundles", cmd_evaluate},
    {"study", "many runs, one table: systems compared, ablations, widths, negatives", cmd_study},
    {"publish", "checkpoint -> bundle: a new version in a repository", cmd_publish},
    {"inspect", "what is in a dataset, a checkpoint or a bundle", cmd_inspect},
    {"verify", "may this bundle serve?", cmd_verify},
    {"query", "candidates out of a bundle, or out of a running daemon", cmd_query},
    {"bench", "load a daemon, and reload it under load: what do users feel?", cmd_bench},
    {"replay", "recorded requests against two versions: what changes?", cmd_replay},
    {"index", "files of vectors: build, search, check, convert an index, without a daemon", cmd_index},
    {"doctor", "is this machine fit for duetd, and what is to be done?", cmd_doctor},
    {NULL, NULL, NULL},
};

int cmd_fail(const char *command, const struct err *err)
{
    fprintf(stderr, "duet %s: %s\n", command, err->msg[0] ? err->msg : "failed");
    return 1;
}

static int usage(FILE *to)
{
    fprintf(to, "usage: duet COMMAND [options]      duet COMMAND --help tells a command's options\n\n");
    for (size_t i = 0; commands[i].name; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].help);
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return usage(stderr);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
        return usage(stdout);
    if (strcmp(argv[1], "--version") == 0) {
        printf("duet %s\n", DUET_VERSION);
        return 0;
    }
    const char *known[sizeof(commands) / sizeof(commands[0])] = {NULL};
    size_t n = 0;
    for (size_t i = 0; commands[i].name; i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 2, argv + 2);
        known[n++] = commands[i].name;
    }
    const char *near = ynode_nearest(argv[1], known, n);
    fprintf(stderr, "duet: unknown command \"%s\"", argv[1]);
    if (near)
        fprintf(stderr, "; did you mean %s?", near);
    fprintf(stderr, " (duet --help lists them)\n");
    return 2;
}
