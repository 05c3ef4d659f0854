#include "train/resume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "core/safetensors.h"

/* Tensors: user.param, user.m, user.v and the same of item, each the tower's whole block, with user.average and
 * item.average where the recipe has one, `recency` where weights are learned; `counts` U64: epoch, best epoch, steps,
 * the generator's four words, whether the average has begun; `reals` F64: best validation, logit scale, its two
 * moments. Metadata: dataset hash, recipe. */
#define N_COUNTS 8
#define N_REALS 4
#define N_BLOCKS 9 // at most

struct state {
    uint64_t counts[N_COUNTS];
    double reals[N_REALS];
    float *block[N_BLOCKS];
    size_t n_blocks;
    struct st_tensor tensor[N_BLOCKS + 2]; // the blocks, then counts and reals
};

static struct st_tensor describe(const char *name, enum st_dtype type, size_t n)
{
    return (struct st_tensor){.name = name, .dtype = type, .n_dims = 1, .dim = {n}, .n_bytes = n * st_dtype_size(type)};
}

static void add_block(struct state *st, const char *name, float *block, size_t n)
{
    st->block[st->n_blocks] = block;
    st->tensor[st->n_blocks++] = describe(name, ST_F32, n);
}

/* Names, shapes and places of all tensors of a step's state. */
static void describe_state(const struct step *s, struct state *st)
{
    static const char *names[2][4] = {{"user.param", "user.m", "user.v", "user.average"},
                                      {"item.param", "item.m", "item.v", "item.average"}};
    const struct step_side *side[2] = {&s->user, &s->item};
    for (size_t k = 0; k < 2; k++) {
        float *block[4] = {side[k]->tower->block, side[k]->adam.m.block, side[k]->adam.v.block, side[k]->ema.block};
        for (size_t i = 0; i < 4; i++)
            if (block[i])
                add_block(st, names[k][i], block[i], side[k]->tower->block_floats);
    }
    if (s->recipe->recency)
        add_block(st, "recency", (float *)(uintptr_t)&s->recency, sizeof(s->recency) / sizeof(float));
    st->tensor[st->n_blocks] = describe("counts", ST_U64, N_COUNTS);
    st->tensor[st->n_blocks + 1] = describe("reals", ST_F64, N_REALS);
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

static bool put_all(struct safetensors_writer *w, const struct state *st, struct err *err)
{
    for (size_t i = 0; i < st->n_blocks; i++)
        if (!safetensors_put(w, st->block[i], st->tensor[i].n_bytes, err))
            return false;
    return safetensors_put(w, st->counts, sizeof(st->counts), err) &&
           safetensors_put(w, st->reals, sizeof(st->reals), err) && safetensors_finish(w, err);
}

bool resume_save(const char *dir, const struct step *s, const struct progress *p, const char *dataset_hash,
                 struct err *err)
{
    char path[PATH_MAX], tmp[PATH_MAX];
    const struct rng *rng = &s->sampler->rng;
    struct state st = {.counts = {p->epoch, p->best_epoch, s->user.adam.step, rng->s[0], rng->s[1], rng->s[2],
                                  rng->s[3], s->user.ema.started},
                       .reals = {p->best, s->model->logit_scale, s->scale_m, s->scale_v}};
    describe_state(s, &st);
    if (!fio_join(path, dir, "optimizer.safetensors", err) || !fio_join(tmp, dir, "optimizer.safetensors.tmp", err))
        return false;
    char *recipe = recipe_text(s->recipe, err);
    if (!recipe)
        return false;
    struct st_meta meta[] = {{"dataset_hash", dataset_hash}, {"recipe", recipe}};
    struct st_layout layout = {st.tensor, st.n_blocks + 2, meta, 2};
    struct safetensors_writer *w = safetensors_writer_new(tmp, &layout, err);
    bool ok = w && put_all(w, &st, err);
    safetensors_writer_free(w);
    free(recipe);
    if (!ok)
        return err_prefix(err, "saving the optimiser");
    return (rename(tmp, path) == 0 || err_errno(err, "rename %s", tmp)) && fio_sync_dir(dir, err);
}

// ------------------------------------------------------------------------------------------------------- loading

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

static void set_rows_current(struct adam *a)
{
    struct adam_rows *r[] = {&a->emb, &a->aug};
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < r[k]->n; i++)
            r[k]->last[i] = a->step;
}

static void adopt(struct step *s, struct progress *p, const struct state *st)
{
    *p = (struct progress){(uint32_t)st->counts[0], (uint32_t)st->counts[1], st->reals[0]};
    s->user.adam.step = s->item.adam.step = (uint32_t)st->counts[2];
    memcpy(s->sampler->rng.s, st->counts + 3, sizeof(s->sampler->rng.s));
    s->user.ema.started = s->item.ema.started = st->counts[7] != 0;
    s->model->logit_scale = (float)st->reals[1];
    if (s->recipe->recency)
        recency_weights(&s->recency, &s->model->history);
    s->scale_m = st->reals[2];
    s->scale_v = st->reals[3];
    set_rows_current(&s->user.adam);
    set_rows_current(&s->item.adam);
}

static bool load_state(const struct safetensors *f, struct step *s, struct state *st, struct err *err)
{
    describe_state(s, st);
    for (size_t i = 0; i < st->n_blocks; i++)
        if (!copy_tensor(f, &st->tensor[i], st->block[i], err))
            return false;
    return copy_tensor(f, &st->tensor[st->n_blocks], st->counts, err) &&
           copy_tensor(f, &st->tensor[st->n_blocks + 1], st->reals, err);
}

bool resume_load(const char *dir, struct step *s, struct progress *p, const char *dataset_hash, struct err *err)
{
    char path[PATH_MAX];
    struct state st = {0};
    char *recipe = recipe_text(s->recipe, err);
    struct safetensors *f =
        recipe && fio_join(path, dir, "optimizer.safetensors", err) ? safetensors_open(path, err) : NULL;
    bool ok = f && check_meta(f, path, "dataset_hash", dataset_hash, err) &&
              check_meta(f, path, "recipe", recipe, err) && load_state(f, s, &st, err);
    if (ok)
        adopt(s, p, &st);
    safetensors_close(f);
    free(recipe);
    return ok || err_prefix(err, "resuming");
}
