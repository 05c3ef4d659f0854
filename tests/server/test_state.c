/* If this fails, a restart brings back a version that was rolled back, or forgets an experiment. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/fio.h"
#include "server/state.h"

#define WITH(quarantine) "{\"format\":\"duet-state\",\"format_version\":1,\"revision\":1,\"models\":{},\"quarantine\":" quarantine "}"

static char dir[64], path[96];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/duet-state-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof(path), "%s/state.json", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return fio_remove_tree(dir, NULL) ? 0 : -1;
}

static struct state *must_open(const char *p)
{
    struct err err = {0};
    struct state *s = state_open(p, &err);
    if (!s)
        fail_msg("%s", err.msg);
    return s;
}

static struct experiment_table *table(void)
{
    const char *text = "{\"experiments\":[{\"name\":\"m\",\"variants\":[{\"name\":\"a\",\"weight\":40},{\"name\":\"b\","
                       "\"weight\":60}]}]}";
    json_t *o = json_parse(text, strlen(text), NULL);
    struct experiment_table *t = experiment_table_from_json(o, NULL, NULL);
    json_decref(o);
    return t;
}

static void pins_and_tables_survive(void **unused)
{
    (void)unused;
    struct err err = {0};
    uint64_t rev = 0;
    struct state *s = must_open(path);
    assert_true(state_persistent(s));
    assert_int_equal(state_revision(s), 0);
    assert_null(state_experiments(s));
    assert_true(state_set_pin(s, "dat", 7, STATE_ANY_REVISION, &rev, &err));
    assert_int_equal(rev, 1);
    struct experiment_table *t = table();
    assert_true(state_set_experiments(s, t, 1, &rev, &err));
    experiment_table_unref(t);
    assert_true(state_set_pin(s, "two_tower", 3, 2, &rev, &err));
    assert_true(state_set_pin(s, "two_tower", 0, 3, &rev, &err));
    state_free(s);

    s = must_open(path);
    assert_int_equal(state_revision(s), 4);
    assert_int_equal(state_pin(s, "dat"), 7);
    assert_int_equal(state_pin(s, "two_tower"), 0);
    t = state_experiments(s);
    assert_int_equal(experiment_table_get(t, 0)->owner[4000], 1);
    experiment_table_unref(t);
    state_free(s);
}

static void refused_versions_survive(void **unused)
{
    (void)unused;
    struct err err = {0};
    struct quarantined q[QUARANTINED_MAX] = {{.version = 3, .folder = UINT64_MAX, .since = 1700000000, .reason = "users.pack: cut"},
                                             {.version = 5, .folder = 7, .since = 1, .reason = "\xc3\xa9t\xc3\xa9"}},
                       r[QUARANTINED_MAX];
    struct state *s = must_open(path);
    assert_int_equal(state_quarantine(s, "dat", r), 0);
    assert_true(state_set_quarantine(s, "dat", q, 2, &err));
    assert_true(state_set_quarantine(s, "gone", q, 1, &err) && state_set_quarantine(s, "gone", q, 0, &err));
    assert_true(state_set_pin(s, "dat", 7, 0, NULL, &err)); // the revision is the operator's
    state_free(s);
    s = must_open(path);
    assert_int_equal(state_quarantine(s, "gone", r), 0);
    assert_int_equal(state_quarantine(s, "dat", r), 2);
    assert_int_equal(r[0].version, 3);
    assert_true(r[0].folder == UINT64_MAX && r[0].since == 1700000000);
    assert_string_equal(r[0].reason, "users.pack: cut");
    assert_string_equal(r[1].reason, "\xc3\xa9t\xc3\xa9");
    state_free(s);
    char missing[128]; // where nothing can be written they hold until the restart
    snprintf(missing, sizeof(missing), "%s/none/state.json", dir);
    s = must_open(missing);
    assert_false(state_set_quarantine(s, "dat", q, 1, &err));
    assert_int_equal(err.code, ERR_STATE);
    assert_int_equal(state_quarantine(s, "dat", r), 1);
    state_free(s);
}

/* Else a bundle that was published before the daemons were upgraded is never served: the old one's refusal outlives it. */
static void another_duetds_refusals_are_not_taken_over(void **unused)
{
    (void)unused;
    struct quarantined r[QUARANTINED_MAX];
    FILE *f = fopen(path, "w");
    fprintf(f, WITH("{\"dat\":[{\"version\":3,\"folder\":\"0000000000000001\",\"since\":1,\"duetd\":\"0.0.1\",\"reason\":\"a\"},"
                    "{\"version\":4,\"folder\":\"0000000000000001\",\"since\":1,\"duetd\":\"%s\",\"reason\":\"b\"},"
                    "{\"version\":5,\"folder\":\"0000000000000001\",\"since\":1,\"reason\":\"c\"}]}"), DUET_VERSION);
    fclose(f);
    struct state *s = must_open(path);
    assert_int_equal(state_quarantine(s, "dat", r), 1);
    assert_int_equal(r[0].version, 4);
    assert_string_equal(r[0].reason, "b");
    state_free(s);
}

