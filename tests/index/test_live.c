/* Breaks when an index that changes answers with what was removed or replaced, misses what was put, returns fewer than
 * there are, loses a change made beside a merge, fills up without saying so, or finds less after many changes than an
 * index built afresh. The same while threads work on it: test_live_threads.c. */
#include "index_testing.h"

#include <unistd.h>

#include "index/hnsw_live.h"

#define DIM 8
#define LABELS 400

static struct hnsw_live *new_live(enum hnsw_metric metric, size_t dim, struct hnsw_live_params p)
{
    struct hnsw_params index = {.metric = metric, .dim = dim, .m = 8, .seed = 3};
    struct hnsw_err err = {0};
    struct hnsw_live *l = hnsw_live_new(&index, &p, &err);
    if (!l)
        fail_msg("%s", err.msg);
    return l;
}

/* What the index must hold: the vector of each label, or nothing. */
struct model {
    enum hnsw_metric metric;
    bool there[LABELS];
    float vec[LABELS][DIM];
    size_t n;
};

static int better_first(const void *a, const void *b)
{
    const struct hnsw_hit *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : x->label < y->label ? -1 : x->label > y->label;
}

static bool even(const void *ctx, uint64_t label)
{
    (void)ctx;
    return label % 2 == 0;
}

/* All that `p` lets through, best first. */
static size_t model_search(const struct model *m, const float *q, const struct hnsw_query *p, struct hnsw_hit *hit)
{
    size_t n = 0;
    for (uint64_t i = 0; i < LABELS; i++) {
        if (!m->there[i] || (p->filter && !p->filter(NULL, i)) ||
            (p->allow && (i >= p->n_allow || !(p->allow[i / 64] >> (i % 64) & 1))))
            continue;
        hit[n].label = i;
        hnsw_scores(m->metric, DIM, q, m->vec[i], NULL, 1, &hit[n].score);
        n++;
    }
    qsort(hit, n, sizeof(*hit), better_first);
    return n < p->k ? n : p->k;
}

static void assert_agrees(const struct hnsw_live *l, const struct model *m, const float *q, const struct hnsw_query *p,
                          struct hnsw_ws *ws)
{
    struct hnsw_hit want[LABELS], hit[LABELS];
    struct hnsw_err err = {0};
    size_t n = model_search(m, q, p, want);
    assert_int_equal(hnsw_live_search_exact(l, q, p, ws, hit, &err), n);
    for (size_t i = 0; i < n; i++)
        assert_true(fabsf(hit[i].score - want[i].score) < 1e-5f);
    assert_int_equal(hnsw_live_search(l, q, p, ws, hit, &err), n); // never fewer than there are
    assert_int_equal(err.code, HNSW_OK);
    for (size_t i = 0; i < n; i++) {
        float score;
        assert_true(hit[i].label < LABELS && m->there[hit[i].label] && (!p->filter || p->filter(NULL, hit[i].label)));
        hnsw_scores(m->metric, DIM, q, m->vec[hit[i].label], NULL, 1, &score);
        assert_true(fabsf(hit[i].score - score) < 1e-5f); // the newest vector's
        assert_true(i == 0 || better_first(&hit[i - 1], &hit[i]) < 0);
    }
}

static void change(struct hnsw_live *l, struct model *m, uint64_t *seed, const float *pool, size_t n_pool)
{
    struct hnsw_err err = {0};
    uint64_t label = rnd(seed) % LABELS;
    if (rnd(seed) % 3) {
        const float *v = pool + rnd(seed) % n_pool * DIM;
        assert_ok(hnsw_live_put(l, label, v, &err), err);
        m->n += !m->there[label];
        m->there[label] = true;
        memcpy(m->vec[label], v, sizeof(m->vec[label]));
    } else {
        assert_true(hnsw_live_remove(l, label, &err) == m->there[label]);
        assert_int_equal(err.code, m->there[label] ? HNSW_OK : HNSW_NOT_FOUND);
        m->n -= m->there[label];
        m->there[label] = false;
    }
}

