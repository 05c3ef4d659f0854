/* If this fails, a request that names a recall gets less than that, or a scan of everything where a short walk would
 * do. */
#include "tests/core/support.h"

#include "core/retrieve.h"
#include "tests/core/world.h"

static const struct calibration made_up = {
    .n_queries = 9,
    .n_curves = 3,
    .curve = {{HNSW_PLAIN, 10, 3, {10, 20, 40}, {0.8, 0.9, 0.98}},
              {HNSW_FAST, 10, 2, {10, 20}, {0.9, 1}},
              {HNSW_FAST, 100, 2, {100, 200}, {0.9, 0.99}}},
};

static void expect(enum hnsw_layout layout, size_t k, double target, enum calibration_answer want, size_t want_ef)
{
    size_t ef = 0;
    assert_int_equal(calibration_ef(&made_up, layout, k, target, &ef), want);
    if (want == CALIBRATION_EF)
        assert_int_equal(ef, want_ef);
}

static void lines_between_points(void **state)
{
    (void)state;
    expect(HNSW_PLAIN, 10, 0.5, CALIBRATION_EF, 10); // below the first point: the first
    expect(HNSW_PLAIN, 10, 0.8, CALIBRATION_EF, 10);
    expect(HNSW_PLAIN, 10, 0.85, CALIBRATION_EF, 15);
    expect(HNSW_PLAIN, 10, 0.901, CALIBRATION_EF, 21); // 20.25, rounded up
    expect(HNSW_PLAIN, 10, 0.98, CALIBRATION_EF, 40);
    expect(HNSW_PLAIN, 10, 0.981, CALIBRATION_EXACT, 0); // no point reaches it
    expect(HNSW_FAST, 10, 1, CALIBRATION_EXACT, 0);      // though a point says 1: that was measured, not proved
}

static void lines_between_ks(void **state)
{
    (void)state;
    expect(HNSW_FAST, 55, 0.9, CALIBRATION_EF, 55);   // half way from 10 to 100
    expect(HNSW_FAST, 55, 0.95, CALIBRATION_EF, 86);  // (15 + 155.6) / 2
    expect(HNSW_FAST, 5, 0.95, CALIBRATION_EF, 15);   // the smallest k's curve
    expect(HNSW_FAST, 200, 0.9, CALIBRATION_EF, 200); // in proportion beyond the largest
    expect(HNSW_FAST, 200, 0.99, CALIBRATION_EF, 400);
    expect(HNSW_FAST, 55, 0.995, CALIBRATION_EXACT, 0); // one of the two does not reach it
    expect(HNSW_PLAIN, 30, 0.8, CALIBRATION_EF, 30);
    size_t ef;
    const struct calibration none = {0};
    assert_int_equal(calibration_ef(&none, HNSW_PLAIN, 10, 0.9, &ef), CALIBRATION_NONE);
}

static void json_reads_back(void **state)
{
    (void)state;
    struct err e = {0};
    struct calibration c;
    json_t *o = calibration_to_json(&made_up);
    assert_ok(o && calibration_from_json(o, &c, &e), &e);
    assert_int_equal(c.n_queries, 9);
    assert_int_equal(c.n_curves, 3);
    assert_memory_equal(c.curve, made_up.curve, sizeof(c.curve));
    json_decref(o);
}

