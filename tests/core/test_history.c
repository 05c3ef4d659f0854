/* a_u of a history. If this fails, strangers are answered by another formula than the one that was trained. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/history.h"

#define D 5
#define N 40

static float row[N][D];
static uint32_t idx[N];

static int make_rows(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        idx[i] = (7 * i + 3) % N;
        for (uint32_t c = 0; c < D; c++)
            row[i][c] = sinf((float)(3 * i + c));
    }
    return 0;
}

static void steps_widen_with_age(void **state)
{
    (void)state;
    const size_t first[] = {0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32};
    for (uint32_t s = 0; s < sizeof(first) / sizeof(first[0]); s++) {
        assert_int_equal(history_step(first[s]), s);
        assert_int_equal(history_step(first[s] - (s > 0)), s - (s > 0));
    }
    assert_int_equal(history_step(SIZE_MAX), HISTORY_STEPS - 1);
}

static void plain_is_a_power_of_the_number_times_the_sum(void **state)
{
    (void)state;
    struct history_form f;
    const float alphas[] = {0, 0.5f, 1};
    for (int i = 0; i < 3; i++)
        for (size_t n = 1; n <= N; n += 13) {
            float a[D];
            history_form_plain(&f, alphas[i]);
            assert_true(history_form_is_plain(&f));
            assert_float_equal(history_sum(&f, row[0], idx, n, D, a), powf((float)n, -alphas[i]), 1e-6);
            for (uint32_t c = 0; c < D; c++) {
                double want = 0;
                for (size_t q = 0; q < n; q++)
                    want += (double)row[idx[q]][c] * pow((double)n, -(double)alphas[i]);
                assert_true(fabs(want - (double)a[c]) < 1e-5);
            }
        }
}

static void weights_go_by_the_number_of_newer_items(void **state)
{
    (void)state;
    struct history_form f;
    float a[D];
    history_form_plain(&f, 0.5f);
    for (uint32_t s = 0; s < HISTORY_STEPS; s++)
        f.weight[s] = 1 / (1 + (float)s);
    assert_false(history_form_is_plain(&f));
    history_sum(&f, row[0], idx, N, D, a);
    for (uint32_t c = 0; c < D; c++) {
        double sum = 0, norm2 = 0;
        for (size_t newer = 0; newer < N; newer++) {
            double w = 1 / (1 + (double)history_step(newer));
            sum += w * (double)row[idx[N - 1 - newer]][c];
            norm2 += w * w;
        }
        assert_true(fabs(sum / sqrt(norm2) - (double)a[c]) < 1e-5);
    }
}

static void nothing_is_zero(void **state)
{
    (void)state;
    struct history_form f;
    float a[D] = {1, 1, 1, 1, 1};
    history_form_plain(&f, 0.5f);
    assert_true(history_sum(&f, row[0], idx, 0, D, a) == 0);
    for (uint32_t c = 0; c < D; c++)
        assert_true(a[c] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_widen_with_age),
        cmocka_unit_test(plain_is_a_power_of_the_number_times_the_sum),
        cmocka_unit_test(weights_go_by_the_number_of_newer_items),
        cmocka_unit_test(nothing_is_zero),
    };
    return cmocka_run_group_tests(tests, make_rows, NULL);
}
