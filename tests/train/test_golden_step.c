/* One training step against PyTorch (tests/golden/step.py): loss by part, every gradient, every parameter after Adam.
 * If this fails, the model that Duet trains is not the one of the equations. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/safetensors.h"
#include "tests/train/toy.h"
#include "train/step.h"

#define N_USERS 6
#define N_ITEMS 10
#define TOLERANCE 1e-5

struct golden {
    struct safetensors *file;
    struct toy toy;
    struct recipe r;
    struct model *m;
    struct sampler sampler;
    struct pool *pool;
    struct step step;
};

static const void *tensor(const struct golden *g, const char *name, enum st_dtype dtype, size_t n)
{
    const struct st_tensor *t = safetensors_find(g->file, name);
    if (!t || t->dtype != dtype || t->n_bytes != n * st_dtype_size(dtype))
        fail_msg("golden tensor %s is missing or not of %zu values", name, n);
    return t->data;
}

/* Calls fn for every tensor of one tower under its name in docs/formats.md. */
static void each_tensor(const struct tower *t, const char *side,
                        void (*fn)(void *ctx, const char *name, float *p, size_t n), void *ctx)
{
    char name[160];
    for (uint32_t f = 0; f < t->shape.n_fields; f++) {
        snprintf(name, sizeof(name), "%s.emb.%s", side, t->shape.field[f].name);
        fn(ctx, name, t->emb + t->shape.field[f].first_row * t->shape.k, (size_t)t->shape.field[f].n_rows * t->shape.k);
    }
    snprintf(name, sizeof(name), "%s.aug", side);
    if (t->aug)
        fn(ctx, name, t->aug, (size_t)t->shape.n_ids * t->shape.d_aug);
    for (uint32_t l = 0; l < t->shape.n_layers; l++) {
        snprintf(name, sizeof(name), "%s.fc.%u.weight", side, l);
        fn(ctx, name, t->w[l], (size_t)t->shape.width[l] * (l ? t->shape.width[l - 1] : t->z_dim));
        snprintf(name, sizeof(name), "%s.fc.%u.bias", side, l);
        fn(ctx, name, t->b[l], t->shape.width[l]);
    }
}

struct against {
    const struct golden *g;
    const char *prefix;
};

static void take(void *ctx, const char *name, float *p, size_t n)
{
    const struct against *a = ctx;
    char full[192];
    snprintf(full, sizeof(full), "%s%s", a->prefix, name);
    memcpy(p, tensor(a->g, full, ST_F32, n), n * sizeof(*p));
}

static void compare(void *ctx, const char *name, float *p, size_t n)
{
    const struct against *a = ctx;
    char full[192];
    snprintf(full, sizeof(full), "%s%s", a->prefix, name);
    const float *want = tensor(a->g, full, ST_F32, n);
    for (size_t i = 0; i < n; i++)
        if (fabsf(p[i] - want[i]) > TOLERANCE)
            fail_msg("%s[%zu] is %.8g, PyTorch says %.8g", full, i, (double)p[i], (double)want[i]);
}

/* The golden's pairs as the batch of the sampler: users and items in their own order. */
static void fill_batch(struct golden *g, size_t n_pos, size_t n_neg)
{
    struct batch *b = &g->sampler.batch;
    const uint32_t *pos = tensor(g, "pos", ST_U32, 2 * n_pos);
    b->n_users = N_USERS;
    b->n_items = N_ITEMS;
    b->n_pos = n_pos;
    for (uint32_t u = 0; u < N_USERS; u++)
        b->user[u] = u;
    for (uint32_t i = 0; i < N_ITEMS; i++) {
        b->item[i] = i;
        b->rows[i] = n_neg == 0;
    }
    for (size_t i = 0; i < n_pos; i++) { // sorted by user
        b->pos[i] = pos[2 * i + 1];
        b->pos_off[pos[2 * i] + 1] = (uint32_t)i + 1;
        b->rows[b->pos[i]] += n_neg > 0;
    }
    for (size_t i = 0; i < n_pos * n_neg; i++) {
        b->neg[i] = ((const uint32_t *)tensor(g, "neg", ST_U32, n_pos * n_neg))[i];
        b->rows[b->neg[i]]++;
    }
}