static void wrong_json_is_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } c[] = {
        {"{\"curves\": []}", "queries"},
        {"{\"queries\": 1}", "\"curves\": want an array"},
        {"{\"queries\": 1, \"curves\": [1]}", "curves: number 0"},
        {"{\"queries\": 1, \"curves\": [{\"layout\": \"fast\", \"k\": 0, \"ef\": [1], \"recall\": [1]}]}", "found 0"},
        {"{\"queries\": 1, \"curves\": [{\"layout\": \"fast\", \"k\": 2, \"ef\": [], \"recall\": []}]}",
         "0 and 0 numbers"},
        {"{\"queries\": 1, \"curves\": [{\"layout\": \"fast\", \"k\": 2, \"ef\": [2, 3], \"recall\": [1]}]}",
         "2 and 1"},
        {"{\"queries\": 1, \"curves\": [{\"layout\": \"fast\", \"k\": 2, \"ef\": [1], \"recall\": [1]}]}",
         "value 0 is 1"},
        {"{\"queries\": 1, \"curves\": [{\"layout\": \"fast\", \"k\": 2, \"ef\": [3, 3], \"recall\": [1, 1]}]}",
         "value 1 is 3"},
        {"{\"queries\": 1, \"curves\": [{\"layout\": \"fast\", \"k\": 2, \"ef\": [3, 4], \"recall\": [0.9, 0.8]}]}",
         "never falling"},
        {"{\"queries\": 1, \"curves\": [{\"layout\": \"fast\", \"k\": 2, \"ef\": [3], \"recall\": [1.1]}]}", "0 to 1"},
        {"{\"queries\": 1, \"curves\": [{\"layout\": \"fast\", \"k\": 2, \"ef\": [3], \"recall\": [\"1\"]}]}",
         "0 to 1"},
        {"{\"queries\": 1, \"curves\": [{\"layout\": \"fast\", \"k\": 2, \"ef\": [2], \"recall\": [1]},"
         " {\"layout\": \"plain\", \"k\": 3, \"ef\": [3], \"recall\": [1]}]}",
         "by layout, then by k"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        struct err e = {0};
        struct calibration out;
        json_t *o = json_parse(c[i].text, strlen(c[i].text), &e);
        assert_ok(o, &e);
        if (calibration_from_json(o, &out, &e) || !strstr(e.msg, c[i].says))
            fail_msg("%s: found \"%s\", want \"%s\"", c[i].text, e.msg, c[i].says);
        json_decref(o);
    }
    const char later[] = "{\"queries\": 1, \"curves\": [{\"layout\": \"holographic\", \"k\": 2, \"shape\": 1}]}";
    struct err e = {0};
    struct calibration out;
    json_t *o = json_parse(later, strlen(later), &e);
    assert_ok(calibration_from_json(o, &out, &e), &e); // of a later version: not for us
    assert_int_equal(out.n_curves, 0);
    json_decref(o);
}

// ------------------------------------------------------------------------------------------------ a bundle's own
// curves

/* Scores of the k-th best item for all users of the world, most of whom the curves have never seen. */
static void find_kth(const struct bundle *b, struct retrieve_ws *ws, size_t k, float *kth)
{
    struct err e = {0};
    struct retrieve_result r;
    struct retrieve_hit hit[100];
    assert_true(k <= 100);
    for (uint32_t u = 0; u < b->users->n; u++) {
        const struct retrieve_query q = {.user_id = strtab_get(&b->users->ids, u), .k = k, .exact = true};
        assert_ok(retrieve_topk(b, &q, ws, hit, &r, &e), &e);
        kth[u] = hit[k - 1].score;
    }
}

/* Over all users, hits counted by the k-th score. */
static double recall_of(const struct bundle *b, struct retrieve_ws *ws, double target, size_t k, const float *kth,
                        size_t *ef)
{
    struct err e = {0};
    struct retrieve_result r;
    struct retrieve_hit hit[100];
    size_t hits = 0;
    for (uint32_t u = 0; u < b->users->n; u++) {
        const struct retrieve_query q = {.user_id = strtab_get(&b->users->ids, u), .k = k, .target_recall = target};
        assert_ok(retrieve_topk(b, &q, ws, hit, &r, &e), &e);
        *ef = r.ef_used;
        for (size_t i = 0; i < r.n; i++)
            hits += hit[i].score >= kth[u] - 1e-5f;
    }
    return (double)hits / ((double)b->users->n * (double)k);
}

#define USERS 600

