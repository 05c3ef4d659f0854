/* duet verify: load bundles as the daemon would, and say whether they may serve. */
#include <stdio.h>

#include "cli/bundle_path.h"
#include "cli/cmd.h"
#include "cli/opts.h"
#include "core/blas.h"
#include "core/bundle.h"

static const char usage[] = "duet verify DIR...";
static const char about[] =
    "Sizes, hashes, structure, fingerprints, finite values, then the probes, in the plain layout and in the compact one. DIR: a version's\n"
    "folder, or a model's folder for its newest.\n"
    "Exit status 0: all may serve; 1: one may not, and the line on standard error says why.\n";

/* All files, and the probes in one of the layouts that daemons serve. */
static bool load(const char *dir, bool shared, enum hnsw_layout layout, struct bundle_manifest *out, struct err *err)
{
    const struct bundle_load_params p = {
        .mode = shared ? BUNDLE_SHARED : BUNDLE_PRIVATE, .all_files = true, .layout = layout};
    struct bundle *b = bundle_load(dir, &p, err);
    if (!b)
        return err_prefix(err, "%s layout", bundle_layout_name(layout));
    *out = b->manifest;
    bundle_free(b);
    return true;
}

static bool verify(const char *path, bool shared)
{
    struct err err = {0};
    char dir[PATH_MAX];
    struct bundle_manifest m;
    if (!bundle_path(path, dir, &err) || !load(dir, shared, HNSW_PLAIN, &m, &err) || !load(dir, shared, HNSW_COMPACT, &m, &err)) {
        cmd_fail("verify", &err);
        return false;
    }
    printf("%s: good: %s version %llu, %llu items, %llu users, %.1f MB, recall@%u %.4f at ef %u, fingerprint %s\n", dir,
           m.model, (unsigned long long)m.version, (unsigned long long)m.n_items, (unsigned long long)m.n_users,
           (double)m.n_bytes / 1e6, m.probe_k, m.probe_recall, m.probe_ef, m.fingerprint);
    return true;
}

int cmd_verify(int argc, char **argv)
{
    struct opt_list dirs = {0};
    bool shared = false;
    const struct opt opts[] = {
        {"shared", OPT_FLAG, &shared, NULL, "map the files as `load: shared` does, instead of reading them", 0, 0},
        {0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, &dirs);
    if (rc >= 0)
        return rc;
    if (dirs.n == 0) {
        fprintf(stderr, "duet verify: which folder?\nusage: %s\n", usage);
        return 2;
    }
    blas_set_threads(1);
    bool ok = true;
    for (size_t i = 0; i < dirs.n; i++)
        ok = verify(dirs.v[i], shared) && ok;
    return ok ? 0 : 1;
}
