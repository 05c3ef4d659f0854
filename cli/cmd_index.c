/* duet index: the index by itself, from files of vectors, without models or a daemon. */
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/index_cmd.h"
#include "config/yaml.h"

static const struct {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"build", "file of vectors -> index", index_build},
    {"search", "the nearest of each query; recall and queries a second", index_search},
    {"truth", "exact answers, to measure recall against", index_truth},
    {"check", "is this index sound, and can all of it be found?", index_check},
    {"info", "what is in an index or a file of vectors", index_info},
    {"convert", "to and from hnswlib's files, and index -> vectors", index_convert},
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int usage(FILE *to)
{
    fprintf(to, "usage: duet index COMMAND [options]      duet index COMMAND --help tells a command's options\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].help);
    fprintf(to, "\nVectors: .fbin, .fvecs. Ids: .ibin, .ivecs, and text with one in a line (docs/formats.md).\n");
    return to == stdout ? 0 : 2;
}

int cmd_index(int argc, char **argv)
{
    const char *known[N_COMMANDS];
    if (argc < 1)
        return usage(stderr);
    if (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)
        return usage(stdout);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[0], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
        known[i] = commands[i].name;
    }
    const char *near = ynode_nearest(argv[0], known, N_COMMANDS);
    fprintf(stderr, "duet index: unknown command \"%s\"%s%s%s (duet index --help lists them)\n", argv[0],
            near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    return 2;
}
