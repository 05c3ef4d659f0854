#include "train/resume.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/base/mem.h"

#define FILE_NAME "optimizer.safetensors"

void resume_add(struct resume_list *l, const char *name, enum st_dtype type, void *at, size_t n)
{
    if (n == 0)
        return;
    l->at[l->n] = at;
    l->tensor[l->n++] =
        (struct st_tensor){.name = name, .dtype = type, .n_dims = 1, .dim = {n}, .n_bytes = n * st_dtype_size(type)};
}

// -------------------------------------------------------------------------------------------------------- the file

bool resume_exists(const char *dir)
{
    char path[PATH_MAX];
    return fio_join(path, dir, FILE_NAME, NULL) && fio_exists(path);
}

bool resume_remove(const char *dir, struct err *err)
{
    char path[PATH_MAX];
    return fio_join(path, dir, FILE_NAME, err) &&
           (unlink(path) == 0 || errno == ENOENT || err_errno(err, "remove %s", path));
}

static char *recipe_text(const struct recipe *r, struct err *err)
{
    json_t *o = recipe_to_json(r);
    json_object_del(o, "epochs"); // a run may go on for longer, and with other threads
    json_object_del(o, "patience");
    json_object_del(o, "threads");
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    if (!text)
        err_set(err, ERR_NOMEM, "out of memory");
    return text;
}

/* One array to the writer; to none from a rank that does not write: it sends its rows. */
static bool put(struct safetensors_writer *w, const struct resume_list *l, size_t i, struct err *err)
{
    if (l->part[i])
        part_collect(l->part[i], l->at[i]);
    bool ok = !w || safetensors_put(w, l->at[i], l->tensor[i].n_bytes, err);
    if (l->part[i])
        part_forget(l->part[i], l->at[i]);
    return ok;
}

static bool put_all(struct safetensors_writer *w, const struct resume_list *l, struct err *err)
{
    for (size_t i = 0; i < l->n; i++)
        if (!put(w, l, i, err))
            return false;
    return !w || safetensors_finish(w, err);
}

bool resume_write(const char *dir, const struct resume_list *l, const struct recipe *r, const char *dataset_hash,
                  struct err *err)
{
    char path[PATH_MAX], tmp[PATH_MAX];
    if (!fio_join(path, dir, FILE_NAME, err) || !fio_join(tmp, dir, FILE_NAME ".tmp", err))
        return false;
    char *recipe = recipe_text(r, err);
    if (!recipe)
        return false;
    struct st_meta meta[] = {{"dataset_hash", dataset_hash}, {"recipe", recipe}};
    struct st_layout layout = {l->tensor, l->n, meta, 2};
    struct safetensors_writer *w = safetensors_writer_new(tmp, &layout, err);
    bool ok = w && put_all(w, l, err);
    safetensors_writer_free(w);
    free(recipe);
    if (!ok)
        return err_prefix(err, "saving the optimiser");
    return (rename(tmp, path) == 0 || err_errno(err, "rename %s", tmp)) && fio_sync_dir(dir, err);
}

static bool check_meta(const struct safetensors *f, const char *path, const char *key, const char *want,
                       struct err *err)
{
    const char *have = safetensors_meta(f, key);
    return (have && strcmp(have, want) == 0) ||
           err_set(err, ERR_MISMATCH,
                   "%s is of another %s (%.120s, now %.120s): resume with the options and the dataset it began with, "
                   "or leave --resume out to begin anew",
                   path, strcmp(key, "recipe") == 0 ? "recipe" : "dataset", have ? have : "none", want);
}

static bool copy_tensor(const struct safetensors *f, const struct st_tensor *want, void *out, struct err *err)
{
    const struct st_tensor *t = safetensors_find(f, want->name);
    if (!t || t->dtype != want->dtype || t->n_bytes != want->n_bytes)
        return err_set(err, ERR_MISMATCH, "tensor %s is missing or not of %llu values", want->name,
                       (unsigned long long)want->dim[0]);
    memcpy(out, t->data, t->n_bytes);
    return want->dtype != ST_F32 || st_all_finite(t->data, (size_t)t->dim[0]) ||
           err_set(err, ERR_FORMAT, "tensor %s holds a value that is not finite", want->name);
}

