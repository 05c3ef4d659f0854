/* The paired test. If this fails, a table calls noise a result, or the other way round. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/rng.h"
#include "train/study/paired.h"

#define assert_near(a, b, eps) assert_true(fabs((a) - (b)) <= (eps))

/* Student 1908, "The probable error of a mean": hours of sleep gained with two drugs; figures as R's t.test(paired = TRUE) gives. */
static void students_sleep(void **state)
{
    (void)state;
    const double a[] = {0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0};
    const double b[] = {1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4};
    double d[12], n[12];
    for (size_t i = 0; i < 10; i++) {
        d[i] = a[i] - b[i];
        n[i] = 1;
    }
    d[10] = d[11] = 1e9; // users without targets count for nothing
    n[10] = n[11] = 0;
    struct paired t = paired_test(d, n, 12);
    assert_int_equal(t.n_users, 10);
    assert_near(t.diff, -1.58, 1e-12);
    assert_near(t.t, -4.0621, 5e-5);
    assert_near(t.p, 0.002833, 5e-7);
    assert_near(t.lo, -2.4598858, 5e-7);
    assert_near(t.hi, -0.7001142, 5e-7);
}

static void the_distribution_by_tables(void **state)
{
    (void)state;
    assert_near(student_two_sided(12.706, 1), 0.05, 1e-5);
    assert_near(student_two_sided(2.228, 10), 0.05, 2e-5);
    assert_near(student_two_sided(1.96, 1e7), 0.05, 1e-5);
    assert_near(student_two_sided(-2.576, 1e7), 0.01, 1e-5);
    assert_near(student_two_sided(0, 5), 1, 1e-12);
}

/* Users with more targets weigh more, and their targets are no independent draws: each user copied k times is the same as one user, not
 * as k. */
static void users_are_what_is_sampled(void **state)
{
    (void)state;
    double d[40], n[40], many_d[40], many_n[40];
    for (size_t i = 0; i < 40; i++) {
        d[i] = i % 3 == 0 ? 1 : i % 5 == 0 ? -1 : 0;
        n[i] = 1;
        many_d[i] = 7 * d[i];
        many_n[i] = 7;
    }
    struct paired one = paired_test(d, n, 40), many = paired_test(many_d, many_n, 40);
    assert_near(one.diff, many.diff, 1e-12);
    assert_near(one.p, many.p, 1e-12);
    n[0] = 3; // 3 targets, one gained
    double sum = 0, sum_n = 42;
    for (size_t i = 0; i < 40; i++)
        sum += d[i];
    assert_near(paired_test(d, n, 40).diff, sum / sum_n, 1e-12);
}

/* Of true null hypotheses one in twenty is refused. */
static void p_is_uniform_where_nothing_differs(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 5);
    size_t refused = 0;
    for (size_t round = 0; round < 4000; round++) {
        double d[60], n[60];
        for (size_t i = 0; i < 60; i++) {
            n[i] = 1 + (double)(i % 3);
            d[i] = rng_normal(&rng) * n[i];
        }
        refused += paired_test(d, n, 60).p < 0.05;
    }
    assert_in_range(refused, 150, 260); // 200 expected, deviation 14; the ratio's linear error makes it a little more
}

static void nothing_to_compare(void **state)
{
    (void)state;
    const double zero[] = {0, 0, 0}, one[] = {1, 1, 1};
    struct paired t = paired_test(zero, one, 3);
    assert_near(t.p, 1, 0);
    assert_near(t.diff, 0, 0);
    assert_near(paired_test(one, one, 3).p, 0, 0); // the same gain for everybody
    assert_near(paired_test(zero, one, 1).p, 1, 0);
    assert_int_equal(paired_test(zero, zero, 3).n_users, 0);
}

static void holm_steps_down(void **state)
{
    (void)state;
    double p[] = {0.01, 0.04, 0.03, 0.005};
    paired_holm(p, 4);
    assert_near(p[3], 0.02, 1e-12);
    assert_near(p[0], 0.03, 1e-12);
    assert_near(p[2], 0.06, 1e-12);
    assert_near(p[1], 0.06, 1e-12); // not below the one before it
    double one[] = {0.7};
    paired_holm(one, 1);
    assert_near(one[0], 0.7, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(students_sleep),         cmocka_unit_test(the_distribution_by_tables),
        cmocka_unit_test(users_are_what_is_sampled), cmocka_unit_test(p_is_uniform_where_nothing_differs),
        cmocka_unit_test(nothing_to_compare),     cmocka_unit_test(holm_steps_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
