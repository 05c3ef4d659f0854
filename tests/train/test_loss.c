/* Losses at the edges that small batches do not reach, the alignment's choice of major category, and signs of collapse.
 * If this fails, a large catalogue or an extreme score turns a run into NaN, or a dead model goes unnoticed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/rng.h"
#include "train/cal.h"
#include "train/collapse.h"
#include "train/loss.h"

#define N 3001
#define D 4

/* One user, N items, scores up to +-scale: against the definition in double. */
static void softmax_of_a_large_catalogue_is_exact(void **state)
{
    (void)state;
    static float pu[D] = {0.5f, -0.5f, 0.5f, 0.5f}, pv[N * D], dpu[D], dpv[N * D];
    struct err err = {0};
    struct rng rng;
    struct loss_ws ws;
    struct pool *pool = pool_new(1, &err);
    const float scales[] = {1, 20, 300};
    rng_init(&rng, 1);
    for (size_t i = 0; i < N * D; i++)
        pv[i] = (float)rng_normal(&rng) / 2;
    assert_true(loss_ws_init(&ws, 1, N, pool, &err));
    for (int k = 0; k < 3; k++) {
        uint32_t pos_off[2] = {0, 2}, pos[2] = {17, 2999};
        struct batch b = {.n_users = 1, .n_items = N, .n_pos = 2, .pos_off = pos_off, .pos = pos};
        struct loss_io io = {&b, pu, pv, D, scales[k], dpu, dpv};
        memset(dpu, 0, sizeof(dpu));
        memset(dpv, 0, sizeof(dpv));
        double have = loss_softmax(&io, &ws), max = -HUGE_VAL, sum = 0, want = 0;
        for (int pass = 0; pass < 2; pass++)
            for (size_t i = 0; i < N; i++) {
                double s = 0;
                for (size_t c = 0; c < D; c++)
                    s += (double)pu[c] * pv[i * D + c] * scales[k];
                max = !pass && s > max ? s : max;
                sum += pass ? exp(s - max) : 0;
                want -= pass && (i == 17 || i == 2999) ? s / 2 : 0;
            }
        want += max + log(sum);
        if (fabs(have - want) > 2e-6 * fabs(want))
            fail_msg("scale %g: loss %.9g, want %.9g", (double)scales[k], have, want);
        double balance = 0; // softmax minus one-hot sums to 0 over the items
        for (size_t i = 0; i < N; i++)
            balance += dpv[i * D];
        assert_true(fabs(balance) < 1e-4 * scales[k]);
    }
    loss_ws_fini(&ws);
    pool_free(pool);
}

static void extreme_scores_stay_finite(void **state)
{
    (void)state;
    const float pu[] = {1}, pv[] = {1, -1};
    float dpu[1] = {0}, dpv[2] = {0};
    uint32_t pos_off[2] = {0, 1}, pos[1] = {1}, neg[1] = {0}; // both wrong by a lot
    struct batch b = {.n_users = 1, .n_items = 2, .n_pos = 1, .pos_off = pos_off, .pos = pos, .neg = neg, .n_neg = 1};
    struct loss_io io = {&b, pu, pv, 1, 1000, dpu, dpv};
    assert_true(fabs(loss_bce(&io) - 1000) < 1e-6);
    assert_true(isfinite(dpu[0]) && fabsf(dpv[0] - 500) < 1e-3f && fabsf(dpv[1] + 500) < 1e-3f);
}

// ----------------------------------------------------------------------------------------------------- alignment

static double cal_of(const uint32_t *category, const uint32_t *count, size_t n, uint32_t min_rows, float *dpv)
{
    static const float pv[] = {1, 0, 0, 1, 1, 1, 0, 0, 0.5f, 0, 2, 1};
    struct cal c;
    struct err err = {0};
    struct cal_params p = {min_rows, false, false};
    assert_true(cal_init(&c, 4, 2, 6, &p, &err));
    memset(dpv, 0, 12 * sizeof(*dpv));
    double v = cal_loss(&c, pv, category, count, n, 1, dpv);
    cal_fini(&c);
    return v;
}

