/* If this fails, users change variants without anybody asking for it, or a faulty experiment table reaches traffic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/experiment.h"

static struct experiment_table *from_text(const char *text, const struct experiment_table *current, struct err *err)
{
    json_t *o = json_parse(text, strlen(text), err);
    struct experiment_table *t = o ? experiment_table_from_json(o, current, err) : NULL;
    json_decref(o);
    return t;
}

static struct experiment_table *must(const char *text, const struct experiment_table *current)
{
    struct err err = {0};
    struct experiment_table *t = from_text(text, current, &err);
    if (!t)
        fail_msg("%s", err.msg);
    return t;
}

/* Computed by an independent implementation of XXH64: the documented hash must never change. */
static void golden_buckets(void **state)
{
    (void)state;
    static const struct {
        const char *salt, *unit;
        uint32_t bucket;
    } golden[] = {
        {"main", "253", 3197},
        {"main", "1", 7014},
        {"main", "user-000000000000000000000000000000000042", 5441},
        {"s1", "253", 7988},
        {"ranking-2024",
         "\xc3\x9cn\xc3\xaf"
         "code",
         7645},
        {"main", "", 4644},
    };
    for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++)
        assert_int_equal(experiment_bucket(golden[i].salt, golden[i].unit, strlen(golden[i].unit)), golden[i].bucket);
}

/* 20,000 users over 20 equal groups of buckets: chi-square with 19 degrees of freedom, 43.8 is its 0.1 % point. */
static void buckets_are_uniform(void **state)
{
    (void)state;
    enum { N = 20000, GROUPS = 20 };
    const char *salts[] = {"main", "ranking", "x"};
    for (size_t s = 0; s < 3; s++) {
        double count[GROUPS] = {0}, chi2 = 0;
        for (int u = 0; u < N; u++) {
            char id[16];
            int n = snprintf(id, sizeof(id), "%d", u);
            count[experiment_bucket(salts[s], id, (size_t)n) / (EXPERIMENT_BUCKETS / GROUPS)]++;
        }
        for (int g = 0; g < GROUPS; g++)
            chi2 += (count[g] - N / GROUPS) * (count[g] - N / GROUPS) / (N / GROUPS);
        assert_true(chi2 < 43.8);
    }
}

/* Layers are independent: the share of variant b in one layer is the same within both variants of the other. */
static void layers_are_independent(void **state)
{
    (void)state;
    double count[2][2] = {{0}};
    for (int u = 0; u < 40000; u++) {
        char id[16];
        size_t n = (size_t)snprintf(id, sizeof(id), "%d", u);
        count[experiment_bucket("one", id, n) < 5000][experiment_bucket("two", id, n) < 5000]++;
    }
    double chi2 = 0;
    for (int i = 0; i < 4; i++) {
        double d = count[i / 2][i % 2] - 10000;
        chi2 += d * d / 10000;
    }
    assert_true(chi2 < 16.3); // 3 degrees of freedom, 0.1 %
}

static size_t moved(const uint8_t *a, const uint8_t *b)
{
    size_t n = 0;
    for (size_t i = 0; i < EXPERIMENT_BUCKETS; i++)
        n += a[i] != b[i];
    return n;
}

static void rebalance_moves_as_few_as_possible(void **state)
{
    (void)state;
    uint8_t owner[EXPERIMENT_BUCKETS], before[EXPERIMENT_BUCKETS];
    memset(owner, EXPERIMENT_NO_OWNER, sizeof(owner));
    experiment_rebalance(owner, (uint32_t[]){3300, 3300, 3400}, 3);
    assert_int_equal(owner[0], 0);
    assert_int_equal(owner[3299], 0);
    assert_int_equal(owner[3300], 1);
    assert_int_equal(owner[9999], 2);

    memcpy(before, owner, sizeof(owner));
    experiment_rebalance(owner, (uint32_t[]){5000, 2500, 2500}, 3);
    assert_int_equal(moved(before, owner), 1700); // 17 %; cumulative ranges would move 26 %

    memcpy(before, owner, sizeof(owner));
    experiment_rebalance(owner, (uint32_t[]){5000, 2500, 2500}, 3);
    assert_int_equal(moved(before, owner), 0);

    uint32_t count[3] = {0};
    for (size_t i = 0; i < EXPERIMENT_BUCKETS; i++)
        count[owner[i]]++;
    assert_int_equal(count[0], 5000);
    assert_int_equal(count[1], 2500);
}

/* The same over the admin API's form: new weights without ranges; a variant that goes hands over all it has and no
 * more. */
