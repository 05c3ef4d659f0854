/* Breaks when the list in blocks keeps other entries, gives them in another order or hands out another candidate than
 * the sorted array of pool.h does, or when an entry that is there already is taken in again. */
#include "index_testing.h"

#include "index/pool.h"
#include "index/shelf.h"

enum { STEPS = 20000 };

/* pool_insert for an entry that may be there already, with this score; then nothing happens. */
static inline void pool_insert_new(struct pool *p, float score, uint32_t id)
{
    uint64_t key = pool_key(score, id), last = p->n < p->cap ? 0 : p->key[p->n - 1];
    uint64_t *at = pool_make_room(p, key & ~(uint64_t)1); // stops behind it, be it open or done
    if (at == p->key || at[-1] >> 1 != key >> 1) {
        pool_put(p, at, key);
        return;
    }
    memmove(at, at + 1, (size_t)(p->key + p->n - 1 - at) * sizeof(*at));
    p->key[p->n - 1] = last;
    p->n -= last == 0; // no key is 0
}

static void does_what_a_sorted_array_does(void **state)
{
    (void)state;
    static const size_t caps[] = {1, 2, 63, 64, 65, 127, 128, 129, 200, 1000, 3000};
    for (size_t c = 0; c < sizeof(caps) / sizeof(caps[0]); c++)
        for (int kind = 0; kind < 3; kind++) { // scores all over, rising, few different ones
            struct pool p = {0};
            struct shelf s = {0};
            uint64_t seed = 7 + c;
            size_t cap = caps[c], ef = kind == 2 ? (cap + 1) / 2 : cap;
            uint64_t *key = malloc(cap * sizeof(*key));
            assert_true(key && hnsw_pool_fit(&p, cap) && hnsw_shelf_fit(&s, cap));
            for (int again = 0; again < 2; again++) { // a workspace is used again
                pool_begin(&p, cap);
                shelf_begin(&s, cap);
                for (size_t i = 0; i < STEPS; i++) {
                    uint32_t id = (uint32_t)(rnd(&seed) % (3 * cap + 5)); // comes again and again, with the same score
                    float score = kind == 0   ? (float)(id * 2654435761u >> 8)
                                  : kind == 1 ? (float)id
                                              : (float)(id % 7);
                    uint64_t worst = p.n ? p.key[p.n - 1] : 0;
                    if (p.n < cap || score > key_score(worst)) {
                        pool_insert_new(&p, score, id);
                        shelf_insert_new(&s, score, id);
                    }
                    assert_int_equal(s.n, p.n);
                    assert_true(shelf_worst(&s) == p.key[p.n - 1]);
                    if (i % 3 == 0) {
                        uint32_t a = 0, b = 0;
                        size_t limit = p.n < ef ? p.n : ef;
                        while (p.next < limit && !(p.key[p.next] & 1))
                            p.next++;
                        bool there = p.next < limit && pool_take(&p, &a);
                        assert_true(shelf_take(&s, ef, &b) == there);
                        assert_int_equal(a, b);
                    }
                    if (i % 997 == 0) {
                        assert_int_equal(hnsw_shelf_keys(&s, key), p.n);
                        assert_memory_equal(key, p.key, p.n * sizeof(*key));
                    }
                }
            }
            free(key);
            hnsw_pool_fini(&p);
            hnsw_shelf_fini(&s);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(does_what_a_sorted_array_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
