/* Breaks when the bucket queue keeps other candidates than the best, hands out another than one of the best bin or one twice, takes an id
 * in again, or loses any by sweeping. */
#include "index_testing.h"

#include "index/bins.h"

enum { IDS = 4000 };

static uint32_t bin_of_id[IDS];

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The bin of place `want` (from 1) among those of the ids put, or the last bin. */
static uint32_t bin_at(const bool *put, size_t want)
{
    static uint32_t bin[IDS];
    size_t n = 0;
    for (size_t i = 0; i < IDS; i++)
        if (put[i])
            bin[n++] = bin_of_id[i];
    qsort(bin, n, sizeof(*bin), ascending);
    return n < want ? N_BINS - 1 : bin[want - 1];
}

/* The best open bin of those put and not taken. */
static uint32_t best_open(const bool *put, const bool *taken)
{
    uint32_t best = N_BINS;
    for (size_t i = 0; i < IDS; i++)
        if (put[i] && !taken[i] && bin_of_id[i] < best)
            best = bin_of_id[i];
    return best;
}

static void check_best(const struct bins *b, const bool *put, size_t keep)
{
    static uint32_t id[IDS];
    uint32_t last = bin_at(put, keep);
    size_t n = hnsw_bins_best(b, keep, id), there = 0;
    bool seen[IDS] = {false};
    for (size_t i = 0; i < n; i++) {
        assert_true(put[id[i]] && !seen[id[i]] && bin_of_id[id[i]] <= last);
        assert_true(i == 0 || bin_of_id[id[i - 1]] <= bin_of_id[id[i]]);
        seen[id[i]] = true;
    }
    for (size_t i = 0; i < IDS; i++)
        there += put[i];
    assert_int_equal(n, there < keep ? there : keep);
}

static void keeps_the_best(void **state)
{
    (void)state;
    static const size_t keeps[] = {1, 2, 10, 63, 200, 1000};
    struct bins *b = calloc(1, sizeof(*b));
    for (size_t c = 0; c < 6; c++)
        for (uint32_t spread = 7; spread <= N_BINS; spread = spread == 7 ? 700 : spread == 700 ? N_BINS : N_BINS + 1) {
            uint64_t seed = c;
            size_t keep = keeps[c], ef = (keep + 1) / 2;
            bool put[IDS] = {false}, taken[IDS] = {false};
            for (size_t i = 0; i < IDS; i++)
                bin_of_id[i] = (uint32_t)(rnd(&seed) % spread);
            assert_true(hnsw_bins_fit(b, keep));
            hnsw_bins_begin(b, ef, keep, 0, N_BINS);
            for (size_t step = 0; step < 3 * IDS; step++) {
                uint32_t id = (uint32_t)(rnd(&seed) % IDS), got = 0;
                bool full = spread == 7; // bins take no more there, and would not see that an id comes again
                if (bin_of_id[id] <= bins_last(b) && !(full && put[id])) {
                    bins_put(b, bin_of_id[id], id);
                    put[id] = true;
                }
                if (step % 50 == 0)
                    assert_true(bins_last(b) >= bin_at(put, keep));
                if (step % 5 == 0 && bins_take(b, &got)) {
                    assert_true(put[got] && !taken[got]);
                    if (!full)
                        assert_int_equal(bin_of_id[got], best_open(put, taken));
                    taken[got] = true;
                }
                if (step % 997 == 0)
                    check_best(b, put, keep);
                if (step % 211 == 0)
                    hnsw_bins_sweep(b); // by itself it comes only when there is no room
            }
        }
    hnsw_bins_fini(b);
    free(b);
}

/* Sixty entries, bins 100 to 119 of three each; how many of them are handed out, best first, and then one that comes later. */
static uint32_t handed_out(size_t best, size_t most, uint32_t margin, uint32_t reach)
{
    struct bins *b = calloc(1, sizeof(*b));
    uint32_t id = 0, n = 0;
    assert_true(hnsw_bins_fit(b, most));
    hnsw_bins_begin(b, best, most, margin, reach);
    for (uint32_t i = 0; i < 60; i++)
        if (100 + i / 3 <= bins_last(b))
            bins_put(b, 100 + i / 3, i);
    for (; bins_take(b, &id); n++)
        assert_int_equal(id / 3, n / 3);
    bins_put(b, 50, 1000);
    assert_true(bins_take(b, &id));
    assert_int_equal(id, 1000);
    assert_false(bins_take(b, &id));
    hnsw_bins_fini(b);
    free(b);
    return n;
}

/* Only what is among the best is handed out, their worst bin whole: the fourth has the places 10 to 12. */
static void stops_at_the_best(void **state)
{
    (void)state;
    assert_int_equal(handed_out(10, 100, 0, N_BINS), 12);
    assert_int_equal(handed_out(12, 100, 0, N_BINS), 12);
}

/* With a margin what is so many bins behind them, too, but no more than there may be at most. */
static void stops_at_the_margin(void **state)
{
    (void)state;
    assert_int_equal(handed_out(10, 100, 5, 5), 27);
    assert_int_equal(handed_out(10, 100, 5, 9), 27);
    assert_int_equal(handed_out(10, 20, 5, 5), 21);
    assert_int_equal(handed_out(10, 100, N_BINS, N_BINS), 60);
}

/* What is farther behind the best than `reach` is not kept. */
static void keeps_what_is_within_reach(void **state)
{
    (void)state;
    struct bins *b = calloc(1, sizeof(*b));
    uint32_t id[60];
    assert_true(hnsw_bins_fit(b, 100));
    hnsw_bins_begin(b, 10, 100, 2, 7);
    for (uint32_t i = 0; i < 60; i++)
        bins_put(b, 100 + i / 3, i);
    assert_int_equal(bins_last(b), 110);
    hnsw_bins_sweep(b);
    assert_int_equal(hnsw_bins_best(b, 60, id), 33);
    assert_int_equal(hnsw_bins_bin(b, 10), 103);
    assert_int_equal(hnsw_bins_bin(b, 33), 110);
    assert_int_equal(hnsw_bins_bin(b, 34), N_BINS - 1);
    hnsw_bins_fini(b);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(keeps_the_best), cmocka_unit_test(stops_at_the_best),
                                       cmocka_unit_test(stops_at_the_margin), cmocka_unit_test(keeps_what_is_within_reach)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
