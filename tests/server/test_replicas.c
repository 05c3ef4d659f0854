/* If this fails, users change variants between replicas or over a restart, or more of them than a change of weights takes. Over a million
 * users, by the code that serves. */
#include "tests/core/support.h"

#include "core/base/json.h"
#include "server/state.h"

#define N_USERS 1000000u

static struct experiment_table *from_text(const char *text, const struct experiment_table *current)
{
    struct err e = {0};
    json_t *o = json_parse(text, strlen(text), &e);
    struct experiment_table *t = o ? experiment_table_from_json(o, current, &e) : NULL;
    json_decref(o);
    assert_ok(t, &e);
    return t;
}

/* Who gets what, the hash of its name in a byte a user: variants may be listed in another order. */
static char *assign_all(const struct experiment_table *t)
{
    char *first = malloc(N_USERS);
    struct experiment_assignment a;
    struct err e = {0};
    for (uint32_t u = 0; u < N_USERS; u++) {
        char id[16];
        size_t n = (size_t)snprintf(id, sizeof(id), "u%u", u);
        if (!experiment_assign(t, id, n, NULL, &a, &e))
            fail_msg("%s", e.msg);
        first[u] = experiment_table_get(t, 0)->variant[a.variant[0]].name[0];
    }
    return first;
}

/* Share of the users that have moved, all of them from one of `from` to `to`. */
static double moved(const char *before, const char *after, const char *from, char to)
{
    size_t n = 0;
    for (uint32_t u = 0; u < N_USERS; u++) {
        if (before[u] == after[u])
            continue;
        if (!strchr(from, before[u]) || after[u] != to)
            fail_msg("user u%u went from %c to %c", u, before[u], after[u]);
        n++;
    }
    return (double)n / N_USERS;
}

#define TWO(a, b) "{\"experiments\":[{\"name\":\"m\",\"salt\":\"s1\",\"variants\":[{\"name\":\"a\",\"weight\":" #a "},{\"name\":\"b\",\"weight\":" #b "}]}]}"
#define THREE(a, b, c)                                                                                                                                       \
    "{\"experiments\":[{\"name\":\"m\",\"salt\":\"s1\",\"variants\":[{\"name\":\"a\",\"weight\":" #a "},{\"name\":\"b\",\"weight\":" #b                       \
    "},{\"name\":\"c\",\"weight\":" #c "}]}]}"

/* One by its configuration, one by the state file that the other wrote, one that read that file after a restart. */
static void replicas_agree_on_a_million_users(void **state)
{
    struct err e = {0};
    struct config_variant v[] = {{.name = "a", .weight = 50}, {.name = "b", .weight = 50}};
    struct config_experiment c = {.name = "m", .salt = "s1", .unit = "user_id", .variant = v, .n_variants = 2};
    struct experiment_table *one = experiment_table_from_config(&c, 1, &e), *other = from_text(TWO(50, 50), NULL), *next;
    assert_ok(one, &e);
    char *a = assign_all(one), *b = assign_all(other);
    assert_memory_equal(a, b, N_USERS);
    // weights change on one of them, which is then restarted; a second replica starts from the file
    next = from_text(TWO(60, 40), one);
    struct state *s = state_open(tmp_path(state, "state.json"), &e);
    assert_ok(s, &e);
    assert_ok(state_set_experiments(s, next, STATE_ANY_REVISION, NULL, &e), &e);
    assert_ok(state_set_pin(s, "dat", 3, STATE_ANY_REVISION, NULL, &e), &e); // what a rollback leaves
    state_free(s);
    char *changed = assign_all(next);
    for (int restart = 0; restart < 2; restart++) {
        assert_ok(s = state_open(tmp_path(state, "state.json"), &e), &e);
        struct experiment_table *read = state_experiments(s);
        char *again = assign_all(read);
        assert_memory_equal(changed, again, N_USERS);
        assert_int_equal(state_pin(s, "dat"), 3);
        free(again);
        experiment_table_unref(read);
        state_free(s);
    }
    // and one that got the same PUT itself
    struct experiment_table *put = from_text(TWO(60, 40), other);
    char *same = assign_all(put);
    assert_memory_equal(changed, same, N_USERS);
    free(a), free(b), free(changed), free(same);
    experiment_table_unref(one), experiment_table_unref(other), experiment_table_unref(next), experiment_table_unref(put);
}

/* 10 % and 17 % of the buckets; of a million users that is within 0.1 % (three standard deviations). */
static void no_more_users_move_than_must(void **state)
{
    (void)state;
    static const struct {
        const char *before, *after, *from;
        char to;
        double share;
    } c[] = {{TWO(50, 50), TWO(60, 40), "b", 'a', 0.10}, {THREE(33, 33, 34), THREE(50, 25, 25), "bc", 'a', 0.17}, {THREE(33, 33, 34), THREE(33, 33, 34), "", ' ', 0}};
    for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        struct experiment_table *t = from_text(c[i].before, NULL), *u = from_text(c[i].after, t);
        char *before = assign_all(t), *after = assign_all(u);
        double share = moved(before, after, c[i].from, c[i].to);
        print_message("%.3f %% of the users moved, %.0f %% of the buckets\n", 100 * share, 100 * c[i].share);
        assert_true(share > c[i].share - 0.0012 && share < c[i].share + 0.0012);
        free(before), free(after);
        experiment_table_unref(t), experiment_table_unref(u);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(replicas_agree_on_a_million_users, tmp_setup, tmp_teardown),
                                       cmocka_unit_test(no_more_users_move_than_must)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
