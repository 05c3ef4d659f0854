/* Breaks when a search under load goes less far than it may, below k, or becomes another kind of search; or when the ef that it would have
 * had is not the one that retrieve_topk takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/effort.h"

/* 10,000 items; by the curve recall .99 at k = 100 takes ef = 200. */
static struct items items = {.n = 10000};
static struct bundle bundle;

static int start(void **state)
{
    (void)state;
    bundle = (struct bundle){.items = &items, .layout = HNSW_PLAIN};
    bundle.manifest.default_ef = 300;
    bundle.manifest.target_recall = 0.99;
    bundle.manifest.calibration = (struct calibration){.n_queries = 10, .n_curves = 1};
    bundle.manifest.calibration.curve[0] =
        (struct calibration_curve){.layout = HNSW_PLAIN, .k = 100, .n = 2, .ef = {100, 200}, .recall = {0.9, 0.99}};
    return 0;
}

static void expect(struct retrieve_query rq, float share, size_t full, size_t ef)
{
    struct retrieve_query less = {0};
    size_t found = effort_lower(&bundle, &rq, share, &less);
    if (found != full || less.ef != ef)
        fail_msg("k %zu, ef %zu, share %g: %zu of %zu, want %zu of %zu", rq.k, rq.ef, (double)share, less.ef, found, ef, full);
    if (found) {
        assert_int_equal(less.k, rq.k);
        assert_ptr_equal(less.user_id.p, rq.user_id.p);
        assert_true(less.target_recall == 0 && !less.exact);
    }
}

static void a_share_of_what_it_would_have_been(void **state)
{
    (void)state;
    struct str user = {"u", 1};
    expect((struct retrieve_query){.user_id = user, .k = 10, .ef = 400}, 0.5f, 400, 200);
    expect((struct retrieve_query){.user_id = user, .k = 10, .ef = 401}, 0.5f, 401, 201);
    expect((struct retrieve_query){.k = 100}, 0.75f, 200, 150);                         // the bundle's target
    expect((struct retrieve_query){.k = 100, .target_recall = 0.945}, 0.9f, 150, 135);  // the request's
    bundle.manifest.target_recall = 0;
    expect((struct retrieve_query){.k = 100}, 0.5f, 300, 150); // the bundle's ef
    bundle.manifest.target_recall = 0.999;
    expect((struct retrieve_query){.k = 100}, 0.5f, 300, 150); // above the curve, which nobody asked for
}

static void never_below_k(void **state)
{
    (void)state;
    const struct retrieve_bounds bounds = {.max_each = 3};
    items.n = 10000;
    expect((struct retrieve_query){.k = 300, .ef = 400}, 0.5f, 400, 300);
    expect((struct retrieve_query){.k = 400, .ef = 400}, 0.5f, 0, 0);
    expect((struct retrieve_query){.k = 400, .ef = 10}, 0.5f, 0, 0); // raised to k anyway
    expect((struct retrieve_query){.k = 100, .ef = 400, .bounds = &bounds}, 0.1f, 400, 200); // twice as many are searched for
    items.n = 150;
    expect((struct retrieve_query){.k = 300, .ef = 400}, 0.1f, 400, 150); // no more than there are
    items.n = 10000;
}

static void not_what_is_no_walk(void **state)
{
    (void)state;
    expect((struct retrieve_query){.k = 10, .ef = 400}, 1, 0, 0);
    expect((struct retrieve_query){.k = 10, .ef = 400}, 0, 0, 0); // nobody has said a share
    expect((struct retrieve_query){.k = 10, .ef = 400, .exact = true}, 0.5f, 0, 0);
    expect((struct retrieve_query){.k = 100, .target_recall = 0.995}, 0.5f, 0, 0); // asked for, above the curve: exact
    expect((struct retrieve_query){.k = 100, .target_recall = 1}, 0.5f, 0, 0);
    bundle.layout = HNSW_COMPACT; // without a curve
    expect((struct retrieve_query){.k = 100, .target_recall = 0.9}, 0.5f, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_share_of_what_it_would_have_been, start),
        cmocka_unit_test_setup(never_below_k, start),
        cmocka_unit_test_setup(not_what_is_no_walk, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