static void does_what_a_table_does(void **state)
{
    (void)state;
    float *pool = clustered(500, DIM, 10, 1), *q = clustered(50, DIM, 10, 2);
    struct hnsw_ws *ws = hnsw_ws_new();
    uint64_t allow[(LABELS + 63) / 64];
    memset(allow, 0x5b, sizeof(allow));
    for (int metric = HNSW_IP; metric <= HNSW_L2; metric++) {
        struct hnsw_live *l = new_live((enum hnsw_metric)metric, DIM, (struct hnsw_live_params){.delta_max = 150});
        struct model m = {.metric = (enum hnsw_metric)metric};
        uint64_t seed = 5;
        for (size_t step = 0; step < 1500; step++) {
            struct hnsw_err err = {0};
            change(l, &m, &seed, pool, 500);
            assert_int_equal(hnsw_live_count(l), m.n);
            if (step % 100 == 99)
                assert_ok(hnsw_live_merge(l, 1 + step / 100 % 2, &err), err);
            if (step % 7)
                continue;
            const float *query = q + step % 50 * DIM;
            assert_agrees(l, &m, query, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 10}, ws);
            assert_agrees(l, &m, query, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = LABELS}, ws);
            assert_agrees(l, &m, query, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 20, .filter = even}, ws);
            assert_agrees(l, &m, query, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 20, .allow = allow, .n_allow = LABELS - 9}, ws);
            for (uint64_t i = 0; i < LABELS; i += 3) {
                float v[DIM];
                assert_true(hnsw_live_get_vector(l, i, v) == m.there[i]);
                if (m.there[i] && metric != HNSW_COSINE)
                    assert_memory_equal(v, m.vec[i], sizeof(v));
            }
        }
        hnsw_live_free(l);
    }
    hnsw_ws_free(ws);
    free(pool);
    free(q);
}

static void a_full_delta_says_so_and_loses_nothing(void **state)
{
    (void)state;
    struct hnsw_err err = {0};
    float *v = clustered(30, DIM, 3, 1);
    struct hnsw_live *l = new_live(HNSW_IP, DIM, (struct hnsw_live_params){.delta_max = 10});
    for (uint64_t i = 0; i < 10; i++)
        assert_ok(hnsw_live_put(l, i, v + i * DIM, &err), err);
    assert_false(hnsw_live_put(l, 10, v, &err));
    assert_int_equal(err.code, HNSW_FULL);
    assert_non_null(strstr(err.msg, "10 elements"));
    err = (struct hnsw_err){0};
    assert_ok(hnsw_live_remove(l, 3, &err), err); // takes no room
    assert_false(hnsw_live_put(l, 3, v, NULL));
    assert_ok(hnsw_live_merge(l, 1, &err), err);
    assert_int_equal(hnsw_live_count(l), 9);
    assert_ok(hnsw_live_put(l, 3, v, &err), err);
    struct hnsw_live_stats s;
    hnsw_live_get_stats(l, &s);
    assert_int_equal(s.count, 10);
    assert_int_equal(s.n_main, 9);
    assert_int_equal(s.n_delta, 1);
    assert_int_equal(s.n_merges, 1);
    assert_ok(hnsw_live_merge(l, 1, &err) && hnsw_live_merge(l, 1, &err), err); // the second has nothing to do
    hnsw_live_get_stats(l, &s);
    assert_int_equal(s.n_merges, 2);
    hnsw_live_free(l);

    /* With a thread that merges, a put waits. */
    l = new_live(HNSW_IP, DIM, (struct hnsw_live_params){.delta_max = 10, .merge_threads = 1, .optimize = true});
    for (uint64_t i = 0; i < 1000; i++)
        assert_ok(hnsw_live_put(l, i % 300, v + i % 30 * DIM, &err), err);
    assert_int_equal(hnsw_live_count(l), 300);
    hnsw_live_get_stats(l, &s);
    assert_true(s.n_merges >= 90);
    hnsw_live_free(l);
    free(v);
}

