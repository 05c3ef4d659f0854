/* If this fails, guardrails stop variants that are fine, or let faulty ones go on. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "server/outcome.h"

#define S 1000000000u

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Against the sorted latencies: within an eighth of an octave. */
static void p99_is_that_of_the_latencies(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    static uint64_t ns[COUNT];
    uint64_t x = 88172645463325252u; // xorshift64
    struct outcome_window w;
    for (double scale = 1e4; scale < 1e10; scale *= 31) {
        struct outcomes *o = outcomes_new(1, NULL);
        for (size_t i = 0; i < COUNT; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            ns[i] = (uint64_t)(-log((double)(x >> 11) / 9007199254740992.0 + 1e-12) * scale);
            outcome_add(o, 0, false, false, ns[i]);
        }
        qsort(ns, COUNT, sizeof(ns[0]), by_value);
        outcome_window(o, 0, &w);
        double want = (double)ns[COUNT * 99 / 100] / 1e6;
        if (fabs(w.p99_ms - want) > want / 8 + 0.001)
            fail_msg("found %g ms, want %g", w.p99_ms, want);
        outcomes_free(o);
    }
}

static void a_window_forgets(void **state)
{
    (void)state;
    struct outcomes *o = outcomes_new(2, NULL);
    struct outcome_window w;
    uint64_t now = 1000ull * S, window = 60ull * S;
    for (int i = 0; i < 100; i++)
        outcome_add(o, 1, i < 30, i >= 30 && i < 50, 1000000);
    outcome_turn(o, now, window); // what came before the first look is in the window
    outcome_window(o, 1, &w);
    assert_int_equal(w.n, 100);
    assert_int_equal(w.errors, 30);
    assert_int_equal(w.empty, 20);
    outcome_window(o, 0, &w);
    assert_true(w.n == 0 && w.p99_ms == 0);
    for (int i = 0; i < 50; i++) { // 50 s
        outcome_turn(o, now += S, window);
        outcome_add(o, 1, false, false, 1000000);
    }
    outcome_window(o, 1, &w);
    assert_int_equal(w.n, 150);
    for (int i = 0; i < 20; i++) {
        outcome_turn(o, now += S, window);
        outcome_add(o, 1, false, false, 9000000);
    }
    outcome_window(o, 1, &w); // the last 55 to 60 s
    assert_int_equal(w.errors, 0);
    assert_in_range(w.n, 54, 61);
    assert_true(w.p99_ms > 8 && w.p99_ms < 10);
    outcomes_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(p99_is_that_of_the_latencies),
        cmocka_unit_test(a_window_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
