/* If this fails, a filter lets through what it should not, keeps out what it should not, finds too few items, or finds
 * worse ones. */
#include "tests/core/support.h"

#include <math.h>

#include "core/filter.h"
#include "core/retrieve.h"
#include "tests/core/world.h"

static struct bundle *bundle;

static int setup(void **state)
{
    struct err e = {0};
    char dir[PATH_MAX];
    uint64_t version;
    tmp_setup(state);
    struct world *w = world_new(
        &(struct world_params){.kind = MODEL_DAT, .n_items = 20000, .n_users = 60, .no_rare = true, .seed = 21});
    struct publish_params p = {.repository = *state, .name = "m", .threads = 1, .seed = 7};
    assert_ok(bundle_publish(&w->in, &p, &version, dir, &e), &e);
    world_free(w);
    assert_ok(bundle = bundle_load(dir, NULL, &e), &e);
    return 0;
}

static int teardown(void **state)
{
    bundle_free(bundle);
    return tmp_teardown(state);
}

static int facet_of(const char *name)
{
    int f = items_facet(bundle->items, name, strlen(name));
    assert_true(f >= 0);
    return f;
}

// ------------------------------------------------------------------------------------------- the same, item by item

static bool value_is(uint32_t item, const struct filter_node *n, struct str want)
{
    const struct items *it = bundle->items;
    struct str s = n->facet == (int)it->n_attrs ? strtab_get(&it->category, it->category_of[item])
                                                : strtab_get(&it->attr[n->facet].values, item),
               one;
    double a, b;
    if (it->facet[n->facet].number && schema_parse_number(want.p, want.n, &b))
        return schema_parse_number(s.p, s.n, &a) && a == b;
    if (n->facet != facet_of("tags"))
        return s.n == want.n && memcmp(s.p, want.p, s.n) == 0;
    size_t values = 0;
    while (schema_multi_next('|', &s.p, &s.n, &one)) {
        values++;
        if (one.n == want.n && memcmp(one.p, want.p, one.n) == 0)
            return true;
    }
    return values == 0 && want.n == 0;
}

static bool any_of(uint32_t item, const struct filter_node *n, const struct str *list, size_t m)
{
    for (size_t i = 0; i < m; i++)
        if (value_is(item, n, list[i]))
            return true;
    return false;
}

static bool leaf_holds(uint32_t item, const struct filter_node *n)
{
    double v;
    if ((n->has_in && !any_of(item, n, n->in, n->n_in)) || (n->has_not_in && any_of(item, n, n->not_in, n->n_not_in)))
        return false;
    if (!n->has_lo && !n->has_hi)
        return true;
    struct str s = strtab_get(&bundle->items->attr[n->facet].values, item);
    return schema_parse_number(s.p, s.n, &v) && (!n->has_lo || (n->lo_open ? v > n->lo : v >= n->lo)) &&
           (!n->has_hi || (n->hi_open ? v < n->hi : v <= n->hi));
}

static bool holds(uint32_t item, const struct filter_node **n)
{
    const struct filter_node *self = (*n)++;
    if (self->op == FILTER_LEAF)
        return leaf_holds(item, self);
    bool all = true, any = false;
    for (size_t i = 0; i < self->n_children; i++) {
        bool one = holds(item, n);
        all = all && one;
        any = any || one;
    }
    return self->op == FILTER_AND ? all : self->op == FILTER_OR ? any : !any;
}

// ------------------------------------------------------------------------------------------------------ properties

static const struct str texts[] = {{"food", 4}, {"hotel", 5}, {"", 0},     {"a", 1}, {"b", 1},
                                   {"c", 1},    {"12.5", 4},  {"13.0", 4}, {"no", 2}};

static void random_leaf(struct rng *r, struct filter_node *n)
{
    static const char *const names[] = {"category", "class", "tags", "price"};
    uint32_t which = rng_below(r, 4);
    *n = (struct filter_node){.op = FILTER_LEAF, .facet = facet_of(names[which])};
    if (which < 3 || rng_below(r, 4) == 0) {
        n->has_in = rng_below(r, 2);
        n->has_not_in = !n->has_in || rng_below(r, 4) == 0;
        n->n_in = rng_below(r, 4), n->n_not_in = rng_below(r, 3);
        n->in = texts + rng_below(r, 6), n->not_in = texts + rng_below(r, 6);
    } else {
        n->has_lo = rng_below(r, 2);
        n->has_hi = !n->has_lo || rng_below(r, 2);
        n->lo = rng_below(r, 1100) / 2.0, n->hi = rng_below(r, 2200) / 2.0;
        n->lo_open = rng_below(r, 2), n->hi_open = rng_below(r, 2);
    }
}

