/* Breaks when a search goes on past its limits, does not say that it was cut or by what, returns something unsorted,
 * twice or not allowed when it is, or finds less because of limits that it never meets. */
#include <time.h>

#include "index_testing.h"

#include "index/hnsw_priv.h"

#define N 3000
#define NQ 20
#define DIM 24
#define K 50

static float *base, *query;
static struct hnsw *plain, *fast;
static struct hnsw_ws *ws;

static struct hnsw *build(enum hnsw_metric metric)
{
    struct hnsw *h = new_index(metric, DIM, N);
    struct hnsw_err err = {0};
    assert_ok(hnsw_add_batch(h, base, NULL, N, 1, NULL, NULL, &err), err);
    return h;
}

static int setup(void **state)
{
    (void)state;
    struct hnsw_err err = {0};
    base = clustered(N, DIM, 60, 1);
    query = clustered(NQ, DIM, 60, 2);
    plain = build(HNSW_IP);
    fast = build(HNSW_IP);
    ws = hnsw_ws_new();
    assert_ok(hnsw_optimize(fast, HNSW_FAST, 1, &err), err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    hnsw_free(plain);
    hnsw_free(fast);
    hnsw_ws_free(ws);
    free(base);
    free(query);
    return 0;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

typedef size_t search_fn(const struct hnsw *h, const float *q, const struct hnsw_query *p, struct hnsw_ws *ws,
                         struct hnsw_hit *hit, struct hnsw_err *err);

/* Hits as they must be, whether all or some. */
static size_t sound(search_fn *search, const struct hnsw *h, const float *q, const struct hnsw_query *p,
                    struct hnsw_hit *hit)
{
    struct hnsw_err err = {0};
    size_t n = search(h, q, p, ws, hit, &err);
    assert_int_equal(err.code, HNSW_OK);
    assert_true(n <= p->k);
    for (size_t i = 0; i < n; i++) {
        float s;
        uint32_t at = (uint32_t)hit[i].label;
        hnsw_scores(HNSW_IP, DIM, q, base, &at, 1, &s);
        assert_true(s == hit[i].score);
        assert_true(!p->filter || p->filter(p->filter_ctx, at));
        assert_true(!p->allow || (at < p->n_allow && (p->allow[at / 64] >> (at % 64) & 1)));
        if (i > 0)
            assert_true(hit[i - 1].score > s || (hit[i - 1].score == s && hit[i - 1].label < at));
    }
    return n;
}

static bool even(const void *ctx, uint64_t label)
{
    (void)ctx;
    return label % 2 == 0;
}

/* As many as are allowed, to the last but less than a block for the fast layout; more visits find better items. */
static void visits_are_counted_and_capped(void **state)
{
    (void)state;
    static const size_t cap[] = {1, 7, 100, 500, 1000};
    struct hnsw_hit hit[K];
    for (int way = 0; way < 4; way++)
        for (size_t i = 0; i < NQ; i++) {
            float last = -INFINITY;
            for (size_t c = 0; c < 5; c++) {
                struct hnsw_report r;
                struct hnsw_query p = {
                    .plan = HNSW_PLAN_WALK, .k = K, .ef = 400, .filter = way == 1 ? even : NULL, .max_visits = cap[c], .report = &r};
                size_t n = sound(way == 3 ? hnsw_search_exact : hnsw_search, way == 2 ? fast : plain, query + i * DIM,
                                 &p, hit);
                size_t block = way == 2 ? fast->fast->width : 1;
                assert_int_equal(r.cut, HNSW_CUT_VISITS);
                assert_false(r.exact);
                assert_true(r.visited <= cap[c] && r.visited + block > cap[c]);
                assert_true(cap[c] < 500 || n == K || (way == 1 && n > 0));
                assert_true(n == 0 || hit[0].score >= last);
                last = n ? hit[0].score : last;
            }
        }
}

/* With ef = n every element is scored: on one level each once, in the fast layout the neighbours of each. */
static void a_search_of_everything_visits_everything(void **state)
{
    (void)state;
    enum { FEW = 60 };
    struct hnsw_params params = {.metric = HNSW_IP, .dim = DIM, .capacity = FEW, .m = 64};
    struct hnsw_stats s;
    struct hnsw *h = NULL;
    struct hnsw_err err = {0};
    do { // until no element is drawn a higher level
        hnsw_free(h);
        params.seed++;
        assert_ok(h = hnsw_new(&params, &err), err);
        assert_ok(hnsw_add_batch(h, base, NULL, FEW, 1, NULL, NULL, &err), err);
        hnsw_get_stats(h, &s);
    } while (s.max_level > 0);
    struct hnsw_hit hit[FEW];
    struct hnsw_report r;
    struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = 5, .ef = FEW, .report = &r};
    assert_int_equal(hnsw_search(h, query, &p, ws, hit, &err), 5);
    assert_int_equal(r.visited, FEW);
    assert_true(r.exact && r.cut == HNSW_CUT_NONE && r.plan == HNSW_PLAN_WALK && r.rescored == 0);
    p.filter = even;
    assert_int_equal(hnsw_search(h, query, &p, ws, hit, &err), 5);
    assert_int_equal(r.visited, FEW);
    assert_int_equal(hnsw_search_exact(h, query, &p, ws, hit, &err), 5);
    assert_int_equal(r.visited, FEW / 2);
    assert_true(r.exact && r.plan == HNSW_PLAN_SCAN);
    p.max_visits = FEW / 2; // just enough is no cut
    assert_int_equal(hnsw_search_exact(h, query, &p, ws, hit, &err), 5);
    assert_true(r.exact && r.cut == HNSW_CUT_NONE);
    p.max_visits = 0;
    p.filter = NULL;
    assert_ok(hnsw_optimize(h, HNSW_FAST, 1, &err), err);
    assert_int_equal(hnsw_search(h, query, &p, ws, hit, &err), 5);
    assert_int_equal(r.visited, (FEW + h->fast->n_seed) * h->fast->width);
    assert_int_equal(r.rescored, 5 + 5 / 4 + 16);
    assert_int_equal(hnsw_search_exact(h, query, &p, ws, hit, &err), 5);
    assert_true(r.visited >= FEW && r.rescored >= 5 && r.rescored <= FEW);
    assert_ok(hnsw_optimize(h, HNSW_COMPACT, 1, &err), err);
    for (int coarse = 1; coarse >= 0; coarse--) {
        h->compact->coarse = coarse;
        assert_int_equal(hnsw_search(h, query, &p, ws, hit, &err), 5);
        assert_int_equal(r.visited, FEW);
        assert_int_equal(r.rescored, coarse ? 5 + 5 / 4 + 16 : 0);
        assert_int_equal(r.plan, HNSW_PLAN_WALK);
        assert_int_equal(hnsw_search_exact(h, query, &p, ws, hit, &err), 5);
        assert_int_equal(r.visited, FEW);
        assert_true(coarse ? r.rescored >= 5 && r.rescored <= FEW : r.rescored == 0);
    }
    hnsw_free(h);
}

static void limits_that_are_not_met_change_nothing(void **state)
{
    (void)state;
    struct hnsw_hit a[K], b[K];
    struct hnsw_report r;
    for (int way = 0; way < 4; way++)
        for (size_t i = 0; i < NQ; i++) {
            const struct hnsw *h = way == 2 ? fast : plain;
            search_fn *search = way == 3 ? hnsw_search_exact : hnsw_search;
            struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = K, .ef = 100, .filter = way == 1 ? even : NULL};
            assert_int_equal(sound(search, h, query + i * DIM, &p, a), K);
            p.max_visits = 1000000;
            p.deadline_ns = now_ns() + 3600 * (uint64_t)1000000000;
            p.report = &r;
            assert_int_equal(sound(search, h, query + i * DIM, &p, b), K);
            assert_int_equal(r.cut, HNSW_CUT_NONE);
            assert_int_equal(r.exact, way == 3);
            for (size_t j = 0; j < K; j++)
                assert_true(a[j].label == b[j].label && a[j].score == b[j].score);
        }
}

