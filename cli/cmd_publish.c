/* duet publish: dataset and checkpoint -> a new version of a model in the repository. */
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/cmd.h"
#include "cli/opts.h"
#include "cli/progress.h"
#include "train/publish_input.h"
#include "core/blas.h"
#include "core/manifest.h"

static const char usage[] = "duet publish --data FILE --checkpoint DIR --repository DIR --name NAME [options]";
static const char about[] =
    "Embeds all items, builds the index, writes a bundle, checks it by loading and renames it to "
    "<repository>/<name>/<version>.\n"
    "The users' seen items are the rows of the splits train and valid (and those held out), not of test.\n";

// ---------------------------------------------------------------------------------------------------------- result

static bool print_result(const char *dir, struct err *err)
{
    struct manifest m = {0};
    if (!manifest_read(dir, &m, err))
        return false;
    const struct bundle_manifest *h = &m.head;
    printf("%s\n", dir);
    printf("  %-14s %s version %llu, %s, width %u\n", "model", h->model, (unsigned long long)h->version, h->kind, h->d);
    printf("  %-14s %llu\n", "items", (unsigned long long)h->n_items);
    printf("  %-14s %llu (revision %llu)\n", "users", (unsigned long long)h->n_users,
           (unsigned long long)m.users_revision);
    printf("  %-14s %.1f MB\n", "size", (double)h->n_bytes / 1e6);
    printf("  %-14s %u\n", "default_ef", h->default_ef);
    printf("  %-14s recall@%u %.4f of %u probes at ef %u\n", "probes", h->probe_k, h->probe_recall, m.n_probes,
           h->probe_ef);
    printf("  %-14s %s\n", "fingerprint", h->fingerprint);
    if (h->probe_recall < 0.99)
        fprintf(
            stderr,
            "publish: warning: recall@%u is %.4f at ef %u, below 0.99; a larger --m or --ef-construction helps, most "
            "of all where many items have equal vectors\n",
            h->probe_k, h->probe_recall, h->probe_ef);
    manifest_fini(&m);
    return true;
}

static int run(const struct publish_paths *paths, struct publish_params *p, bool users_only)
{
    struct err err = {0};
    struct publish_source s = {0};
    struct progress progress = progress_start("publish");
    uint64_t version;
    char dir[PATH_MAX];
    p->progress = progress_show;
    p->progress_user = &progress;
    bool ok = publish_source_open(&s, paths, &err);
    if (ok && s.collapsed[0])
        fprintf(stderr, "publish: warning: training gave this model up: %s\n", s.collapsed);
    ok = ok && (users_only ? bundle_publish_users : bundle_publish)(&s.in, p, &version, dir, &err) &&
         print_result(dir, &err);
    publish_source_fini(&s);
    return ok ? 0 : cmd_fail("publish", &err);
}

static int wrong(const char *why)
{
    fprintf(stderr, "duet publish: %s\nusage: %s\n", why, usage);
    return 2;
}

int cmd_publish(int argc, char **argv)
{
    struct publish_paths paths = {0};
    struct publish_params p = {0};
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t version = 0, m = 16, ef_construction = 200, ef = 0, seed = 1, probes = 256,
             threads = cores > 0 ? (uint64_t)cores : 1, calibrate = 500;
    bool users_only = false;
    const struct opt opts[] = {
        {"data", OPT_STR, &paths.data, "FILE", "dataset that the model was trained on", 0, 0},
        {"checkpoint", OPT_STR, &paths.checkpoint, "DIR", "folder that training left: model.safetensors, schema.json",
         0, 0},
        {"from", OPT_STR, &paths.from, "FILE", "instead: model.safetensors trained elsewhere (docs/formats.md)", 0, 0},
        {"schema", OPT_STR, &paths.schema, "FILE", "with --from: its schema.json; the dataset's if not given", 0, 0},
        {"other-data", OPT_FLAG, &paths.other_data, NULL,
         "take a dataset other than the checkpoint's, same schema and order", 0, 0},
        {"repository", OPT_STR, &p.repository, "DIR", "where models are published; made if missing", 0, 0},
        {"name", OPT_STR, &p.name, "NAME", "of the model", 0, 0},
        {"version", OPT_UINT, &version, "N", "0 = the newest + 1", 0, 9.2e18},
        {"users-only", OPT_FLAG, &users_only, NULL, "new users for the newest version, its items and index kept", 0, 0},
        {"m", OPT_UINT, &m, "N", "links of an item in the index", 2, HNSW_M_MAX},
        {"ef-construction", OPT_UINT, &ef_construction, "N", "breadth of the search while the index is built", 1,
         100000},
        {"ef", OPT_UINT, &ef, "N", "default breadth of searches; 0 = smallest with recall@100 >= --target-recall", 0, 100000},
        {"target-recall", OPT_NUM, &p.target_recall, "R",
         "recall that requests get which say nothing themselves, 0.5 to 1; default 0.99, or what --ef gives", 0.5, 1},
        {"calibrate", OPT_UINT, &calibrate, "N",
         "users that recall over ef is measured with, in each layout of the index; 0 = not, and no target_recall", 0,
         1e6},
        {"no-compact-index", OPT_FLAG, &p.no_compact, NULL,
         "leave out the index in the compact layout: a quarter smaller, but every load makes that layout anew", 0, 0},
        {"warmup", OPT_STR, &p.warmup, "FILE",
         "recorded requests (`record.path`, or one request a line) that daemons answer before the version takes traffic, at most 16 MiB", 0, 0},
        {"probes", OPT_UINT, &probes, "N", "users kept as probes", 1, 65536},
        {"seed", OPT_UINT, &seed, "N", "of index and probes", 0, 9.2e18},
        {"threads", OPT_UINT, &threads, "N", "of the index build; with 1 the same input gives the same graph", 1, 1024},
        {0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    if (!paths.data || !p.repository || !p.name)
        return wrong("--data, --repository and --name are needed");
    if (!paths.checkpoint == !paths.from)
        return wrong("one of --checkpoint and --from is needed");
    if (paths.schema && !paths.from)
        return wrong("--schema belongs to --from; a checkpoint has its own");
    p.version = version;
    p.m = (unsigned)m;
    p.ef_construction = (unsigned)ef_construction;
    p.default_ef = (uint32_t)ef;
    p.seed = seed;
    p.n_probes = (uint32_t)probes;
    p.n_calibrate = (uint32_t)calibrate;
    p.no_calibration = calibrate == 0;
    p.threads = (unsigned)threads;
    blas_set_threads((int)threads);
    return run(&paths, &p, users_only);
}
