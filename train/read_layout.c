/* Which layout a folder has: told by the names of its files. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "train/read.h"

static bool has(const char *dir, const char *name)
{
    char path[PATH_MAX];
    return read_find(dir, name, path);
}

static bool generic_found(const char *dir)
{
    return has(dir, "interactions.csv");
}

static bool ml_1m_found(const char *dir)
{
    return has(dir, "ratings.dat");
}

static bool ml_100k_found(const char *dir)
{
    return has(dir, "u.data");
}

static bool lightgcn_found(const char *dir)
{
    return has(dir, "train.txt");
}

static bool ml_latest_found(const char *dir)
{
    return has(dir, "ratings.csv");
}

const struct read_layout read_layouts[] = {
    {"generic", "interactions.csv[.gz], users.csv[.gz], items.csv[.gz]", generic_found, read_generic},
    {"ml-1m", "ratings.dat, users.dat, movies.dat", ml_1m_found, read_ml_1m},
    {"ml-100k", "u.data, u.user, u.item", ml_100k_found, read_ml_100k},
    {"ml-latest", "ratings.csv, movies.csv", ml_latest_found, read_ml_latest},
    {"lightgcn", "train.txt, test.txt", lightgcn_found, read_lightgcn},
    {"amazon", "reviews as JSON lines: *.json[l][.gz]; meta*.json[l][.gz]", read_amazon_found, read_amazon},
    {NULL, NULL, NULL, NULL},
};

static const struct read_layout *by_name(const char *name, struct err *err)
{
    for (const struct read_layout *l = read_layouts; l->name; l++)
        if (strcmp(l->name, name) == 0)
            return l;
    struct buf known = {0};
    for (const struct read_layout *l = read_layouts; l->name; l++)
        buf_printf(&known, "%s%s", l == read_layouts ? "" : ", ", l->name);
    err_set(err, ERR_ARG, "unknown layout \"%s\"; want one of %s", name, known.data ? known.data : "");
    buf_fini(&known);
    return NULL;
}

static void nothing_found(const char *dir, struct err *err)
{
    struct buf known = {0};
    for (const struct read_layout *l = read_layouts; l->name; l++)
        buf_printf(&known, "\n  %-10s %s", l->name, l->files);
    err_set(err, ERR_NOT_FOUND, "%s: no interactions that this program knows how to read; want the files of one of%s",
            dir, known.data ? known.data : "");
    buf_fini(&known);
}

const struct read_layout *read_layout_find(const char *dir, const char *name, struct err *err)
{
    const struct read_layout *found = NULL;
    if (!fio_is_dir(dir)) {
        err_set(err, ERR_NOT_FOUND, "%s: no such folder", dir);
        return NULL;
    }
    if (name)
        return by_name(name, err);
    for (const struct read_layout *l = read_layouts; l->name; l++) {
        if (!l->found(dir))
            continue;
        if (found) {
            err_set(err, ERR_ARG, "%s: has files of the layouts %s and %s; choose one with --layout", dir, found->name,
                    l->name);
            return NULL;
        }
        found = l;
    }
    if (!found)
        nothing_found(dir, err);
    return found;
}