static void revision_guards(void **unused)
{
    (void)unused;
    struct err err = {0};
    struct state *s = must_open(path);
    assert_true(state_set_pin(s, "dat", 1, 0, NULL, &err));
    assert_false(state_set_pin(s, "dat", 2, 0, NULL, &err));
    assert_int_equal(err.code, ERR_MISMATCH);
    assert_int_equal(state_pin(s, "dat"), 1);
    state_free(s);
}

static void without_a_path_nothing_is_kept(void **unused)
{
    (void)unused;
    struct err err = {0};
    struct state *s = must_open("");
    assert_false(state_persistent(s));
    assert_true(state_set_pin(s, "dat", 2, STATE_ANY_REVISION, NULL, &err));
    assert_int_equal(state_pin(s, "dat"), 2);
    state_free(s);
}

static void a_file_that_cannot_be_written_changes_nothing(void **unused)
{
    (void)unused;
    struct err err = {0};
    char missing[128];
    snprintf(missing, sizeof(missing), "%s/none/state.json", dir);
    struct state *s = must_open(missing);
    assert_false(state_set_pin(s, "dat", 2, STATE_ANY_REVISION, NULL, &err));
    assert_int_equal(err.code, ERR_STATE);
    assert_int_equal(state_pin(s, "dat"), 0);
    assert_int_equal(state_revision(s), 0);
    state_free(s);
}

static void damaged_files_are_refused(void **unused)
{
    (void)unused;
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "{}",
        "{\"format\":\"x\"}",
        "{\"format\":\"duet-state\",\"format_version\":2,\"revision\":1,\"models\":{}}",
        "{\"format\":\"duet-state\",\"format_version\":1,\"models\":{}}",
        "{\"format\":\"duet-state\",\"format_version\":1,\"revision\":1,\"models\":{\"dat\":7}}",
        "{\"format\":\"duet-state\",\"format_version\":1,\"revision\":1,\"models\":{\"dat\":{\"pinned\":0}}}",
        WITH("[]"),
        WITH("{\"dat\":3}"),
        WITH("{\"dat\":[{\"version\":3,\"folder\":\"00\",\"since\":1,\"reason\":\"\"}]}"),
        WITH("{\"dat\":[{\"version\":0,\"folder\":\"0000000000000001\",\"since\":1,\"reason\":\"\"}]}"),
        WITH("{\"dat\":[{\"version\":3,\"folder\":\"0000000000000001\",\"reason\":\"\"}]}"),
        ("{\"format\":\"duet-state\",\"format_version\":1,\"revision\":1,\"models\":{},\"experiments\":{"
         "\"experiments\":"
         "[{}]}}"),
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err = {0};
        FILE *f = fopen(path, "w");
        fputs(bad[i], f);
        fclose(f);
        if (state_open(path, &err))
            fail_msg("accepted: %s", bad[i]);
        assert_non_null(strstr(err.msg, path));
    }
}

/* Killed at any moment while writing: the file is a whole one, of a revision that was written. */
static void a_kill_leaves_a_whole_file(void **unused)
{
    (void)unused;
    uint64_t last = 0;
    for (int round = 0; round < 20; round++) {
        int begun[2];
        char byte;
        assert_int_equal(pipe(begun), 0);
        pid_t child = fork();
        if (child == 0) {
            struct state *s = state_open(path, NULL);
            for (uint64_t v = 1; s != NULL && v != 0; v++) {
                state_set_pin(s, "dat", v, STATE_ANY_REVISION, NULL, NULL);
                if (v == 1 && write(begun[1], "w", 1) != 1)
                    break;
            }
            _exit(1);
        }
        close(begun[1]);
        assert_int_equal(read(begun[0], &byte, 1), 1); // 0 from a child that could not open the file
        close(begun[0]);
        usleep((useconds_t)(round * 700));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        struct state *s = must_open(path);
        assert_true(state_revision(s) >= last);
        last = state_revision(s);
        state_free(s);
    }
    assert_true(last > 0);
}

#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_DIR(pins_and_tables_survive),        IN_DIR(revision_guards),
        IN_DIR(refused_versions_survive),       IN_DIR(another_duetds_refusals_are_not_taken_over),
        IN_DIR(without_a_path_nothing_is_kept), IN_DIR(a_file_that_cannot_be_written_changes_nothing),
        IN_DIR(damaged_files_are_refused),      IN_DIR(a_kill_leaves_a_whole_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
