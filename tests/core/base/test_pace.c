/* If this fails, loading keeps a processor busy beside the requests, or takes without bound where others have the processor. */
#include "tests/core/support.h"

#include <pthread.h>

#include "core/base/pace.h"

/* A thread's time, which goes on as the test says. */
static struct {
    uint64_t now, cpu;
    uint64_t late;       // how much longer a rest is than asked for
    uint64_t rested, rests, last;
} t;

static uint64_t fake_now(void *ctx)
{
    (void)ctx;
    return t.now;
}

static uint64_t fake_cpu(void *ctx)
{
    (void)ctx;
    return t.cpu;
}

static void fake_rest(void *ctx, uint64_t ns)
{
    (void)ctx;
    t.last = ns + t.late;
    t.now += t.last;
    t.rested += t.last;
    t.rests++;
}

static const struct pace_clock fake = {fake_now, fake_cpu, fake_rest, NULL};
static struct pace pace;

static void work(uint64_t ns)
{
    t.now += ns;
    t.cpu += ns;
    pace_point();
}

static int setup(void **state)
{
    (void)state;
    memset(&t, 0, sizeof(t));
    t.now = 77;
    atomic_store(&pace.hurry, false);
    atomic_store(&pace.rests, 0);
    pace.clock = &fake;
    pace_set(&pace);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pace_set(NULL);
    return 0;
}

static void a_thread_without_a_pace_does_not_rest(void **state)
{
    (void)state;
    pace_set(NULL);
    assert_null(pace_mine());
    for (int i = 0; i < 100; i++)
        work(PACE_SLICE_NS);
    assert_int_equal(t.rests, 0);
}

static void a_rest_after_each_slice(void **state)
{
    (void)state;
    assert_ptr_equal(pace_mine(), &pace);
    for (int i = 0; i < 40; i++)
        work(PACE_SLICE_NS / 4);
    assert_int_equal(t.rests, 10);
    assert_int_equal(atomic_load(&pace.rests), 10);
    assert_int_equal(t.last, PACE_SLICE_NS * PACE_REST_PERCENT / 100);
}

static void waiting_for_the_processor_is_no_work(void **state)
{
    (void)state;
    for (int i = 0; i < 40; i++) {
        t.now += 10 * PACE_SLICE_NS;
        work(PACE_SLICE_NS / 4);
    }
    assert_int_equal(t.rests, 10);
}

/* Whoever wakes up late, for others have the processor, has rested enough for long. */
static void rests_never_exceed_their_share_of_the_work(void **state)
{
    (void)state;
    static const uint64_t late[] = {0, 60000, 1000000, 20000000, 300};
    for (int i = 0; i < 5000; i++) {
        t.late = late[i % 5];
        work(70000);
        assert_true((t.rested - t.last) * 100 <= t.cpu * PACE_REST_PERCENT);
    }
    assert_true(t.rests > 5);
    assert_true(t.rested * 100 > t.cpu * (PACE_REST_PERCENT - 10)); // and they are taken
}

static void a_long_stretch_of_work_is_one_rest_of_bounded_length(void **state)
{
    (void)state;
    work(1000 * PACE_SLICE_NS);
    assert_int_equal(t.rests, 1);
    assert_int_equal(t.last, PACE_REST_MAX_NS);
    work(PACE_SLICE_NS);
    assert_int_equal(t.rests, 2);
    assert_true(t.last <= PACE_SLICE_NS);
}

static void no_rest_in_a_hurry(void **state)
{
    (void)state;
    work(PACE_SLICE_NS);
    atomic_store(&pace.hurry, true);
    for (int i = 0; i < 10; i++)
        work(PACE_SLICE_NS);
    assert_int_equal(t.rests, 1);
}

static void a_loop_has_a_point_every_1024_steps(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4096; i++) {
        t.now += PACE_SLICE_NS;
        t.cpu += PACE_SLICE_NS;
        pace_step(i);
    }
    assert_int_equal(t.rests, 4);
}

static void *help(void *arg)
{
    pace_point_of(arg); // from here on this thread works at its pace
    bool mine = pace_mine() == arg;
    t.now += PACE_SLICE_NS;
    t.cpu += PACE_SLICE_NS;
    pace_point_of(arg);
    return mine ? arg : NULL;
}

static void helpers_take_over_the_pace(void **state)
{
    (void)state;
    pthread_t thread;
    void *mine;
    assert_int_equal(pthread_create(&thread, NULL, help, pace_mine()), 0);
    assert_int_equal(pthread_join(thread, &mine), 0);
    assert_ptr_equal(mine, &pace);
    assert_int_equal(t.rests, 1);
}

static void the_systems_clock(void **state)
{
    (void)state;
    pace.clock = NULL;
    pace_set(&pace);
    volatile uint64_t x = 0;
    while (atomic_load(&pace.rests) < 2) { // ends: this thread uses the processor
        x = x + 1;
        pace_point();
    }
    assert_int_equal(t.rests, 0);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_thread_without_a_pace_does_not_rest),
        TEST(a_rest_after_each_slice),
        TEST(waiting_for_the_processor_is_no_work),
        TEST(rests_never_exceed_their_share_of_the_work),
        TEST(a_long_stretch_of_work_is_one_rest_of_bounded_length),
        TEST(no_rest_in_a_hurry),
        TEST(a_loop_has_a_point_every_1024_steps),
        TEST(helpers_take_over_the_pace),
        TEST(the_systems_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
