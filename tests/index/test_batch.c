/* Breaks when queries answered together get other answers, counts or reports than one by one, whatever the layout, the metric, the plan
 * and the filter, or when what is wrong with one of them is not said. */
#include "index_testing.h"

#include <time.h>

enum { N = 3000, DIM = 13, NQ = 21, K = 30 }; // two whole groups and a part

static float *base, *query;
static struct hnsw_ws *ws, *ws_one;

static int setup(void **state)
{
    (void)state;
    base = clustered(N, DIM, 30, 1);
    query = clustered(NQ, DIM, 30, 2);
    ws = hnsw_ws_new();
    ws_one = hnsw_ws_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(base);
    free(query);
    hnsw_ws_free(ws);
    hnsw_ws_free(ws_one);
    return 0;
}

static struct hnsw *build(enum hnsw_metric metric, enum hnsw_layout layout)
{
    struct hnsw *h = new_index(metric, DIM, N);
    struct hnsw_err err = {0};
    assert_ok(hnsw_add_batch(h, base, NULL, N, 1, NULL, NULL, &err) && hnsw_optimize(h, layout, 1, &err), err);
    return h;
}

static bool third(const void *ctx, uint64_t label)
{
    (void)ctx;
    return label % 3 == 0;
}

static void assert_same(const struct hnsw *h, struct hnsw_query p, size_t nq)
{
    struct hnsw_hit hit[NQ * K], one[K];
    struct hnsw_report reports[NQ], r;
    size_t found[NQ];
    struct hnsw_err err = {0};
    memset(reports, 0xff, sizeof(reports));
    p.report = reports;
    assert_ok(hnsw_search_batch(h, query, nq, &p, ws, hit, found, &err), err);
    p.report = &r;
    for (size_t i = 0; i < nq; i++) {
        size_t n = hnsw_search(h, query + i * DIM, &p, ws_one, one, &err);
        assert_int_equal(found[i], n);
        for (size_t j = 0; j < n; j++)
            assert_true(hit[i * p.k + j].label == one[j].label && hit[i * p.k + j].score == one[j].score);
        assert_true(reports[i].visited == r.visited && reports[i].rescored == r.rescored && reports[i].cut == r.cut &&
                    reports[i].plan == r.plan && reports[i].exact == r.exact);
    }
}

static void same_as_one_by_one(void **state)
{
    (void)state;
    uint64_t allow[(N + 63) / 64];
    for (size_t i = 0; i < sizeof(allow) / sizeof(*allow); i++)
        allow[i] = 0x8421084210842108u;
    for (int metric = HNSW_IP; metric <= HNSW_L2; metric++)
        for (int layout = HNSW_PLAIN; layout <= HNSW_COMPACT; layout++) {
            struct hnsw *h = build((enum hnsw_metric)metric, (enum hnsw_layout)layout);
            for (int plan = HNSW_PLAN_AUTO; plan <= HNSW_PLAN_SCAN; plan++) {
                struct hnsw_query p = {.k = K, .ef = 50, .plan = (enum hnsw_plan)plan};
                for (size_t nq = 0; nq <= NQ; nq += nq < 2 ? 1 : 5)
                    assert_same(h, p, nq);
                p.filter = third;
                assert_same(h, p, NQ);
                p.allow = allow;
                p.n_allow = N;
                assert_same(h, p, NQ);
                p.filter = NULL;
                p.allow = NULL;
                p.max_visits = 1000;
                assert_same(h, p, NQ);
                p.max_visits = 0;
                p.has_min_score = true;
                p.min_score = metric == HNSW_L2 ? -1 : 0.5f;
                assert_same(h, p, NQ);
                p.k = 1;
                assert_same(h, p, NQ);
            }
            hnsw_free(h);
        }
}

static void a_deadline_is_of_each(void **state)
{
    (void)state;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    struct hnsw_hit hit[NQ];
    struct hnsw_report reports[NQ];
    size_t found[NQ];
    struct hnsw_err err = {0};
    struct hnsw *h = build(HNSW_IP, HNSW_COMPACT);
    for (int plan = HNSW_PLAN_WALK; plan <= HNSW_PLAN_SCAN; plan++) {
        struct hnsw_query p = {.k = 1, .plan = (enum hnsw_plan)plan, .report = reports};
        p.deadline_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
        assert_ok(hnsw_search_batch(h, query, NQ, &p, ws, hit, found, &err), err);
        for (size_t i = 0; i < NQ; i++)
            assert_true(found[i] == 0 && reports[i].cut == HNSW_CUT_DEADLINE && reports[i].visited == 0);
    }
    hnsw_free(h);
}

static void what_is_wrong_with_one_is_said(void **state)
{
    (void)state;
    struct hnsw_hit hit[NQ];
    size_t found[NQ];
    struct hnsw *empty = new_index(HNSW_IP, DIM, 1);
    struct hnsw *h = build(HNSW_IP, HNSW_FAST);
    float *bad = malloc(NQ * DIM * sizeof(*bad));
    memcpy(bad, query, NQ * DIM * sizeof(*bad));
    bad[11 * DIM + 3] = NAN;
    for (int plan = HNSW_PLAN_WALK; plan <= HNSW_PLAN_SCAN; plan++) {
        struct hnsw_err err = {0};
        struct hnsw_query p = {.k = 1, .plan = (enum hnsw_plan)plan};
        assert_false(hnsw_search_batch(h, bad, NQ, &p, ws, hit, found, &err));
        assert_int_equal(err.code, HNSW_ARG);
        assert_false(hnsw_search_batch(h, bad, NQ, &p, ws, hit, found, NULL));
        err = (struct hnsw_err){0};
        assert_ok(hnsw_search_batch(empty, query, NQ, &p, ws, hit, found, &err), err);
        assert_int_equal(found[0] + found[NQ - 1], 0);
        p.k = 0;
        assert_false(hnsw_search_batch(h, query, NQ, &p, ws, hit, found, &err));
        assert_int_equal(err.code, HNSW_ARG);
    }
    hnsw_free(empty);
    hnsw_free(h);
    free(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_one_by_one),
        cmocka_unit_test(a_deadline_is_of_each),
        cmocka_unit_test(what_is_wrong_with_one_is_said),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