static bool copy_all(const struct safetensors *f, const struct resume_list *l, struct err *err)
{
    for (size_t i = 0; i < l->n; i++)
        if (!copy_tensor(f, &l->tensor[i], l->at[i], err))
            return false;
        else if (l->part[i])
            part_forget(l->part[i], l->at[i]);
    return true;
}

bool resume_read(const char *dir, const struct resume_list *l, const struct recipe *r, const char *dataset_hash,
                 struct err *err)
{
    char path[PATH_MAX];
    char *recipe = recipe_text(r, err);
    struct safetensors *f = recipe && fio_join(path, dir, FILE_NAME, err) ? safetensors_open(path, err) : NULL;
    bool ok = f && check_meta(f, path, "dataset_hash", dataset_hash, err) &&
              check_meta(f, path, "recipe", recipe, err) && copy_all(f, l, err);
    safetensors_close(f);
    free(recipe);
    return ok || err_prefix(err, "resuming");
}

// ---------------------------------------------------------------------------------------------------- of two towers

/* `counts`: epoch, best epoch, steps, the generator's four words, whether the average has begun; `reals`: best
 * validation, logit scale, its two moments. */
#define N_COUNTS 8
#define N_REALS 4

struct numbers {
    uint64_t counts[N_COUNTS];
    double reals[N_REALS];
};

/* Each tower's whole block and its moments, with its average where the recipe has one, `recency` where weights are
 * learned, and the numbers. */
static struct resume_list list_of(const struct step *s, struct numbers *numbers)
{
    static const char *names[2][4] = {{"user.param", "user.m", "user.v", "user.average"},
                                      {"item.param", "item.m", "item.v", "item.average"}};
    const struct step_side *side[2] = {&s->user, &s->item};
    struct resume_list l = {.n = 0};
    for (size_t k = 0; k < 2; k++) {
        float *block[4] = {side[k]->tower->block, side[k]->adam.m.block, side[k]->adam.v.block, side[k]->ema.block};
        for (size_t i = 0; i < 4; i++) {
            l.part[l.n] = &side[k]->part;
            resume_add(&l, names[k][i], ST_F32, block[i], block[i] ? side[k]->tower->block_floats : 0);
        }
    }
    l.part[l.n] = NULL; // of an average that is not there
    if (s->recipe->recency)
        resume_add(&l, "recency", ST_F32, (float *)(uintptr_t)&s->recency, sizeof(s->recency) / sizeof(float));
    resume_add(&l, "counts", ST_U64, numbers->counts, N_COUNTS);
    resume_add(&l, "reals", ST_F64, numbers->reals, N_REALS);
    return l;
}

bool resume_save(const char *dir, const struct step *s, const struct progress *p, const char *dataset_hash,
                 struct err *err)
{
    const struct rng *rng = &s->sampler->rng;
    struct numbers n = {
        {p->epoch, p->best_epoch, s->user.adam.step, rng->s[0], rng->s[1], rng->s[2], rng->s[3], s->user.ema.started},
        {p->best, s->model->logit_scale, s->scale_m, s->scale_v}};
    const struct resume_list l = list_of(s, &n);
    return s->dist->rank ? put_all(NULL, &l, err) : resume_write(dir, &l, s->recipe, dataset_hash, err);
}

static void adopt(struct step *s, struct progress *p, const struct numbers *n)
{
    *p = (struct progress){(uint32_t)n->counts[0], (uint32_t)n->counts[1], n->reals[0]};
    memcpy(s->sampler->rng.s, n->counts + 3, sizeof(s->sampler->rng.s));
    s->user.ema.started = s->item.ema.started = n->counts[7] != 0;
    s->model->logit_scale = (float)n->reals[1];
    if (s->recipe->recency)
        recency_weights(&s->recency, &s->model->history);
    s->scale_m = n->reals[2];
    s->scale_v = n->reals[3];
    adam_resume(&s->user.adam, (uint32_t)n->counts[2]);
    adam_resume(&s->item.adam, (uint32_t)n->counts[2]);
}

bool resume_load(const char *dir, struct step *s, struct progress *p, const char *dataset_hash, struct err *err)
{
    struct numbers n = {.counts = {0}};
    const struct resume_list l = list_of(s, &n);
    bool ok = resume_read(dir, &l, s->recipe, dataset_hash, err);
    if (ok)
        adopt(s, p, &n);
    return ok;
}
