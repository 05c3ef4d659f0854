/* Breaks when a key is read into the wrong place, a wrong value passes, a message does not say where, or files and
 * table part ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config/config.h"
#include "config/keys.h"
#include "core/base/fio.h"

static struct config *parse(const char *text, struct err *err)
{
    *err = (struct err){0};
    return config_parse(text, strlen(text), "t.yaml", NULL, NULL, 0, err);
}

static struct config *must_parse(const char *text)
{
    struct err err;
    struct config *c = parse(text, &err);
    if (!c)
        fail_msg("%s: %s", text, err.msg);
    return c;
}

static void expect_error(const char *text, const char *message)
{
    struct err err;
    struct config *c = parse(text, &err);
    if (c || !strstr(err.msg, message))
        print_error("%s\n  gave: %s\n  want: %s\n", text, c ? "no error" : err.msg, message);
    assert_null(c);
    assert_non_null(strstr(err.msg, message));
}

/* A value of the key that is not its default. */
static const char *other_value(const struct key *k, char *out, size_t cap)
{
    switch (k->kind) {
    case KEY_UINT:
        snprintf(out, cap, "%llu", (unsigned long long)(strtoull(k->def, NULL, 10) == k->max ? k->min : k->max));
        break;
    case KEY_BOOL:
        snprintf(out, cap, "%s", strcmp(k->def, "true") == 0 ? "false" : "true");
        break;
    case KEY_WORD: // the last word, or the first if that is the default
        snprintf(out, cap, "%s", strrchr(k->words, '|') + 1);
        if (strcmp(out, k->def) == 0)
            snprintf(out, cap, "%.*s", (int)strcspn(k->words, "|"), k->words);
        break;
    case KEY_STR:
        snprintf(out, cap, "other-%s", strchr(k->name, '.') + 1);
        break;
    }
    return out;
}

static void expect_only(const struct config *c, const struct key *k, const char *value)
{
    struct config *def = must_parse("");
    struct buf text = {0}, quoted = {0};
    for (size_t i = 0; i < n_keys; i++)
        if (&keys[i] != k && !key_equal(c, def, &keys[i]))
            fail_msg("setting %s changed %s", k->name, keys[i].name);
    key_text(c, k, &text);
    if (k->kind == KEY_STR)
        key_quote(&quoted, value);
    assert_string_equal(text.data, k->kind == KEY_STR ? quoted.data : value);
    buf_fini(&text);
    buf_fini(&quoted);
    config_free(def);
}

static void every_key_from_file_environment_and_flag(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_keys; i++) {
        const struct key *k = &keys[i];
        char value[64], text[256], var[256];
        struct err err = {0};
        if (strcmp(k->name, "drain.delay_ms") == 0)
            continue; // must stay below drain.timeout_ms; later_sources_win sets it
        int dot = (int)strcspn(k->name, ".");
        other_value(k, value, sizeof(value));
        snprintf(text, sizeof(text), "%.*s:\n  %s: %s\n", dot, k->name, k->name + dot + 1, value);
        struct config *c = must_parse(text);
        expect_only(c, k, value);
        config_free(c);

        size_t n = (size_t)snprintf(var, sizeof(var), "DUET__%.*s__%s=", dot, k->name, k->name + dot + 1);
        for (size_t j = 0; j < n; j++)
            if (var[j] >= 'a' && var[j] <= 'z')
                var[j] = (char)(var[j] - 32);
        snprintf(var + n, sizeof(var) - n, "%s", value);
        char *env[] = {(char[]){"HOME=/x"}, var, NULL};
        if (!(c = config_parse("", 0, "t", env, NULL, 0, &err)))
            fail_msg("%s: %s", var, err.msg);
        expect_only(c, k, value);
        config_free(c);

        snprintf(text, sizeof(text), "%s=%s", k->name, value);
        struct config_override set = {text};
        c = config_parse("", 0, "t", NULL, &set, 1, &err);
        assert_non_null(c);
        expect_only(c, k, value);
        config_free(c);
    }
}

