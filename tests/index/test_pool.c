/* Breaks when the pool of a walk loses one of the best, keeps them out of order, or hands out an entry twice or not at
 * all. */
#include "index_testing.h"

#include "index/hnsw_priv.h"

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

static void keeps_the_best(void **state)
{
    (void)state;
    enum { N = 2000, CAP = 70 };
    struct pool p = {0};
    float score[N];
    uint64_t s = 5;
    assert_true(hnsw_pool_fit(&p, CAP));
    pool_begin(&p, CAP);
    for (uint32_t i = 0; i < N; i++) {
        score[i] = rnd_normal(&s) * 100;
        pool_insert(&p, score[i], i);
    }
    qsort(score, N, sizeof(*score), descending);
    assert_int_equal(p.n, CAP);
    for (size_t i = 0; i < CAP; i++)
        assert_true(key_score(p.key[i]) == score[i]);
    hnsw_pool_fini(&p);
}

static void takes_each_once_best_first(void **state)
{
    (void)state;
    struct pool p = {0};
    uint32_t id;
    assert_true(hnsw_pool_fit(&p, 4));
    pool_begin(&p, 4);
    assert_false(pool_take(&p, &id));
    pool_insert(&p, 0.5f, 1);
    pool_insert(&p, 0.7f, 2);
    assert_true(pool_take(&p, &id) && id == 2);
    pool_insert(&p, 0.9f, 3); // before the one that is done
    pool_insert(&p, -1, 4);
    pool_insert(&p, -2, 5); // beyond the worst of a full pool
    assert_true(pool_take(&p, &id) && id == 3);
    assert_true(pool_take(&p, &id) && id == 1);
    pool_insert(&p, 0.6f, 6); // pushes 4 out
    assert_true(pool_take(&p, &id) && id == 6);
    assert_false(pool_take(&p, &id));
    assert_int_equal(p.n, 4);
    hnsw_pool_fini(&p);
}

static void keys_order_like_scores(void **state)
{
    (void)state;
    static const float s[] = {-INFINITY, -3e33f, -1.5f, -1e-30f, 0, 1e-30f, 0.25f, 1, 3e33f, INFINITY};
    for (size_t i = 0; i < 10; i++) {
        assert_true(score_from_bits(score_to_bits(s[i])) == s[i]);
        assert_int_equal(key_id(pool_key(s[i], ID_MAX)), ID_MAX);
        assert_int_equal(key_id(pool_key(s[i], 0)), 0);
        if (i > 0)
            assert_true(pool_key(s[i], ID_MAX) > pool_key(s[i - 1], 0));
    }
    assert_int_equal(pool_key(-0.0f, 1), pool_key(0, 1));
    assert_true(pool_key(1, 4) > pool_key(1, 5)); // equal scores: the lower id first
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_the_best),
        cmocka_unit_test(takes_each_once_best_first),
        cmocka_unit_test(keys_order_like_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
