/* duet synth: made-up city services in the generic layout. */
#include <stdio.h>

#include "cli/cmd.h"
#include "cli/opts.h"
#include "train/synth.h"

int cmd_synth(int argc, char **argv)
{
    static const char usage[] = "duet synth --out DIR [options]";
    static const char about[] =
        "Writes users.csv, items.csv and interactions.csv: city services drawn from a latent model (docs/data.md).\n";
    const char *out = NULL;
    uint64_t users = 3000, items = 2000, interactions = 100000, seed = 1;
    const struct opt opts[] = {
        {"out", OPT_STR, &out, "DIR", "folder to write, made if missing", 0, 0},
        {"users", OPT_UINT, &users, "N", "users", 1, 1e8},
        {"items", OPT_UINT, &items, "N", "items", 20, 1e8},
        {"interactions", OPT_UINT, &interactions, "N",
         "interactions; 5 a user at least, a quarter of the items a user at most", 1, 1e9},
        {"seed", OPT_UINT, &seed, "N", "the same seed gives the same files", 0, 0},
        {NULL, OPT_FLAG, NULL, NULL, NULL, 0, 0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    if (!out) {
        fprintf(stderr, "duet synth: --out is needed (usage: %s)\n", usage);
        return 2;
    }
    struct err err = {0};
    struct synth_params p = {(uint32_t)users, (uint32_t)items, interactions, seed};
    if (!synth_write(out, &p, &err))
        return cmd_fail("synth", &err);
    printf("%llu users, %llu items, %llu interactions of city services in %s\n", (unsigned long long)users,
           (unsigned long long)items, (unsigned long long)interactions, out);
    return 0;
}
