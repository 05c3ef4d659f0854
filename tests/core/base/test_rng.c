/* If this fails, the same seed gives another model, graph or split than before, or draws are biased. */
#include "tests/core/support.h"

#include <math.h>

#include "core/base/rng.h"

/* xoshiro256** started with the state {1, 2, 3, 4}: the first outputs of the authors' reference code. */
static void known_sequence(void **state)
{
    (void)state;
    struct rng r = {{1, 2, 3, 4}};
    static const uint64_t want[] = {11520, 0, 1509978240, 1215971899390074240};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(rng_u64(&r), want[i]);
    struct rng s;
    rng_init(&s, 0); // splitmix64 from 0
    assert_int_equal(s.s[0], 0xe220a8397b1dcdafu);
    assert_int_equal(s.s[1], 0x6e789e6aa1b965f4u);
}

static void same_seed_same_numbers(void **state)
{
    (void)state;
    struct rng a, b, c;
    rng_init(&a, 42);
    rng_init(&b, 42);
    rng_init(&c, 43);
    bool differ = false;
    for (int i = 0; i < 100; i++) {
        uint64_t x = rng_u64(&a);
        assert_int_equal(x, rng_u64(&b));
        differ |= x != rng_u64(&c);
    }
    assert_true(differ);
}

static void below_is_even(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 1);
    enum { N = 70000 };
    unsigned count[7] = {0};
    for (int i = 0; i < N; i++) {
        uint32_t v = rng_below(&r, 7);
        assert_true(v < 7);
        count[v]++;
    }
    for (int i = 0; i < 7; i++)
        assert_in_range(count[i], N / 7 - 500, N / 7 + 500);
    for (int i = 0; i < 10; i++)
        assert_int_equal(rng_below(&r, 1), 0);
    // 3/4 of the range: an unrejected modulo would put half of all draws into the first third
    unsigned low = 0;
    for (int i = 0; i < 30000; i++)
        low += rng_below(&r, 3u << 30) < 1u << 30;
    assert_in_range(low, 9600, 10400);
}

static void moments(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 2);
    double sum = 0, square = 0, unit = 0;
    enum { N = 100000 };
    for (int i = 0; i < N; i++) {
        double u = rng_unit(&r), x = rng_normal(&r);
        assert_true(u >= 0 && u < 1 && isfinite(x));
        unit += u;
        sum += x;
        square += x * x;
    }
    assert_true(fabs(unit / N - 0.5) < 0.01);
    assert_true(fabs(sum / N) < 0.02);
    assert_true(fabs(square / N - 1) < 0.03);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_sequence),
        cmocka_unit_test(same_seed_same_numbers),
        cmocka_unit_test(below_is_even),
        cmocka_unit_test(moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
