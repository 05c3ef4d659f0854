#include "train/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"
#include "core/base/hash.h"
#include "core/base/mem.h"

#define CHECKPOINT_VERSION 1
#define JSON_MAX ((size_t)1 << 20)

// --------------------------------------------------------------------------------------------------------- saving

static bool file_hash(const char *path, char hex[33], struct err *err)
{
    size_t n;
    void *p = fio_map(path, &n, err);
    if (!p)
        return false;
    hash128_hex(hash128(p, n), hex);
    fio_unmap(p, n);
    return true;
}

json_t *metrics_to_json(const struct metrics_spec *spec, const struct metrics *m)
{
    json_t *o = json_object();
    json_object_set_new(o, "n", json_integer((json_int_t)m->n));
    for (size_t k = 0; k < spec->n_k; k++) {
        char name[32];
        snprintf(name, sizeof(name), "hr@%u", spec->k[k]);
        json_object_set_new(o, name, json_real(m->hr[k]));
    }
    json_object_set_new(o, "mrr", json_real(m->mrr));
    json_object_set_new(o, "mrr_x10", json_real(m->mrr * 10));
    json_object_set_new(o, "mrr_ceil10", json_real(m->mrr10));
    return o;
}

static json_t *info_to_json(const struct model *m, const struct checkpoint_info *info, const char *model_hash)
{
    json_t *o = json_object();
    json_object_set_new(o, "format", json_string("duet-checkpoint"));
    json_object_set_new(o, "format_version", json_integer(CHECKPOINT_VERSION));
    json_object_set_new(o, "kind", json_string(model_kind_name(m->kind)));
    json_object_set_new(o, "created_by", json_string("duet " DUET_VERSION));
    json_object_set_new(o, "dataset_hash", json_string(info->dataset_hash));
    json_object_set_new(o, "epoch", json_integer(info->epoch));
    json_object_set_new(o, "collapsed", json_boolean(info->collapsed));
    json_object_set_new(o, "reason", json_string(info->reason));
    json_object_set_new(o, "logit_scale", json_real(m->logit_scale));
    json_object_set_new(o, "validation", metrics_to_json(&info->spec, &info->valid));
    json_object_set_new(o, "recipe", recipe_to_json(&info->recipe));
    json_object_set_new(o, "model_xxh3", json_string(model_hash));
    return o;
}

static bool write_json(const char *path, json_t *o, struct err *err)
{
    char *text = json_text(o, err);
    bool ok = text && fio_write_atomic(path, text, strlen(text), err);
    free(text);
    return ok;
}

static bool save_model(const struct model *m, const char *path, struct err *err)
{
    char tmp[PATH_MAX];
    if ((size_t)snprintf(tmp, sizeof(tmp), "%s.tmp", path) >= sizeof(tmp))
        return err_set(err, ERR_LIMIT, "%s: path too long", path);
    if (!model_save(m, tmp, true, err))
        return false;
    return rename(tmp, path) == 0 || err_errno(err, "rename %s", tmp);
}

bool checkpoint_save(const char *dir, const struct model *m, const struct checkpoint_info *info, struct err *err)
{
    char schema[PATH_MAX], model[PATH_MAX], json[PATH_MAX], hash[33];
    if (!fio_join(schema, dir, "schema.json", err) || !fio_join(model, dir, "model.safetensors", err) ||
        !fio_join(json, dir, "checkpoint.json", err))
        return false;
    if (!schema_save(m->schema, schema, err) || !save_model(m, model, err) || !file_hash(model, hash, err))
        return err_prefix(err, "checkpoint");
    json_t *o = info_to_json(m, info, hash);
    bool ok = write_json(json, o, err); // also syncs the folder, so both renames are on disk
    json_decref(o);
    return ok;
}

bool checkpoint_flag(const char *dir, const char *reason, struct err *err)
{
    char path[PATH_MAX];
    json_t *o = fio_join(path, dir, "checkpoint.json", err) ? json_read_file(path, JSON_MAX, err) : NULL;
    bool ok = o && json_object_set_new(o, "collapsed", json_true()) == 0 &&
              json_object_set_new(o, "reason", json_string(reason)) == 0 && write_json(path, o, err);
    json_decref(o);
    return ok;
}

// -------------------------------------------------------------------------------------------------------- loading

