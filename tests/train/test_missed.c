/* Many steps without a gradient at once. If this fails, users and items that are seen rarely are trained differently
 * from what dense Adam would do, near the start of a run, far into it, or after a long pause. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "train/missed.h"

#define M0 0.3
#define V0 0.02

static const struct adam_params with_decay = {0.01f, 0.9f, 0.999f, 1e-8f, 0.05f};

/* Steps from + 1 .. to of a row x = 1, m = M0, v = V0, one by one. */
static double one_by_one(const struct adam_params *p, uint32_t from, uint32_t to, double *m)
{
    double x = 1, v = V0;
    *m = M0;
    for (uint32_t t = from + 1; t <= to; t++) {
        *m *= p->beta1;
        v *= p->beta2;
        x = x * (1 - (double)p->lr * p->weight_decay) -
            p->lr * (*m / (1 - pow(p->beta1, t))) / (sqrt(v / (1 - pow(p->beta2, t))) + p->eps);
    }
    return x;
}

static void check(struct missed *s, const struct adam_params *p, uint32_t from, uint32_t to)
{
    double m, want = one_by_one(p, from, to, &m);
    missed_at(s, p, to);
    const struct missed_step step = missed_of(s, from);
    double x = step.keep - step.move * M0 / (sqrt(V0) + step.eps);
    if (fabs(x - want) > 2e-6)
        fail_msg("steps %u .. %u: %.8f, one by one %.8f", from + 1, to, x, want);
    assert_float_equal(step.m_left, (float)(m / M0), 1e-6f);
    assert_float_equal(step.v_left, (float)pow(p->beta2, to - from), 1e-6f);
}

static void many_steps_are_as_many_single_ones(void **state)
{
    (void)state;
    const uint32_t first[] = {1, 2, 100, 32700, 40000}, n[] = {1, 2, 17, 255, 256, 257, 3000};
    for (int decay = 0; decay < 2; decay++) {
        struct missed s;
        struct adam_params p = with_decay;
        p.weight_decay *= (float)decay;
        assert_true(missed_init(&s, &p, NULL));
        for (size_t i = 0; i < sizeof(first) / sizeof(*first); i++)
            for (size_t k = 0; k < sizeof(n) / sizeof(*n); k++)
                check(&s, &p, first[i], first[i] + n[k]);
        missed_fini(&s);
    }
}

/* An epoch may have another rate than the one before. */
static void the_rate_may_change(void **state)
{
    (void)state;
    struct missed s;
    struct adam_params p = with_decay;
    assert_true(missed_init(&s, &p, NULL));
    check(&s, &p, 10, 20);
    p.lr /= 4;
    check(&s, &p, 20, 50);
    missed_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_steps_are_as_many_single_ones),
        cmocka_unit_test(the_rate_may_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
