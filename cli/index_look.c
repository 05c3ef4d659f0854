/* duet index check and info: is it sound, and what is in it? */
#include <stdio.h>

#include "cli/cmd.h"
#include "cli/index_cmd.h"
#include "cli/opts.h"

// ------------------------------------------------------------------------------------------------------------ check

static bool check(const char *path, const struct index_from *from)
{
    struct err err = {0};
    struct hnsw_err e = {0};
    size_t lost = 0;
    struct hnsw *h = index_load(path, from, &err);
    bool ok = h && (hnsw_check(h, &lost, &e) || (index_err(&e, &err), err_prefix(&err, "%s", path)));
    if (ok && lost > 0)
        ok = err_set(&err, ERR_FORMAT,
                     "%s: %zu elements cannot be reached from the entry point, so a search of the graph never returns them; build "
                     "it again, or add to it by duet index build",
                     path, lost);
    if (ok)
        printf("%s: good: %zu elements, all of them within reach\n", path, hnsw_count(h));
    else
        cmd_fail("index check", &err);
    hnsw_free(h);
    return ok;
}

int index_check(int argc, char **argv)
{
    static const char usage[] = "duet index check FILE... [options]";
    static const char about[] = "Checksums, sizes, links, levels, labels, finite values, and whether every element can be reached.\n"
                                "Exit status 0: all are good; 1: one is not, and the line on standard error says why.\n";
    struct opt_list files = {0};
    struct index_from from = {0};
    const struct opt opts[] = {INDEX_FROM_OPTS(&from), {0}};
    int rc = opts_parse(usage, about, opts, argc, argv, &files);
    if (rc >= 0)
        return rc;
    if (files.n == 0)
        return index_wrong("check", usage, "which file?");
    bool ok = true;
    for (size_t i = 0; i < files.n; i++)
        ok = check(files.v[i], &from) && ok;
    return ok ? 0 : 1;
}

// ------------------------------------------------------------------------------------------------------------- info

static void print_index(const struct hnsw *h, bool json)
{
    struct hnsw_stats s;
    hnsw_get_stats(h, &s);
    const char *metric = hnsw_metric_name(hnsw_get_metric(h));
    const char *layout = hnsw_layout_name(hnsw_get_layout(h));
    double each = s.n ? (double)s.bytes / (double)s.n : 0;
    if (json) {
        printf("{\"is\":\"index\",\"layout\":\"%s\",\"metric\":\"%s\",\"dim\":%zu,\"elements\":%zu,\"removed\":%zu,\"m\":%u,\"ef_construction\":%u,"
               "\"seed\":%llu,\"max_level\":%u,\"mean_degree\":%.9g,\"without_links\":%zu,\"bytes\":%zu,\"kernel\":\"%s\"}\n",
               layout, metric, hnsw_dim(h), hnsw_count(h), s.n_removed, s.m, s.ef_construction, (unsigned long long)s.seed, s.max_level,
               s.mean_degree0, s.n_links0_zero, s.bytes, s.kernel);
        return;
    }
    printf("layout           %s\nmetric           %s\ndimensions       %zu\nelements         %zu\nremoved          %zu\n", layout,
           metric, hnsw_dim(h), hnsw_count(h), s.n_removed);
    printf("m                %u\nef_construction  %u\nseed             %llu\nhighest level    %u\n", s.m, s.ef_construction,
           (unsigned long long)s.seed, s.max_level);
    printf("links, level 0   %.2f an element, %zu elements without any\n", s.mean_degree0, s.n_links0_zero);
    printf("memory           %.1f MB, %.1f bytes an element\nkernel here      %s\n", (double)s.bytes / 1e6, each, s.kernel);
}

static bool info_vectors(const char *path, bool json, struct err *err)
{
    struct hnsw_err e = {0};
    struct hnsw_vecs *v = hnsw_vecs_open(path, &e);
    if (!v)
        return index_err(&e, err);
    const char *is = hnsw_vecs_is_float(v) ? "vectors" : "ids", *kind = hnsw_vecs_kind_name(hnsw_vecs_get_kind(v));
    printf(json ? "{\"is\":\"%s\",\"kind\":\"%s\",\"rows\":%zu,\"dim\":%zu}\n" : "%s: %s, %zu rows of %zu\n", is, kind,
           hnsw_vecs_n(v), hnsw_vecs_dim(v));
    hnsw_vecs_close(v);
    return true;
}

static bool info_index(const char *path, const struct index_from *from, bool json, struct err *err)
{
    struct hnsw *h = index_load(path, from, err);
    if (h)
        print_index(h, json);
    hnsw_free(h);
    return h != NULL;
}

int index_info(int argc, char **argv)
{
    static const char usage[] = "duet index info FILE [options]";
    static const char about[] = "FILE: an index, or .fbin, .fvecs, .ibin, .ivecs. All of it is read and checked.\n";
    struct err err = {0};
    struct opt_list files = {0};
    struct index_from from = {0};
    enum hnsw_vecs_kind kind;
    bool json = false;
    const struct opt opts[] = {{"json", OPT_FLAG, &json, NULL, "print JSON", 0, 0}, INDEX_FROM_OPTS(&from), {0}};
    int rc = opts_parse(usage, about, opts, argc, argv, &files);
    if (rc >= 0)
        return rc;
    if (files.n != 1)
        return index_wrong("info", usage, "want one file");
    const char *path = files.v[0];
    bool ok = hnsw_vecs_kind_of(path, &kind, NULL) ? info_vectors(path, json, &err) : info_index(path, &from, json, &err);
    return ok && fflush(stdout) == 0 ? 0 : cmd_fail("index info", &err);
}
