/* If this fails, /v1/explain tells people something else than what retrieval does. */
#include "tests/core/support.h"

#include "core/explain.h"
#include "tests/core/world.h"

static struct bundle *bundle;
static struct retrieve_ws *ws;
static struct retrieve_hit hit[EXPLAIN_RANKS], full[3000];

static int setup(void **state)
{
    struct err e = {0};
    char dir[PATH_MAX];
    uint64_t version;
    struct retrieve_result r;
    tmp_setup(state);
    struct world *w = world_new(&(struct world_params){.kind = MODEL_DAT, .n_items = 3000, .n_users = 40, .seed = 6});
    struct publish_params p = {.repository = *state, .name = "m", .threads = 1, .seed = 7};
    assert_ok(bundle_publish(&w->in, &p, &version, dir, &e), &e);
    world_free(w);
    assert_ok(bundle = bundle_load(dir, NULL, &e), &e);
    assert_ok(ws = retrieve_ws_new(bundle, &e), &e);
    struct retrieve_query q = {.user_id = {"u1", 2}, .k = 3000, .exact = true};
    assert_ok(retrieve_topk(bundle, &q, ws, full, &r, &e), &e);
    assert_int_equal(r.n, 3000);
    return 0;
}

static int teardown(void **state)
{
    retrieve_ws_free(ws);
    bundle_free(bundle);
    return tmp_teardown(state);
}

static struct explanation explain(const struct retrieve_query *q, uint32_t item)
{
    struct explanation x;
    struct err e = {0};
    assert_ok(explain_item(bundle, q, item, 20000, ws, hit, &x, &e), &e);
    return x;
}

static void ranks_and_gaps(void **state)
{
    (void)state;
    struct retrieve_query q = {.user_id = {"u1", 2}, .k = 10, .exact = true};
    for (size_t at = 0; at < 3000; at += 299) {
        struct explanation x = explain(&q, full[at].item_idx);
        assert_int_equal(x.exact_rank, at + 1);
        assert_int_equal(x.exact_rank_any, at + 1);
        assert_int_equal(x.rank, at < 10 ? at + 1 : 0);
        assert_true(x.has_kth && x.kth_score == full[9].score);
        assert_false(x.missed);
    }
}

static void rules_are_named(void **state)
{
    (void)state;
    uint32_t best = full[0].item_idx, second = full[1].item_idx;
    struct filter_node nothing = {.op = FILTER_OR};
    struct filter_expr filter = {&nothing, 1};
    const struct retrieve_query q[EXPLAIN_RULES] = {
        [EXPLAIN_EXCLUDE_IDS] = {.exclude = &best, .n_exclude = 1},
        [EXPLAIN_SEEN] = {.exclude_seen = true},
        [EXPLAIN_INCLUDE_IDS] = {.has_include = true, .include = &second, .n_include = 1},
        [EXPLAIN_FILTER] = {.filter = &filter},
        [EXPLAIN_MIN_SCORE] = {.has_min_score = true, .min_score = full[0].score + 1}};
    for (int rule = 0; rule < EXPLAIN_MAX_EACH; rule++) {
        struct retrieve_query p = q[rule];
        p.user_id = (struct str){"u1", 2};
        p.k = 10;
        uint32_t u = users_find(bundle->users, "u1", 2);
        struct explanation x =
            explain(&p, rule == EXPLAIN_SEEN ? bundle->users->seen[bundle->users->seen_off[u]] : best);
        for (int other = 0; other < EXPLAIN_RULES; other++)
            assert_int_equal(x.dropped[other], other == rule);
        assert_true(x.rank == 0 && x.exact_rank == 0 && x.exact_rank_any > 0 && !x.missed);
    }
}

