/* Breaks when searches on one const index disturb each other or its answers, or when builders race. Meant for the tsan
 * preset above all. */
#include "index_testing.h"

#include <pthread.h>

#define N 3000
#define DIM 16
#define NQ 40
#define THREADS 4
#define K 10

struct searcher {
    const struct hnsw *h;
    const float *query;
    const struct hnsw_hit *want; // [NQ][K]
    size_t wrong;
};

static bool odd(const void *ctx, uint64_t label)
{
    (void)ctx;
    return label % 2 == 1;
}

static bool differ(const struct hnsw_hit *a, const struct hnsw_hit *b)
{
    for (size_t i = 0; i < K; i++)
        if (a[i].label != b[i].label || a[i].score != b[i].score)
            return true;
    return false;
}

static void *search(void *arg)
{
    struct searcher *s = arg;
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[K];
    for (size_t round = 0; round < 5; round++)
        for (size_t i = 0; i < NQ; i++) {
            struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = K, .ef = 50};
            size_t n = hnsw_search(s->h, s->query + i * DIM, &p, ws, hit, NULL);
            s->wrong += n != K || differ(hit, s->want + i * K);
            p.filter = odd;
            n = hnsw_search(s->h, s->query + i * DIM, &p, ws, hit, NULL);
            s->wrong += n != K || hit[0].label % 2 != 1;
        }
    hnsw_ws_free(ws);
    return NULL;
}

static void search_by_many(enum hnsw_layout layout)
{
    float *v = clustered(N, DIM, 30, 1), *q = clustered(NQ, DIM, 30, 2);
    struct hnsw *h = new_index(HNSW_COSINE, DIM, N);
    struct hnsw_err err = {0};
    struct hnsw_hit *want = calloc(NQ * K, sizeof(*want));
    struct hnsw_ws *ws = hnsw_ws_new();
    struct searcher s[THREADS];
    pthread_t t[THREADS];
    assert_ok(hnsw_add_batch(h, v, NULL, N, 2, NULL, NULL, &err), err);
    assert_ok(hnsw_optimize(h, layout, 2, &err), err);
    for (size_t i = 0; i < NQ; i++)
        assert_int_equal(hnsw_search(h, q + i * DIM, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = K, .ef = 50}, ws, want + i * K, &err),
                         K);
    for (size_t i = 0; i < THREADS; i++) {
        s[i] = (struct searcher){h, q, want, 0};
        assert_int_equal(pthread_create(&t[i], NULL, search, &s[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(s[i].wrong, 0);
    }
    hnsw_ws_free(ws);
    free(want);
    free(v);
    free(q);
    hnsw_free(h);
}

static void many_search_one_index(void **state)
{
    (void)state;
    search_by_many(HNSW_PLAIN);
    search_by_many(HNSW_FAST);
    search_by_many(HNSW_COMPACT);
}

/* Small m and many threads on few elements: every list is contended. */
static void many_build_one_index(void **state)
{
    (void)state;
    float *v = clustered(N, 4, 3, 1);
    for (unsigned round = 0; round < 3; round++) {
        struct hnsw_params p = {
            .metric = HNSW_L2, .dim = 4, .capacity = N, .m = 2 + 3 * round, .ef_construction = 20, .seed = round};
        struct hnsw_err err = {0};
        struct hnsw *h = hnsw_new(&p, &err);
        assert_ok(h, err);
        assert_ok(hnsw_add_batch(h, v, NULL, N, 8, NULL, NULL, &err), err);
        assert_int_equal(hnsw_count(h), N);
        assert_sound(h, N);
        hnsw_free(h);
    }
    free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(many_search_one_index), cmocka_unit_test(many_build_one_index)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
