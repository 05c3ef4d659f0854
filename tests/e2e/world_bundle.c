/* world_bundle REPOSITORY NAME VERSION SEED dat|two_tower [ITEMS [USERS [WORD..]]] - publish a bundle of a made-up world
 * (tests/core/world.h) for the end-to-end tests of the daemon. Prints its folder.
 * Words: no_seen, thin (an index so bad that ef matters, and no two items alike), no_calibration,
 * warmup=FILE. */
#include "tests/core/support.h"

#include <limits.h>

#include "tests/core/world.h"

static bool has(int argc, char **argv, const char *word)
{
    for (int i = 8; i < argc; i++)
        if (strcmp(argv[i], word) == 0)
            return true;
    return false;
}

static uint32_t number(int argc, char **argv, int i)
{
    return argc > i ? (uint32_t)strtoul(argv[i], NULL, 10) : 0;
}

int main(int argc, char **argv)
{
    struct err err = {0};
    char dir[PATH_MAX];
    uint64_t version;
    struct world_params wp = {0};
    if (argc < 6 || !model_kind_parse(argv[5], &wp.kind)) {
        fprintf(stderr, "usage: world_bundle REPOSITORY NAME VERSION SEED dat|two_tower [ITEMS [USERS [WORD..]]]\n");
        return 2;
    }
    wp.seed = strtoull(argv[4], NULL, 10);
    wp.n_items = number(argc, argv, 6);
    wp.n_users = number(argc, argv, 7);
    wp.no_seen = has(argc, argv, "no_seen");
    bool thin = wp.no_rare = has(argc, argv, "thin");
    struct publish_params p = {
        .repository = argv[1], .name = argv[2], .version = strtoull(argv[3], NULL, 10), .threads = 1, .seed = wp.seed};
    p.no_calibration = has(argc, argv, "no_calibration");
    p.n_calibrate = thin ? 100 : 0;
    p.m = thin ? 4 : 0;
    p.ef_construction = thin ? 16 : 0;
    for (int i = 8; i < argc; i++)
        if (strncmp(argv[i], "warmup=", 7) == 0)
            p.warmup = argv[i] + 7;
    struct world *w = world_new(&wp);
    bool ok = bundle_publish(&w->in, &p, &version, dir, &err);
    world_free(w);
    if (!ok)
        fprintf(stderr, "world_bundle: %s\n", err.msg);
    else
        puts(dir);
    return ok ? 0 : 1;
}
