/* Breaks when a metric, a way of building or a layout finds less of the exact answer than it used to: a floor for each. The data are
 * easy and few (vectors around centres, as towers give); floors are a little below what was measured, so that another seed or
 * thread order passes and a graph that has lost something does not. */
#include "index_testing.h"

#define N 5000
#define DIM 16
#define NQ 60
#define K 20

static const struct {
    unsigned threads, ef_construction, m;
    size_t ef;
    double floor[3]; // by layout: plain, fast, compact
} way[] = {
    {1, 120, 16, 40, {.995, .995, .995}},
    {4, 120, 16, 40, {.995, .995, .995}},
    {1, 40, 16, 40, {.985, .985, .985}},
    {4, 40, 16, 40, {.985, .985, .985}},
    {1, 120, 8, 40, {.990, .990, .990}},
    {4, 120, 16, 20, {.985, .985, .985}},
};

static double found(const struct hnsw *h, const float *q, size_t ef, const struct hnsw_hit *truth)
{
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = K, .ef = ef};
    struct hnsw_hit hit[K];
    struct hnsw_err err = {0};
    size_t same = 0;
    for (size_t i = 0; i < NQ; i++) {
        assert_int_equal(hnsw_search(h, q + i * DIM, &p, ws, hit, &err), K);
        for (size_t x = 0; x < K; x++)
            for (size_t y = 0; y < K; y++)
                same += hit[x].label == truth[i * K + y].label;
    }
    hnsw_ws_free(ws);
    return (double)same / (double)(NQ * K);
}

static void one(enum hnsw_metric metric, size_t w, const float *v, const float *q)
{
    static const char *const layout[] = {"plain", "fast", "compact"};
    struct hnsw_params p = {.metric = metric,
                            .dim = DIM,
                            .capacity = N,
                            .m = way[w].m,
                            .ef_construction = way[w].ef_construction,
                            .seed = 7};
    struct hnsw_hit truth[NQ * K];
    struct hnsw_err err = {0};
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw *h = hnsw_new(&p, &err);
    assert_ok(h, err);
    assert_ok(hnsw_add_batch(h, v, NULL, N, way[w].threads, NULL, NULL, &err), err);
    for (size_t i = 0; i < NQ; i++)
        assert_int_equal(hnsw_search_exact(h, q + i * DIM, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = K}, ws, truth + i * K, &err), K);
    for (int l = HNSW_PLAIN; l <= HNSW_COMPACT; l++) {
        assert_ok(l == HNSW_PLAIN || hnsw_optimize(h, (enum hnsw_layout)l, way[w].threads, &err), err);
        double r = found(h, q, way[w].ef, truth);
        printf("%s, %u threads, m %u, ef_construction %u, ef %zu, %s: %.4f, floor %.3f\n", hnsw_metric_name(metric),
               way[w].threads, way[w].m, way[w].ef_construction, way[w].ef, layout[l], r, way[w].floor[l]);
        if (r < way[w].floor[l])
            fail_msg("recall %.4f is below its floor %.3f", r, way[w].floor[l]);
    }
    hnsw_ws_free(ws);
    hnsw_free(h);
}

static void every_floor_is_kept(void **state)
{
    (void)state;
    float *v = clustered(N, DIM, 40, 1), *q = clustered(NQ, DIM, 40, 2), *longer = malloc(N * DIM * sizeof(*v));
    for (size_t i = 0; i < N * DIM; i++) // of other lengths, which cosine has to take out
        longer[i] = v[i] * (float)(1 + i / DIM % 5);
    for (int metric = HNSW_IP; metric <= HNSW_L2; metric++)
        for (size_t w = 0; w < sizeof(way) / sizeof(way[0]); w++)
            one((enum hnsw_metric)metric, w, metric == HNSW_COSINE ? longer : v, q);
    free(longer);
    free(v);
    free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_floor_is_kept)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
