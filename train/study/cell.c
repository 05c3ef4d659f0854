#include "train/study/cell.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"
#include "core/base/hash.h"
#include "core/base/mem.h"
#include "core/base/pack.h"
#include "model_version.h"

#define RESULT_MAX ((size_t)16 << 20)

// ----------------------------------------------------------------------------------------------------------- name

bool cell_is_trained(const struct cell *c)
{
    return c->kind == CELL_TRAINED || c->kind == CELL_INDEX;
}

char *cell_config(const struct cell *c, struct err *err)
{
    static const char *const kinds[] = {"trained", "index", "ease", "popularity"};
    json_t *o = json_object();
    json_object_set_new(o, "system", json_string(kinds[c->kind]));
    if (cell_is_trained(c)) {
        json_t *recipe = recipe_to_json(&c->recipe);
        json_object_del(recipe, "threads");
        json_object_set_new(o, "recipe", recipe);
    }
    if (c->kind == CELL_EASE)
        json_object_set_new(o, "lambda", json_real(c->lambda));
    char *text = json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(9));
    json_decref(o);
    if (!text)
        err_set(err, ERR_NOMEM, "study: out of memory");
    return text;
}

const char *cell_version(const struct cell *c)
{
    if (c->kind == CELL_INDEX)
        return MODEL_VERSION_INDEX;
    if (!cell_is_trained(c))
        return c->kind == CELL_EASE ? MODEL_VERSION_EASE : MODEL_VERSION_POPULARITY;
    switch (c->recipe.model) {
    case MODEL_WALS:
        return MODEL_VERSION_WALS;
    case MODEL_FM:
        return MODEL_VERSION_FM;
    case MODEL_YOUTUBE_DNN:
        return MODEL_VERSION_YOUTUBE_DNN;
    case MODEL_MIND:
        return MODEL_VERSION_MIND;
    default:
        return MODEL_VERSION_TOWERS;
    }
}

bool cell_name(const struct cell_place *p, const struct cell *c, char out[64], struct err *err)
{
    char *text = cell_config(c, err), hex[33];
    struct buf b = {0};
    if (!text)
        return false;
    buf_printf(&b, "%s\n%s\n", p->data->hash, text);
    bool ok = !b.failed || err_set(err, ERR_NOMEM, "study: out of memory");
    if (ok)
        hash128_hex(hash128(b.data, b.len), hex);
    if (ok)
        snprintf(out, 64, "%s-%s", hex, cell_version(c));
    buf_fini(&b);
    free(text);
    return ok;
}

bool cell_path(const struct cell_place *p, const char *name, const char *extension, char out[PATH_MAX],
               struct err *err)
{
    char file[96], runs[PATH_MAX];
    snprintf(file, sizeof(file), "%s%s", name, extension);
    return fio_join(runs, p->dir, "runs", err) && fio_join(out, runs, file, err);
}

/* A result of the same configuration and dataset and other model code: the first by name. */
static bool other_version(const struct cell_place *p, char name[64])
{
    char runs[PATH_MAX], best[64] = "";
    DIR *dir = fio_join(runs, p->dir, "runs", NULL) ? opendir(runs) : NULL;
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        size_t n = strlen(e->d_name);
        if (n == 50 && strncmp(e->d_name, name, 33) == 0 && strcmp(e->d_name + 45, ".json") == 0 &&
            (!best[0] || strncmp(e->d_name, best, 45) < 0))
            snprintf(best, sizeof(best), "%.45s", e->d_name);
    }
    if (dir)
        closedir(dir);
    if (best[0])
        memcpy(name, best, sizeof(best));
    return best[0] != 0;
}

/* Where the result is or would be. */
static bool locate(const struct cell_place *p, const struct cell *c, char name[64], struct err *err)
{
    char path[PATH_MAX];
    if (!cell_name(p, c, name, err) || !cell_path(p, name, ".json", path, err))
        return false;
    if (!fio_exists(path) && p->any_version)
        other_version(p, name);
    return true;
}

