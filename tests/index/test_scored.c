/* Breaks when a walk over the compact layout does not give what the caller scores its best by (hnsw_query.score), claims to
 * have done so where it has not, or asks for a label that may not be returned. */
#include "index_testing.h"

enum { N = 3000, DIM = 16, K = 40, NQ = 20 };

struct caller {
    const float *v, *q;
    float sign; // -1: the other way round, so that whose scores were taken can be seen
    size_t asked;
};

static void score(const void *ctx, const uint64_t *label, size_t n, float *out)
{
    struct caller *c = *(struct caller *const *)ctx;
    for (size_t i = 0; i < n; i++) {
        assert_true(label[i] < 2 * N && label[i] % 2 == 0);
        uint32_t at = (uint32_t)label[i] / 2;
        hnsw_scores(HNSW_IP, DIM, c->q, c->v, &at, 1, &out[i]);
        out[i] *= c->sign;
    }
    c->asked += n;
}

static bool by_four(const void *ctx, uint64_t label)
{
    (void)ctx;
    return label % 4 == 0;
}

static struct hnsw *index_of(const float *v, enum hnsw_layout layout)
{
    struct hnsw_err err = {0};
    struct hnsw *h = new_index(HNSW_IP, DIM, N);
    uint64_t *label = calloc(N, sizeof(*label));
    for (uint64_t i = 0; i < N; i++)
        label[i] = 2 * i;
    assert_ok(hnsw_add_batch(h, v, label, N, 2, NULL, NULL, &err) && hnsw_optimize(h, layout, 1, &err), err);
    free(label);
    return h;
}

/* Scores to the last bit, sorted by them, equal ones by label. */
static void assert_by_caller(const struct caller *c, const struct hnsw_hit *hit, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float want;
        uint32_t at = (uint32_t)hit[i].label / 2;
        hnsw_scores(HNSW_IP, DIM, c->q, c->v, &at, 1, &want);
        assert_true(hit[i].score == c->sign * want);
        assert_true(i == 0 || hit[i - 1].score > hit[i].score ||
                    (hit[i - 1].score == hit[i].score && hit[i - 1].label < hit[i].label));
    }
}

static void is_what_the_caller_says(void **state)
{
    (void)state;
    float *v = clustered(N, DIM, 30, 1), *q = clustered(NQ, DIM, 30, 2);
    memcpy(v + 7 * DIM, v + 5 * DIM, DIM * sizeof(*v)); // two of one score
    struct hnsw *h = index_of(v, HNSW_COMPACT);
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[K], codes[K];
    struct hnsw_report r;
    for (int sign = 1; sign >= -1; sign -= 2)
        for (size_t i = 0; i < NQ; i++) {
            struct caller c = {v, q + i * DIM, (float)sign, 0}, *ctx = &c;
            struct hnsw_query p = {.k = K, .ef = 100, .plan = HNSW_PLAN_WALK, .score = score, .score_ctx = &ctx, .report = &r};
            size_t n = hnsw_search(h, c.q, &p, ws, hit, NULL);
            assert_int_equal(n, K);
            assert_true(r.scored && c.asked == r.rescored && c.asked > K);
            assert_by_caller(&c, hit, n);
            p.has_min_score = true;
            p.min_score = hit[K / 2].score;
            n = hnsw_search(h, c.q, &p, ws, hit, NULL);
            assert_true(n > K / 2 && hit[n - 1].score >= p.min_score);
            p.score = NULL;
            p.has_min_score = false;
            assert_int_equal(hnsw_search(h, c.q, &p, ws, codes, NULL), K);
            assert_false(r.scored);
            assert_true(sign < 0 || fabsf(codes[0].score - hit[0].score) < 1e-4f);
        }
    hnsw_ws_free(ws);
    hnsw_free(h);
    free(v);
    free(q);
}

static void assert_not_asked(const struct hnsw *h, struct caller *c, const struct hnsw_query *like, size_t nq, struct hnsw_ws *ws)
{
    struct hnsw_hit hit[K];
    struct hnsw_report r = {.scored = true};
    struct hnsw_query p = *like;
    p.k = K;
    p.ef = 100;
    p.score = score;
    p.score_ctx = &c;
    p.report = &r;
    assert_true(hnsw_search_multi(h, c->q, nq, &p, ws, hit, NULL) > 0);
    assert_true(!r.scored && c->asked == 0);
}

/* Filters, removals, scans, several vectors, other layouts: by the index itself, and it says so. */
static void others_are_scored_by_the_index(void **state)
{
    (void)state;
    float *v = clustered(N, DIM, 30, 1), *q = clustered(2, DIM, 30, 2);
    struct hnsw_ws *ws = hnsw_ws_new();
    struct caller c = {v, q, 1, 0};
    for (int layout = HNSW_PLAIN; layout <= HNSW_COMPACT; layout++) {
        struct hnsw *h = index_of(v, (enum hnsw_layout)layout);
        assert_not_asked(h, &c, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .filter = by_four}, 1, ws);
        assert_not_asked(h, &c, &(struct hnsw_query){.plan = HNSW_PLAN_SCAN}, 1, ws);
        assert_not_asked(h, &c, &(struct hnsw_query){.plan = HNSW_PLAN_WALK}, 2, ws);
        if (layout != HNSW_COMPACT)
            assert_not_asked(h, &c, &(struct hnsw_query){.plan = HNSW_PLAN_WALK}, 1, ws);
        hnsw_free(h);
    }
    hnsw_ws_free(ws);
    free(v);
    free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_what_the_caller_says),
        cmocka_unit_test(others_are_scored_by_the_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
