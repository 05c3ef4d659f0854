/* Breaks when the scan by codes misses one of the exact answer or says another score, when the plan takes the way that it
 * was told not to take, or when a filter that lets few through is answered by looking at everything. */
#include "index_testing.h"

#include "index/hnsw_priv.h"

enum { N = 5000, DIM = 13, NQ = 30 };

/* What hnsw_search_exact says of the plain layout, to the last bit. */
static void assert_exact(const struct hnsw *plain, const struct hnsw *fast, const float *q, struct hnsw_query p)
{
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit *a = calloc(p.k, sizeof(*a)), *b = calloc(p.k, sizeof(*b));
    struct hnsw_err err = {0};
    struct hnsw_report r;
    size_t n = hnsw_search_exact(plain, q, &p, ws, a, &err);
    p.plan = HNSW_PLAN_SCAN;
    p.report = &r;
    for (int way = 0; way < 2; way++) {
        assert_int_equal((way ? hnsw_search : hnsw_search_exact)(fast, q, &p, ws, b, &err), n);
        assert_int_equal(err.code, HNSW_OK);
        assert_true(r.exact && r.cut == HNSW_CUT_NONE);
        for (size_t i = 0; i < n; i++)
            if (a[i].label != b[i].label || a[i].score != b[i].score)
                fail_msg("place %zu: %llu with %.9g, not %llu with %.9g", i, (unsigned long long)b[i].label, (double)b[i].score,
                         (unsigned long long)a[i].label, (double)a[i].score);
    }
    free(a);
    free(b);
    hnsw_ws_free(ws);
}

static bool third(const void *ctx, uint64_t label)
{
    (void)ctx;
    return label % 3 == 0;
}

/* Vectors that codes tell apart badly: all alike but for a little, one huge dimension, lengths over many powers of ten, ranges too small
 * for 255 steps. */
static float *hard(int kind, size_t n, uint64_t seed)
{
    float *v = clustered(n, DIM, 20, seed);
    uint64_t s = seed;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < DIM; j++) {
            float *x = &v[i * DIM + j];
            if (kind == 1)
                *x = 0.5f + 1e-4f * *x;
            else if (kind == 2)
                *x = j == 3 ? 1000 * *x : *x;
            else if (kind == 3)
                *x *= powf(10, (float)(i % 9) - 4);
            else if (kind == 4)
                *x = (float)(rnd(&s) % 3); // ties without end
            else if (kind == 5)
                *x = rnd(&s) % 2 ? 5e-44f : -5e-44f; // 1 / 255 of that range is 0
        }
    return v;
}

static void is_as_exact_as_scoring_everything(void **state)
{
    (void)state;
    static const char *const kernel[] = {"plain", "sse", "avx2", "avx512"};
    static const size_t ks[] = {1, 10, 100, 1200, N};
    uint64_t allow[(N + 63) / 64];
    float score[N];
    for (size_t i = 0; i < sizeof(allow) / sizeof(*allow); i++)
        allow[i] = 0x8421084210842108u * (i % 3);
    for (int metric = HNSW_IP; metric <= HNSW_L2; metric++)
        for (int kind = 0; kind < 6; kind++) {
            struct hnsw_err err = {0};
            float *v = hard(kind, N, 1), *q = hard(kind == 5 ? 0 : kind, NQ, 2);
            struct hnsw *plain = new_index((enum hnsw_metric)metric, DIM, N), *fast = new_index((enum hnsw_metric)metric, DIM, N);
            plain->ef_construction = fast->ef_construction = 10; // the graph does not matter here
            assert_ok(hnsw_add_batch(plain, v, NULL, N, 2, NULL, NULL, &err) && hnsw_add_batch(fast, v, NULL, N, 2, NULL, NULL, &err),
                      err);
            assert_non_null(fast->fast = hnsw_fast_make(fast, 2)); // also where hnsw_optimize would not take it
            if (metric == HNSW_L2)
                for (uint64_t i = 5; i < N; i += 50)
                    assert_ok(hnsw_remove(plain, i, &err) && hnsw_remove(fast, i, &err), err);
            for (size_t i = 0; i < NQ; i++) {
                if (!hnsw_force_kernel(kernel[i % 4]))
                    continue;
                struct hnsw_query p = {.k = ks[i % 5]};
                assert_exact(plain, fast, q + i * DIM, p);
                p.filter = third;
                assert_exact(plain, fast, q + i * DIM, p);
                p.filter = NULL;
                p.allow = allow;
                p.n_allow = N - 7;
                assert_exact(plain, fast, q + i * DIM, p);
                p.has_min_score = true;
                hnsw_scores((enum hnsw_metric)metric, DIM, q + i * DIM, v, NULL, N, score);
                p.min_score = score[0];
                assert_exact(plain, fast, q + i * DIM, p);
                p.allow = NULL;
                for (size_t j = 1; j < N; j++)
                    p.min_score = fmaxf(p.min_score, score[j]); // the best alone
                assert_exact(plain, fast, q + i * DIM, p);
            }
            hnsw_force_kernel(NULL);
            hnsw_free(plain);
            hnsw_free(fast);
            free(v);
            free(q);
        }
}

