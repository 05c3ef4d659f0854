/* If this fails, a request may see half of a swap, a bundle may be freed under a reader or never, or freed on a
 * request's thread. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/generation.h"
#include "tests/core/support.h"

// ---------------------------------------------------------------------------- fakes: a bundle is its version twice

struct retrieve_ws {
    const struct bundle *bundle;
};
static _Atomic int bundles_alive, ws_alive;
static pthread_t last_freed_on;

static struct bundle *fake_bundle(uint64_t version)
{
    struct bundle *b = calloc(1, sizeof(*b));
    b->manifest.version = b->manifest.n_items = version;
    bundles_alive++;
    return b;
}

void bundle_free(struct bundle *b)
{
    if (!b)
        return;
    last_freed_on = pthread_self();
    b->manifest.version = 0;
    bundles_alive--;
    free(b);
}

size_t bundle_memory(const struct bundle *b)
{
    return b->manifest.version;
}

struct retrieve_ws *retrieve_ws_new(const struct bundle *b, struct err *err)
{
    struct retrieve_ws *ws = calloc(1, sizeof(*ws));
    (void)err;
    ws->bundle = b;
    ws_alive++;
    return ws;
}

void retrieve_ws_free(struct retrieve_ws *ws)
{
    ws_alive--;
    free(ws);
}

static const char *const names[] = {"dat", "two_tower"};

// ------------------------------------------------------------------------------------------------------------ tests

static void first_generation_is_empty(void **state)
{
    (void)state;
    struct err err = {0};
    struct generations *s = generations_new(names, 2, &err);
    const struct generation *g = generation_acquire(s);
    assert_int_equal(g->serial, 1);
    assert_int_equal(g->n_models, 2);
    assert_null(g->model[0].loaded);
    assert_int_equal(experiment_table_n(g->experiments), 0);
    assert_int_equal(generation_find(g, "two_tower", 9), 1);
    assert_int_equal(generation_find(g, "two", 3), -1);
    generation_release(s, g);
    generations_free(s);
    const char *twice[] = {"a", "a"};
    assert_null(generations_new(twice, 2, &err));
    assert_int_equal(err.code, ERR_ARG);
}

static void a_held_generation_keeps_its_bundle(void **state)
{
    (void)state;
    struct err err = {0};
    struct generations *s = generations_new(names, 2, &err);
    struct loaded *v1 = loaded_new(fake_bundle(1), 2, &err), *v2 = loaded_new(fake_bundle(2), 2, &err);
    assert_true(generation_swap_model(s, "dat", v1, NULL, &err));
    const struct generation *g1 = generation_acquire(s);
    assert_true(generation_swap_model(s, "dat", v2, "version 3 is broken", &err));
    const struct generation *g2 = generation_acquire(s);
    assert_int_equal(g1->model[0].loaded->bundle->manifest.version, 1);
    assert_int_equal(g2->model[0].loaded->bundle->manifest.version, 2);
    assert_string_equal(g2->model[0].degraded, "version 3 is broken");
    assert_int_equal(bundles_alive, 2);
    generation_release(s, g2);
    generation_release(s, g1);
    assert_true(generation_settle(s, 5000));
    assert_int_equal(bundles_alive, 1);
    assert_false(pthread_equal(last_freed_on, pthread_self()));
    generations_free(s);
    assert_int_equal(bundles_alive, 0);
    assert_int_equal(ws_alive, 0);
}

/* Another model's swap and the experiment table's share the bundle instead of copying or dropping it. */
static void other_swaps_keep_a_model(void **state)
{
    (void)state;
    struct err err = {0};
    struct generations *s = generations_new(names, 2, &err);
    assert_true(generation_swap_model(s, "dat", loaded_new(fake_bundle(1), 0, &err), NULL, &err));
    assert_true(generation_swap_model(s, "two_tower", loaded_new(fake_bundle(7), 0, &err), NULL, &err));
    assert_true(generation_swap_experiments(s, experiment_table_new(&err), NULL, &err));
    assert_false(generation_swap_model(s, "none", NULL, NULL, &err));
    const struct generation *g = generation_acquire(s);
    assert_int_equal(g->serial, 4);
    assert_int_equal(g->model[0].loaded->bundle->manifest.version, 1);
    assert_int_equal(g->model[1].loaded->bundle->manifest.version, 7);
    generation_release(s, g);
    generations_free(s);
    assert_int_equal(bundles_alive, 0);
}

struct door {
    bool open;
    size_t asked;
};

static bool pass(void *ctx, struct err *err)
{
    struct door *d = ctx;
    d->asked++;
    return d->open || err_set(err, ERR_STATE, "the door is shut");
}

static bool swap(struct generations *s, bool labels, struct labels *l, struct experiment_table *t, const struct generation_gate *gate, struct err *err)
{
    return labels ? generation_swap_labels(s, l, gate, err) : generation_swap_experiments(s, t, gate, err);
}

