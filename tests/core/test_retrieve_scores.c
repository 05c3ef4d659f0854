/* If this fails, the same item has one score in /v1/retrieve and another in /v1/score, or answers of the layouts differ in more
 * than what the walks find. */
#include "tests/core/support.h"

#include "core/retrieve.h"
#include "tests/core/world.h"

enum { K = 50, N_ITEMS = 3000 };

/* To the last bit, best first, ties by item, none below the bound. */
static void assert_exact(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws, const char *what)
{
    struct err e = {0};
    struct retrieve_result r;
    struct retrieve_hit hit[K];
    uint32_t idx[K];
    float score[K];
    assert_ok(retrieve_topk(b, q, ws, hit, &r, &e), &e);
    if (r.n == 0 || r.exact_used)
        fail_msg("%s: %zu hits, exact %d, want some of a walk", what, r.n, r.exact_used);
    size_t n = r.n;
    for (size_t i = 0; i < n; i++)
        idx[i] = hit[i].item_idx;
    assert_ok(retrieve_score(b, q, idx, n, ws, score, &r, &e), &e);
    for (size_t i = 0; i < n; i++) {
        if (hit[i].score != score[i])
            fail_msg("%s: item %u has %.9g, scored alone %.9g", what, idx[i], (double)hit[i].score, (double)score[i]);
        assert_true(!q->has_min_score || score[i] >= q->min_score);
        assert_true(i == 0 || score[i - 1] > score[i] || (score[i - 1] == score[i] && idx[i - 1] < idx[i]));
    }
}

static void are_those_of_each_item_alone(void **state)
{
    struct err e = {0};
    struct world *w = world_new(&(struct world_params){.kind = MODEL_DAT, .n_items = N_ITEMS, .seed = 11}); // rare ids embed alike: ties
    struct publish_params p = {.repository = *state, .name = "m", .threads = 1};
    char dir[PATH_MAX], id[8];
    uint64_t version;
    assert_ok(bundle_publish(&w->in, &p, &version, dir, &e), &e);
    for (int layout = 0; layout < BUNDLE_LAYOUTS; layout++) {
        struct bundle *b = bundle_load(dir, &(struct bundle_load_params){.layout = (enum hnsw_layout)layout}, &e);
        assert_ok(b, &e);
        struct retrieve_ws *ws = retrieve_ws_new(b, &e);
        assert_ok(ws, &e);
        for (uint32_t u = 0; u < 40; u++) {
            snprintf(id, sizeof(id), "u%u", u);
            static const uint32_t some[3] = {1, 2, 3};
            struct retrieve_query q = {.user_id = {id, strlen(id)}, .k = K, .ef = 100};
            assert_exact(b, &q, ws, bundle_layout_name((enum hnsw_layout)layout));
            q.exclude = some;
            q.n_exclude = 3;
            assert_exact(b, &q, ws, "with items dropped");
            struct retrieve_hit hit[K];
            struct retrieve_result r;
            assert_ok(retrieve_topk(b, &q, ws, hit, &r, &e), &e);
            q.has_min_score = true;
            q.min_score = hit[r.n / 2].score;
            assert_exact(b, &q, ws, "with a bound");
        }
        retrieve_ws_free(ws);
        bundle_free(b);
    }
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(are_those_of_each_item_alone, tmp_setup, tmp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