static void new_weights_start_from_the_current_table(void **state)
{
    (void)state;
    struct experiment_table *t = must("{\"experiments\":[{\"name\":\"m\",\"variants\":[{\"name\":\"a\",\"weight\":33},"
                                      "{\"name\":\"b\",\"weight\":33},{\"name\":\"c\",\"weight\":34}]}]}",
                                      NULL);
    struct experiment_table *u = must("{\"experiments\":[{\"name\":\"m\",\"variants\":[{\"name\":\"c\",\"weight\":25},"
                                      "{\"name\":\"a\",\"weight\":50},{\"name\":\"b\",\"weight\":25}]}]}",
                                      t);
    const struct experiment *et = experiment_table_get(t, 0), *eu = experiment_table_get(u, 0);
    size_t changed = 0;
    for (size_t b = 0; b < EXPERIMENT_BUCKETS; b++)
        changed += strcmp(et->variant[et->owner[b]].name, eu->variant[eu->owner[b]].name) != 0;
    assert_int_equal(changed, 1700);

    struct experiment_table *w =
        must("{\"experiments\":[{\"name\":\"m\",\"salt\":\"other\",\"variants\":[{\"name\":\"a\",\"weight\":50},"
             "{\"name\":\"b\",\"weight\":50}]}]}",
             t);
    assert_int_equal(experiment_table_get(w, 0)->owner[4999], 0); // another salt is another experiment: laid out afresh
    assert_int_equal(experiment_table_get(w, 0)->owner[5000], 1);
    experiment_table_unref(w);
    experiment_table_unref(u);
    experiment_table_unref(t);
}

/* Written and read again, the table assigns the same: what the state file and replicas rely on. */
static void json_round_trip(void **state)
{
    (void)state;
    struct err err = {0};
    struct experiment_table *t = must("{\"experiments\":[{\"name\":\"m\",\"salt\":\"s\",\"unit\":\"user_id\","
                                      "\"variants\":[{\"name\":\"a\",\"weight\":12.34,\"model\":\"dat\",\"ef\":200},"
                                      "{\"name\":\"b\",\"weight\":87.66,\"k\":50}]}]}",
                                      NULL);
    json_t *o = experiment_table_to_json(t, &err);
    assert_non_null(o);
    struct experiment_table *u = experiment_table_from_json(o, NULL, &err);
    if (!u)
        fail_msg("%s", err.msg);
    assert_memory_equal(experiment_table_get(t, 0), experiment_table_get(u, 0), sizeof(struct experiment));
    json_decref(o);
    experiment_table_unref(t);
    experiment_table_unref(u);
}

static void refuses(const char *text, const char *because)
{
    struct err err = {0};
    struct experiment_table *t = from_text(text, NULL, &err);
    if (t)
        fail_msg("accepted: %s", text);
    if (!strstr(err.msg, because))
        fail_msg("'%s' does not say '%s'", err.msg, because);
}

#define VAR(v) "{\"experiments\":[{\"name\":\"m\",\"variants\":[" v "]}]}"

static void faulty_tables_are_refused(void **state)
{
    (void)state;
    refuses("{}", "experiments");
    refuses("{\"experiments\":[{\"variants\":[]}]}", "name");
    refuses("{\"experiments\":[{\"name\":\"a b\",\"variants\":[{\"name\":\"a\",\"weight\":100}]}]}", "only letters");
    refuses(VAR(""), "1 to 16");
    refuses(VAR("{\"name\":\"a\",\"weight\":50},{\"name\":\"b\",\"weight\":49.99}"), "sum to 99.99");
    refuses(VAR("{\"name\":\"a\",\"weight\":50},{\"name\":\"a\",\"weight\":50}"), "twice");
    refuses(VAR("{\"name\":\"a\",\"weight\":33.333},{\"name\":\"b\",\"weight\":66.667}"), "two decimals");
    refuses(VAR("{\"name\":\"a\",\"weight\":-1},{\"name\":\"b\",\"weight\":101}"), "0 to 100");
    refuses(VAR("{\"name\":\"a\",\"weigth\":100}"), "did you mean 'weight'");
    refuses(VAR("{\"name\":\"a\",\"weight\":100,\"ef\":0}"), "ef");
    refuses(VAR("{\"name\":\"a\",\"weight\":100,\"k\":10001}"), "k 10001");
    refuses(VAR("{\"name\":\"a\",\"weight\":100,\"ranges\":[[0,10000]]}"), "10000");
    refuses(VAR("{\"name\":\"a\",\"weight\":100,\"ranges\":[[0,9998]]}"), "9999 buckets");
    refuses(VAR("{\"name\":\"a\",\"weight\":100,\"ranges\":[[0,9999],[5,6]]}"), "another range");
    refuses("{\"experiments\":[{\"name\":\"m\",\"unit\":\"session\",\"variants\":[{\"name\":\"a\",\"weight\":100}]}]}",
            "user_id");
    refuses("{\"experiments\":[{\"name\":\"m\",\"variants\":[{\"name\":\"a\",\"weight\":100,\"ef\":10}]},"
            "{\"name\":\"n\",\"variants\":[{\"name\":\"a\",\"weight\":100,\"ef\":20}]}]}",
            "sets 'ef'");
    refuses("{\"experiments\":[{\"name\":\"m\",\"variants\":[{\"name\":\"a\",\"weight\":100}]},"
            "{\"name\":\"m\",\"variants\":[{\"name\":\"a\",\"weight\":100}]}]}",
            "twice");
}

