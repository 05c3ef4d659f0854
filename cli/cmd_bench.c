/* duet bench: measurements of a running daemon. */
#include <stdio.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/cmd.h"

static int usage(FILE *to)
{
    fprintf(to, "usage: duet bench COMMAND [options]      duet bench COMMAND --help tells a command's options\n\n"
                "  load   requests a second and latency, open or closed loop\n"
                "  swap   what a reload under load does to latency and answers\n");
    return to == stdout ? 0 : 2;
}

int cmd_bench(int argc, char **argv)
{
    if (argc < 1)
        return usage(stderr);
    if (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)
        return usage(stdout);
    if (strcmp(argv[0], "load") == 0)
        return bench_load(argc - 1, argv + 1);
    if (strcmp(argv[0], "swap") == 0)
        return bench_swap(argc - 1, argv + 1);
    fprintf(stderr, "duet bench: unknown command \"%s\"; want load or swap\n", argv[0]);
    return 2;
}
