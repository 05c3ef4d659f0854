/* Breaks when elements of a finished batch cannot be found because no link leads to them, or because a search begins
 * among elements that lead nowhere else: many equal vectors, many replacements, tiny lists. */
#include "index_testing.h"

#define DIM 8

static void add_all(struct hnsw *h, const float *v, size_t n, unsigned threads)
{
    struct hnsw_err err = {0};
    assert_ok(hnsw_add_batch(h, v, NULL, n, threads, NULL, NULL, &err), err);
}

/* Share of hits as good as the exact answer's last one: of equal vectors any will do. */
static double as_good(const struct hnsw *h, const float *q, size_t nq)
{
    enum { K = 50 };
    struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = K, .ef = hnsw_count(h)};
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[K], exact[K];
    struct hnsw_err err = {0};
    size_t good = 0;
    for (size_t i = 0; i < nq; i++) {
        assert_int_equal(hnsw_search(h, q + i * DIM, &p, ws, hit, &err), K);
        assert_int_equal(hnsw_search_exact(h, q + i * DIM, &p, ws, exact, &err), K);
        for (size_t j = 0; j < K; j++)
            good += hit[j].score >= exact[K - 1].score;
    }
    hnsw_ws_free(ws);
    return (double)good / (double)(nq * K);
}

static void assert_all_found(struct hnsw *h, const float *q, size_t nq)
{
    struct hnsw_err err = {0};
    assert_sound(h, 0);
    assert_true(as_good(h, q, nq) == 1);
    assert_ok(hnsw_optimize(h, HNSW_FAST, 2, &err), err);
    assert_sound(h, 0);
    assert_true(as_good(h, q, nq) >= 0.98); // scores of codes decide what is scored exactly
}

static void with_equal_vectors(size_t n, size_t n_equal, unsigned threads, enum hnsw_metric metric, size_t ef)
{
    struct hnsw_params p = {.metric = metric, .dim = DIM, .capacity = n, .ef_construction = (unsigned)ef, .seed = 3};
    float *v = clustered(n, DIM, 40, 1), *q = clustered(20, DIM, 40, 2);
    struct hnsw_err err = {0};
    uint64_t s = n_equal;
    for (size_t i = 0; i < n_equal; i++)
        memcpy(v + rnd(&s) % n * DIM, v, DIM * sizeof(*v));
    for (size_t j = 0; j < DIM; j++) // one query close to the equal ones
        q[j] = v[j] + 0.05f * (float)j;
    struct hnsw *h = hnsw_new(&p, &err);
    assert_ok(h, err);
    add_all(h, v, n, threads);
    assert_all_found(h, q, 20);
    hnsw_free(h);
    free(v);
    free(q);
}

/* Fewer and more than fit into a list, than ef_construction, than there are others. */
static void equal_vectors_are_all_found(void **state)
{
    (void)state;
    static const size_t n_equal[] = {20, 60, 300, 1500, 40000};
    for (int metric = HNSW_IP; metric <= HNSW_L2; metric++)
        for (size_t i = 0; i < sizeof(n_equal) / sizeof(n_equal[0]); i++)
            with_equal_vectors(2000, n_equal[i], i % 2 ? 4 : 1, (enum hnsw_metric)metric, i % 2 ? 20 : 100);
}

static void replaced_elements_are_all_found(void **state)
{
    (void)state;
    enum { N = 1500, ROUNDS = 4 };
    struct hnsw_params p = {.metric = HNSW_IP, .dim = DIM, .capacity = N, .m = 3, .ef_construction = 20, .seed = 3};
    struct hnsw_err err = {0};
    struct hnsw *h = hnsw_new(&p, &err);
    float *q = clustered(20, DIM, 40, 99);
    assert_ok(h, err);
    for (uint64_t round = 0; round < ROUNDS; round++) {
        float *v = clustered(N, DIM, 40, round);
        add_all(h, v, N, 1);
        free(v);
        assert_sound(h, 0);
    }
    assert_all_found(h, q, 20);
    hnsw_free(h);
    free(q);
}

/* Lists of four, all of them full: a way in must not cost somebody else his. */
static void tiny_lists_lose_nobody(void **state)
{
    (void)state;
    enum { N = 3000 };
    for (unsigned threads = 1; threads <= 4; threads += 3)
        for (unsigned ef = 1; ef <= 16; ef *= 4) {
            struct hnsw_params p = {
                .metric = HNSW_L2, .dim = DIM, .capacity = N, .m = 2, .ef_construction = ef, .seed = 3};
            struct hnsw_err err = {0};
            struct hnsw *h = hnsw_new(&p, &err);
            float *v = clustered(N, DIM, 5, ef);
            assert_ok(h, err);
            add_all(h, v, N, threads);
            assert_all_found(h, v, 20);
            hnsw_free(h);
            free(v);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_vectors_are_all_found),
        cmocka_unit_test(replaced_elements_are_all_found),
        cmocka_unit_test(tiny_lists_lose_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
