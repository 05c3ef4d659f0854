/* Networks over histories (youtube_dnn, mind): gradients of every parameter against finite differences, pooling against
 * its definition, and that no item explains itself. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/train/toy.h"
#include "train/history_net.h"

#define N_USERS 20
#define N_ITEMS 24
#define D 5

struct fixture {
    struct toy toy;
    struct recipe r;
    struct pool *pool;
    struct history_net m;
};

static void open_fixture(struct fixture *f, enum model_kind kind, enum loss_kind loss, unsigned threads)
{
    struct err err = {0};
    toy_init(&f->toy, N_USERS, N_ITEMS, 3);
    toy_hold_out(&f->toy, 1, 0); // user 0 has nothing to train on
    baseline_recipe(kind, (struct recipe_data){N_USERS, N_ITEMS, 0, false}, &f->r);
    f->r.n_layers = 2;
    f->r.width[0] = 7;
    f->r.width[1] = D;
    f->r.k = 4;
    f->r.batch = 6;
    f->r.init_std = 0.5;
    f->r.scale = 3;
    f->r.weight_decay = 0; // which would move rows between two looks at the loss
    f->r.loss = loss;
    f->r.negatives = 6;
    f->r.n_interest = kind == MODEL_MIND ? 3 : 1;
    f->pool = pool_new(threads, &err);
    if (!history_net_init(&f->m, kind == MODEL_MIND ? &capsule_pooling : &mean_pooling, &f->toy.d, &f->r, f->pool,
                          &err))
        fail_msg("%s", err.msg);
    if (f->m.bilinear.n)
        param_draw(&f->m.bilinear, 0.5, &f->m.rng); // not the identity that it begins as
    sampler_epoch(&f->m.sampler);
    assert_true(sampler_next(&f->m.sampler));
    history_net_split(&f->m);
}

static void close_fixture(struct fixture *f)
{
    history_net_fini(&f->m);
    pool_free(f->pool);
    toy_fini(&f->toy);
}

// ----------------------------------------------------------------------------------------------------- gradients

static double loss_at(struct history_net *m, float *w, double value, const char *unused)
{
    (void)unused;
    float kept = *w;
    *w = (float)value;
    double loss = history_net_gradients(m);
    *w = kept;
    return loss;
}

static void check(struct history_net *m, float *w, const float *grad, size_t n, const char *name)
{
    const double step = 2e-3;
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++) {
        double at = w[i], g = (loss_at(m, &w[i], at + step, name) - loss_at(m, &w[i], at - step, name)) / (2 * step);
        wrong += fabs(g - (double)grad[i]) > 5e-4 + 0.03 * fabs(g);
    }
    if (wrong > n / 50) // a step across the corner of a ReLU is no error
        fail_msg("%s: %zu of %zu gradients are not the finite differences", name, wrong, n);
}

static float *copy(const float *v, size_t n)
{
    float *c = malloc(n * sizeof(*c));
    memcpy(c, v, n * sizeof(*c));
    return c;
}

static void gradients_are_finite_differences(void **state)
{
    (void)state;
    const enum model_kind kinds[] = {MODEL_YOUTUBE_DNN, MODEL_MIND};
    const enum loss_kind losses[] = {LOSS_SOFTMAX, LOSS_SAMPLED};
    for (int k = 0; k < 2; k++)
        for (int l = 0; l < 2; l++) {
            struct fixture f;
            open_fixture(&f, kinds[k], losses[l], 2);
            struct history_net *m = &f.m;
            history_net_gradients(m);
            m->keep_route = true; // routes are constants for the gradient
            memset(m->item.grad, 0, m->item.n * sizeof(float));
            memset(m->adam.grad.block, 0, m->adam.grad.block_floats * sizeof(float));
            if (m->bilinear.n)
                memset(m->bilinear.grad, 0, m->bilinear.n * sizeof(float));
            history_net_gradients(m);
            float *item = copy(m->item.grad, m->item.n), *tower = copy(m->adam.grad.block, m->adam.grad.block_floats);
            float *bilinear = m->bilinear.n ? copy(m->bilinear.grad, m->bilinear.n) : NULL;
            double sum = 0;
            for (size_t i = 0; i < m->adam.grad.block_floats; i++)
                sum += fabs((double)tower[i]);
            assert_true(sum > 0.01);
            check(m, m->item.w, item, m->item.n, "items");
            check(m, m->user.block, tower, m->user.block_floats, "tower");
            if (bilinear)
                check(m, m->bilinear.w, bilinear, m->bilinear.n, "S");
            free(item);
            free(tower);
            free(bilinear);
            close_fixture(&f);
        }
}

// ------------------------------------------------------------------------------------------------------- batches

static void targets_are_no_history(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, MODEL_YOUTUBE_DNN, LOSS_SOFTMAX, 1);
    const struct history_net *m = &f.m;
    const struct batch *b = &m->sampler.batch;
    for (size_t u = 0; u < b->n_users; u++) {
        assert_int_equal(m->target_off[u + 1] - m->target_off[u], 4); // of 8
        assert_int_equal(m->hist_off[u + 1] - m->hist_off[u], 4);
        for (uint32_t t = m->target_off[u]; t < m->target_off[u + 1]; t++)
            for (uint32_t h = m->hist_off[u]; h < m->hist_off[u + 1]; h++)
                assert_int_not_equal(m->target[t], m->hist[h]);
    }
    f.r.history = 2;
    history_net_split(&f.m);
    assert_int_equal(m->hist_off[1] - m->hist_off[0], 2);
    close_fixture(&f);
}

/* With times: the sampler's cut, and of what came before the latest. */
static void targets_follow_in_time(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, MODEL_MIND, LOSS_SOFTMAX, 1);
    toy_give_times(&f.toy);
    f.r.window = 2;
    f.r.history = 3;
    struct history_net m;
    struct err err = {0};
    assert_true(history_net_init(&m, &capsule_pooling, &f.toy.d, &f.r, f.pool, &err));
    for (sampler_epoch(&m.sampler); sampler_next(&m.sampler);) {
        const struct batch *b = &m.sampler.batch;
        history_net_split(&m);
        for (size_t u = 0; u < b->n_users; u++) {
            const uint32_t *item = f.toy.d.train.item + f.toy.d.train.off[b->user[u]];
            size_t now = b->hist_off[u + 1] - b->hist_off[u], n = m.hist_off[u + 1] - m.hist_off[u];
            assert_int_equal(n, now < 3 ? now : 3);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(b->item[m.hist[m.hist_off[u] + i]], item[now - n + i]);
            assert_int_equal(b->item[m.target[m.target_off[u]]], item[now]);
        }
        assert_true(isfinite(history_net_gradients(&m)));
    }
    history_net_fini(&m);
    close_fixture(&f);
}