/* Any item, any bounds: an item that should be in by its rank alone and is not was dropped, and what named the drop, once lifted, lets it in. */
static void bounds_are_named(void **state)
{
    (void)state;
    struct err e = {0};
    struct rng rng;
    struct retrieve_result r;
    size_t n_each = 0, n_own = 0, n_place = 0;
    rng_init(&rng, 3);
    for (int round = 0; round < 300; round++) {
        struct retrieve_category rule[2] = {{.category = rng_below(&rng, 2)}, {.category = 2 + rng_below(&rng, 2)}};
        struct retrieve_bounds x = {.max_each = rng_below(&rng, 2) ? SIZE_MAX : 1 + rng_below(&rng, 6), .rule = rule, .n_rules = rng_below(&rng, 3)};
        for (size_t i = 0; i < x.n_rules; i++) {
            rule[i].max = rng_below(&rng, 2) ? x.max_each : rng_below(&rng, 8);
            rule[i].min = rng_below(&rng, (uint32_t)(rule[i].max < 8 ? rule[i].max : 8) + 1);
        }
        struct retrieve_query q = {.user_id = {"u1", 2}, .k = 16, .exact = rng_below(&rng, 2), .ef = 2000, .bounds = &x};
        size_t at = rng_below(&rng, 40);
        uint32_t item = full[at].item_idx, category = bundle->items->category_of[item];
        struct explanation found = explain(&q, item);
        struct retrieve_hit got[16];
        assert_ok(retrieve_topk(bundle, &q, ws, got, &r, &e), &e);
        size_t in = 0, of_category = 0, below = r.n < q.k;
        for (size_t i = 0; i < r.n; i++) {
            in = got[i].item_idx == item ? i + 1 : in;
            of_category += bundle->items->category_of[got[i].item_idx] == category;
            for (size_t j = at + 1; j < 3000 && !below; j++)
                below = full[j].item_idx == got[i].item_idx;
        }
        assert_int_equal(found.rank, in);
        assert_int_equal(found.exact_rank, at + 1);
        assert_false(found.missed);
        size_t own = x.n_rules;
        for (size_t i = 0; i < x.n_rules; i++)
            own = rule[i].category == category ? i : own;
        size_t max = own < x.n_rules ? rule[own].max : x.max_each;
        bool dropped = !in && below, each = dropped && of_category == max && max == x.max_each;
        assert_int_equal(found.dropped[EXPLAIN_MAX_EACH], each);
        assert_int_equal(found.dropped[EXPLAIN_CATEGORIES], dropped && !each);
        n_each += each;
        n_own += dropped && !each && of_category == max;
        n_place += dropped && !each && of_category < max;
    }
    assert_true(n_each > 5 && n_own > 5 && n_place > 5);
}

/* Whatever a short walk misses, the ef that is named finds. */
static void the_ef_that_is_named_finds_it(void **state)
{
    (void)state;
    struct err e = {0};
    struct retrieve_result r;
    size_t missed = 0;
    for (uint32_t u = 0; u < bundle->users->n; u++) {
        struct retrieve_query q = {.user_id = strtab_get(&bundle->users->ids, u), .k = 3, .ef = 3}, exact = q;
        struct retrieve_hit best[3];
        exact.exact = true;
        assert_ok(retrieve_topk(bundle, &exact, ws, best, &r, &e), &e);
        for (size_t i = 0; i < 3; i++) {
            struct explanation x = explain(&q, best[i].item_idx);
            assert_int_equal(x.missed, x.rank == 0);
            if (!x.missed)
                continue;
            missed++;
            struct retrieve_query again = q;
            again.ef = x.ef_needed;
            assert_true(x.ef_needed > 3);
            assert_ok(retrieve_topk(bundle, &again, ws, hit, &r, &e), &e);
            assert_true(hit[0].item_idx == best[i].item_idx || hit[1].item_idx == best[i].item_idx ||
                        hit[2].item_idx == best[i].item_idx);
        }
    }
    assert_true(missed > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ranks_and_gaps), cmocka_unit_test(rules_are_named),
                                       cmocka_unit_test(bounds_are_named),
                                       cmocka_unit_test(the_ef_that_is_named_finds_it)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
