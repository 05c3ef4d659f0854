/* One training step against PyTorch (tests/golden/step.py, systems.py): loss by part, every gradient, every parameter after
 * Adam. If this fails, the model that Duet trains is not the one of the equations. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/train/golden.h"
#include "tests/train/toy.h"
#include "train/step.h"

#define N_USERS 6
#define N_ITEMS 10

struct golden {
    struct safetensors *file;
    struct toy toy;
    struct recipe r;
    struct model *m;
    struct sampler sampler;
    struct pool *pool;
    struct step step;
};

/* The golden's pairs as the batch of the sampler: users and items in their own order. */
static void fill_batch(struct golden *g)
{
    struct batch *b = &g->sampler.batch;
    size_t n_neg = g->r.loss == LOSS_BCE ? g->r.negatives : 0;
    b->n_users = N_USERS;
    b->n_items = N_ITEMS;
    b->n_pos = golden_rows(g->file, "pos", N_USERS, g->sampler.max_pos, b->pos_off, b->pos);
    for (uint32_t u = 0; u < N_USERS; u++)
        b->user[u] = u;
    for (uint32_t i = 0; i < N_ITEMS; i++) {
        b->item[i] = i;
        b->rows[i] = n_neg == 0;
    }
    for (size_t i = 0; i < b->n_pos; i++)
        b->rows[b->pos[i]] += n_neg > 0;
    for (size_t i = 0; i < b->n_pos * n_neg; i++) {
        b->neg[i] = ((const uint32_t *)golden_tensor(g->file, "neg", ST_U32, b->n_pos * n_neg))[i];
        b->rows[b->neg[i]]++;
    }
    if (b->masked) {
        b->n_hist = golden_rows(g->file, "hist", N_USERS, g->sampler.max_pos, b->hist_off, b->hist);
        golden_take(g->file, "", "share", b->share, N_USERS);
    }
    if (b->log_q)
        golden_take(g->file, "", "log_q", b->log_q, N_ITEMS);
}

static void golden_init(struct golden *g, const char *name, struct recipe r)
{
    struct err err = {0};
    *g = (struct golden){.r = r, .file = golden_open(name)};
    toy_init(&g->toy, N_USERS, N_ITEMS, 1);
    if (r.window > 0)
        toy_give_times(&g->toy);
    memcpy(g->toy.user_x, golden_tensor(g->file, "user_x", ST_U32, N_USERS * 3), N_USERS * 3 * sizeof(uint32_t));
    memcpy(g->toy.item_x, golden_tensor(g->file, "item_x", ST_U32, N_ITEMS * 6), N_ITEMS * 6 * sizeof(uint32_t));
    g->m = toy_model(&g->toy, &g->r, 1);
    g->pool = pool_new(1, &err);
    assert_true(sampler_init(&g->sampler, &g->toy.d, &g->r, &err));
    assert_true(step_init(&g->step, &dist_alone, &g->r, &g->toy.d, g->m, &g->sampler, g->pool, &err));
    golden_take_tower(g->file, "before.", "user", &g->m->user);
    golden_take_tower(g->file, "before.", "item", &g->m->item);
    if (r.recency) {
        recency_begin(&g->step.recency, &g->m->history);
        golden_compare(g->file, "before.", "theta", g->step.recency.theta, HISTORY_STEPS);
    }
    fill_batch(g);
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
    memcpy(want, golden_tensor(g.file, "loss", ST_F64, 5), sizeof(want));
    step_gradients(&g.step);
    const double have[5] = {g.step.parts.total, g.step.parts.main, g.step.parts.mimic_u, g.step.parts.mimic_v,
                            g.step.parts.cal};
    for (int i = 0; i < 5; i++)
        if (fabs(have[i] - want[i]) > GOLDEN_TOLERANCE)
            fail_msg("%s: loss part %d is %.8g, PyTorch says %.8g", name, i, have[i], want[i]);
    golden_compare_tower(g.file, "grad.", "user", &g.step.user.adam.grad);
    golden_compare_tower(g.file, "grad.", "item", &g.step.item.adam.grad);
    if (r.recency)
        golden_compare(g.file, "grad.", "theta", g.step.recency.grad, HISTORY_STEPS);
    step_update(&g.step);
    golden_compare_tower(g.file, "after.", "user", &g.m->user);
    golden_compare_tower(g.file, "after.", "item", &g.m->item);
    if (r.recency)
        golden_compare(g.file, "after.", "theta", g.step.recency.theta, HISTORY_STEPS);
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

static void plain_step(void **state)
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

/* The default recipe as it is but for sizes, what is random, and weights of (2) and (3) that would hide in the tolerance. */
static struct recipe duet(enum model_kind kind, bool timed)
{
    struct recipe r;
    recipe_named("duet", kind, (struct recipe_data){5000, N_ITEMS, 0, timed}, &r);
    r.width[0] = 7;
    r.width[1] = 5;
    r.k = kind == MODEL_DAT ? 4 : 5;
    r.lr = 0.01;
    r.oov_dropout = r.feature_dropout = r.item_dropout = r.ema = 0;
    r.lambda2 = 0.5;
    r.lambda3 = 0.1;
    r.cal_min_rows = 2;
    return r;
}

static void duet_step(void **state)
{
    (void)state;
    one_step("step_closed.safetensors", duet(MODEL_DAT, true));
    struct recipe r = duet(MODEL_TWO_TOWER, false);
    one_step("step_skip.safetensors", r);
    r.loss = LOSS_SAMPLED; // as on large catalogues
    one_step("step_sampled.safetensors", r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(literal_step), cmocka_unit_test(plain_step),
                                       cmocka_unit_test(duet_step)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
