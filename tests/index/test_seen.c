/* Breaks when a walk over the compact layout takes an element for one that it has met, though only an earlier walk met it: it would
 * never score it. */
#include "index_testing.h"

#include "index/hnsw_priv.h"

static bool met(const struct seen *s, uint32_t id)
{
    return s->tag[id & s->mask] == (id | s->walk);
}

static void enter(struct seen *s, uint32_t id)
{
    s->tag[id & s->mask] = id | s->walk;
}

/* Also once the numbers of walks begin again: with 31 bits that is every other. */
static void each_walk_starts_afresh(void **state)
{
    (void)state;
    for (unsigned bits = 7; bits <= 31; bits += 8) {
        struct seen s = {0};
        for (unsigned walk = 0; walk < 1000; walk++) {
            assert_true(hnsw_seen_begin(&s, 64, bits));
            for (uint32_t id = 0; id < 100; id++)
                assert_false(met(&s, id));
            for (uint32_t id = walk % 100; id < 100; id++)
                enter(&s, id);
            assert_true(met(&s, 99));
        }
        hnsw_seen_fini(&s);
    }
}

/* One workspace for indexes of all sizes: what an id and a walk's number are together in one, they are in another in other parts. */
static void another_size_starts_afresh(void **state)
{
    (void)state;
    struct seen s = {0};
    for (size_t n = 64; n <= 256; n *= 2) {
        assert_true(hnsw_seen_begin(&s, n, 12) && hnsw_seen_begin(&s, n, 12));
        for (uint32_t id = 0; id < 4000; id++)
            enter(&s, id);
        for (unsigned walk = 0; walk < 40; walk++) {
            assert_true(hnsw_seen_begin(&s, n, 7));
            for (uint32_t id = 0; id < 127; id++)
                assert_false(met(&s, id));
        }
    }
    hnsw_seen_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_walk_starts_afresh), cmocka_unit_test(another_size_starts_afresh)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