bool cell_done(const struct cell_place *p, const struct cell *c, char path[PATH_MAX])
{
    char name[64], own[PATH_MAX];
    path = path ? path : own;
    return locate(p, c, name, NULL) && cell_path(p, name, ".json", path, NULL) && fio_exists(path);
}

// ---------------------------------------------------------------------------------------------------------- place

bool cell_place_init(struct cell_place *p, const struct dataset *d, const char *data_path, const char *dir, struct pool *pool, struct err *err)
{
    char runs[PATH_MAX];
    const struct evaluation_params test = {.data = d, .spec = {{50, 100}, 2}};
    struct evaluation_params valid = test;
    valid.valid = true;
    p->data = d;
    p->data_path = data_path;
    p->dir = dir;
    if (!fio_join(runs, dir, "runs", err) || !fio_mkdirs(runs, err) ||
        !evaluation_init(&p->test, &test, pool, err))
        return false;
    return d->valid.off[d->n_users] == 0 || evaluation_init(&p->valid, &valid, pool, err);
}

void cell_place_fini(struct cell_place *p)
{
    evaluation_fini(&p->valid);
    evaluation_fini(&p->test);
}

// ---------------------------------------------------------------------------------------------------------- result

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static bool read_ranks(const struct cell_place *p, const char *path, struct cell_result *r, struct err *err)
{
    struct pack *pack = pack_open(path, "study-ranks", PACK_READ, true, err);
    r->n = p->test.known.n;
    const uint32_t *rank = pack ? pack_need(pack, "rank", PACK_U32, 1, r->n, err) : NULL;
    if (rank && (r->rank = mem_array(r->n, sizeof(*r->rank), err)))
        for (size_t i = 0; i < r->n; i++)
            r->rank[i] = (float)rank[i];
    pack_close(pack);
    return r->rank != NULL;
}

static bool read_file(const struct cell_place *p, const char *path, struct cell_result *r, struct err *err)
{
    if (!(r->file = json_read_file(path, RESULT_MAX, err)))
        return false;
    const char *format = json_need_str(r->file, "format", err), *data = json_need_str(r->file, "dataset_hash", err);
    const char *version = json_need_str(r->file, "model_code", err);
    uint64_t epochs, best, threads;
    if (!format || !data || !version || !json_need_uint(r->file, "parameters", UINT64_MAX, &r->n_params, err) ||
        !json_need_uint(r->file, "epochs", UINT32_MAX, &epochs, err) ||
        !json_need_uint(r->file, "best_epoch", UINT32_MAX, &best, err) ||
        !json_need_uint(r->file, "threads", UINT32_MAX, &threads, err))
        return false;
    if (strcmp(format, "duet-study-run") != 0 || strcmp(data, p->data->hash) != 0)
        return err_set(err, ERR_MISMATCH, "format \"%s\" of dataset %s, want duet-study-run of %s; remove the file",
                       format, data, p->data->hash);
    snprintf(r->version, sizeof(r->version), "%s", version);
    r->epochs = (uint32_t)epochs;
    r->best_epoch = (uint32_t)best;
    r->threads = (uint32_t)threads;
    r->valid_hr50 = number(json_object_get(r->file, "validation"), "hr@50");
    r->valid_hr100 = number(json_object_get(r->file, "validation"), "hr@100");
    r->cpu_s = number(r->file, "cpu_s");
    r->wall_s = number(r->file, "wall_s");
    r->collapsed = json_object_get(r->file, "collapsed") != NULL;
    return true;
}

bool cell_load(const struct cell_place *p, const struct cell *c, struct cell_result *out, struct err *err)
{
    char name[64], json[PATH_MAX], ranks[PATH_MAX];
    *out = (struct cell_result){0};
    if (!locate(p, c, name, err) || !cell_path(p, name, ".json", json, err) ||
        !cell_path(p, name, ".ranks", ranks, err))
        return false;
    if (read_file(p, json, out, err) && read_ranks(p, ranks, out, err))
        return true;
    cell_result_fini(out);
    return err_prefix(err, "%s", json);
}

void cell_result_fini(struct cell_result *r)
{
    free(r->rank);
    json_decref(r->file);
    *r = (struct cell_result){0};
}