/* Lengths over many powers of ten: hnsw_optimize refuses them, a merge must not. */
static void vectors_that_codes_cannot_hold_are_merged(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    struct hnsw_err err = {0};
    struct hnsw_live_stats s;
    float *v = clustered(MANY, DIM, 20, 1);
    struct hnsw *plain = new_index(HNSW_L2, DIM, MANY);
    struct hnsw_live *l = new_live(HNSW_L2, DIM, (struct hnsw_live_params){.delta_max = MANY, .optimize = true});
    for (size_t i = 0; i < MANY; i++) {
        for (size_t j = 0; j < DIM; j++)
            v[i * DIM + j] *= powf(10, (float)(i % 13) - 6);
        assert_ok(hnsw_add(plain, v + i * DIM, i, &err) && hnsw_live_put(l, i, v + i * DIM, &err), err);
    }
    assert_false(hnsw_optimize(plain, HNSW_FAST, 1, &err));
    assert_int_equal(err.code, HNSW_ARG);
    err = (struct hnsw_err){0};
    assert_ok(hnsw_live_merge(l, 1, &err), err);
    hnsw_live_get_stats(l, &s);
    assert_int_equal(s.n_main, MANY);
    assert_int_equal(s.n_failed, 0);
    hnsw_free(plain);
    hnsw_live_free(l);
    free(v);
}

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    struct hnsw_err err = {0};
    float v[DIM] = {1};
    struct hnsw_live *l = new_live(HNSW_IP, DIM, (struct hnsw_live_params){0});
    v[3] = NAN;
    assert_false(hnsw_live_put(l, 1, v, &err));
    assert_int_equal(err.code, HNSW_ARG);
    assert_int_equal(hnsw_live_count(l), 0);
    struct hnsw_hit hit;
    struct hnsw_ws *ws = hnsw_ws_new();
    v[3] = 0;
    err = (struct hnsw_err){0};
    assert_int_equal(hnsw_live_search(l, v, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 1}, ws, &hit, &err), 0);
    assert_int_equal(err.code, HNSW_OK);
    assert_int_equal(hnsw_live_search(l, v, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 0}, ws, &hit, &err), 0);
    assert_int_equal(err.code, HNSW_ARG);
    hnsw_ws_free(ws);
    hnsw_live_free(l);
    struct hnsw *h = new_index(HNSW_IP, DIM, 5);
    err = (struct hnsw_err){0};
    assert_ok(hnsw_add(h, v, 4, &err) && hnsw_optimize(h, HNSW_COMPACT, 1, &err), err);
    assert_null(hnsw_live_open(h, &(struct hnsw_live_params){0}, &err));
    assert_int_equal(err.code, HNSW_ARG);
    hnsw_free(h);
}

static void a_saved_one_is_a_file_like_any_other(void **state)
{
    (void)state;
    char path[] = "/tmp/hnsw_live_XXXXXX";
    struct hnsw_err err = {0};
    float *v = clustered(300, DIM, 10, 1), got[DIM];
    assert_true(close(mkstemp(path)) == 0);
    struct hnsw_live *l = new_live(HNSW_COSINE, DIM, (struct hnsw_live_params){0});
    for (uint64_t i = 0; i < 300; i++)
        assert_ok(hnsw_live_put(l, i * 5, v + i * DIM, &err), err);
    for (uint64_t i = 0; i < 300; i += 4)
        assert_ok(hnsw_live_remove(l, i * 5, &err), err);
    assert_ok(hnsw_live_save(l, path, 1, &err), err);
    hnsw_live_free(l);
    struct hnsw *h = hnsw_load(path, &err);
    assert_ok(h, err);
    assert_sound(h, 0);
    assert_int_equal(hnsw_count(h), 225);
    l = hnsw_live_open(h, &(struct hnsw_live_params){0}, &err);
    assert_ok(l, err);
    for (uint64_t i = 0; i < 300; i++)
        assert_true(hnsw_live_get_vector(l, i * 5, got) == (i % 4 != 0));
    assert_int_equal(hnsw_live_count(l), 225);
    hnsw_live_free(l);
    unlink(path);
    free(v);
}

// ---------------------------------------------------------------------------------------------------------- churn

enum { CHURN_N = 6000, CHURN_DIM = 32, CHURN_Q = 100, CHURN_K = 50 };

static double live_recall(const struct hnsw_live *l, const float *q)
{
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit a[CHURN_K], b[CHURN_K];
    struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = CHURN_K, .ef = 60};
    size_t same = 0;
    for (size_t i = 0; i < CHURN_Q; i++) {
        assert_int_equal(hnsw_live_search(l, q + i * CHURN_DIM, &p, ws, a, NULL), CHURN_K);
        assert_int_equal(hnsw_live_search_exact(l, q + i * CHURN_DIM, &p, ws, b, NULL), CHURN_K);
        for (size_t x = 0; x < CHURN_K; x++)
            for (size_t y = 0; y < CHURN_K; y++)
                same += a[x].label == b[y].label;
    }
    hnsw_ws_free(ws);
    return (double)same / (CHURN_Q * CHURN_K);
}

/* Three times as many changes as elements, some replaced, some removed for ever and new ones in their place, merged a
 * piece at a time: then as much is found as in an index built of the same in one go, and it takes no more memory. */