static void random_node(struct rng *r, struct filter_node *node, size_t *n, int depth)
{
    struct filter_node *self = &node[(*n)++];
    uint32_t op = depth < 3 ? rng_below(r, 5) : 0;
    if (op < 2) {
        random_leaf(r, self);
        return;
    }
    *self = (struct filter_node){.op = (enum filter_op)(op - 1), .n_children = op == 4 ? 1 : rng_below(r, 4)};
    for (size_t i = 0; i < self->n_children; i++)
        random_node(r, node, n, depth + 1);
}

static void expressions_mean_what_they_say(void **state)
{
    (void)state;
    struct rng r;
    struct filter_scratch s = {0};
    struct err e = {0};
    uint32_t n_items = bundle->items->n;
    rng_init(&r, 99);
    for (int i = 0; i < 150; i++) {
        struct filter_node node[FILTER_NODES_MAX];
        struct filter_expr x = {node, 0};
        random_node(&r, node, &x.n, 0);
        assert_ok(filter_check(&x, bundle->items, &e), &e);
        const uint64_t *bits = filter_eval(&x, bundle->items, &s, &e);
        assert_ok(bits, &e);
        for (uint32_t item = 0; item < n_items; item += 1 + rng_below(&r, 3)) {
            const struct filter_node *at = node;
            if ((bits[item >> 6] >> (item & 63) & 1) != holds(item, &at))
                fail_msg("seed 99, expression %d of %zu nodes: item %u", i, x.n, item);
        }
        for (uint32_t item = n_items; item < facet_words(n_items) * 64; item++) // nothing behind the end
            assert_false(bits[item >> 6] >> (item & 63) & 1);
    }
    filter_scratch_fini(&s);
}

static void unknown_values_are_counted(void **state)
{
    (void)state;
    struct filter_node n = {.op = FILTER_LEAF, .facet = facet_of("class"), .has_in = true, .in = texts, .n_in = 9};
    struct filter_expr x = {&n, 1};
    assert_int_equal(filter_unknown_values(&x, bundle->items), 6);
    n.facet = facet_of("price");
    assert_int_equal(filter_unknown_values(&x, bundle->items), 6); // "", 12.5 and 13 are there
}

static void bad_expressions_are_refused(void **state)
{
    (void)state;
    static const struct filter_node leaf = {.op = FILTER_LEAF, .facet = 1};
    struct filter_node deep[FILTER_NODES_MAX + 1], n[2] = {leaf, leaf};
    struct err e = {0};
    const struct items *it = bundle->items;
    for (size_t i = 0; i <= FILTER_NODES_MAX; i++)
        deep[i] = (struct filter_node){.op = FILTER_NOT, .n_children = 1};
    deep[17] = leaf;
    assert_err(filter_check(&(struct filter_expr){deep, 18}, it, &e), &e, ERR_ARG, "too deep");
    assert_err(filter_check(&(struct filter_expr){deep, 65}, it, &e), &e, ERR_ARG, "65 nodes");
    assert_err(filter_check(&(struct filter_expr){n, 2}, it, &e), &e, ERR_ARG, "behind the end");
    assert_err(filter_check(&(struct filter_expr){n, 0}, it, &e), &e, ERR_ARG, "missing");
    n[0] = (struct filter_node){.op = FILTER_AND, .n_children = 2};
    assert_err(filter_check(&(struct filter_expr){n, 2}, it, &e), &e, ERR_ARG, "missing");
    n[0] = (struct filter_node){.op = FILTER_NOT};
    assert_err(filter_check(&(struct filter_expr){n, 1}, it, &e), &e, ERR_ARG, "negation of 0");
    n[0] = (struct filter_node){.op = FILTER_LEAF, .facet = 5};
    assert_err(filter_check(&(struct filter_expr){n, 1}, it, &e), &e, ERR_ARG, "attribute 5, there are 5");
    n[0] = (struct filter_node){.op = FILTER_LEAF, .facet = facet_of("title"), .has_lo = true};
    assert_err(filter_check(&(struct filter_expr){n, 1}, it, &e), &e, ERR_ARG, "no numbers");
    n[0] = (struct filter_node){.op = FILTER_LEAF, .facet = facet_of("price"), .has_lo = true, .lo = NAN};
    assert_err(filter_check(&(struct filter_expr){n, 1}, it, &e), &e, ERR_ARG, "not finite");
}

