/* Breaks when a label is lost, found twice, or still found after its deletion. */
#include "index_testing.h"

#include "index/hnsw_priv.h"

/* Random puts and deletions against a plain array of who is there. */
static void agrees_with_an_array(void **state)
{
    (void)state;
    enum { N = 500 };
    struct label_map m;
    uint64_t label[N], s = 11;
    bool in[N] = {false};
    assert_true(hnsw_label_map_init(&m, N));
    for (uint32_t i = 0; i < N; i++)
        label[i] = i % 2 ? i : rnd(&s);
    for (size_t step = 0; step < 20000; step++) {
        uint32_t i = (uint32_t)(rnd(&s) % N);
        if (in[i])
            hnsw_label_map_del(&m, label, i);
        else
            assert_true(hnsw_label_map_put(&m, label, i));
        in[i] = !in[i];
        if (in[i])
            assert_false(hnsw_label_map_put(&m, label, i));
        uint32_t other = (uint32_t)(rnd(&s) % N);
        assert_int_equal(hnsw_label_map_find(&m, label, label[other]), in[other] ? other : NO_ID);
    }
    hnsw_label_map_fini(&m);
}

static void full_to_its_capacity(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct label_map m;
    uint64_t *label = malloc(N * sizeof(*label));
    assert_true(hnsw_label_map_init(&m, N));
    for (uint32_t i = 0; i < N; i++) {
        label[i] = (uint64_t)i << 32;
        assert_true(hnsw_label_map_put(&m, label, i));
    }
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(hnsw_label_map_find(&m, label, label[i]), i);
    assert_int_equal(hnsw_label_map_find(&m, label, 12345), NO_ID);
    hnsw_label_map_fini(&m);
    free(label);
}

/* Labels that are their places need no hash; the first one that is not turns it into one, and nothing is lost. */
static void plain_until_it_cannot_be(void **state)
{
    (void)state;
    enum { N = 100 };
    struct label_map m;
    uint64_t label[N];
    hnsw_label_map_plain(&m, 0);
    for (uint32_t i = 0; i < N - 1; i++) {
        label[i] = i;
        assert_int_equal(hnsw_label_map_find(&m, label, i), NO_ID);
        assert_true(hnsw_label_map_put(&m, label, i));
        assert_false(hnsw_label_map_put(&m, label, i));
        assert_int_equal(hnsw_label_map_find(&m, label, i), i);
    }
    assert_int_equal(hnsw_label_map_bytes(&m), 0);
    label[N - 1] = 5000;
    assert_true(hnsw_label_map_hash(&m, label, N - 1, N));
    assert_true(hnsw_label_map_put(&m, label, N - 1));
    assert_true(hnsw_label_map_bytes(&m) > 0);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(hnsw_label_map_find(&m, label, label[i]), i);
    hnsw_label_map_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(agrees_with_an_array), cmocka_unit_test(full_to_its_capacity),
                                       cmocka_unit_test(plain_until_it_cannot_be)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