static void a_deadline_in_the_past_ends_it_at_once(void **state)
{
    (void)state;
    struct hnsw_hit hit[K];
    struct hnsw_report r;
    struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = K, .deadline_ns = now_ns(), .report = &r};
    assert_int_equal(sound(hnsw_search, plain, query, &p, hit), 0);
    assert_true(r.visited == 0 && r.cut == HNSW_CUT_DEADLINE);
    assert_int_equal(sound(hnsw_search, fast, query, &p, hit), 0);
    assert_true(r.visited == 0 && r.cut == HNSW_CUT_DEADLINE);
    assert_int_equal(sound(hnsw_search_exact, plain, query, &p, hit), 0);
    assert_true(r.visited == 0 && r.cut == HNSW_CUT_DEADLINE);
    p.filter = even;
    assert_int_equal(sound(hnsw_search, plain, query, &p, hit), 0);
    assert_true(r.visited == 0 && r.cut == HNSW_CUT_DEADLINE);
}

/* Lets everything through; from the `slow`-th question on it takes until the deadline to answer. */
struct sleeper {
    size_t asked, slow;
    uint64_t until_ns;
    bool answer;
};

static bool sleeps(const void *ctx, uint64_t label)
{
    struct sleeper *s = (struct sleeper *)(uintptr_t)ctx;
    (void)label;
    if (++s->asked >= s->slow)
        while (now_ns() < s->until_ns)
            ;
    return s->answer;
}

