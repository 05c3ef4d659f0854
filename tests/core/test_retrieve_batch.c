/* If this fails, a request of a batch is answered by another's vector, one that is wrong spoils the others, or lack of memory goes unsaid. */
#include "tests/core/support.h"

#include <math.h>

#include "core/retrieve.h"
#include "tests/core/world.h"

struct fixture {
    struct bundle *b;
    struct retrieve_ws *ws;
};

static char *repository;

static int setup(void **state)
{
    int failed = tmp_setup(state);
    repository = *state;
    return failed;
}

static struct fixture open_world(enum model_kind kind)
{
    struct err e = {0};
    struct fixture f;
    char dir[PATH_MAX];
    uint64_t version;
    struct world *w = world_new(&(struct world_params){.kind = kind, .seed = 5});
    struct publish_params p = {.repository = repository, .name = kind == MODEL_DAT ? "dat" : "tt", .threads = 1};
    assert_ok(bundle_publish(&w->in, &p, &version, dir, &e), &e);
    world_free(w);
    assert_ok(f.b = bundle_load(dir, NULL, &e), &e);
    assert_ok(f.ws = retrieve_ws_new(f.b, &e), &e);
    return f;
}

static void close_world(struct fixture *f)
{
    retrieve_ws_free(f->ws);
    bundle_free(f->b);
}

static const float vector[16] = {[2] = 1};

/* Every rung of the ladder, a vector of the caller's, and a feature that there is not. */
static struct retrieve_query query_of(struct rng *r, struct retrieve_feature *feature, uint32_t *history, char *user)
{
    struct retrieve_query q = {.k = 5, .feature = feature, .history = history};
    snprintf(user, 16, "%s%u", rng_below(r, 2) ? "u" : "x", rng_below(r, 40));
    if (rng_below(r, 4))
        q.user_id = (struct str){user, strlen(user)};
    *feature = (struct retrieve_feature){{"city", 4}, rng_below(r, 2) ? (struct str){"SH", 2} : (struct str){"Atlantis", 8}};
    q.n_features = rng_below(r, 2);
    if (rng_below(r, 12) == 0)
        feature->name = (struct str){"shoe", 4};
    history[0] = rng_below(r, 300);
    q.n_history = rng_below(r, 2);
    if (rng_below(r, 8) == 0)
        q.vector = vector;
    return q;
}

static void as_one_by_one(enum model_kind kind)
{
    struct fixture f = open_world(kind);
    static struct retrieve_query q[RETRIEVE_BATCH];
    static struct retrieve_feature feature[RETRIEVE_BATCH];
    static uint32_t history[RETRIEVE_BATCH];
    static char user[RETRIEVE_BATCH][16];
    static struct retrieve_embedded out[RETRIEVE_BATCH];
    const struct retrieve_query *list[RETRIEVE_BATCH];
    size_t n_of[4] = {0}, n_wrong = 0, d = f.b->manifest.d;
    struct rng r;
    rng_init(&r, 4);
    for (int round = 0; round < 60; round++) {
        size_t n = round % 3 ? 1 + rng_below(&r, RETRIEVE_BATCH) : RETRIEVE_BATCH;
        struct err e = {0};
        for (size_t i = 0; i < n; i++) {
            q[i] = query_of(&r, &feature[i], &history[i], user[i]);
            list[i] = &q[i];
        }
        assert_ok(retrieve_embed_batch(f.b, list, n, f.ws, out, &e), &e);
        for (size_t i = 0; i < n; i++) {
            struct err one = {0};
            struct retrieve_result want;
            float p[64], a[64];
            bool ok = retrieve_embed(f.b, &q[i], f.ws, p, a, &want, &one);
            assert_int_equal(out[i].err.code, one.code);
            assert_string_equal(out[i].err.msg, one.msg);
            n_wrong += !ok;
            if (!ok)
                continue;
            assert_int_equal(out[i].result.fallback, want.fallback);
            assert_int_equal(out[i].result.n_unknown, want.n_unknown);
            assert_int_equal(out[i].result.n_vectors, want.n_vectors);
            n_of[want.fallback]++;
            for (size_t j = 0; want.fallback != FALLBACK_POPULAR && j < d; j++)
                if (fabsf(out[i].p[j] - p[j]) > 1e-5f)
                    fail_msg("round %d, query %zu of %zu, component %zu: %g, alone %g", round, i, n, j, (double)out[i].p[j], (double)p[j]);
        }
    }
    for (size_t i = 0; i < 4; i++)
        assert_true(n_of[i] > 20);
    assert_true(n_wrong > 20);
    close_world(&f);
}

static void batches_of_dat(void **state)
{
    (void)state;
    as_one_by_one(MODEL_DAT);
}

static void batches_without_a_u(void **state)
{
    (void)state;
    as_one_by_one(MODEL_TWO_TOWER);
}

/* Vectors go on to a search as if it had made them itself. */
static void a_search_takes_them(void **state)
{
    (void)state;
    struct fixture f = open_world(MODEL_DAT);
    struct err e = {0};
    struct retrieve_query q[2] = {{.user_id = {"u1", 2}, .k = 20, .exact = true}, {.user_id = {"u2", 2}, .k = 20, .exact = true}};
    const struct retrieve_query *list[2] = {&q[0], &q[1]};
    struct retrieve_embedded out[2];
    struct retrieve_hit alone[20], hit[20];
    struct retrieve_result r;
    assert_ok(retrieve_embed_batch(f.b, list, 2, f.ws, out, &e), &e);
    for (size_t i = 0; i < 2; i++) {
        struct retrieve_query given = q[i];
        given.embedded = &out[i];
        assert_ok(retrieve_topk(f.b, &given, f.ws, hit, &r, &e), &e);
        assert_int_equal(r.n, 20);
        assert_true(r.embed_ns >= out[i].result.embed_ns);
        struct retrieve_ws *own = retrieve_ws_new(f.b, &e);
        assert_ok(retrieve_topk(f.b, &q[i], own, alone, &r, &e), &e);
        retrieve_ws_free(own);
        for (size_t j = 0; j < 20; j++)
            assert_true(fabsf(hit[j].score - alone[j].score) < 1e-5f);
    }
    close_world(&f);
}

static void memory_is_kept_and_its_lack_told(void **state)
{
    (void)state;
    struct fixture f = open_world(MODEL_DAT);
    struct retrieve_query q = {.user_id = {"u1", 2}, .k = 5};
    const struct retrieve_query *list[1] = {&q};
    struct retrieve_embedded out[1];
    size_t n = 1;
    for (bool ok = false; !ok; n++) {
        struct err e = {0};
        struct retrieve_ws *fresh = retrieve_ws_new(f.b, &e);
        alloc_fail_at(n);
        ok = retrieve_embed_batch(f.b, list, 1, fresh, out, &e);
        bool failed = alloc_failed();
        alloc_fail_at(0);
        assert_int_equal(ok, !failed);
        assert_int_equal(e.code, ok ? ERR_OK : ERR_NOMEM);
        for (size_t again = 0; again < 2; again++) {
            e = (struct err){0};
            alloc_fail_at(again);
            assert_ok(retrieve_embed_batch(f.b, list, 1, fresh, out, &e), &e);
            assert_false(alloc_failed());
            alloc_fail_at(0);
        }
        retrieve_ws_free(fresh);
    }
    assert_true(n > 5);
    close_world(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(batches_of_dat), cmocka_unit_test(batches_without_a_u), cmocka_unit_test(a_search_takes_them),
                                       cmocka_unit_test(memory_is_kept_and_its_lack_told)};
    return cmocka_run_group_tests(tests, setup, tmp_teardown);
}