static void single_rows_have_no_covariance(void **state)
{
    (void)state;
    float dpv[12];
    const uint32_t one[] = {1, 1, 1, 1, 1, 1};
    assert_true(cal_of((const uint32_t[]){0, 1, 2, 3, 3, 3}, one, 6, 2, dpv) ==
                0); // one category of two and more: nothing to compare
    for (int i = 0; i < 12; i++)
        assert_true(dpv[i] == 0);
    assert_true(cal_of((const uint32_t[]){1, 1, 1, 3, 3, 3}, one, 6, 2, dpv) > 0);
    assert_true(cal_of((const uint32_t[]){1, 1, 1, 3, 3, 3}, one, 6, 4, dpv) == 0);
    assert_true(cal_of((const uint32_t[]){1, 1, 1, 3, 3, 3}, one, 0, 2, dpv) == 0);
}

/* An item that stands for two rows is two rows. */
static void repeats_count(void **state)
{
    (void)state;
    float a[12], b[12];
    double twice = cal_of((const uint32_t[]){1, 1, 3, 3}, (const uint32_t[]){2, 1, 1, 1}, 4, 2, a);
    double plain = cal_of((const uint32_t[]){1, 1, 3, 3}, (const uint32_t[]){1, 1, 1, 1}, 4, 2, b);
    assert_true(fabs(twice - plain) > 1e-3);
    /* C of {x, x, y} is (x - y)(x - y)' / 3, of {x, y} it is / 2; the major is category 1 in both */
    const double c1[4] = {1.0 / 3, -1.0 / 3, -1.0 / 3, 1.0 / 3}, c3[4] = {0.5, 0.5, 0.5, 0.5};
    double want = 0;
    for (int i = 0; i < 4; i++)
        want += (c1[i] - c3[i]) * (c1[i] - c3[i]);
    assert_true(fabs(twice - want) < 1e-6);
}

// ------------------------------------------------------------------------------------------------------ collapse

static const char *why(bool relu, enum loss_kind loss, double main_loss, struct step_health h)
{
    static char reason[400];
    struct recipe r;
    struct loss_parts parts = {.total = main_loss, .main = main_loss};
    recipe_named("paper", MODEL_DAT, (struct recipe_data){5000, 10, 0, false}, &r);
    r.relu_out = relu;
    r.loss = loss;
    return collapse_seen(&r, &parts, &h, reason, sizeof(reason)) ? reason : NULL;
}

static void each_sign_of_collapse_is_told(void **state)
{
    (void)state;
    const struct step_health well = {0.1, 0, 0.8, true};
    assert_null(why(true, LOSS_BCE, 0.5, well));
    assert_null(why(true, LOSS_BCE, 0.6931472, well)); // ln 2 in passing is no collapse
    const char *w = why(true, LOSS_BCE, 0.6931472, (struct step_health){1, 0, 0, true});
    assert_true(w && strstr(w, "100% of the users' outputs") && strstr(w, "ln 2") &&
                strstr(w, "--linear-out with --scale 10"));
    w = why(true, LOSS_SOFTMAX, 7, (struct step_health){0, 0.99, 0.2, true});
    assert_true(w && strstr(w, "99% of the items' outputs") && !strstr(w, "ln 2") && strstr(w, "lower --lr"));
    w = why(false, LOSS_BCE, 0.69, (struct step_health){0, 0, 1e-9, true});
    assert_true(w && strstr(w, "all scores are equal"));
    w = why(false, LOSS_BCE, NAN, (struct step_health){0, 0, 0.5, false});
    assert_true(w && strstr(w, "not finite") && strstr(w, "lower --lr"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_of_a_large_catalogue_is_exact), cmocka_unit_test(extreme_scores_stay_finite),
        cmocka_unit_test(single_rows_have_no_covariance),        cmocka_unit_test(repeats_count),
        cmocka_unit_test(each_sign_of_collapse_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