/* With recipe.ema the vectors are those of the average, and training goes on from the parameters. */
static void vectors_are_the_averages(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, MODEL_MIND, LOSS_SOFTMAX, 1);
    f.r.ema = 0.8;
    f.r.ema_after = 1;
    struct history_net m;
    struct err err = {0};
    double loss;
    assert_true(history_net_init(&m, &capsule_pooling, &f.toy.d, &f.r, f.pool, &err));
    assert_true(history_net_epoch(&m, &loss, &err));
    assert_false(m.ema_item.started);
    for (int e = 0; e < 4; e++)
        assert_true(history_net_epoch(&m, &loss, &err));
    assert_true(m.ema_item.started && m.ema_bilinear.started && m.ema.started);
    float *before = copy(m.item.w, m.item.n);
    struct stored *s = history_net_vectors(&m, &err);
    assert_non_null(s);
    assert_memory_equal(before, m.item.w, m.item.n * sizeof(float));
    for (size_t i = 0; i < N_ITEMS; i++) {
        double norm = 0;
        for (size_t c = 0; c < D; c++)
            norm += pow((double)m.ema_item.average[i * D + c], 2);
        for (size_t c = 0; c < D; c++)
            assert_true(fabs((double)m.ema_item.average[i * D + c] / sqrt(norm) - (double)s->item[i * D + c]) < 1e-5);
    }
    stored_free(s);
    free(before);
    history_net_fini(&m);
    close_fixture(&f);
}

/* Each target is a positive of the row whose vector is nearest, and of no other. */
static void targets_go_to_the_nearest_interest(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, MODEL_MIND, LOSS_SOFTMAX, 1);
    struct history_net *m = &f.m;
    history_net_gradients(m);
    assert_int_equal(m->rows.n_users, 18);
    assert_int_equal(m->rows.n_pos, m->target_off[6]);
    for (size_t row = 0; row < 18; row++)
        for (uint32_t q = m->rows.pos_off[row]; q < m->rows.pos_off[row + 1]; q++) {
            double s[3] = {0};
            size_t used = m->pooling->interests(&f.r, 4), user = row / 3;
            for (size_t j = 0; j < used; j++)
                for (size_t c = 0; c < D; c++)
                    s[j] += (double)m->pass.p[(user * 3 + j) * D + c] * (double)m->pv[m->rows.pos[q] * D + c];
            assert_true(row % 3 < used);
            for (size_t j = 0; j < used; j++)
                assert_true(s[j] <= s[row % 3] + 1e-6);
        }
    close_fixture(&f);
}