/* The metrics that info_to_json wrote; members that are missing count as 0: they are for people. */
static void read_validation(const json_t *o, struct checkpoint_info *info)
{
    const char *key;
    json_t *v;
    info->valid.n = (size_t)json_integer_value(json_object_get(o, "n"));
    info->valid.mrr = json_number_value(json_object_get(o, "mrr"));
    info->valid.mrr10 = json_number_value(json_object_get(o, "mrr_ceil10"));
    json_object_foreach((json_t *)o, key, v) if (strncmp(key, "hr@", 3) == 0 && info->spec.n_k < METRICS_K_MAX)
    {
        info->spec.k[info->spec.n_k] = (uint32_t)strtoul(key + 3, NULL, 10);
        info->valid.hr[info->spec.n_k++] = json_number_value(v);
    }
}

static bool read_info(const json_t *o, struct checkpoint_info *info, struct err *err)
{
    uint64_t version, epoch;
    const char *format = json_need_str(o, "format", err);
    if (!format || !json_need_uint(o, "format_version", UINT32_MAX, &version, err))
        return false;
    if (strcmp(format, "duet-checkpoint") != 0 || version != CHECKPOINT_VERSION)
        return err_set(err, ERR_FORMAT, "format %s version %llu, want duet-checkpoint version %d", format,
                       (unsigned long long)version, CHECKPOINT_VERSION);
    const char *hash = json_need_str(o, "dataset_hash", err), *reason = json_need_str(o, "reason", err);
    const json_t *recipe = json_need_object(o, "recipe", err), *valid = json_need_object(o, "validation", err);
    if (!hash || !reason || !recipe || !valid || !json_need_uint(o, "epoch", UINT32_MAX, &epoch, err) ||
        !json_need_bool(o, "collapsed", &info->collapsed, err) || !recipe_from_json(recipe, &info->recipe, err))
        return false;
    snprintf(info->dataset_hash, sizeof(info->dataset_hash), "%s", hash);
    snprintf(info->reason, sizeof(info->reason), "%s", reason);
    info->epoch = (uint32_t)epoch;
    read_validation(valid, info);
    return true;
}

static bool check_model_hash(const char *path, const json_t *o, struct err *err)
{
    char hash[33];
    const char *want = json_need_str(o, "model_xxh3", err);
    if (!want || !file_hash(path, hash, err))
        return false;
    return strcmp(hash, want) == 0 ||
           err_set(err, ERR_MISMATCH,
                   "%s has hash %s, checkpoint.json names %s: training was stopped between the two, or the file "
                   "was changed; run `duet train --resume` again",
                   path, hash, want);
}

static bool load_parts(struct checkpoint *c, const char *dir, const json_t *o, struct err *err)
{
    char schema_path[PATH_MAX], model_path[PATH_MAX];
    if (!fio_join(schema_path, dir, "schema.json", err) || !fio_join(model_path, dir, "model.safetensors", err) ||
        !read_info(o, &c->info, err) || !check_model_hash(model_path, o, err))
        return false;
    struct schema *schema = schema_load(schema_path, err);
    c->model = schema ? model_load(model_path, schema, true, err) : NULL;
    return c->model != NULL;
}

struct checkpoint *checkpoint_load(const char *dir, struct err *err)
{
    char path[PATH_MAX];
    struct checkpoint *c = mem_array(1, sizeof(*c), err);
    json_t *o = c && fio_join(path, dir, "checkpoint.json", err) ? json_read_file(path, JSON_MAX, err) : NULL;
    bool ok = o && load_parts(c, dir, o, err);
    json_decref(o);
    if (ok)
        return c;
    err_prefix(err, "checkpoint %s", dir);
    checkpoint_free(c);
    return NULL;
}

bool checkpoint_info_load(const char *dir, struct checkpoint_info *out, struct err *err)
{
    char path[PATH_MAX];
    *out = (struct checkpoint_info){0};
    json_t *o = fio_join(path, dir, "checkpoint.json", err) ? json_read_file(path, JSON_MAX, err) : NULL;
    bool ok = o && read_info(o, out, err);
    json_decref(o);
    return ok || err_prefix(err, "checkpoint %s", dir);
}

void checkpoint_free(struct checkpoint *c)
{
    if (!c)
        return;
    model_free(c->model);
    free(c);
}