// ---------------------------------------------------------------------------------------------------------- recall

static size_t in_both(const struct retrieve_hit *a, size_t n, const struct retrieve_hit *b, size_t m)
{
    size_t both = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++)
            if (a[i].item_idx == b[j].item_idx) {
                both++;
                break;
            }
    return both;
}

/* Mean recall@k over the users of a filter that lets `below` / 1000 of the prices through, against exact answers. The
 * floor is what a walk at ef = 50 (k = 100: 100) has without any filter in this world, less a little. */
static void recall_at(double below, size_t k, double floor)
{
    struct filter_node n = {
        .op = FILTER_LEAF, .facet = facet_of("price"), .has_hi = true, .hi = below, .hi_open = true};
    struct filter_expr x = {&n, 1};
    struct retrieve_hit hit[100], best[100];
    struct retrieve_result r, exact;
    struct err e = {0};
    size_t found = 0, all = 0, scans = 0, matching = 0;
    struct retrieve_ws *ws = retrieve_ws_new(bundle, &e);
    struct filter_scratch s = {0};
    const uint64_t *bits = filter_eval(&x, bundle->items, &s, &e);
    for (size_t w = 0; w < facet_words(bundle->items->n); w++)
        matching += (size_t)__builtin_popcountll(bits[w]);
    filter_scratch_fini(&s);
    for (uint32_t u = 0; u < bundle->users->n; u++) {
        struct retrieve_query q = {
            .user_id = strtab_get(&bundle->users->ids, u), .k = k, .ef = k < 50 ? 50 : k, .filter = &x};
        assert_ok(retrieve_topk(bundle, &q, ws, hit, &r, &e), &e);
        q.exact = true;
        assert_ok(retrieve_topk(bundle, &q, ws, best, &exact, &e), &e);
        assert_int_equal(r.n, k < matching ? k : matching); // never fewer
        assert_int_equal(exact.n, r.n);
        found += in_both(hit, r.n, best, exact.n);
        all += exact.n;
        scans += r.exact_used;
    }
    retrieve_ws_free(ws);
    double recall = (double)found / (double)all;
    printf("%6.1f %% match (%zu): recall@%zu %.4f, %s\n", below / 10, matching, k, recall, scans ? "scan" : "walk");
    if (recall < floor)
        fail_msg("recall %.4f, want %.4f", recall, floor);
}

static void recall_under_filters(void **state)
{
    (void)state;
    for (size_t k = 10; k <= 100; k *= 10) {
        recall_at(1000, k, 0.9);
        recall_at(500, k, 0.9);
        recall_at(100, k, 0.99);
        recall_at(10, k, 1);
        recall_at(1, k, 1);
    }
}

static void nothing_matches(void **state)
{
    (void)state;
    struct filter_node n = {.op = FILTER_LEAF, .facet = facet_of("class"), .has_in = true};
    struct filter_expr x = {&n, 1};
    struct retrieve_hit hit[10];
    struct retrieve_result r;
    struct err e = {0};
    struct retrieve_ws *ws = retrieve_ws_new(bundle, &e);
    struct retrieve_query q = {.user_id = {"u1", 2}, .k = 10, .filter = &x};
    assert_ok(retrieve_topk(bundle, &q, ws, hit, &r, &e), &e);
    assert_int_equal(r.n, 0);
    q.user_id = (struct str){"stranger", 8};
    assert_ok(retrieve_topk(bundle, &q, ws, hit, &r, &e), &e);
    assert_int_equal(r.n, 0);
    assert_int_equal(r.fallback, FALLBACK_POPULAR);
    retrieve_ws_free(ws);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(expressions_mean_what_they_say),
                                       cmocka_unit_test(unknown_values_are_counted),
                                       cmocka_unit_test(bad_expressions_are_refused),
                                       cmocka_unit_test(recall_under_filters), cmocka_unit_test(nothing_matches)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