static void interests_grow_with_the_history(void **state)
{
    (void)state;
    struct recipe r = {.n_interest = 4};
    const size_t n[] = {0, 1, 3, 4, 7, 8, 15, 16, 1000}, want[] = {1, 1, 1, 2, 2, 3, 3, 4, 4}; // log2 n, 1 to 4
    for (size_t i = 0; i < sizeof(n) / sizeof(n[0]); i++)
        assert_int_equal(capsule_pooling.interests(&r, n[i]), want[i]);
    assert_int_equal(mean_pooling.interests(&r, 1000), 1);
}

/* Routing by the paper's algorithm 1, in double. */
static void capsules_are_routed_as_published(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, MODEL_MIND, LOSS_SOFTMAX, 1);
    struct history_net *m = &f.m;
    history_net_gradients(m);
    for (uint32_t u = 0; u < 6; u++) {
        uint32_t lo = m->hist_off[u], n = m->hist_off[u + 1] - lo;
        uint32_t used = m->pooling->interests(&f.r, n);
        double b[8][3], se[8][D] = {{0}}, out[3][D];
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t c = 0; c < D; c++)
                for (uint32_t e = 0; e < D; e++)
                    se[i][c] += (double)m->bilinear.w[c * D + e] * (double)m->pv[m->hist[lo + i] * D + e];
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < used; j++)
                b[i][j] = m->route_init[m->sampler.batch.item[m->hist[lo + i]] * 3 + j];
        for (int t = 0; t < 3; t++)
            for (uint32_t j = 0; j < used; j++) {
                double z[D] = {0}, norm2 = 0;
                for (uint32_t i = 0; i < n; i++) {
                    double sum = 0;
                    for (uint32_t q = 0; q < used; q++)
                        sum += exp(b[i][q]);
                    for (uint32_t c = 0; c < D; c++)
                        z[c] += exp(b[i][j]) / sum * se[i][c];
                }
                for (uint32_t c = 0; c < D; c++)
                    norm2 += z[c] * z[c];
                for (uint32_t c = 0; c < D; c++)
                    out[j][c] = norm2 / (1 + norm2) * z[c] / sqrt(norm2);
                if (j + 1 == used) // all capsules are there: logits move together
                    for (uint32_t i = 0; t < 2 && i < n; i++)
                        for (uint32_t q = 0; q < used; q++)
                            for (uint32_t c = 0; c < D; c++)
                                b[i][q] += out[q][c] * se[i][c];
            }
        for (uint32_t j = 0; j < used; j++)
            for (uint32_t c = 0; c < D; c++)
                assert_float_equal(m->a[(u * 3 + j) * D + c], out[j][c], 1e-4);
    }
    close_fixture(&f);
}

// ------------------------------------------------------------------------------------------------------- vectors

static void vectors_are_of_unit_length_and_nothing_known_is_zero(void **state)
{
    (void)state;
    const enum model_kind kinds[] = {MODEL_YOUTUBE_DNN, MODEL_MIND};
    for (int k = 0; k < 2; k++) {
        struct fixture f;
        struct err err = {0};
        open_fixture(&f, kinds[k], LOSS_SOFTMAX, 1);
        double loss;
        assert_true(history_net_epoch(&f.m, &loss, &err));
        struct stored *s = history_net_vectors(&f.m, &err);
        assert_non_null(s);
        assert_int_equal(s->n_interest, kinds[k] == MODEL_MIND ? 3 : 1);
        assert_false(stored_known(s->user, s->n_interest * D));
        for (uint32_t row = s->n_interest; row < s->n_interest * N_USERS; row++) {
            double norm2 = 0;
            for (uint32_t c = 0; c < D; c++)
                norm2 += (double)s->user[row * D + c] * (double)s->user[row * D + c];
            assert_float_equal(norm2, 1, 1e-5);
        }
        stored_free(s);
        close_fixture(&f);
    }
}

static void one_seed_one_result(void **state)
{
    (void)state;
    struct stored *s[2];
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        struct err err = {0};
        double loss;
        open_fixture(&f, MODEL_MIND, LOSS_SOFTMAX, 2);
        assert_true(history_net_epoch(&f.m, &loss, &err));
        s[i] = history_net_vectors(&f.m, &err);
        close_fixture(&f);
    }
    assert_memory_equal(s[0]->user, s[1]->user, N_USERS * 3 * D * sizeof(float));
    stored_free(s[0]);
    stored_free(s[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_finite_differences),
        cmocka_unit_test(targets_are_no_history),
        cmocka_unit_test(targets_follow_in_time),
        cmocka_unit_test(vectors_are_the_averages),
        cmocka_unit_test(targets_go_to_the_nearest_interest),
        cmocka_unit_test(interests_grow_with_the_history),
        cmocka_unit_test(capsules_are_routed_as_published),
        cmocka_unit_test(vectors_are_of_unit_length_and_nothing_known_is_zero),
        cmocka_unit_test(one_seed_one_result),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