/* What a gate refuses is not published, and lack of memory comes before the gate: what it writes down is never taken back. */
static void a_gate_is_the_last_that_fails(void **state)
{
    (void)state;
    for (int labels = 0; labels < 2; labels++) {
        struct err err = {0};
        struct door door = {.open = false};
        const struct generation_gate gate = {pass, &door};
        struct generations *s = generations_new(names, 2, &err);
        struct labels *l = labels_from_config(&(struct config_label){.name = (char[]){"x"}, .model = (char[]){"dat"}}, 1, &err);
        struct experiment_table *t = experiment_table_new(&err);
        assert_true(generation_swap_model(s, "dat", loaded_new(fake_bundle(1), 1, &err), NULL, &err));
        const struct generation *before = generation_acquire(s);
        assert_err(swap(s, labels, l, t, &gate, &err), &err, ERR_STATE, "shut");
        assert_int_equal(door.asked, 1);
        door = (struct door){.open = true};
        for (size_t n = 1;; n++) {
            alloc_fail_at(n);
            bool ok = swap(s, labels, l, t, &gate, &err);
            alloc_fail_at(0);
            if (ok)
                break;
            assert_int_equal(err.code, ERR_NOMEM);
            err = (struct err){0};
            assert_int_equal(door.asked, 0);
            const struct generation *g = generation_acquire(s);
            assert_ptr_equal(g, before);
            generation_release(s, g);
            assert_in_range(n, 1, 100);
        }
        assert_int_equal(door.asked, 1);
        generation_release(s, before);
        assert_true(generation_settle(s, 5000));
        generations_free(s);
        if (labels)
            experiment_table_unref(t); // the other went with the store
        else
            labels_unref(l);
        assert_int_equal(bundles_alive, 0);
    }
}

static void models_come_and_go(void **state)
{
    (void)state;
    struct err err = {0};
    struct generations *s = generations_new(names, 2, &err);
    assert_true(generation_swap_model(s, "dat", loaded_new(fake_bundle(1), 0, &err), NULL, &err));
    assert_true(generation_swap_model(s, "two_tower", loaded_new(fake_bundle(7), 0, &err), NULL, &err));
    const char *next[] = {"fresh", "dat"};
    const struct generation *before = generation_acquire(s), *g;
    assert_true(generation_swap_names(s, next, 2, experiment_table_new(&err), NULL, NULL, &err));
    assert_true(generation_swap_names(s, names, 2, experiment_table_new(&err), NULL, before, &err)); // back: nothing is lost
    g = generation_acquire(s);
    for (size_t i = 0; i < 2; i++)
        assert_non_null(g->model[i].loaded);
    generation_release(s, g);
    generation_release(s, before);
    assert_true(generation_swap_names(s, next, 2, experiment_table_new(&err), NULL, NULL, &err));
    g = generation_acquire(s);
    assert_int_equal(g->n_models, 2);
    assert_null(g->model[0].loaded);
    assert_int_equal(g->model[1].loaded->bundle->manifest.version, 1);
    generation_release(s, g);
    assert_true(generation_settle(s, 5000));
    assert_int_equal(bundles_alive, 1);
    generations_free(s);
}

static void workspaces_are_reused_and_bounded(void **state)
{
    (void)state;
    struct err err = {0};
    struct loaded *l = loaded_new(fake_bundle(1), 1, &err);
    struct retrieve_ws *a = loaded_take_ws(l, &err), *b = loaded_take_ws(l, &err);
    assert_ptr_not_equal(a, b);
    assert_int_equal(ws_alive, 2);
    loaded_put_ws(l, a);
    assert_ptr_equal(loaded_take_ws(l, &err), a);
    loaded_put_ws(l, a);
    loaded_put_ws(l, b); // beyond the pool: freed
    assert_int_equal(ws_alive, 1);
    loaded_unref(l);
    assert_int_equal(ws_alive, 0);
}

struct load {
    struct generations *s;
    _Atomic bool stop;
    _Atomic int mixed;
};

static void *reader(void *arg)
{
    struct load *ld = arg;
    while (!ld->stop) {
        const struct generation *g = generation_acquire(ld->s);
        struct loaded *l = g->model[0].loaded;
        struct retrieve_ws *ws = loaded_take_ws(l, NULL);
        const struct bundle *b = ws->bundle;
        if (b != l->bundle || b->manifest.version == 0 || b->manifest.version != b->manifest.n_items)
            ld->mixed++;
        loaded_put_ws(l, ws);
        generation_release(ld->s, g);
    }
    return NULL;
}

static void swaps_under_load(void **state)
{
    (void)state;
    enum { READERS = 4, SWAPS = 2000 };
    struct err err = {0};
    struct load ld = {.s = generations_new(names, 2, &err)};
    pthread_t t[READERS];
    assert_true(generation_swap_model(ld.s, "dat", loaded_new(fake_bundle(1), READERS, &err), NULL, &err));
    for (int i = 0; i < READERS; i++)
        pthread_create(&t[i], NULL, reader, &ld);
    for (uint64_t v = 2; v < SWAPS; v++)
        assert_true(generation_swap_model(ld.s, "dat", loaded_new(fake_bundle(v), READERS, &err), NULL, &err));
    ld.stop = true;
    for (int i = 0; i < READERS; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(ld.mixed, 0);
    assert_true(generation_settle(ld.s, 5000));
    assert_int_equal(bundles_alive, 1);
    generations_free(ld.s);
    assert_int_equal(bundles_alive, 0);
    assert_int_equal(ws_alive, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_generation_is_empty),         cmocka_unit_test(a_held_generation_keeps_its_bundle),
        cmocka_unit_test(other_swaps_keep_a_model),          cmocka_unit_test(models_come_and_go),
        cmocka_unit_test(workspaces_are_reused_and_bounded), cmocka_unit_test(swaps_under_load),
        cmocka_unit_test(a_gate_is_the_last_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
