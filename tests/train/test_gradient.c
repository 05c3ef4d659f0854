/* Gradients of every kind of parameter against finite differences of a plain double-precision loss (step_ref.c). If
 * this fails, training still runs and still looks like learning; it just learns something else. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/train/step_ref.h"
#include "tests/train/toy.h"

#define EPS 1e-5

struct lab {
    struct toy toy;
    struct recipe r;
    struct model *m;
    struct sampler sampler;
    struct pool *pool;
    struct step step;
    struct ref ref;
    char what[128];
};

static void lab_init(struct lab *l, struct recipe r, unsigned threads, const char *what)
{
    struct err err = {0};
    memset(l, 0, sizeof(*l));
    snprintf(l->what, sizeof(l->what), "%s", what);
    toy_init(&l->toy, 20, 18, 11);
    toy_give_times(&l->toy);
    l->r = r;
    l->m = toy_model(&l->toy, &l->r, 5);
    l->pool = pool_new(threads, &err);
    assert_true(sampler_init(&l->sampler, &l->toy.d, &l->r, &err));
    assert_true(step_init(&l->step, &dist_alone, &l->r, &l->toy.d, l->m, &l->sampler, l->pool, &err));
    assert_true(step_derive_aug(&l->step, &err));
    if (r.recency)
        recency_begin(&l->step.recency, &l->m->history);
    sampler_epoch(&l->sampler);
    assert_true(sampler_next(&l->sampler));
    step_gradients(&l->step);
    ref_init(&l->ref, &l->step);
}

static void lab_fini(struct lab *l)
{
    ref_fini(&l->ref);
    step_fini(&l->step);
    sampler_fini(&l->sampler);
    model_free(l->m);
    pool_free(l->pool);
    toy_fini(&l->toy);
}

/* d loss / d *p by central difference. */
static double slope(struct lab *l, double *p)
{
    double at = *p;
    *p = at + EPS;
    double up = ref_loss(&l->ref);
    *p = at - EPS;
    double down = ref_loss(&l->ref);
    *p = at;
    return (up - down) / (2 * EPS);
}

static void compare(const struct lab *l, const char *name, size_t i, double want, double have)
{
    if (fabs(want - have) > 2e-4 * fabs(want) + 2e-6)
        fail_msg("%s: gradient of %s[%zu] is %.8g, finite differences say %.8g", l->what, name, i, have, want);
}

/* n parameters at `at` of a tower; every one if they are few, else some. Counts those with a gradient. */
static size_t check(struct lab *l, bool user, const char *name, const float *at, size_t n)
{
    struct step_side *s = user ? &l->step.user : &l->step.item;
    double *block = user ? l->ref.user : l->ref.item;
    size_t first = (size_t)(at - s->tower->block), some = 0, stride = n / 60 + 1;
    for (size_t i = 0; i < n; i += stride) {
        double want = slope(l, &block[first + i]);
        some += fabs(want) > 1e-7;
        compare(l, name, i, want, s->adam.grad.block[first + i]);
    }
    return some;
}

static void check_tower(struct lab *l, bool user)
{
    struct step_side *s = user ? &l->step.user : &l->step.item;
    const struct tower *t = s->tower;
    char name[96];
    for (uint32_t f = 0; f < t->shape.n_fields; f++) {
        if (!l->r.id_tables && t->shape.field[f].slot == s->schema->field[s->schema->id_field].slot)
            continue;
        snprintf(name, sizeof(name), "%s.emb.%s", user ? "user" : "item", t->shape.field[f].name);
        size_t n = (size_t)t->shape.field[f].n_rows * t->shape.k;
        assert_true(check(l, user, name, t->emb + t->shape.field[f].first_row * t->shape.k, n) > 0);
    }
    if (t->aug && user && l->step.closed)
        for (uint32_t i = 0; i < t->shape.n_ids * t->shape.d_aug; i++)
            assert_float_equal(s->adam.grad.aug[i], 0, 0);
    else if (t->aug)
        assert_true(check(l, user, "aug", t->aug, (size_t)t->shape.n_ids * t->shape.d_aug) > 0);
    for (uint32_t i = 0; t->aug && i < t->shape.n_segments * t->shape.d_aug; i++) // a constant within an epoch
        assert_float_equal(s->adam.grad.aug_segment[i], 0, 0);
    for (uint32_t q = 0; q < t->shape.n_layers; q++) {
        size_t in = q ? t->shape.width[q - 1] : t->z_dim;
        snprintf(name, sizeof(name), "%s.fc.%u", user ? "user" : "item", q);
        assert_true(check(l, user, name, t->w[q], in * t->shape.width[q]) > 0);
        assert_true(check(l, user, name, t->b[q], t->shape.width[q]) > 0);
    }
}

