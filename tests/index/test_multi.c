/* Breaks when a search by several vectors misses what one of them finds, returns an element twice, or with another score
 * than its best over the vectors. */
#include "index_testing.h"

enum { N = 3000, DIM = 12, NQ = 4, K = 40 };

static int best_first(const void *a, const void *b)
{
    const struct hnsw_hit *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : x->label < y->label ? -1 : x->label > y->label;
}

static bool odd(const void *ctx, uint64_t label)
{
    (void)ctx;
    return label % 2 == 1;
}

/* Every element's best score, and the best K of them. */
static void exact(enum hnsw_metric metric, const float *v, const float *q, size_t nq, bool only_odd, struct hnsw_hit *all)
{
    for (uint32_t i = 0; i < N; i++) {
        all[i] = (struct hnsw_hit){i, -INFINITY};
        for (size_t j = 0; j < nq && (!only_odd || i % 2); j++) {
            float s;
            hnsw_scores(metric, DIM, q + j * DIM, v, &i, 1, &s);
            all[i].score = s > all[i].score ? s : all[i].score;
        }
    }
    qsort(all, N, sizeof(*all), best_first);
}

static void is_the_best_over_all_vectors(void **state)
{
    (void)state;
    static struct hnsw_hit all[N];
    struct hnsw_hit hit[K];
    struct hnsw_ws *ws = hnsw_ws_new();
    float *v = clustered(N, DIM, 30, 1), *q = clustered(20 * NQ, DIM, 30, 2);
    for (int metric = HNSW_IP; metric <= HNSW_L2; metric++)
        for (int layout = HNSW_PLAIN; layout <= HNSW_COMPACT; layout++) {
            struct hnsw_err err = {0};
            struct hnsw_report r;
            size_t same = 0;
            struct hnsw *h = new_index((enum hnsw_metric)metric, DIM, N);
            assert_ok(hnsw_add_batch(h, v, NULL, N, 2, NULL, NULL, &err) &&
                          hnsw_optimize(h, (enum hnsw_layout)layout, 1, &err),
                      err);
            for (size_t i = 0; i < 20; i++) {
                size_t nq = 1 + i % NQ;
                struct hnsw_query p = {.k = K, .ef = 100, .report = &r, .filter = i % 5 == 4 ? odd : NULL};
                p.plan = i % 3 == 2 ? HNSW_PLAN_SCAN : HNSW_PLAN_WALK;
                assert_int_equal(hnsw_search_multi(h, q + i * NQ * DIM, nq, &p, ws, hit, &err), K);
                assert_int_equal(err.code, HNSW_OK);
                assert_true(r.exact == (p.plan == HNSW_PLAN_SCAN) && r.visited >= nq * K);
                exact((enum hnsw_metric)metric, v, q + i * NQ * DIM, nq, p.filter != NULL, all);
                for (size_t j = 0; j < K; j++) {
                    assert_true(j == 0 || best_first(&hit[j - 1], &hit[j]) < 0);
                    for (size_t x = 0; x < N; x++)
                        if (all[x].label == hit[j].label) {
                            assert_true(fabsf(all[x].score - hit[j].score) < (layout == HNSW_COMPACT ? 2e-4f : 2e-5f));
                            same += all[x].score >= all[K - 1].score - 1e-6f;
                        }
                }
            }
            assert_true((double)same >= 0.97 * 20 * K);
            hnsw_free(h);
        }
    hnsw_ws_free(ws);
    free(v);
    free(q);
}

static void bad_arguments(void **state)
{
    (void)state;
    float v[DIM] = {1};
    struct hnsw_hit hit;
    struct hnsw_err err = {0};
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw *h = new_index(HNSW_IP, DIM, 1);
    assert_int_equal(hnsw_search_multi(h, v, 1, &(struct hnsw_query){.k = 1}, ws, &hit, &err), 0);
    assert_int_equal(err.code, HNSW_OK); // empty
    assert_int_equal(hnsw_search_multi(h, v, 0, &(struct hnsw_query){.k = 1}, ws, &hit, &err), 0);
    assert_int_equal(err.code, HNSW_ARG);
    err = (struct hnsw_err){0};
    assert_int_equal(hnsw_search_multi(h, v, 1, &(struct hnsw_query){.k = 0}, ws, &hit, &err), 0);
    assert_int_equal(err.code, HNSW_ARG);
    hnsw_free(h);
    hnsw_ws_free(ws);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_the_best_over_all_vectors),
        cmocka_unit_test(bad_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