static void later_sources_win(void **state)
{
    (void)state;
    struct err err = {0};
    const char text[] = "data: {port: 1}\nadmin: {port: 2}\nlog: {level: debug}\n";
    char *env[] = {(char[]){"DUET__ADMIN__PORT=22"}, (char[]){"DUET__LOG__LEVEL=warn"}, NULL};
    struct config_override set[] = {{"log.level=error"}, {"drain.delay_ms=7"}, {"drain.delay_ms=8"}};
    struct config *c = config_parse(text, sizeof(text) - 1, "t", env, set, 3, &err);
    assert_non_null(c);
    assert_int_equal(c->data.port, 1);
    assert_int_equal(c->admin.port, 22);
    assert_string_equal(c->log.level, "error");
    assert_int_equal(c->drain.delay_ms, 8);
    config_free(c);
}

static void wrong_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_keys; i++) {
        const struct key *k = &keys[i];
        char text[256], want[320];
        int dot = (int)strcspn(k->name, ".");
        if (k->kind == KEY_STR)
            continue;
        static const char *const bad[] = {"nonsense", "-1", "1.5", "99999999999999999999", "1e3", "\"\"", "[1]",
                                          "{a: 1}",   "+1", "0x10"};
        for (size_t j = 0; j < sizeof(bad) / sizeof(bad[0]); j++) {
            snprintf(text, sizeof(text), "# one\n%.*s:\n  %s: %s\n", dot, k->name, k->name + dot + 1, bad[j]);
            snprintf(want, sizeof(want), "t.yaml:3:%d: %s: found ", (int)strlen(k->name) - dot + 4, k->name);
            expect_error(text, want);
        }
        if (k->kind == KEY_UINT) {
            snprintf(text, sizeof(text), "%.*s: {%s: %llu}", dot, k->name, k->name + dot + 1,
                     (unsigned long long)k->max + 1);
            snprintf(want, sizeof(want), "want a whole number from %llu to %llu", (unsigned long long)k->min,
                     (unsigned long long)k->max);
            expect_error(text, want);
        }
    }
}