/* By the upper bytes of the compact layout: what scoring every element says, to the last bit. */
static void is_as_exact_over_upper_bytes(void **state)
{
    (void)state;
    static const char *const kernel[] = {"plain", "sse", "avx2", "avx512"};
    static const size_t ks[] = {1, 10, 100, 1200, N};
    uint64_t allow[(N + 63) / 64];
    float score[N];
    for (size_t i = 0; i < sizeof(allow) / sizeof(*allow); i++)
        allow[i] = 0x8421084210842108u * (i % 3);
    for (int metric = HNSW_IP; metric <= HNSW_COSINE; metric++)
        for (int kind = 0; kind < 6; kind++) {
            struct hnsw_err err = {0};
            float *v = hard(kind, N, 1), *q = hard(kind == 5 ? 0 : kind, NQ, 2);
            struct hnsw *whole = new_index((enum hnsw_metric)metric, DIM, N), *upper = new_index((enum hnsw_metric)metric, DIM, N);
            whole->ef_construction = upper->ef_construction = 10;
            assert_ok(hnsw_add_batch(whole, v, NULL, N, 1, NULL, NULL, &err) && hnsw_add_batch(upper, v, NULL, N, 1, NULL, NULL, &err),
                      err);
            for (uint64_t i = 5; kind == 1 && i < N; i += 50)
                assert_ok(hnsw_remove(whole, i, &err) && hnsw_remove(upper, i, &err), err);
            assert_ok(hnsw_optimize(whole, HNSW_COMPACT, 1, &err) && hnsw_optimize(upper, HNSW_COMPACT, 1, &err), err);
            whole->compact->coarse = false;
            upper->compact->coarse = true; // also where it was not found good enough for walks
            for (size_t i = 0; i < 20; i++) { // every kernel with every k
                if (!hnsw_force_kernel(kernel[i % 4]))
                    continue;
                struct hnsw_query p = {.k = ks[i % 5]};
                assert_exact(whole, upper, q + i * DIM, p);
                p.filter = third;
                assert_exact(whole, upper, q + i * DIM, p);
                p.allow = allow;
                p.n_allow = N - 7;
                assert_exact(whole, upper, q + i * DIM, p);
                p.has_min_score = true;
                hnsw_scores((enum hnsw_metric)metric, DIM, q + i * DIM, v, NULL, N, score);
                p.min_score = score[0];
                assert_exact(whole, upper, q + i * DIM, p);
            }
            hnsw_force_kernel(NULL);
            hnsw_free(whole);
            hnsw_free(upper);
            free(v);
            free(q);
        }
}

/* Told to walk, it walks; told to scan, it scans; left alone, a handful is scanned and many are walked, and of those
 * the few that a bit set lets through are scored and no others. */
static void the_plan_is_kept(void **state)
{
    (void)state;
    float *v = clustered(N, DIM, 20, 1), *q = clustered(1, DIM, 20, 2);
    struct hnsw_err err = {0};
    struct hnsw *h = new_index(HNSW_IP, DIM, N);
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[100];
    struct hnsw_report r;
    assert_ok(hnsw_add_batch(h, v, NULL, N, 2, NULL, NULL, &err), err);
    for (int fast = 0; fast < 2; fast++) {
        struct hnsw_query p = {.k = 5, .ef = 20, .report = &r, .plan = HNSW_PLAN_WALK};
        assert_int_equal(hnsw_search(h, q, &p, ws, hit, &err), 5);
        assert_false(r.exact);
        p.plan = HNSW_PLAN_SCAN;
        assert_int_equal(hnsw_search(h, q, &p, ws, hit, &err), 5);
        assert_true(r.exact);
        p.plan = HNSW_PLAN_AUTO;
        assert_int_equal(hnsw_search(h, q, &p, ws, hit, &err), 5); // k and ef are small, so a walk costs little
        assert_false(r.exact);
        p.k = 100;
        p.ef = 2000;
        assert_int_equal(hnsw_search(h, q, &p, ws, hit, &err), 100); // to look at nearly all
        assert_true(r.exact);
        uint64_t allow[(N + 63) / 64] = {0};
        for (size_t i = 0; i < N; i += 100)
            allow[i / 64] |= (uint64_t)1 << i % 64;
        p.k = 10;
        p.ef = 100;
        p.allow = allow;
        p.n_allow = N;
        assert_int_equal(hnsw_search(h, q, &p, ws, hit, &err), 10);
        assert_true(r.exact);
        assert_int_equal(r.visited, N / 100);
        assert_ok(hnsw_optimize(h, HNSW_FAST, 1, &err), err);
    }
    hnsw_ws_free(ws);
    hnsw_free(h);
    free(v);
    free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_as_exact_as_scoring_everything),
        cmocka_unit_test(is_as_exact_over_upper_bytes),
        cmocka_unit_test(the_plan_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
