/* If this fails, units of experiments are counted twice or in the wrong variant, and the test of the split means nothing. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/hash.h"
#include "server/tally.h"

static uint64_t hash_of(unsigned u)
{
    char id[16];
    int n = snprintf(id, sizeof(id), "u%u", u);
    return hash_xxh64(id, (size_t)n);
}

/* Variant of a unit, by a hash of its own. */
static unsigned variant_of(unsigned u, unsigned percent)
{
    char id[16];
    int n = snprintf(id, sizeof(id), "s%u", u);
    return hash_xxh64(id, (size_t)n) % 100 >= percent;
}

static void units_count_once(void **state)
{
    (void)state;
    struct tally *t = tally_new((uint32_t[]){5000, 5000}, 2, NULL);
    struct tally_units u;
    for (unsigned i = 0; i < 3000; i++)
        tally_unit(t, hash_of(i % 1000), i % 1000 % 10 == 0); // three times each
    tally_units(t, &u);
    assert_int_equal(u.count[0], 900);
    assert_int_equal(u.count[1], 100);
    assert_true(u.sampled == 1 && u.p < 1e-100);
    tally_unref(t);
}

enum { UNITS = 500000, THREADS = 4 };

struct job {
    struct tally *t;
    unsigned percent, first;
};

static void *count_all(void *arg)
{
    struct job *j = arg;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < UNITS; i++) {
            unsigned u = (i + j->first) % UNITS;
            tally_unit(j->t, hash_of(u), variant_of(u, j->percent));
        }
    return NULL;
}

static void count_in_threads(struct tally *t, unsigned percent)
{
    pthread_t thread[THREADS];
    struct job job[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        job[i] = (struct job){t, percent, i * UNITS / THREADS};
        assert_int_equal(pthread_create(&thread[i], NULL, count_all, &job[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
}

/* Half a million units by four threads: the sample is exactly the units below the threshold, but for those that met a held lock both
 * times, each in its variant; a sound split passes, one of 51 to 49 does not. */
static void many_units_are_sampled(void **state)
{
    (void)state;
    for (unsigned percent = 50; percent <= 51; percent++) {
        struct tally *t = tally_new((uint32_t[]){5000, 5000}, 2, NULL);
        struct tally_units u;
        count_in_threads(t, percent);
        tally_units(t, &u);
        assert_true(u.sampled == 0.125 || u.sampled == 0.0625);
        uint64_t want[2] = {0};
        for (unsigned i = 0; i < UNITS; i++)
            if ((hash_of(i) | 15) <= (uint64_t)ldexp(u.sampled, 64) - 1)
                want[variant_of(i, percent)]++;
        for (int v = 0; v < 2; v++) {
            assert_true(u.count[v] <= want[v]);
            assert_true(u.count[v] + want[v] / 100 >= want[v]);
        }
        if (percent == 50)
            assert_true(u.p > 1e-4);
        else
            assert_true(u.p < 1e-2);
        tally_unref(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_count_once),
        cmocka_unit_test(many_units_are_sampled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
