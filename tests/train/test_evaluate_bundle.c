/* A bundle asked as the daemon asks it. If this fails, offline figures are not those of what is served. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/fio.h"
#include "core/publish.h"
#include "tests/train/toy.h"
#include "train/evaluate_bundle.h"
#include "train/step.h"

struct lab {
    char dir[32];
    struct toy toy;
    struct recipe r;
    struct model *m;
    struct pool *pool;
    struct evaluation e;
    struct bundle *bundle;
};

static int set_up(void **state)
{
    struct lab *l = calloc(1, sizeof(*l));
    struct err err = {0};
    char version_dir[PATH_MAX];
    uint64_t version;
    snprintf(l->dir, sizeof(l->dir), "/tmp/duet-evaluate-XXXXXX");
    assert_non_null(mkdtemp(l->dir));
    toy_init(&l->toy, 40, 60, 8);
    l->r = toy_recipe(MODEL_DAT);
    l->r.init_std = 1;
    l->m = toy_model(&l->toy, &l->r, 3);
    l->pool = pool_new(2, &err);
    const struct dataset *d = &l->toy.d;
    struct publish_input in = {.model = l->m,
                               .n_users = d->n_users,
                               .n_items = d->n_items,
                               .user_id = d->user_id,
                               .item_id = d->item_id,
                               .user_x = d->user_x,
                               .item_x = d->item_x,
                               .category = d->category,
                               .item_category = d->item_category,
                               .item_count = d->item_count};
    struct publish_params p = {.repository = l->dir, .name = "toy", .seed = 1, .threads = 1};
    if (!bundle_publish(&in, &p, &version, version_dir, &err) ||
        !(l->bundle = bundle_load(version_dir, &(struct bundle_load_params){.mode = BUNDLE_PRIVATE}, &err)))
        fail_msg("%s", err.msg);
    struct evaluation_params ep = {.data = d, .per_category = true, .spec = {{5, 20}, 2}};
    assert_true(evaluation_init(&l->e, &ep, l->pool, &err));
    *state = l;
    return 0;
}

static int tear_down(void **state)
{
    struct lab *l = *state;
    evaluation_fini(&l->e);
    bundle_free(l->bundle);
    model_free(l->m);
    pool_free(l->pool);
    toy_fini(&l->toy);
    fio_remove_tree(l->dir, NULL);
    free(l);
    return 0;
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static json_t *ask(struct lab *l, bool through_index, size_t ef)
{
    struct err err = {0};
    json_t *o = evaluation_bundle(&l->e, "toy", l->bundle, &(struct evaluate_bundle_params){through_index, ef}, &err);
    if (!o)
        fail_msg("%s", err.msg);
    return o;
}

static void exact_hits_are_those_of_the_model(void **state)
{
    struct lab *l = *state;
    struct err err = {0};
    json_t *want = evaluation_model(&l->e, "toy", l->m, &err), *have = ask(l, false, 0);
    const json_t *a = json_object_get(want, "metrics"), *b = json_object_get(have, "metrics");
    assert_true(number(a, "n") == number(b, "n") && number(b, "n") == 40);
    assert_true(number(b, "hr@20") > 0);
    assert_true(fabs(number(a, "hr@5") - number(b, "hr@5")) < 1e-9);
    assert_true(fabs(number(a, "hr@20") - number(b, "hr@20")) < 1e-9);
    assert_true(number(b, "mrr") <= number(a, "mrr")); // ranks past K count 0
    assert_true(number(have, "unknown_users") == 0);
    json_decref(want);
    json_decref(have);
}

static void the_index_says_what_it_costs(void **state)
{
    struct lab *l = *state;
    json_t *exact = ask(l, false, 0), *o = ask(l, true, 60);
    assert_string_equal(json_string_value(json_object_get(o, "through")), "index");
    assert_true(number(o, "ef") == 60);
    assert_true(number(json_object_get(o, "exact_metrics"), "hr@20") ==
                number(json_object_get(exact, "metrics"), "hr@20"));
    assert_true(number(json_object_get(o, "metrics"), "hr@20") >
                0.9 * number(json_object_get(exact, "metrics"), "hr@20"));
    assert_non_null(strstr(json_string_value(json_object_get(o, "note")), "with ef 60"));
    json_decref(exact);
    json_decref(o);
}

/* A user id that the bundle does not know is answered from popularity, and the report counts it. */
static void users_that_the_bundle_lacks_are_counted(void **state)
{
    struct lab *l = *state;
    l->toy.user_id.bytes[0] = 'x'; // "u0" -> "x0"
    json_t *o = ask(l, false, 0);
    assert_true(number(o, "unknown_users") == 1);
    json_decref(o);
}

static void a_k_beyond_a_query_is_refused(void **state)
{
    struct lab *l = *state;
    struct err err = {0};
    l->e.p.spec.k[1] = 10001;
    assert_null(evaluation_bundle(&l->e, "toy", l->bundle, &(struct evaluate_bundle_params){0}, &err));
    assert_non_null(strstr(err.msg, "10001"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(exact_hits_are_those_of_the_model, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_index_says_what_it_costs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(users_that_the_bundle_lacks_are_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_k_beyond_a_query_is_refused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
