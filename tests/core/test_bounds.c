/* If this fails, an answer passes a category's maximum, lacks what its minimum promises, or is not the best within them. */
#include "tests/core/support.h"

#include "core/bounds.h"
#include "core/retrieve.h"
#include "tests/core/world.h"

#define N_ITEMS 1500

static struct bundle *bundle;
static struct retrieve_ws *ws;
static struct retrieve_hit full[N_ITEMS], got[N_ITEMS], want[N_ITEMS];

static int setup(void **state)
{
    struct err e = {0};
    char dir[PATH_MAX];
    uint64_t version;
    tmp_setup(state);
    struct world *w = world_new(&(struct world_params){.kind = MODEL_DAT, .n_items = N_ITEMS, .n_users = 40, .seed = 8});
    struct publish_params p = {.repository = *state, .name = "m", .threads = 1, .seed = 7};
    assert_ok(bundle_publish(&w->in, &p, &version, dir, &e), &e);
    world_free(w);
    assert_ok(bundle = bundle_load(dir, NULL, &e), &e);
    assert_ok(ws = retrieve_ws_new(bundle, &e), &e);
    assert_true(bundle->items->category.n > 3);
    return 0;
}

static int teardown(void **state)
{
    retrieve_ws_free(ws);
    bundle_free(bundle);
    return tmp_teardown(state);
}

/* The definition (bounds.h) over all items that the query's other rules let through, best first. Returns how many. */
static size_t define(const struct retrieve_query *q, size_t n_full)
{
    static bool taken[N_ITEMS];
    size_t n_of[64] = {0}, min[64] = {0}, max[64], n = 0, out = 0;
    for (size_t c = 0; c < 64; c++)
        max[c] = q->bounds->max_each;
    for (size_t i = 0; i < q->bounds->n_rules; i++) {
        min[q->bounds->rule[i].category] = q->bounds->rule[i].min;
        max[q->bounds->rule[i].category] = q->bounds->rule[i].max;
    }
    memset(taken, 0, sizeof(taken));
    for (int pass = 0; pass < 2; pass++) // the minima set aside, then the best others
        for (size_t i = 0; i < n_full && n < q->k; i++) {
            uint32_t c = bundle->items->category_of[full[i].item_idx];
            if (taken[i] || n_of[c] >= (pass ? max[c] : min[c]))
                continue;
            taken[i] = true;
            n_of[c]++;
            n++;
        }
    for (size_t i = 0; i < n_full; i++)
        if (taken[i])
            want[out++] = full[i];
    return out;
}

static void random_bounds(struct rng *r, size_t k, struct retrieve_category *rule, struct retrieve_bounds *x)
{
    uint32_t n_categories = bundle->items->category.n, first = rng_below(r, n_categories);
    size_t left = k;
    *x = (struct retrieve_bounds){.max_each = rng_below(r, 3) ? 1 + rng_below(r, (uint32_t)k) : SIZE_MAX, .rule = rule, .n_rules = rng_below(r, n_categories + 1)};
    for (size_t i = 0; i < x->n_rules; i++) {
        size_t max = rng_below(r, 4) ? rng_below(r, (uint32_t)k + 1) : SIZE_MAX;
        size_t most = max < left ? max : left;
        rule[i] = (struct retrieve_category){(first + (uint32_t)i) % n_categories, rng_below(r, 2) ? rng_below(r, (uint32_t)most + 1) : 0, max};
        left -= rule[i].min;
    }
}