static const char two[] =
    "{\"experiments\":[{\"name\":\"main\",\"variants\":[{\"name\":\"a\",\"weight\":30,\"model\":\"dat\"},"
    "{\"name\":\"b\",\"weight\":70,\"model\":\"two_tower\"}]},"
    "{\"name\":\"depth\",\"variants\":[{\"name\":\"low\",\"weight\":50},{\"name\":\"high\",\"weight\":50,\"ef\":400,"
    "\"k\":20}]}]}";

static void assignment(void **state)
{
    (void)state;
    struct err err = {0};
    struct experiment_table *t = must(two, NULL);
    struct experiment_assignment a;
    assert_true(experiment_assign(t, "253", 3, NULL, &a, &err));
    assert_int_equal(a.n, 2);
    assert_int_equal(a.bucket[0], 3197);
    assert_int_equal(a.variant[0], 1); // 3197 >= 3000
    assert_string_equal(a.model, "two_tower");
    assert_false(a.overridden[0]);

    assert_true(experiment_assign(t, "253", 3, "main=a, depth=high", &a, &err));
    assert_string_equal(a.model, "dat");
    assert_true(a.overridden[0]);
    assert_int_equal(a.ef, 400);
    assert_int_equal(a.k, 20);

    assert_true(experiment_assign(t, NULL, 0, NULL, &a, &err)); // no unit: nothing applies
    assert_null(a.model);
    assert_int_equal(a.variant[0], EXPERIMENT_NO_OWNER);
    assert_true(experiment_assign(t, NULL, 0, "main=b", &a, &err));
    assert_string_equal(a.model, "two_tower");

    const char *bad[] = {"", "main", "main=c", "mian=a", "main=a,", "=a", "main=a;depth=low"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err e = {0};
        assert_false(experiment_assign(t, "253", 3, bad[i], &a, &e));
        assert_int_equal(e.code, ERR_ARG);
    }
    experiment_table_unref(t);
}

static void models_must_exist(void **state)
{
    (void)state;
    struct err err = {0};
    struct experiment_table *t = must(two, NULL);
    const char *names[] = {"dat", "two_tower"};
    assert_true(experiment_table_check_models(t, names, 2, &err));
    assert_false(experiment_table_check_models(t, names, 1, &err));
    assert_non_null(strstr(err.msg, "two_tower"));
    experiment_table_unref(t);
}

static void from_configuration(void **state)
{
    (void)state;
    struct err err = {0};
    struct config_variant v[] = {{.name = "a", .model = "dat", .weight = 25, .line = 5},
                                 {.name = "b", .model = "tt", .weight = 75, .ef = 100, .line = 6}};
    struct config_experiment e = {
        .name = "main", .salt = "", .unit = "user_id", .variant = v, .n_variants = 2, .line = 4};
    struct experiment_table *t = experiment_table_from_config(&e, 1, &err);
    assert_non_null(t);
    assert_string_equal(experiment_table_get(t, 0)->salt, "main");
    assert_int_equal(experiment_table_get(t, 0)->owner[2500], 1);
    assert_int_equal(experiment_table_get(t, 0)->variant[1].ef, 100);
    experiment_table_unref(t);
    v[1].weight = 75.001;
    assert_null(experiment_table_from_config(&e, 1, &err));
    assert_non_null(strstr(err.msg, "line 6"));
    assert_non_null(strstr(err.msg, "'main'"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_buckets),
        cmocka_unit_test(buckets_are_uniform),
        cmocka_unit_test(layers_are_independent),
        cmocka_unit_test(rebalance_moves_as_few_as_possible),
        cmocka_unit_test(json_round_trip),
        cmocka_unit_test(new_weights_start_from_the_current_table),
        cmocka_unit_test(faulty_tables_are_refused),
        cmocka_unit_test(assignment),
        cmocka_unit_test(models_must_exist),
        cmocka_unit_test(from_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