static void churn_costs_no_recall(void **state)
{
    (void)state;
    struct hnsw_err err = {0};
    float *v = clustered(4 * CHURN_N, CHURN_DIM, 300, 1), *q = clustered(CHURN_Q, CHURN_DIM, 300, 2);
    struct hnsw_params index = {.metric = HNSW_IP, .dim = CHURN_DIM, .m = 16, .ef_construction = 100, .seed = 3};
    struct hnsw_live *l = hnsw_live_new(&index, &(struct hnsw_live_params){.delta_max = CHURN_N}, &err);
    assert_ok(l, err);
    uint64_t label[CHURN_N], next = CHURN_N, seed = 4;
    float *now = malloc(CHURN_N * CHURN_DIM * sizeof(*now));
    for (uint64_t i = 0; i < CHURN_N; i++) {
        label[i] = i;
        memcpy(now + i * CHURN_DIM, v + i * CHURN_DIM, CHURN_DIM * sizeof(*now));
        assert_ok(hnsw_live_put(l, i, v + i * CHURN_DIM, &err), err);
    }
    assert_ok(hnsw_live_merge(l, 2, &err), err);
    struct hnsw_live_stats before, after;
    hnsw_live_get_stats(l, &before);
    for (size_t i = 0; i < 3 * CHURN_N; i++) {
        size_t at = rnd(&seed) % CHURN_N;
        const float *to = v + (CHURN_N + i) * CHURN_DIM;
        if (i % 2) { // another label in its place
            assert_ok(hnsw_live_remove(l, label[at], &err), err);
            label[at] = next++;
        }
        assert_ok(hnsw_live_put(l, label[at], to, &err), err);
        memcpy(now + at * CHURN_DIM, to, CHURN_DIM * sizeof(*now));
        if (i % 300 == 299)
            assert_ok(hnsw_live_merge(l, 2, &err), err);
    }
    hnsw_live_get_stats(l, &after);
    assert_int_equal(after.n_delta, 0);
    assert_int_equal(after.n_main, CHURN_N);
    assert_true(after.bytes < before.bytes + before.bytes / 10);

    index.capacity = CHURN_N;
    struct hnsw *fresh = hnsw_new(&index, &err);
    assert_ok(fresh && hnsw_add_batch(fresh, now, label, CHURN_N, 2, NULL, NULL, &err), err);
    double of_fresh = recall(fresh, q, CHURN_Q, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = CHURN_K, .ef = 60});
    double of_churned = live_recall(l, q);
    if (of_churned < of_fresh - 0.01)
        fail_msg("recall %.4f after churn, %.4f built afresh", of_churned, of_fresh);
    hnsw_free(fresh);
    hnsw_live_free(l);
    free(now);
    free(v);
    free(q);
}

/* The dead are the nearest, so a first try finds too few: both tries together keep to max_visits, and the report is about both. */
static void two_tries_share_the_visits(void **state)
{
    (void)state;
    enum { N = 2000, K = 5, DEAD = 100 };
    float *v = clustered(N, DIM, 20, 1);
    struct hnsw_hit dead[DEAD], want[K], hit[K];
    struct hnsw_report r;
    struct hnsw_err err = {0};
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw *h = new_index(HNSW_IP, DIM, N);
    assert_ok(hnsw_add_batch(h, v, NULL, N, 1, NULL, NULL, &err), err);
    assert_int_equal(hnsw_search_exact(h, v, &(struct hnsw_query){.k = DEAD}, ws, dead, &err), DEAD);
    struct hnsw_live *l = hnsw_live_open(h, &(struct hnsw_live_params){0}, &err);
    for (size_t i = 0; i < DEAD; i++)
        assert_ok(hnsw_live_remove(l, dead[i].label, &err), err);
    struct hnsw_query p = {.k = K, .ef = 20, .plan = HNSW_PLAN_WALK, .report = &r};
    assert_int_equal(hnsw_live_search(l, v, &p, ws, want, &err), K);
    assert_int_equal(r.cut, HNSW_CUT_NONE);
    size_t both = r.visited;
    p.max_visits = both;
    assert_int_equal(hnsw_live_search(l, v, &p, ws, hit, &err), K);
    assert_memory_equal(hit, want, sizeof(hit));
    assert_true(r.cut == HNSW_CUT_NONE && r.visited == both);
    for (p.max_visits = both - 1; p.max_visits > 0; p.max_visits /= 2) {
        hnsw_live_search(l, v, &p, ws, hit, &err);
        assert_int_equal(err.code, HNSW_OK);
        assert_int_equal(r.cut, HNSW_CUT_VISITS);
        assert_int_equal(r.visited, p.max_visits);
    }
    hnsw_live_free(l);
    hnsw_ws_free(ws);
    free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(does_what_a_table_does),
        cmocka_unit_test(a_full_delta_says_so_and_loses_nothing),
        cmocka_unit_test(vectors_that_codes_cannot_hold_are_merged),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(a_saved_one_is_a_file_like_any_other),
        cmocka_unit_test(churn_costs_no_recall),
        cmocka_unit_test(two_tries_share_the_visits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
