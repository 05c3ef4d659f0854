/* Breaks when a walk believes that it has seen what only an earlier walk saw, also after the walk's number has turned
 * over. */
#include "index_testing.h"

#include "index/hnsw_priv.h"

static void each_walk_starts_afresh(void **state)
{
    (void)state;
    struct visited v = {0};
    assert_true(hnsw_visited_fit(&v, 100));
    for (unsigned walk = 0; walk < 1000; walk++) {
        hnsw_visited_begin(&v);
        uint32_t id = walk % 100;
        assert_true(visited_mark(&v, id));
        assert_false(visited_mark(&v, id));
        assert_true(visited_mark(&v, (id + 1) % 100));
    }
    assert_true(hnsw_visited_fit(&v, 5000)); // growing forgets
    hnsw_visited_begin(&v);
    for (uint32_t i = 0; i < 5000; i++)
        assert_true(visited_mark(&v, i));
    hnsw_visited_fini(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_walk_starts_afresh)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