static void unknown_keys_and_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"data:\n  prot: 1\n", "t.yaml:2:3: unknown key data.prot; did you mean data.port?"},
        {"drian: {delay_ms: 1}\n", "t.yaml:1:1: unknown section drian; did you mean drain?"},
        {"exposur: {keep: 1}\n", "t.yaml:1:1: unknown section exposur; did you mean exposure?"},
        {"slowlog: {keep: 1}\n", "t.yaml:1:1: unknown section slowlog; did you mean slow_log?"},
        {"\nmodel: []\n", "t.yaml:2:1: unknown section model; did you mean models?"},
        {"zzzzzzzz: 1\n", "unknown section zzzzzzzz (duetd --sample-config lists all)"},
        {"data: {zzzzzzzzzzzz: 1}\n", "unknown key data.zzzzzzzzzzzz (duetd --sample-config"},
        {"data: 8080\n", "t.yaml:1:7: data: want a mapping of keys"},
        {"data: [1]\n", "data: want a mapping of keys"},
        {"[1, 2]\n", "want a mapping of sections"},
        {"data: {port: 1}\ndata: {port: 2}\n", "second time"},
        {"drain: {delay_ms: 10, timeout_ms: 5}\n", "drain.timeout_ms is 5, want at least drain.delay_ms (10)"},
        {"data: {port: 9000}\nadmin: {port: 9000}\n", "data and admin both want 127.0.0.1 port 9000"},
        {"models: 1\n", "models: want a list"},
        {"models: [1]\n", "want a model as a mapping of keys"},
        {"models:\n  - {name: a}\n", "t.yaml:2:5: a model without path"},
        {"models:\n  - {path: /a}\n", "a model without name"},
        {"models:\n  - {name: a, path: /a, verison: 1}\n", "unknown key verison of a model; did you mean version?"},
        {"models:\n  - {name: a/b, path: /a}\n", "found \"a/b\", want a name"},
        {"models:\n  - {name: .., path: /a}\n", "want a name"},
        {"models:\n  - {name: \"\", path: /a}\n", "found nothing"},
        {"models:\n  - {name: a, path: /a, version: 0}\n", "found \"0\", want latest or a version from 1"},
        {"models:\n  - {name: a, path: /a, versions: 3}\n", "versions: want a list of 1 to 64 versions"},
        {"models:\n  - {name: a, path: /a, versions: []}\n", "versions: want a list of 1 to 64 versions"},
        {"models:\n  - {name: a, path: /a, versions: [1, 0]}\n", "found \"0\", want a version from 1"},
        {"models:\n  - {name: a, path: /a, versions: [1, 1]}\n", "version 1 stands here for the second time"},
        {"models:\n  - {name: a, path: /a, version: 1, versions: [2]}\n", "both version and versions"},
        {"models:\n  - {name: a, path: /a, versions: [2]}\n  - {name: a, path: /b, versions: [2]}\n", "\"a@2\" stands here for the second time"},
        {"models:\n  - {name: a, path: /a}\n  - {name: a, path: /a, versions: [2]}\n", ":3: model \"a\" stands on line 2 too, one of the two with `versions`"},
        {"models:\n  - {name: a, path: /a, versions: [1, 2]}\n  - {name: a, path: /b, version: 3}\n", ":3: model \"a\" stands on line 2 too"},
        {"models: [{name: a, path: /a, versions: [2]}, {name: a, path: /b, versions: [3]}]\n", "with `versions` of another path"},
        {"models:\n  - {name: a@2, path: /a}\n", "names with an '@' are made by `versions` and `labels`; want the name \"a\""},
        {"labels: [a]\n", "labels: want a mapping"},
        {"models: [{name: a, path: /a}]\nlabels: {b@: a}\n", "found \"b@\", want a model's name, or name@label"},
        {"models: [{name: a, path: /a}]\nlabels: {b@c@d: a}\n", "found \"b@c@d\", want a model's name"},
        {"models: [{name: a, path: /a}]\nlabels: {a: a}\n", "t.yaml:2: label \"a\" is the name of a model"},
        {"models: [{name: a, path: /a}]\nlabels: {b: c}\n", "label \"b\": model \"c\" is not in models"},
        {"models:\n  - {name: a, path: /a, index_layout: quick}\n", "found \"quick\", want auto, plain, fast or compact"},
        {"models:\n  - {name: a, path: /a, target_recall: 0.4}\n", "found 0.4, want a recall from 0.5 to 1"},
        {"models:\n  - {name: a, path: /a}\n  - {name: a, path: /b}\n",
         "t.yaml:3: model \"a\" stands here for the second time"},
        {"experiments:\n  - {name: e, salt: s}\n", "an experiment without variants"},
        {"experiments:\n  - {name: e, variants: []}\n", "an experiment without salt"},
        {"experiments:\n  - {name: e, salt: s, variants: []}\n",
         "t.yaml:2: the weights of experiment \"e\" sum to 0, want 100"},
        {"experiments:\n  - {name: e, salt: s, unit: device, variants: []}\n", "unit \"device\" is not known"},
        {"experiments:\n  - {name: e, salt: s, variants: [{name: a, model: m, weight: 100}]}\n",
         "model \"m\" of a variant is not in models"},
        {"models: [{name: m, path: /m}]\nexperiments:\n  - {name: e, salt: s, variants: [{name: a, model: m, weight: "
         "60}, {name: b, model: m, weight: 30}]}\n",
         "sum to 90, want 100"},
        {"models: [{name: m, path: /m}]\nexperiments:\n  - {name: e, salt: s, variants: [{name: a, model: m, weight: "
         "50}, {name: a, model: m, weight: 50}]}\n",
         "variant \"a\" stands here for the second time"},
        {"models: [{name: m, path: /m}]\nexperiments:\n  - {name: e, salt: s, variants: [{name: a, model: m, weight: "
         "101}]}\n",
         "want a percentage from 0 to 100"},
        {"experiments:\n  - {name: e, salt: s, variants: [{model: dat, weight: 100}]}\n", "a variant without name"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        expect_error(cases[i].text, cases[i].message);
}