static void check_recipe(struct recipe r, unsigned threads, const char *what)
{
    struct lab l;
    lab_init(&l, r, threads, what);
    double want = ref_loss(&l.ref);
    if (fabs(want - l.step.parts.total) > 1e-5 * fabs(want))
        fail_msg("%s: loss is %.8g, want %.8g", what, l.step.parts.total, want);
    check_tower(&l, true);
    check_tower(&l, false);
    if (r.learn_scale)
        compare(&l, "log(scale)", 0, slope(&l, &l.ref.scale) * l.ref.scale, l.step.scale_grad);
    size_t weights = 0;
    for (size_t i = 0; r.recency && i < HISTORY_STEPS; i++) {
        weights += fabs(slope(&l, &l.ref.theta[i])) > 1e-6;
        compare(&l, "log(weight)", i, slope(&l, &l.ref.theta[i]), l.step.recency.grad[i]);
    }
    assert_true(!r.recency || weights >= 4);
    lab_fini(&l);
}

/* Large tables and wide spread, so that every path has a gradient to get wrong; a third of the ids dropped. */
static struct recipe busy(enum loss_kind loss)
{
    struct recipe r = toy_recipe(MODEL_DAT);
    r.loss = loss;
    r.negatives = loss == LOSS_BCE ? 3 : 4;
    r.init_std = 0.7;
    r.scale = 4;
    r.learn_scale = true;
    r.oov_dropout = 0.3;
    r.feature_dropout = 0.1;
    r.lambda3 = 0.7;
    r.batch = 10;
    return r;
}

static void every_loss_linear_and_relu(void **state)
{
    (void)state;
    for (int loss = 0; loss < 3; loss++)
        for (int relu = 0; relu < 2; relu++)
            for (unsigned threads = 1; threads <= 2; threads++) {
                struct recipe r = busy((enum loss_kind)loss);
                r.relu_out = relu;
                char what[64];
                snprintf(what, sizeof(what), "%s, relu %d, %u threads", loss_kind_name(r.loss), relu, threads);
                check_recipe(r, threads, what);
            }
}

static void two_tower_and_ablations(void **state)
{
    (void)state;
    struct recipe r = busy(LOSS_SOFTMAX);
    r.model = MODEL_TWO_TOWER;
    check_recipe(r, 1, "two-tower");
    r = busy(LOSS_SOFTMAX);
    r.amm = false;
    check_recipe(r, 1, "no mimic loss: a's through z alone");
    r.amm = true;
    r.cal = false;
    check_recipe(r, 1, "no alignment");
}

static void options_of_alignment(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct recipe r = busy(i & 1 ? LOSS_BCE : LOSS_SOFTMAX);
        r.lambda3 = 3;
        r.cal_weighted = i & 2;
        r.cal_detach_major = i & 4;
        r.cal_positives = i == 3;
        char what[64];
        snprintf(what, sizeof(what), "alignment, options %d", i);
        check_recipe(r, 1, what);
    }
}

static void pairs_and_sampling_options(void **state)
{
    (void)state;
    struct recipe r = busy(LOSS_BCE);
    r.batching = BATCH_PAIRS;
    r.batch = 30;
    check_recipe(r, 1, "pairs");
    r = busy(LOSS_SAMPLED);
    r.in_batch = false;
    check_recipe(r, 1, "sampled alone");
    r.in_batch = true;
    r.logq = false;
    check_recipe(r, 1, "in batch without log q");
}

