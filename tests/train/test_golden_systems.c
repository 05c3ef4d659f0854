/* Two training steps of each system that DAT is compared with against PyTorch (tests/golden/systems.py): loss, every gradient,
 * every parameter after Adam. If this fails, a baseline of the comparison is not the published one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/train/golden.h"
#include "tests/train/toy.h"
#include "train/fm.h"
#include "train/history_net.h"

#define N_USERS 6
#define N_ITEMS 10
#define D 5

struct golden {
    struct safetensors *file;
    struct toy toy;
    struct recipe r;
    struct pool *pool;
};

static void golden_init(struct golden *g, const char *name, enum model_kind kind)
{
    struct err err = {0};
    *g = (struct golden){.file = golden_open(name), .pool = pool_new(1, &err)};
    toy_init(&g->toy, N_USERS, N_ITEMS, 1);
    memcpy(g->toy.user_x, golden_tensor(g->file, "user_x", ST_U32, N_USERS * 3), N_USERS * 3 * sizeof(uint32_t));
    memcpy(g->toy.item_x, golden_tensor(g->file, "item_x", ST_U32, N_ITEMS * 6), N_ITEMS * 6 * sizeof(uint32_t));
    baseline_recipe(kind, (struct recipe_data){5000, N_ITEMS, 0, false}, &g->r);
    g->r.width[0] = D;
    g->r.lr = 0.01;
}

static void golden_fini(struct golden *g)
{
    safetensors_close(g->file);
    toy_fini(&g->toy);
    pool_free(g->pool);
}

/* Users and items in their own order. */
static void fill_batch(const struct golden *g, struct sampler *s)
{
    struct batch *b = &s->batch;
    b->n_users = N_USERS;
    b->n_items = N_ITEMS;
    b->n_pos = golden_rows(g->file, "pos", N_USERS, s->max_pos, b->pos_off, b->pos);
    for (uint32_t u = 0; u < N_USERS; u++)
        b->user[u] = u;
    for (uint32_t i = 0; i < N_ITEMS; i++)
        b->item[i] = i;
}

static void compare_loss(const struct golden *g, double loss)
{
    double want;
    memcpy(&want, golden_tensor(g->file, "loss", ST_F64, 1), sizeof(want));
    if (!(fabs(loss - want) <= GOLDEN_TOLERANCE))
        fail_msg("the loss is %.8g, PyTorch says %.8g", loss, want);
}

// ----------------------------------------------------------------------------------------------------------------- fm

typedef void (*visit_fn)(const struct safetensors *f, const char *prefix, const char *name, float *p, size_t n);

static void compare(const struct safetensors *f, const char *prefix, const char *name, float *p, size_t n)
{
    golden_compare(f, prefix, name, p, n);
}

/* Tables are one behind the other in an array of the machine; cols 1 is the weights'. */
static void visit_tables(const struct golden *g, const char *prefix, const char *part, const struct schema_side *side,
                         float *p, size_t cols, visit_fn fn)
{
    char name[96];
    for (uint32_t i = 0; i < side->n_fields; i++) {
        size_t n = (size_t)side->field[i].n_rows * cols;
        snprintf(name, sizeof(name), "%s.%s", part, side->field[i].name);
        fn(g->file, prefix, name, p, n);
        p += n;
    }
}

static void visit_fm(const struct golden *g, const char *prefix, float *user, float *item, float *weight, visit_fn fn)
{
    const struct schema *s = g->toy.d.schema;
    visit_tables(g, prefix, "user", &s->user, user, D, fn);
    visit_tables(g, prefix, "item", &s->item, item, D, fn);
    visit_tables(g, prefix, "weight", &s->item, weight, 1, fn);
}

static void a_factorisation_machine_learns_by_equation_1(void **state)
{
    (void)state;
    struct golden g;
    struct fm m;
    struct err err = {0};
    golden_init(&g, "step_fm.safetensors", MODEL_FM);
    assert_true(g.r.weight_decay > 0.29 && g.r.weight_decay < 0.31); // the golden's
    assert_true(fm_init(&m, &g.toy.d, &g.r, g.pool, &err));
    visit_fm(&g, "before.", m.user.factor.w, m.item.factor.w, m.weight.w, golden_take);
    fill_batch(&g, &m.sampler);
    compare_loss(&g, fm_gradients(&m));
    visit_fm(&g, "grad.", m.user.factor.grad, m.item.factor.grad, m.weight.grad, compare);
    fm_update(&m);
    fm_gradients(&m);
    fm_update(&m);
    visit_fm(&g, "after.", m.user.factor.w, m.item.factor.w, m.weight.w, compare);
    fm_fini(&m);
    golden_fini(&g);
}

// --------------------------------------------------------------------------------------------------- youtube_dnn, mind

static void compare_net(const struct golden *g, const char *prefix, const struct tower *t, const float *item, const float *bilinear)
{
    golden_compare_tower(g->file, prefix, "user", t);
    golden_compare(g->file, prefix, "vectors", item, N_ITEMS * D);
    if (bilinear)
        golden_compare(g->file, prefix, "bilinear", bilinear, D * D);
}

static void learns_as_published(const char *name, enum model_kind kind, const struct pooling *pooling)
{
    struct golden g;
    struct history_net m;
    struct err err = {0};
    bool mind = kind == MODEL_MIND;
    golden_init(&g, name, kind);
    g.r.n_layers = 2;
    g.r.width[0] = 7;
    g.r.width[1] = D;
    g.r.k = 4;
    g.r.scale = 8;
    g.r.n_interest = mind ? 3 : 1;
    assert_true(history_net_init(&m, pooling, &g.toy.d, &g.r, g.pool, &err));
    golden_take_tower(g.file, "before.", "user", &m.user);
    golden_take(g.file, "before.", "vectors", m.item.w, N_ITEMS * D);
    if (mind) {
        golden_take(g.file, "before.", "bilinear", m.bilinear.w, D * D);
        golden_take(g.file, "", "start", m.route_init, N_ITEMS * 3);
    }
    fill_batch(&g, &m.sampler);
    golden_rows(g.file, "pos", N_USERS, m.sampler.max_pos, m.target_off, m.target);
    golden_rows(g.file, "hist", N_USERS, m.sampler.max_pos, m.hist_off, m.hist);
    compare_loss(&g, history_net_gradients(&m));
    compare_net(&g, "grad.", &m.adam.grad, m.item.grad, mind ? m.bilinear.grad : NULL);
    history_net_update(&m);
    history_net_gradients(&m);
    history_net_update(&m);
    adam_flush(&m.adam);
    compare_net(&g, "after.", &m.user, m.item.w, mind ? m.bilinear.w : NULL);
    history_net_fini(&m);
    golden_fini(&g);
}

static void the_mean_of_a_history_learns_as_published(void **state)
{
    (void)state;
    learns_as_published("step_youtube_dnn.safetensors", MODEL_YOUTUBE_DNN, &mean_pooling);
}

static void interests_learn_as_published(void **state)
{
    (void)state;
    learns_as_published("step_mind.safetensors", MODEL_MIND, &capsule_pooling);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_factorisation_machine_learns_by_equation_1),
        cmocka_unit_test(the_mean_of_a_history_learns_as_published),
        cmocka_unit_test(interests_learn_as_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