static void wrong_environment_and_flags(void **state)
{
    (void)state;
    static const struct {
        const char *env, *set, *message;
    } cases[] = {
        {"DUET__DATA__PROT=1", NULL, "environment DUET__DATA__PROT: unknown key data.prot; did you mean data.port?"},
        {"DUET__DATA__PORT=x", NULL, "environment DUET__DATA__PORT: data.port: found \"x\""},
        {"DUET__MODELS=x", NULL, "models can only be given in the file"},
        {NULL, "data.port", "--set: found \"data.port\", want section.key=value"},
        {NULL, "data.port=99999", "--set: data.port: found \"99999\", want a whole number from 0 to 65535"},
        {NULL, "log.levle=info", "--set: unknown key log.levle; did you mean log.level?"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = {0};
        char var[64];
        snprintf(var, sizeof(var), "%s", cases[i].env ? cases[i].env : "A=b");
        char *env[] = {var, NULL};
        struct config_override set = {cases[i].set};
        assert_null(config_parse("", 0, "t", env, &set, cases[i].set != NULL, &err));
        assert_non_null(strstr(err.msg, cases[i].message));
    }
    char *fine[] = {(char[]){"DUET_TEST_DATA=/x"}, (char[]){"DUET__BROKEN"}, NULL};
    struct err err = {0};
    struct config *c = config_parse("", 0, "t", fine, NULL, 0, &err);
    assert_non_null(c);
    config_free(c);
}

/* The form that deploy/quickstart.sh writes. */
static void models_and_experiments(void **state)
{
    (void)state;
    struct config *c = must_parse("data: {address: 127.0.0.1, port: 0}\n"
                                  "admin: {address: 127.0.0.1, port: 0}\n"
                                  "models:\n"
                                  "  - {name: two_tower, path: /m/two_tower}\n"
                                  "  - {name: dat, path: /m/dat, version: 3}\n"
                                  "experiments:\n"
                                  "  - name: main\n"
                                  "    salt: quickstart\n"
                                  "    variants:\n"
                                  "      - {name: control, model: two_tower, weight: 33.4}\n"
                                  "      - {name: treatment, model: dat, weight: 66.6, ef: 300, k: 50}\n");
    assert_int_equal(c->n_models, 2);
    assert_string_equal(c->model[1].path, "/m/dat");
    assert_int_equal(c->model[0].version, 0);
    assert_int_equal(c->model[1].version, 3);
    assert_int_equal(c->n_experiments, 1);
    const struct config_experiment *e = &c->experiment[0];
    assert_string_equal(e->unit, "user_id");
    assert_int_equal(e->line, 7);
    assert_int_equal(e->n_variants, 2);
    assert_string_equal(e->variant[1].model, "dat");
    assert_true(e->variant[1].weight == 66.6);
    assert_int_equal(e->variant[1].ef, 300);
    assert_int_equal(e->variant[0].k, 0);
    config_free(c);
}

/* The dump without where the values came from. */
static void cut_origins(struct buf *b)
{
    char *to = b->data;
    for (const char *from = b->data; *from;) {
        if (strncmp(from, "  # ", 4) == 0)
            from += strcspn(from, "\n");
        *to++ = *from++;
    }
    *to = '\0';
}

static void dump_reads_back(void **state)
{
    (void)state;
    struct buf first = {0}, second = {0};
    struct config *c = must_parse(
        "data: {port: 77}\nstate: {path: \"/x \\\"y\\\"\\\\ z\"}\nlog: {level: debug}\nload: {check_memory: false}\n"
        "models: [{name: m, path: \"/a b\", version: 2, index_layout: fast}, {name: n, path: /n, target_recall: 0.975}, {name: v, path: /v, "
        "versions: [4, 7]}]\nlabels: {v: v@4, v@canary: v@7}\n"
        "experiments: [{name: e, salt: \"s: #1\", variants: [{name: a, model: m, weight: 33.3, ef: 9}, {name: b, "
        "model: n, weight: 66.7}]}]\n");
    config_dump(c, &first);
    config_free(c);
    c = must_parse(first.data);
    assert_string_equal(c->state_path, "/x \"y\"\\ z");
    assert_string_equal(c->experiment[0].salt, "s: #1");
    assert_string_equal(c->model[0].index_layout, "fast");
    assert_true(c->model[1].target_recall > 0.9749 && c->model[1].target_recall < 0.9751);
    assert_string_equal(c->model[3].name, "v@7");
    assert_int_equal(c->model[3].version, 7);
    assert_string_equal(c->model[3].path, "/v");
    assert_string_equal(c->label[0].name, "v");
    assert_string_equal(c->label[1].model, "v@7");
    config_dump(c, &second);
    config_free(c);
    cut_origins(&first);
    cut_origins(&second);
    assert_string_equal(first.data, second.data);
    buf_fini(&first);
    buf_fini(&second);
}

static void expect_text(const struct buf *b, const char *text)
{
    if (!strstr(b->data, text))
        fail_msg("want %s in:\n%s", text, b->data);
}

/* Whoever wonders why a key has its value is told: the last word of defaults, file, environment and flags, and its place. */
static void dump_says_whence(void **state)
{
    (void)state;
    static const char text[] = "data:\n  threads: 3\nhttp: {idle_ms: 1000, body_ms: 2000}\nadmin: {port: 9}\n"
                               "models:\n  - {name: m, path: /m}\nlabels:\n  m@x: m\n"
                               "experiments:\n  - name: e\n    salt: s\n    variants: [{name: a, model: m, weight: 100}]\n";
    char *environment[] = {(char[]){"DUET__HTTP__BODY_MS=3000"}, (char[]){"DUET__ADMIN__PORT=7"}, NULL};
    struct config_override set[] = {{"admin.port=8"}};
    struct err err = {0};
    struct buf out = {0};
    struct config *c = config_parse(text, strlen(text), "a\nb.yaml", environment, set, 1, &err);
    assert_non_null(c);
    config_dump(c, &out);
    expect_text(&out, "  address: \"127.0.0.1\"  # default\n");
    expect_text(&out, "  threads: 3  # a?b.yaml:2\n");
    expect_text(&out, "  idle_ms: 1000  # a?b.yaml:3\n");
    expect_text(&out, "  body_ms: 3000  # DUET__HTTP__BODY_MS\n");
    expect_text(&out, "  port: 8  # --set\n");
    expect_text(&out, "index_layout: auto}  # a?b.yaml:6\n");
    expect_text(&out, "\"m@x\": \"m\"  # a?b.yaml:8\n");
    expect_text(&out, "  - name: \"e\"  # a?b.yaml:10\n");

    // What goes on being in force came from where it came from.
    struct config *next = must_parse("http: {deadline_ms: 9}\n\nlog: {slow_ms: 5}\n");
    assert_true(config_keep_frozen(next, c, &err));
    buf_reset(&out);
    config_dump(next, &out);
    expect_text(&out, "  threads: 3  # t.yaml:2\n"); // lines are those of the file as it was
    expect_text(&out, "  port: 8  # --set\n");
    expect_text(&out, "  slow_ms: 5  # t.yaml:3\n");
    expect_text(&out, "models: []  # default\n");
    config_free(next);
    config_free(c);
    buf_fini(&out);
}

static void sample_says_the_defaults(void **state)
{
    (void)state;
    struct buf sample = {0};
    config_sample(&sample);
    struct config *c = must_parse(sample.data), *def = must_parse("");
    for (size_t i = 0; i < n_keys; i++)
        if (!key_equal(c, def, &keys[i]))
            fail_msg("%s", keys[i].name);
    config_free(c);
    config_free(def);
    // With its commented-out lists put in, it is still a good file.
    for (char *p = sample.data; (p = strstr(p, "[]\n#"));)
        memcpy(p, "  \n ", 4);
    for (char *p = sample.data; (p = strstr(p, "{}\n#"));)
        memcpy(p, "  \n ", 4);
    for (char *p = sample.data; (p = strstr(p, "\n#  "));)
        p[1] = ' ';
    c = must_parse(sample.data);
    assert_int_equal(c->n_models, 4); // one of them in two versions
    assert_int_equal(c->n_labels, 2);
    assert_int_equal(c->n_experiments, 1);
    config_free(c);
    buf_fini(&sample);
}

static void expect_file_holds(const char *path, const char *text, bool whole)
{
    char full[PATH_MAX];
    struct err err = {0};
    size_t n;
    snprintf(full, sizeof(full), "%s/%s", getenv("DUET_SOURCE_DIR"), path);
    char *file = fio_read_all(full, 1 << 20, &n, &err);
    if (!file)
        fail_msg("%s", err.msg);
    if (whole ? strcmp(file, text) != 0 : !strstr(file, text))
        fail_msg("%s does not match the key table: write it anew (duetd --sample-config, duetd --table-config)", path);
    free(file);
}

static void files_equal_the_table(void **state)
{
    (void)state;
    struct buf sample = {0}, table = {0};
    if (!getenv("DUET_SOURCE_DIR"))
        skip();
    config_sample(&sample);
    config_table(&table);
    expect_file_holds("deploy/duetd.yaml", sample.data, true);
    expect_file_holds("docs/operations.md", table.data, false);
    buf_fini(&sample);
    buf_fini(&table);
}

static void changes_that_need_a_restart(void **state)
{
    (void)state;
    struct err err = {0};
    struct buf names = {0};
    struct config *now = must_parse("log: {level: info}\nstate: {path: \"/a\\\"b\"}\n");
    struct config *next =
        must_parse("log: {level: debug}\ndata: {port: 1}\nlimits: {k: 5}\nload: {mode: shared}\nstate: {path: /c}\n");
    config_frozen_changes(now, next, &names);
    assert_string_equal(names.data, "data.port, limits.k, load.mode, state.path");
    assert_true(config_keep_frozen(next, now, &err));
    assert_int_equal(next->data.port, 8080);
    assert_string_equal(next->state_path, "/a\"b");
    assert_string_equal(next->log.level, "debug");
    buf_reset(&names);
    config_frozen_changes(now, next, &names);
    assert_string_equal(names.data, "");
    buf_fini(&names);
    config_free(now);
    config_free(next);
}

static void keys_have_help_and_sections_stand_together(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_keys; i++) {
        size_t n = strcspn(keys[i].name, ".");
        assert_non_null(keys[i].help);
        assert_true(keys[i].kind != KEY_UINT || keys[i].min < keys[i].max);
        assert_null(strchr(keys[i].help, '|')); // would break the table
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(keys[i].name, keys[j].name);
            bool same = strncmp(keys[i].name, keys[j].name, n + 1) == 0;
            if (same && strncmp(keys[i].name, keys[i - 1].name, n + 1) != 0)
                fail_msg("%s stands apart from its section", keys[i].name);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_from_file_environment_and_flag),
        cmocka_unit_test(later_sources_win),
        cmocka_unit_test(wrong_values),
        cmocka_unit_test(unknown_keys_and_shapes),
        cmocka_unit_test(wrong_environment_and_flags),
        cmocka_unit_test(models_and_experiments),
        cmocka_unit_test(dump_reads_back),
        cmocka_unit_test(dump_says_whence),
        cmocka_unit_test(sample_says_the_defaults),
        cmocka_unit_test(files_equal_the_table),
        cmocka_unit_test(changes_that_need_a_restart),
        cmocka_unit_test(keys_have_help_and_sections_stand_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