/* Everything that comes with a_u in closed form, alone and together, with and without the gradient through it. */
static void augmented_vectors_in_closed_form(void **state)
{
    (void)state;
    for (int i = 0; i < 16; i++) {
        struct recipe r = busy(i & 1 ? LOSS_SAMPLED : LOSS_SOFTMAX);
        r.aug = AUG_CLOSED;
        r.alpha = 0.5;
        r.aug_grad = i & 2;
        r.denoise = i & 4 ? 0.4 : 0;
        r.skip = i & 8;
        r.id_tables = i == 9;
        r.user_weight = 0.5;
        r.item_dropout = i == 15 || i == 6 ? 0.3 : 0;
        char what[64];
        snprintf(what, sizeof(what), "closed form, options %d", i);
        check_recipe(r, i < 8 ? 1 : 2, what);
    }
}

/* Histories that end in time, with weights that are learned: their gradients, and those of the rows they weigh. */
static void weighted_histories(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct recipe r = busy(i & 1 ? LOSS_SAMPLED : LOSS_SOFTMAX);
        r.aug = AUG_CLOSED;
        r.alpha = i & 2 ? 0.5 : 0.8;
        r.aug_grad = true;
        r.window = i & 4 ? 3 : 0;
        r.denoise = i & 4 ? 0 : 0.2;
        r.recency = r.skip = true;
        r.oov_dropout = 0.1;
        char what[64];
        snprintf(what, sizeof(what), "weighted histories, options %d", i);
        check_recipe(r, 1 + (unsigned)i % 2, what);
    }
}

static void the_way_past_the_layers(void **state)
{
    (void)state;
    struct recipe r = busy(LOSS_SOFTMAX);
    r.skip = true;
    check_recipe(r, 2, "skip");
    r.item_dropout = 0.3;
    r.n_layers = 1;
    r.width[0] = 6;
    check_recipe(r, 1, "skip and dropout, one layer");
    r.model = MODEL_TWO_TOWER;
    r.k = 6;
    check_recipe(r, 1, "the id's embedding past the layers");
}

/* Fields with few values go through the first layer a value at a time (by_value.h), several of them in a row where there are columns enough. */
static void fields_by_value(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct lab l;
        struct recipe r = busy(i & 1 ? LOSS_BCE : LOSS_SOFTMAX);
        r.k = i & 2 ? 16 : 4;
        lab_init(&l, r, 1 + (unsigned)i % 2, "by value");
        const bool *on = l.step.item.pass.values.on;
        if (!on[1] || !on[2] || on[3] != (r.k == 16)) // class, price, tags
            fail_msg("k %u, %zu items: by value %d %d %d", r.k, l.step.item.pass.n, on[1], on[2], on[3]);
        lab_fini(&l);
        check_recipe(r, 1 + (unsigned)i % 2, "by value");
    }
}

/* One layer and a catalogue in which an entity's id row is 0: a is the segment's mean, and only there. */
static void entities_without_a_row_use_the_segment(void **state)
{
    (void)state;
    struct lab l;
    struct recipe r = busy(LOSS_SOFTMAX);
    r.oov_dropout = r.feature_dropout = 0;
    r.batch = 20;
    r.n_layers = 1;
    r.width[0] = 6;
    lab_init(&l, r, 1, "no row");
    const struct step_side *s = &l.step.item;
    for (size_t i = 0; i < l.sampler.batch.n_items; i++) {
        uint32_t item = l.sampler.batch.item[i], d = s->tower->d;
        const float *want =
            item + 1 < l.toy.d.n_items
                ? s->tower->aug + (item + 1) * d
                : s->tower->aug_segment + schema_segment(s->schema, s->x + i * s->tower->shape.n_slots) * d;
        assert_memory_equal(s->a + i * d, want, d * sizeof(float));
    }
    check_tower(&l, false);
    lab_fini(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_loss_linear_and_relu),
        cmocka_unit_test(two_tower_and_ablations),
        cmocka_unit_test(options_of_alignment),
        cmocka_unit_test(pairs_and_sampling_options),
        cmocka_unit_test(augmented_vectors_in_closed_form),
        cmocka_unit_test(weighted_histories),
        cmocka_unit_test(the_way_past_the_layers),
        cmocka_unit_test(fields_by_value),
        cmocka_unit_test(entities_without_a_row_use_the_segment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