static void a_deadline_on_the_way_is_seen(void **state)
{
    (void)state;
    struct hnsw_hit hit[K];
    struct hnsw_report r;
    for (int exact = 0; exact < 2; exact++) {
        struct sleeper s = {.slow = 1500, .until_ns = now_ns() + 50000000, .answer = true};
        struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = K, .ef = N, .filter = sleeps, .filter_ctx = &s, .report = &r};
        p.deadline_ns = s.until_ns;
        struct hnsw_err err = {0};
        size_t n = (exact ? hnsw_search_exact : hnsw_search)(plain, query, &p, ws, hit, &err);
        if (n == 0 && s.asked < s.slow) // held up for 50 ms before it came so far
            continue;
        assert_int_equal(r.cut, HNSW_CUT_DEADLINE);
        assert_int_equal(n, K);
        assert_true(r.visited >= 1024 && r.visited <= 1500 + 1024);
    }
    /* A filter that lets nothing through scores nothing, and the clock is looked at all the same. */
    struct hnsw *many = new_index(HNSW_IP, 1, 20000);
    for (uint64_t i = 0; i < 20000; i++)
        hnsw_graph_place(many, (uint32_t)i, i, 0);
    many->n = 20000;
    memset(many->block, 0, many->n * many->stride);
    struct sleeper s = {.slow = 200, .until_ns = now_ns() + 50000000};
    struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = K, .filter = sleeps, .filter_ctx = &s, .deadline_ns = s.until_ns, .report = &r};
    assert_int_equal(hnsw_search_exact(many, query, &p, ws, hit, NULL), 0);
    assert_int_equal(r.cut, HNSW_CUT_DEADLINE);
    assert_true(s.asked <= 200 + 4096);
    hnsw_free(many);
}

/* The same answers as from a callback that says the same; labels that the set has no bit for are not allowed. */
static void a_bit_set_is_a_filter(void **state)
{
    (void)state;
    uint64_t allow[(N + 63) / 64];
    struct hnsw_hit a[K], b[K];
    memset(allow, 0x55, sizeof(allow)); // even labels
    for (int exact = 0; exact < 2; exact++)
        for (size_t i = 0; i < NQ; i++) {
            search_fn *search = exact ? hnsw_search_exact : hnsw_search;
            struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = K, .ef = 100, .allow = allow, .n_allow = N};
            struct hnsw_query f = {.plan = HNSW_PLAN_WALK, .k = K, .ef = 100, .filter = even};
            assert_int_equal(sound(search, fast, query + i * DIM, &p, a), K);
            assert_int_equal(sound(search, plain, query + i * DIM, &f, b), K);
            for (size_t j = 0; j < K; j++)
                assert_true(a[j].label == b[j].label && a[j].score == b[j].score);
            p.n_allow = 61; // 31 even labels: fewer than k, found all the same
            assert_int_equal(sound(search, fast, query + i * DIM, &p, a), 31);
            p.n_allow = 0;
            assert_int_equal(sound(search, fast, query + i * DIM, &p, a), 0);
        }
}

static bool third(const void *ctx, uint64_t label)
{
    (void)ctx;
    return label % 3 == 0;
}

static void a_bit_set_and_a_callback_must_both_agree(void **state)
{
    (void)state;
    uint64_t allow[(N + 63) / 64];
    struct hnsw_hit hit[K];
    memset(allow, 0x55, sizeof(allow));
    struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = K, .ef = 100, .allow = allow, .n_allow = N, .filter = third};
    assert_int_equal(sound(hnsw_search, plain, query, &p, hit), K);
    for (size_t j = 0; j < K; j++)
        assert_int_equal(hit[j].label % 6, 0);
}

/* A walk whose results end below min_score has found what there is, but for its recall: no scan of the whole. */
static void min_score_costs_no_scan(void **state)
{
    (void)state;
    struct hnsw_hit hit[K], all[K];
    size_t found = 0, there = 0;
    for (int way = 0; way < 3; way++)
        for (size_t i = 0; i < NQ; i++) {
            struct hnsw_report r;
            struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = K, .ef = 100, .filter = way == 2 ? even : NULL, .report = &r};
            const struct hnsw *h = way == 1 ? fast : plain;
            assert_int_equal(hnsw_search_exact(h, query + i * DIM, &p, ws, all, NULL), K);
            assert_int_equal(sound(hnsw_search, h, query + i * DIM, &p, hit), K);
            size_t visited = r.visited;
            p.has_min_score = true;
            p.min_score = all[9].score; // 10 reach it
            size_t n = sound(hnsw_search, h, query + i * DIM, &p, hit);
            assert_true(n <= 10);
            assert_false(r.exact);
            assert_int_equal(r.visited, visited);
            found += n;
            there += 10;
        }
    assert_true((double)found >= 0.99 * (double)there);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(visits_are_counted_and_capped),
        cmocka_unit_test(a_search_of_everything_visits_everything),
        cmocka_unit_test(limits_that_are_not_met_change_nothing),
        cmocka_unit_test(a_deadline_in_the_past_ends_it_at_once),
        cmocka_unit_test(a_deadline_on_the_way_is_seen),
        cmocka_unit_test(a_bit_set_is_a_filter),
        cmocka_unit_test(a_bit_set_and_a_callback_must_both_agree),
        cmocka_unit_test(min_score_costs_no_scan),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
