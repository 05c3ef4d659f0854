/* Ranks and metrics. If this fails, every quality figure that Duet prints is wrong: ties that count for the model make
 * a dead model look perfect, and items that are not left out make a good one look bad. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "train/rank.h"

static const uint64_t off[] = {0, 1, 3};
static const uint32_t target_item[] = {2, 0, 4};
static const uint64_t seen_off[] = {0, 2, 3};
static const uint32_t seen_item[] = {0, 1, 3};
static const struct interactions target = {off, target_item, NULL}, seen = {seen_off, seen_item, NULL};
static const uint32_t users[] = {0, 1};
static const float one[] = {1, 1};

static void rank5(const float *pv, unsigned threads, float *rank)
{
    struct err err = {0};
    struct pool *pool = pool_new(threads, &err);
    struct rank_input in = {.pu = one,
                            .user = users,
                            .n_users = 2,
                            .pv = pv,
                            .n_items = 5,
                            .d = 1,
                            .target = &target,
                            .exclude = {&seen, NULL}};
    assert_int_equal(rank_count(&in), 3);
    assert_true(rank_targets(&in, pool, rank, &err));
    pool_free(pool);
}

/* User 0: items 0, 1 are left out, so item 2 competes with 3 and 4 only. User 1 has two targets, each ranked without
 * the other. */
static void ranks_leave_out_seen_items_and_other_targets(void **state)
{
    (void)state;
    const float pv[] = {0.9f, 0.8f, 0.3f, 0.7f, 0.5f};
    for (unsigned threads = 1; threads <= 3; threads++) {
        float r[3];
        rank5(pv, threads, r);
        assert_float_equal(r[0], 3, 0); // behind 3 and 4
        assert_float_equal(r[1], 1, 0); // item 0 is first
        assert_float_equal(r[2], 2, 0); // item 4 behind 1; 0 is the other target, 3 is seen
    }
}

/* User 0's second vector likes item 2 most, user 1's first likes item 4: an item's score is the best of its user's. */
static void several_vectors_of_a_user_score_by_the_best(void **state)
{
    (void)state;
    const float pu[] = {1, 0, 0, 1, 0, 1, 1, 0}, pv[] = {0, 0, 0, 0, .1f, .9f, .8f, .1f, .2f, .7f};
    struct err err = {0};
    struct pool *pool = pool_new(2, &err);
    struct rank_input in = {.pu = pu,
                            .user = users,
                            .n_users = 2,
                            .pv = pv,
                            .n_items = 5,
                            .d = 2,
                            .n_interest = 2,
                            .target = &target,
                            .exclude = {&seen, NULL}};
    float r[3];
    assert_true(rank_targets(&in, pool, r, &err));
    assert_float_equal(r[0], 1, 0); // max(.1, .9) before .8 and .7; by the first vector alone it would be last
    assert_float_equal(r[1], 2, 0); // item 0 has nothing: behind 2, as good as 1
    assert_float_equal(r[2], 2, 0); // .7 behind .9
    pool_free(pool);
}

static void score_by_index(const void *ctx, size_t first, size_t n, float *scores)
{
    for (size_t i = 0; i < n * 5; i++)
        scores[i] = ((const float *)ctx)[(first + i / 5) * 5 + i % 5];
}

static void scores_may_come_from_a_function(void **state)
{
    (void)state;
    const float table[] = {0, 0, .1f, .2f, .3f, 0, 0, .1f, .2f, .3f};
    struct err err = {0};
    struct pool *pool = pool_new(1, &err);
    struct rank_input in = {.user = users,
                            .n_users = 2,
                            .n_items = 5,
                            .target = &target,
                            .exclude = {&seen, NULL},
                            .score = score_by_index,
                            .score_ctx = table};
    float r[3];
    assert_true(rank_targets(&in, pool, r, &err));
    assert_float_equal(r[0], 3, 0);
    assert_float_equal(r[2], 1, 0);
    pool_free(pool);
}

static void equal_scores_get_the_middle_rank(void **state)
{
    (void)state;
    const float pv[] = {1, 1, 1, 1, 1};
    float r[3];
    rank5(pv, 1, r);
    assert_float_equal(r[0], 2, 0); // 3 eligible: 1 + 2 / 2
    assert_float_equal(r[1], 2, 0);
}

static void a_score_that_is_no_number_ranks_last(void **state)
{
    (void)state;
    const float pv[] = {1, 1, NAN, 1, 1};
    float r[3];
    rank5(pv, 1, r);
    assert_float_equal(r[0], 5, 0);
}

static void metrics_are_means_over_the_kept_targets(void **state)
{
    (void)state;
    const struct metrics_spec spec = {{1, 10}, 2};
    const float rank[] = {1, 4, 11, 100};
    const uint8_t keep[] = {1, 1, 1, 0};
    struct metrics m = metrics_of(&spec, rank, keep, 4);
    assert_int_equal(m.n, 3);
    assert_float_equal(m.hr[0], 1.0 / 3, 1e-9);
    assert_float_equal(m.hr[1], 2.0 / 3, 1e-9);
    assert_float_equal(m.mrr, (1 + 0.25 + 1.0 / 11) / 3, 1e-9);
    assert_float_equal(m.mrr10, (1 + 1 + 0.5) / 3, 1e-9);
    assert_int_equal(metrics_of(&spec, rank, (const uint8_t[]){0, 0, 0, 0}, 4).n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_leave_out_seen_items_and_other_targets),
        cmocka_unit_test(several_vectors_of_a_user_score_by_the_best),
        cmocka_unit_test(scores_may_come_from_a_function),
        cmocka_unit_test(equal_scores_get_the_middle_rank),
        cmocka_unit_test(a_score_that_is_no_number_ranks_last),
        cmocka_unit_test(metrics_are_means_over_the_kept_targets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
