/* Evaluation and its report. If this fails, the table compares models on other users, items or rows than it says. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/mem.h"
#include "tests/train/toy.h"
#include "train/evaluate.h"
#include "train/report.h"
#include "train/step.h"

#define assert_near(a, b, eps) assert_true(fabs((a) - (b)) <= (eps))

struct lab {
    struct toy toy;
    struct recipe r;
    struct model *m;
    struct pool *pool;
    struct evaluation e;
};

static void lab_init(struct lab *l, enum model_kind kind, bool held_out, bool per_category)
{
    struct err err = {0};
    memset(l, 0, sizeof(*l));
    toy_init(&l->toy, 30, 20, 8);
    if (held_out)
        toy_hold_out(&l->toy, 5, 2);
    l->r = toy_recipe(kind);
    l->m = toy_model(&l->toy, &l->r, 1);
    l->pool = pool_new(2, &err);
    struct evaluation_params p = {.data = &l->toy.d, .per_category = per_category, .spec = {{3, 10}, 2}};
    assert_true(evaluation_init(&l->e, &p, l->pool, &err));
}

static void lab_fini(struct lab *l)
{
    evaluation_fini(&l->e);
    model_free(l->m);
    pool_free(l->pool);
    toy_fini(&l->toy);
}

static double number(const json_t *o, const char *key)
{
    assert_true(json_is_number(json_object_get(o, key)));
    return json_number_value(json_object_get(o, key));
}

static const json_t *view(const json_t *system, const char *name)
{
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(system, "cold_start"), i,
                       o) if (strcmp(json_string_value(json_object_get(o, "view")), name) == 0) return o;
    return NULL;
}

/* Popularity ranked by hand: better items and half of the equal ones, without the user's own. */
static double popularity_hr(const struct toy *t, uint32_t k)
{
    double hits = 0;
    for (uint32_t u = 0; u < t->d.n_users; u++) {
        uint32_t target = t->d.test.item[u], better = 0, equal = 0;
        for (uint32_t i = 0; i < t->d.n_items; i++) {
            bool seen = t->d.valid.item[u] == i;
            for (uint64_t q = t->d.train.off[u]; q < t->d.train.off[u + 1]; q++)
                seen |= t->d.train.item[q] == i;
            better += !seen && t->count[i] > t->count[target];
            equal += !seen && i != target && t->count[i] == t->count[target];
        }
        hits += 1 + better + equal / 2 <= k;
    }
    return hits / t->d.n_users;
}

static void popularity_is_as_counted_by_hand(void **state)
{
    (void)state;
    struct lab l;
    struct err err = {0};
    lab_init(&l, MODEL_DAT, false, true);
    json_t *o = evaluation_popularity(&l.e, &err);
    assert_non_null(o);
    const json_t *m = json_object_get(o, "metrics");
    assert_true(number(m, "n") == 30);
    assert_near(number(m, "hr@3"), popularity_hr(&l.toy, 3), 1e-9);
    assert_near(number(m, "hr@10"), popularity_hr(&l.toy, 10), 1e-9);
    double n = 0, hits = 0;
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(o, "categories"), i, c)
    {
        n += number(c, "n");
        hits += number(c, "n") * number(c, "hr@10");
    }
    assert_near(n, 30, 1e-12);
    assert_near(hits / n, number(m, "hr@10"), 1e-6);
    json_decref(o);
    lab_fini(&l);
}

/* Without hold-outs every user is also answered as a stranger. */
static void strangers_are_simulated(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct lab l;
        struct err err = {0};
        lab_init(&l, (enum model_kind)kind, false, false);
        json_t *o = evaluation_model(&l.e, "toy", l.m, &err);
        assert_non_null(o);
        assert_non_null(view(o, "every user as unknown, by features"));
        assert_non_null(view(o, "every user as unknown, by history"));
        assert_null(view(o, "held-out users, by features"));
        assert_null(json_object_get(o, "categories"));
        json_decref(o);
        lab_fini(&l);
    }
}

static void held_out_users_and_items_have_rows_of_their_own(void **state)
{
    (void)state;
    struct lab l;
    struct err err = {0};
    lab_init(&l, MODEL_DAT, true, false);
    json_t *p = evaluation_popularity(&l.e, &err), *o = evaluation_model(&l.e, "toy", l.m, &err);
    assert_non_null(p);
    assert_non_null(o);
    const json_t *users = view(o, "held-out users, by features"), *items = view(o, "held-out items");
    assert_non_null(view(o, "held-out users, by history"));
    assert_non_null(users);
    assert_non_null(items);
    double all = number(json_object_get(o, "metrics"), "n") + number(items, "n");
    assert_near(all, 25, 1e-12); // 30 users, 5 of them held out
    assert_true(number(users, "n") <= 5 && number(users, "n") >= 3);
    assert_near(number(view(p, "held-out items"), "n"), number(items, "n"), 1e-12);
    assert_near(number(view(p, "held-out users"), "n"), number(users, "n"), 1e-12);
    json_decref(p);
    json_decref(o);
    lab_fini(&l);
}

static void a_model_of_another_dataset_is_refused(void **state)
{
    (void)state;
    struct lab l;
    struct toy other;
    struct err err = {0};
    lab_init(&l, MODEL_DAT, false, false);
    toy_init(&other, 10, 20, 1);
    struct model *m = toy_model(&other, &l.r, 1);
    assert_null(evaluation_model(&l.e, "other", m, &err));
    assert_non_null(strstr(err.msg, "evaluating other"));
    model_free(m);
    toy_fini(&other);
    lab_fini(&l);
}

