/* If this fails, two publications destroy each other's work, or a killed one leaves rubbish for ever. */
#include "tests/core/support.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/staging.h"

static void becomes_a_version(void **state)
{
    struct err e = {0};
    struct staging s;
    char file[PATH_MAX];
    assert_ok(staging_open(&s, tmp_path(state, "repo/m"), &e), &e);
    fio_join(file, s.dir, "f", NULL);
    put_file(file, "x", 1);
    assert_ok(staging_commit(&s, 3, &e), &e);
    staging_close(&s);
    assert_true(fio_exists(tmp_path(state, "repo/m/3/f")));
}

/* Even an empty folder of that name is not replaced, and the work is kept for another name. */
static void a_taken_version_is_left_alone(void **state)
{
    struct err e = {0};
    struct staging s;
    assert_ok(fio_mkdirs(tmp_path(state, "m/3"), &e) && fio_mkdirs(tmp_path(state, "m/4"), &e), &e);
    put_file(tmp_path(state, "m/4/f"), "old", 3);
    assert_ok(staging_open(&s, tmp_path(state, "m"), &e), &e);
    assert_err(staging_commit(&s, 3, &e), &e, ERR_STATE, "m/3 exists already");
    assert_err(staging_commit(&s, 4, &e), &e, ERR_STATE, "m/4 exists already");
    assert_true(fio_exists(tmp_path(state, "m/4/f")));
    assert_ok(staging_commit(&s, 5, &e), &e);
    staging_close(&s);
    assert_true(fio_is_dir(tmp_path(state, "m/5")));
}

static void what_is_given_up_goes_away(void **state)
{
    struct err e = {0};
    struct staging s;
    char dir[PATH_MAX];
    assert_ok(staging_open(&s, tmp_path(state, "m"), &e), &e);
    memcpy(dir, s.dir, sizeof(dir));
    assert_true(fio_is_dir(dir));
    staging_close(&s);
    assert_false(fio_exists(dir));
    staging_close(&s);
}

static void dead_ones_are_removed_live_ones_kept(void **state)
{
    struct err e = {0};
    struct staging live, other;
    assert_ok(fio_mkdirs(tmp_path(state, "m/.tmp-1-0/deep"), &e), &e);
    put_file(tmp_path(state, "m/.tmp-1-0/deep/f"), "x", 1);
    put_file(tmp_path(state, "m/.tmp-file"), "x", 1); // no folder: not ours
    assert_ok(staging_open(&live, tmp_path(state, "m"), &e), &e);
    assert_false(fio_exists(tmp_path(state, "m/.tmp-1-0")));
    assert_ok(staging_open(&other, tmp_path(state, "m"), &e), &e);
    assert_true(fio_is_dir(live.dir) && fio_is_dir(other.dir) && strcmp(live.dir, other.dir) != 0);
    assert_ok(staging_commit(&live, 1, &e) && staging_commit(&other, 2, &e), &e);
    staging_close(&live);
    staging_close(&other);
}

static void says_why_it_cannot_begin(void **state)
{
    struct err e = {0};
    struct staging s;
    put_file(tmp_path(state, "m"), "x", 1);
    assert_err(staging_open(&s, tmp_path(state, "m"), &e), &e, ERR_IO, "not a folder");
    staging_close(&s);
}

/* Many processes at once: every one gets a folder, none loses it. */
static void processes_do_not_disturb_each_other(void **state)
{
    struct err e = {0};
    enum { N = 8, ROUNDS = 25 };
    pid_t pid[N];
    for (int i = 0; i < N; i++)
        if ((pid[i] = fork()) == 0) {
            for (int r = 0; r < ROUNDS; r++) {
                struct staging s;
                char file[PATH_MAX];
                if (!staging_open(&s, tmp_path(state, "m"), &e) || !fio_join(file, s.dir, "f", NULL) ||
                    !fio_write_atomic(file, "x", 1, &e) || !staging_commit(&s, (uint64_t)(1 + i * ROUNDS + r), &e)) {
                    fprintf(stderr, "process %d: %s\n", i, e.msg);
                    _exit(1);
                }
                staging_close(&s);
            }
            _exit(0);
        }
    int failed = 0, status;
    for (int i = 0; i < N; i++) {
        waitpid(pid[i], &status, 0);
        failed += status != 0;
    }
    assert_int_equal(failed, 0);
    for (int v = 1; v <= N * ROUNDS; v++) {
        char name[32];
        snprintf(name, sizeof(name), "m/%d/f", v);
        assert_true(fio_exists(tmp_path(state, name)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(becomes_a_version, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(a_taken_version_is_left_alone, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(what_is_given_up_goes_away, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(dead_ones_are_removed_live_ones_kept, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(says_why_it_cannot_begin, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(processes_do_not_disturb_each_other, tmp_setup, tmp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