static void any_bounds_are_kept(void **state)
{
    (void)state;
    struct rng r;
    struct err e = {0};
    struct retrieve_result res;
    uint32_t exclude[200];
    rng_init(&r, 17);
    for (int n = 0; n < 600; n++) {
        static const char *const users[] = {"u1", "u9", "stranger"};
        const char *user = users[rng_below(&r, 3)];
        struct retrieve_category rule[64];
        struct retrieve_bounds x;
        struct retrieve_query q = {.user_id = {user, strlen(user)}, .k = 1 + rng_below(&r, rng_below(&r, 4) ? 50 : 700), .exclude = exclude};
        q.n_exclude = rng_below(&r, 3) ? 0 : 200;
        for (size_t i = 0; i < q.n_exclude; i++)
            exclude[i] = rng_below(&r, N_ITEMS);
        struct retrieve_query all = q;
        all.k = N_ITEMS;
        all.exact = true;
        assert_ok(retrieve_topk(bundle, &all, ws, full, &res, &e), &e);
        size_t n_full = res.n;
        random_bounds(&r, q.k, rule, &x);
        q.bounds = &x;
        q.exact = rng_below(&r, 2);
        q.ef = N_ITEMS;
        size_t n_want = define(&q, n_full);
        assert_ok(retrieve_topk(bundle, &q, ws, got, &res, &e), &e);
        assert_int_equal(res.n, n_want);
        for (size_t i = 0; i < n_want; i++)
            if (got[i].item_idx != want[i].item_idx || got[i].score != want[i].score)
                fail_msg("round %d, place %zu of %zu: item %u, want %u", n, i, n_want, got[i].item_idx, want[i].item_idx);
    }
}

static void bounds_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct err e = {0};
    struct retrieve_result res;
    uint32_t n = bundle->items->category.n;
    const struct {
        struct retrieve_category rule[2];
        size_t n_rules;
        const char *says;
    } bad[] = {{{{n, 0, 1}}, 1, "there are"}, {{{1, 0, 1}, {1, 0, 1}}, 2, "twice"}, {{{1, 3, 2}}, 1, "at least 3 and at most 2"}, {{{1, 6, 9}, {2, 5, 9}}, 2, "more than k = 10"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct retrieve_bounds x = {SIZE_MAX, bad[i].rule, bad[i].n_rules};
        struct retrieve_query q = {.user_id = {"u1", 2}, .k = 10, .bounds = &x};
        assert_err(retrieve_topk(bundle, &q, ws, got, &res, &e), &e, ERR_ARG, bad[i].says);
    }
}

static void a_deadline_cuts_them_short(void **state)
{
    (void)state;
    struct err e = {0};
    struct retrieve_result res;
    struct retrieve_category rule = {1, 5, 5};
    struct retrieve_bounds x = {2, &rule, 1};
    struct retrieve_query q = {.user_id = {"u1", 2}, .k = 10, .bounds = &x, .deadline_ns = 1};
    assert_ok(retrieve_topk(bundle, &q, ws, got, &res, &e), &e);
    assert_true(res.late && res.n == 0);
}

static void memory_is_kept_and_its_lack_told(void **state)
{
    (void)state;
    struct retrieve_category rule[2] = {{1, 8, 8}, {2, 0, 0}};
    struct retrieve_bounds x = {3, rule, 2};
    struct retrieve_query q = {.user_id = {"u1", 2}, .k = 40, .bounds = &x};
    struct retrieve_result res;
    size_t n = 1;
    for (bool ok = false; !ok; n++) {
        struct err e = {0};
        struct retrieve_ws *fresh = retrieve_ws_new(bundle, &e);
        alloc_fail_at(n);
        ok = retrieve_topk(bundle, &q, fresh, got, &res, &e);
        bool failed = alloc_failed();
        alloc_fail_at(0);
        assert_int_equal(ok, !failed);
        assert_int_equal(e.code, ok ? ERR_OK : ERR_NOMEM);
        for (size_t again = 0; again < 2; again++) { // what failed may be tried again; then all is there
            e = (struct err){0};
            alloc_fail_at(again);
            assert_ok(retrieve_topk(bundle, &q, fresh, got, &res, &e), &e);
            assert_false(alloc_failed());
            alloc_fail_at(0);
        }
        retrieve_ws_free(fresh);
    }
    assert_true(n > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_bounds_are_kept), cmocka_unit_test(bounds_that_cannot_be_are_refused),
                                       cmocka_unit_test(a_deadline_cuts_them_short), cmocka_unit_test(memory_is_kept_and_its_lack_told)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
