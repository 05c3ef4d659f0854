/* Breaks when the heap of filtered search gives keys out of order. */
#include "index_testing.h"

#include "index/hnsw_priv.h"

static void pops_ascending(void **state)
{
    (void)state;
    struct heap h = {0};
    uint64_t s = 3, last = 0;
    for (size_t i = 0; i < 3000; i++)
        assert_true(hnsw_heap_push(&h, rnd(&s) % 1000));
    assert_int_equal(h.n, 3000);
    for (size_t i = 0; i < 3000; i++) {
        uint64_t key = hnsw_heap_pop(&h);
        assert_true(key >= last);
        last = key;
    }
    assert_int_equal(h.n, 0);
    hnsw_heap_fini(&h);
}

static void replace_keeps_the_largest(void **state)
{
    (void)state;
    struct heap h = {0};
    for (uint64_t i = 0; i < 10; i++)
        assert_true(hnsw_heap_push(&h, 50 - i));
    for (uint64_t i = 0; i < 100; i++)
        if (i > h.key[0])
            hnsw_heap_replace(&h, i);
    for (uint64_t i = 90; i < 100; i++)
        assert_int_equal(hnsw_heap_pop(&h), i);
    hnsw_heap_fini(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pops_ascending), cmocka_unit_test(replace_keeps_the_largest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
