/* Breaks when searching loses recall, returns fewer than there are, in the wrong order, or something it must not
 * return. */
#include "index_testing.h"

#define N 3000
#define NQ 30
#define DIM 24

static float *base, *query;

static int setup(void **state)
{
    (void)state;
    base = clustered(N, DIM, 60, 1);
    query = clustered(NQ, DIM, 60, 2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(base);
    free(query);
    return 0;
}

static struct hnsw *build(enum hnsw_metric metric, unsigned threads)
{
    struct hnsw *h = new_index(metric, DIM, N);
    struct hnsw_err err = {0};
    assert_ok(hnsw_add_batch(h, base, NULL, N, threads, NULL, NULL, &err), err);
    return h;
}

/* The floors are a point below what this data gives with M = 16, efConstruction = 200; hnswlib's own figures are the
 * same. */
static void recall_has_a_floor_for_every_metric(void **state)
{
    (void)state;
    for (int m = HNSW_IP; m <= HNSW_L2; m++)
        for (unsigned threads = 1; threads <= 4; threads += 3) {
            struct hnsw *h = build((enum hnsw_metric)m, threads);
            assert_sound(h, 2);
            assert_true(recall(h, query, NQ, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 10, .ef = 64}) >= 0.98);
            assert_true(recall(h, query, NQ, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 100, .ef = 200}) >= 0.99);
            hnsw_free(h);
        }
}

static void every_kernel_finds_the_same(void **state)
{
    (void)state;
    struct hnsw *h = build(HNSW_L2, 1);
    static const char *const name[] = {"plain", "sse", "avx2", "avx512"};
    for (size_t i = 0; i < 4; i++)
        if (hnsw_force_kernel(name[i]))
            assert_true(recall(h, query, NQ, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 10, .ef = 100}) >= 0.99);
    assert_true(hnsw_force_kernel(NULL));
    hnsw_free(h);
}

static void hits_are_sorted_distinct_and_scored(void **state)
{
    (void)state;
    struct hnsw *h = build(HNSW_IP, 1);
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[200];
    struct hnsw_err err = {0};
    for (size_t i = 0; i < NQ; i++) {
        assert_int_equal(hnsw_search(h, query + i * DIM, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 200}, ws, hit, &err), 200);
        for (size_t j = 0; j < 200; j++) {
            float s;
            uint32_t at = (uint32_t)hit[j].label;
            hnsw_scores(HNSW_IP, DIM, query + i * DIM, base, &at, 1, &s);
            assert_true(s == hit[j].score);
            if (j > 0)
                assert_true(hit[j - 1].score > s || (hit[j - 1].score == s && hit[j - 1].label < hit[j].label));
        }
    }
    hnsw_ws_free(ws);
    hnsw_free(h);
}

static bool one_in(const void *ctx, uint64_t label)
{
    return (label * 2654435761u >> 7) % *(const uint64_t *)ctx == 0;
}

/* At 50, 10, 1 and 0.1 %: `recall` itself asserts that the graph returns as many as the exact search does. */
static void filters_never_return_too_few(void **state)
{
    (void)state;
    static const struct {
        uint64_t one_in;
        double floor;
    } t[] = {{2, 0.98}, {10, 0.98}, {100, 0.98}, {1000, 1}};
    struct hnsw *h = build(HNSW_IP, 1);
    for (size_t i = 0; i < 4; i++) {
        struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = 50, .ef = 100, .filter = one_in, .filter_ctx = &t[i].one_in};
        double r = recall(h, query, NQ, &p);
        if (r < t[i].floor)
            fail_msg("1 in %d: recall %.4f, wanted %.4f", (int)t[i].one_in, r, t[i].floor);
    }
    hnsw_free(h);
}

static bool nothing(const void *ctx, uint64_t label)
{
    (void)ctx;
    (void)label;
    return false;
}

static void few_or_none_eligible(void **state)
{
    (void)state;
    struct hnsw *h = build(HNSW_IP, 1);
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit *hit = calloc(N + 10, sizeof(*hit));
    struct hnsw_err err = {0};
    assert_int_equal(hnsw_search(h, query, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 5, .filter = nothing}, ws, hit, &err), 0);
    assert_int_equal(err.code, HNSW_OK);
    assert_int_equal(hnsw_search(h, query, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = N + 10}, ws, hit, &err), N);
    const struct hnsw_query nan_score = {.k = 1, .has_min_score = true, .min_score = NAN};
    assert_int_equal(hnsw_search(h, query, &nan_score, ws, hit, &err), 0);
    assert_int_equal(err.code, HNSW_ARG);
    err = (struct hnsw_err){0};
    assert_int_equal(hnsw_search(h, query, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 0}, ws, hit, &err), 0);
    assert_int_equal(err.code, HNSW_ARG);
    float bad[DIM] = {NAN};
    err = (struct hnsw_err){0};
    assert_int_equal(hnsw_search(h, bad, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 1}, ws, hit, &err), 0);
    assert_int_equal(err.code, HNSW_ARG);
    free(hit);
    hnsw_ws_free(ws);
    hnsw_free(h);
}

static void min_score_drops_and_no_more(void **state)
{
    (void)state;
    struct hnsw *h = build(HNSW_IP, 1);
    for (float s = 0.99f; s > 0.1f; s -= 0.1f) {
        struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = 100, .ef = 150, .has_min_score = true, .min_score = s};
        assert_true(recall(h, query, NQ, &p) >= 0.98);
    }
    hnsw_free(h);
}

static void an_empty_index_answers(void **state)
{
    (void)state;
    struct hnsw *h = new_index(HNSW_IP, DIM, 0);
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[3];
    struct hnsw_err err = {0};
    assert_int_equal(hnsw_search(h, query, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 3}, ws, hit, &err), 0);
    assert_int_equal(hnsw_search_exact(h, query, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 3}, ws, hit, &err), 0);
    assert_int_equal(err.code, HNSW_OK);
    assert_sound(h, 0);
    hnsw_ws_free(ws);
    hnsw_free(h);
}

/* Equal vectors: the cut at k falls within a group of equal scores, which goes to the lowest labels. Few enough for
 * every element to link to every other, so that the graph misses none. */
static void ties_go_to_the_lower_label(void **state)
{
    (void)state;
    enum { M = 30 };
    struct hnsw *h = new_index(HNSW_IP, 2, M);
    struct hnsw_err err = {0};
    for (uint64_t i = 0; i < M; i++) {
        float v[2] = {i % 3 == 0 ? 1 : 0.5f, 0};
        assert_ok(hnsw_add(h, v, M - 1 - i, &err), err);
    }
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit a[5], b[5];
    struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = 5, .ef = M};
    float q[2] = {1, 0};
    assert_int_equal(hnsw_search(h, q, &p, ws, a, &err), 5);
    assert_int_equal(hnsw_search_exact(h, q, &p, ws, b, &err), 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(b[i].label, 2 + 3 * i); // (M - 1 - i) for i a multiple of 3
        assert_int_equal(a[i].label, b[i].label);
    }
    hnsw_ws_free(ws);
    hnsw_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recall_has_a_floor_for_every_metric),
        cmocka_unit_test(every_kernel_finds_the_same),
        cmocka_unit_test(hits_are_sorted_distinct_and_scored),
        cmocka_unit_test(filters_never_return_too_few),
        cmocka_unit_test(few_or_none_eligible),
        cmocka_unit_test(min_score_drops_and_no_more),
        cmocka_unit_test(an_empty_index_answers),
        cmocka_unit_test(ties_go_to_the_lower_label),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