static void a_split_without_rows_is_refused(void **state)
{
    (void)state;
    struct lab l;
    struct evaluation e;
    struct err err = {0};
    lab_init(&l, MODEL_DAT, false, false);
    memset(l.toy.off[1], 0, 31 * sizeof(uint64_t));
    struct evaluation_params p = {.data = &l.toy.d, .valid = true, .spec = {{3}, 1}};
    assert_false(evaluation_init(&e, &p, l.pool, &err));
    assert_non_null(strstr(err.msg, "--split test"));
    lab_fini(&l);
}

// -------------------------------------------------------------------------------------------------------- report

static json_t *report(struct lab *l)
{
    struct err err = {0};
    json_t *systems = json_array();
    json_array_append_new(systems, evaluation_popularity(&l->e, &err));
    json_array_append_new(systems, evaluation_model(&l->e, "a,\"b\"", l->m, &err));
    return evaluation_report(&l->e, "toy.duet", systems);
}

static char *printed(const json_t *r, void (*print)(const json_t *, FILE *))
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    print(r, f);
    fclose(f);
    return text;
}

/* The table states its protocol, and is the same when it comes back from a file. */
static void the_table_survives_json(void **state)
{
    (void)state;
    struct lab l;
    struct err err = {0};
    lab_init(&l, MODEL_DAT, false, true);
    json_t *r = report(&l);
    assert_true(report_check(r, &err));
    char *text = json_text(r, &err);
    json_t *back = json_parse(text, strlen(text), &err);
    assert_true(report_check(back, &err));
    char *a = printed(r, report_print), *b = printed(back, report_print);
    assert_string_equal(a, b);
    const char *words[] = {"toy.duet, test split: 30 users, 20 items",
                           "an equal score counts half against the model",
                           "HR@3",
                           "HR@10",
                           "MRRx10",
                           "popularity",
                           "cold start",
                           "by category",
                           "k1"};
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        if (!strstr(a, words[i]))
            fail_msg("the table lacks \"%s\":\n%s", words[i], a);
    free(a);
    free(b);
    free(text);
    json_decref(r);
    json_decref(back);
    lab_fini(&l);
}

/* Two checkpoints in one deep folder read alike in the table. */
static void long_names_keep_their_end(void **state)
{
    (void)state;
    struct lab l;
    struct err err = {0};
    lab_init(&l, MODEL_DAT, false, false);
    json_t *systems = json_array();
    json_array_append_new(systems, evaluation_model(&l.e, "/a/very/long/way/to/the/folder/of/two_tower", l.m, &err));
    json_t *r = evaluation_report(&l.e, "toy.duet", systems);
    char *text = printed(r, report_print);
    assert_non_null(strstr(text, "\n..ong/way/to/the/folder/of/two_tower "));
    free(text);
    json_decref(r);
    lab_fini(&l);
}

static void csv_has_a_row_for_each_group(void **state)
{
    (void)state;
    struct lab l;
    lab_init(&l, MODEL_DAT, false, false);
    json_t *r = report(&l);
    char *text = printed(r, report_csv);
    assert_non_null(strstr(text, "system,kind,through,group,n,hr@3,hr@10,mrr,mrr_x10,mrr_ceil10\n"));
    assert_non_null(strstr(text, "popularity,popularity,exact,all,30,"));
    assert_non_null(strstr(text, "\"a,\"\"b\"\"\",dat,exact,\"every user as unknown, by features\",30,"));
    free(text);
    json_decref(r);
    lab_fini(&l);
}

static void a_json_that_is_no_report_is_refused_by_name(void **state)
{
    (void)state;
    const struct {
        const char *json, *word;
    } bad[] = {
        {"{}", "format"},
        {"{\"format\":\"x\"}", "duet-evaluation"},
        {"{\"format\":\"duet-evaluation\",\"k\":[1]}", "systems"},
        {"{\"format\":\"duet-evaluation\",\"k\":[1],\"systems\":[{}],\"split\":\"\",\"protocol\":\"\",\"dataset\":"
         "\"\"}",
         "metrics"},
        {"{\"format\":\"duet-evaluation\",\"k\":[1],\"systems\":[{\"name\":\"\",\"kind\":\"\",\"through\":\"\","
         "\"metrics\":{}}],"
         "\"split\":\"\",\"protocol\":\"\",\"dataset\":\"\"}",
         "hr@1"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct err err = {0};
        json_t *o = json_parse(bad[i].json, strlen(bad[i].json), &err);
        assert_non_null(o);
        assert_false(report_check(o, &err));
        if (!strstr(err.msg, bad[i].word))
            fail_msg("%s: \"%s\" does not name %s", bad[i].json, err.msg, bad[i].word);
        json_decref(o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(popularity_is_as_counted_by_hand),
        cmocka_unit_test(strangers_are_simulated),
        cmocka_unit_test(held_out_users_and_items_have_rows_of_their_own),
        cmocka_unit_test(a_model_of_another_dataset_is_refused),
        cmocka_unit_test(a_split_without_rows_is_refused),
        cmocka_unit_test(the_table_survives_json),
        cmocka_unit_test(long_names_keep_their_end),
        cmocka_unit_test(csv_has_a_row_for_each_group),
        cmocka_unit_test(a_json_that_is_no_report_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