/* The index is thin, so that ef matters. 0.03 of slack: 200 users of 600 stand for the rest. */
static void targets_are_reached(void **state)
{
    struct err e = {0};
    char dir[PATH_MAX];
    uint64_t version;
    struct world *w = world_new(&(struct world_params){
        .kind = MODEL_DAT, .n_items = 3000, .n_users = USERS, .seed = 4, .no_rare = true, .no_seen = true});
    const struct publish_params p = {
        .repository = *state, .name = "m", .m = 4, .ef_construction = 16, .n_calibrate = 200};
    assert_ok(bundle_publish(&w->in, &p, &version, dir, &e), &e);
    for (int l = 0; l < BUNDLE_LAYOUTS; l++) {
        struct bundle *b = bundle_load(dir, &(struct bundle_load_params){.layout = (enum hnsw_layout)l}, &e);
        struct retrieve_ws *ws = b ? retrieve_ws_new(b, &e) : NULL;
        assert_ok(ws, &e);
        assert_int_equal(b->manifest.calibration.n_queries, 200);
        assert_true(b->manifest.target_recall > 0.989 && b->manifest.target_recall < 0.991);
        for (size_t k = 10; k <= 100; k += 45) {
            static const double target[] = {0.7, 0.9, 0.97, 1};
            size_t before = 0, ef;
            static float kth[USERS];
            find_kth(b, ws, k, kth);
            for (size_t t = 0; t < 4; t++) {
                double recall = recall_of(b, ws, target[t], k, kth, &ef);
                if (recall < target[t] - 0.03 || (target[t] >= 1 && (recall < 1 || ef != 0)))
                    fail_msg("%s, k %zu: recall %.4f at ef %zu, want %.2f", bundle_layout_name(b->layout), k, recall,
                             ef, target[t]);
                assert_true(ef == 0 || ef >= before);
                before = ef;
            }
            recall_of(b, ws, 0, k, kth, &ef); // nobody asked: the bundle's own target
            size_t own = ef;
            recall_of(b, ws, 0.99, k, kth, &ef);
            assert_int_equal(ef ? ef : b->manifest.default_ef, own);
        }
        retrieve_ws_free(ws);
        bundle_free(b);
    }
    world_free(w);
}

/* The publisher's ef holds where it was fixed; without curves a target is an error. */
static void what_the_publisher_said_holds(void **state)
{
    struct err e = {0};
    uint64_t version;
    char dir[2][PATH_MAX];
    struct retrieve_result r;
    struct retrieve_hit hit[10];
    struct world *w = world_new(&(struct world_params){.kind = MODEL_DAT, .seed = 4});
    struct publish_params p = {.repository = *state, .name = "m", .default_ef = 77};
    assert_ok(bundle_publish(&w->in, &p, &version, dir[0], &e), &e);
    p.no_calibration = true;
    p.target_recall = 0.9;
    assert_ok(bundle_publish(&w->in, &p, &version, dir[1], &e), &e);
    for (int i = 0; i < 2; i++) {
        struct bundle *b = bundle_load(dir[i], NULL, &e);
        struct retrieve_ws *ws = b ? retrieve_ws_new(b, &e) : NULL;
        struct retrieve_query q = {.user_id = {"u1", 2}, .k = 10};
        assert_ok(ws, &e);
        assert_ok(retrieve_topk(b, &q, ws, hit, &r, &e), &e);
        assert_int_equal(r.ef_used, 77);
        q.target_recall = 0.9;
        if (i == 0)
            assert_ok(retrieve_topk(b, &q, ws, hit, &r, &e), &e);
        else
            assert_err(retrieve_topk(b, &q, ws, hit, &r, &e), &e, ERR_ARG, "no calibration for the plain layout");
        e = (struct err){0};
        q.target_recall = 0.3;
        assert_err(retrieve_topk(b, &q, ws, hit, &r, &e), &e, ERR_ARG, "found 0.3, want 0.5 to 1");
        e = (struct err){0};
        retrieve_ws_free(ws);
        bundle_free(b);
    }
    world_free(w);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, tmp_setup, tmp_teardown)
    const struct CMUnitTest tests[] = {
        T(lines_between_points),  T(lines_between_ks),    T(json_reads_back),
        T(wrong_json_is_refused), T(targets_are_reached), T(what_the_publisher_said_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