static void golden_init(struct golden *g, const char *name, struct recipe r)
{
    struct err err = {0};
    char path[512];
    snprintf(path, sizeof(path), "%s/tests/golden/%s", getenv("DUET_SOURCE_DIR") ? getenv("DUET_SOURCE_DIR") : ".",
             name);
    *g = (struct golden){.r = r};
    g->file = safetensors_open(path, &err);
    if (!g->file)
        fail_msg("%s", err.msg);
    toy_init(&g->toy, N_USERS, N_ITEMS, 1);
    memcpy(g->toy.user_x, tensor(g, "user_x", ST_U32, N_USERS * 3), N_USERS * 3 * sizeof(uint32_t));
    memcpy(g->toy.item_x, tensor(g, "item_x", ST_U32, N_ITEMS * 6), N_ITEMS * 6 * sizeof(uint32_t));
    g->m = toy_model(&g->toy, &g->r, 1);
    g->pool = pool_new(1, &err);
    assert_true(sampler_init(&g->sampler, &g->toy.d, &g->r, &err));
    assert_true(step_init(&g->step, &dist_alone, &g->r, &g->toy.d, g->m, &g->sampler, g->pool, &err));
    struct against before = {g, "before."};
    each_tensor(&g->m->user, "user", take, &before);
    each_tensor(&g->m->item, "item", take, &before);
    fill_batch(g, 2 * N_USERS, r.loss == LOSS_BCE ? r.negatives : 0);
}

static void golden_fini(struct golden *g)
{
    step_fini(&g->step);
    sampler_fini(&g->sampler);
    model_free(g->m);
    pool_free(g->pool);
    toy_fini(&g->toy);
    safetensors_close(g->file);
}

static void one_step(const char *name, struct recipe r)
{
    struct golden g;
    golden_init(&g, name, r);
    double want[5];
    memcpy(want, tensor(&g, "loss", ST_F64, 5), sizeof(want));
    step_gradients(&g.step);
    const double have[5] = {g.step.parts.total, g.step.parts.main, g.step.parts.mimic_u, g.step.parts.mimic_v,
                            g.step.parts.cal};
    for (int i = 0; i < 5; i++)
        if (fabs(have[i] - want[i]) > TOLERANCE)
            fail_msg("%s: loss part %d is %.8g, PyTorch says %.8g", name, i, have[i], want[i]);
    struct against grad = {&g, "grad."}, after = {&g, "after."};
    each_tensor(&g.step.user.adam.grad, "user", compare, &grad);
    each_tensor(&g.step.item.adam.grad, "item", compare, &grad);
    step_update(&g.step);
    each_tensor(&g.m->user, "user", compare, &after);
    each_tensor(&g.m->item, "item", compare, &after);
    golden_fini(&g);
}

static struct recipe small(const char *name, enum model_kind kind)
{
    struct recipe r;
    recipe_named(name, kind, (struct recipe_data){5000, N_ITEMS, 0, false}, &r);
    r.k = 4;
    r.width[0] = 8;
    r.width[1] = 6;
    r.width[2] = 5;
    r.lr = 0.01;
    r.weight_decay = 0;
    r.oov_dropout = r.feature_dropout = 0;
    r.lambda1 = r.lambda2 = 0.5;
    return r;
}

static void literal_step(void **state)
{
    (void)state;
    struct recipe r = small("paper", MODEL_DAT);
    one_step("step_literal.safetensors", r);
}

static void duet_step(void **state)
{
    (void)state;
    struct recipe r = small("plain", MODEL_DAT);
    r.scale = 10;
    r.learn_scale = false;
    r.lambda3 = 0.1;
    r.cal_min_rows = 2;
    r.cal_weighted = true;
    one_step("step_duet.safetensors", r);
    r.model = MODEL_TWO_TOWER;
    one_step("step_two_tower.safetensors", r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(literal_step), cmocka_unit_test(duet_step)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
