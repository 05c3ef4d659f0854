/* The factorisation machine: its score against Rendle's equation (1), term by term, and its gradients against finite
 * differences. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/train/toy.h"
#include "train/fm.h"

#define K 5
#define STEP 1e-2

struct fixture {
    struct toy toy;
    struct recipe r;
    struct pool *pool;
    struct fm m;
};

static void open_fixture(struct fixture *f, enum loss_kind loss)
{
    struct err err = {0};
    toy_init(&f->toy, 20, 24, 3);
    baseline_recipe(MODEL_FM, (struct recipe_data){20, 24, 0, false}, &f->r);
    f->r.width[0] = K;
    f->r.batch = 8;
    f->r.init_std = 0.4;
    f->r.loss = loss;
    f->r.negatives = 6;
    f->pool = pool_new(2, &err);
    if (!fm_init(&f->m, &f->toy.d, &f->r, f->pool, &err))
        fail_msg("%s", err.msg);
    param_draw(&f->m.weight, 0.3, &f->m.sampler.rng);
    sampler_epoch(&f->m.sampler);
    assert_true(sampler_next(&f->m.sampler));
}

static void close_fixture(struct fixture *f)
{
    fm_fini(&f->m);
    pool_free(f->pool);
    toy_fini(&f->toy);
}

/* Every feature that is there: its row and its x (1 / n for one of n values). */
struct feature {
    size_t row;
    double x;
    uint32_t field;
};

static size_t features_of(const struct fm_side *s, const uint32_t *x, struct feature *out)
{
    size_t n = 0;
    for (uint32_t f = 0; f < s->n_fields; f++) {
        size_t first = n;
        for (uint32_t q = 0; q < s->field[f].n_slots; q++)
            if (x[s->field[f].slot + q] != SLOT_EMPTY)
                out[n++] = (struct feature){s->field[f].first_row + x[s->field[f].slot + q], 1, f};
        for (size_t i = first; i < n; i++)
            out[i].x = 1 / (double)(n - first);
    }
    return n;
}

static double product(const struct fm_side *a, struct feature p, const struct fm_side *b, struct feature q)
{
    double s = 0;
    for (int c = 0; c < K; c++)
        s += (double)a->factor.w[p.row * K + (size_t)c] * (double)b->factor.w[q.row * K + (size_t)c];
    return s * p.x * q.x;
}

/* Equation (1) for the pair without the user's own terms. Values of one field are one feature: no pair among them. */
static double equation(const struct fm *m, uint32_t u, uint32_t i)
{
    struct feature fu[32], fi[32];
    size_t nu = features_of(&m->user, m->user.x + u * m->user.n_slots, fu),
           ni = features_of(&m->item, m->item.x + i * m->item.n_slots, fi);
    double s = 0;
    for (size_t q = 0; q < ni; q++) {
        s += (double)m->weight.w[fi[q].row] * fi[q].x;
        for (size_t p = 0; p < nu; p++)
            s += product(&m->user, fu[p], &m->item, fi[q]);
        for (size_t p = 0; p < q; p++)
            s += fi[p].field != fi[q].field ? product(&m->item, fi[p], &m->item, fi[q]) : 0;
    }
    return s;
}

static void the_product_of_vectors_is_the_equation(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, LOSS_SOFTMAX);
    float p[K + 1], q[K + 1];
    for (uint32_t u = 0; u < 20; u++)
        for (uint32_t i = 0; i < 24; i++) {
            double s = 0;
            fm_user_vector(&f.m, u, p);
            fm_item_vector(&f.m, i, q);
            for (int c = 0; c <= K; c++)
                s += (double)p[c] * (double)q[c];
            assert_float_equal(s, equation(&f.m, u, i), 1e-5);
        }
    close_fixture(&f);
}

static void check_param(struct fm *m, struct param *p, const float *grad, const char *name)
{
    for (size_t i = 0; i < p->n; i++) {
        float w = p->w[i];
        p->w[i] = (float)((double)w + STEP);
        double up = fm_gradients(m), at = p->w[i];
        p->w[i] = (float)((double)w - STEP);
        double down = fm_gradients(m), g = (up - down) / (at - (double)p->w[i]);
        p->w[i] = w;
        if (fabs(g - (double)grad[i]) > 2e-4 + 0.01 * fabs(g))
            fail_msg("%s %zu: gradient %g, finite difference %g", name, i, (double)grad[i], g);
    }
}

static void gradients_are_finite_differences(void **state)
{
    (void)state;
    const enum loss_kind kinds[] = {LOSS_SOFTMAX, LOSS_SAMPLED};
    for (int k = 0; k < 2; k++) {
        struct fixture f;
        open_fixture(&f, kinds[k]);
        struct param *p[] = {&f.m.user.factor, &f.m.item.factor, &f.m.weight};
        const char *names[] = {"user", "item", "weight"};
        float *grad[3];
        fm_gradients(&f.m);
        for (int i = 0; i < 3; i++) {
            grad[i] = malloc(p[i]->n * sizeof(float));
            memcpy(grad[i], p[i]->grad, p[i]->n * sizeof(float));
        }
        for (int i = 0; i < 3; i++)
            check_param(&f.m, p[i], grad[i], names[i]);
        for (int i = 0; i < 3; i++)
            free(grad[i]);
        close_fixture(&f);
    }
}

static void what_it_cannot_do_is_said(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = {0};
    struct fm m;
    open_fixture(&f, LOSS_SOFTMAX);
    f.r.loss = LOSS_BCE;
    assert_false(fm_init(&m, &f.toy.d, &f.r, f.pool, &err));
    assert_non_null(strstr(err.msg, "bce"));
    close_fixture(&f);
}

/* Adam by its definition. */
static void param_steps_are_adamw(void **state)
{
    (void)state;
    struct param p;
    struct err err = {0};
    const struct adam_params a = {.lr = 0.1f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .weight_decay = 0.5f};
    double w = 1, m = 0, v = 0;
    struct pool *pool = pool_new(3, &err);
    assert_true(param_init(&p, 4, &err));
    p.w[2] = 1;
    for (uint32_t t = 1; t <= 5; t++) {
        double g = 0.3 * t - 0.7;
        p.grad[2] = (float)g;
        param_step(&p, &a, t, pool);
        m = 0.9 * m + 0.1 * g;
        v = 0.99 * v + 0.01 * g * g;
        w = w * (1 - 0.1 * 0.5) - 0.1 * (m / (1 - pow(0.9, t))) / (sqrt(v / (1 - pow(0.99, t))) + 1e-8);
        assert_float_equal(p.w[2], w, 1e-5);
        assert_float_equal(p.w[1], 0, 0);
        assert_float_equal(p.grad[2], 0, 0);
    }
    param_fini(&p);
    pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_product_of_vectors_is_the_equation),
        cmocka_unit_test(gradients_are_finite_differences),
        cmocka_unit_test(what_it_cannot_do_is_said),
        cmocka_unit_test(param_steps_are_adamw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
