/* duet study as a user runs it. If this fails, hours of training are lost with a kill, or the tables that come of them differ. */
#include "tests/core/support.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "tests/cli/run.h"
#include "tests/core/base/xml.h"

static char folder[] = "/tmp/duet-study-XXXXXX";

static const char *in(const char *name)
{
    static char ring[8][PATH_MAX];
    static unsigned at;
    char *out = ring[at++ % 8];
    snprintf(out, PATH_MAX, "%s/%s", folder, name);
    return out;
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    duet_ok("synth --out %s --users 200 --items 150 --interactions 3000", in("raw"));
    duet_ok("prepare --in %s --out %s", in("raw"), in("data.duet"));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return fio_remove_tree(folder, NULL) ? 0 : -1;
}

#define SMALL "--epochs 2 --seeds 2 --points 2 --threads 1"

static size_t count_results(const char *dir)
{
    char runs[PATH_MAX];
    size_t n = 0;
    snprintf(runs, sizeof(runs), "%s/runs", dir);
    DIR *d = opendir(runs);
    for (const struct dirent *e; d && (e = readdir(d));)
        n += strlen(e->d_name) > 5 && strcmp(e->d_name + strlen(e->d_name) - 5, ".json") == 0;
    if (d)
        closedir(d);
    return n;
}

static void kill_after(size_t n_results, const char *dir)
{
    char program[PATH_MAX];
    const char *bin = getenv("DUET_BIN_DIR");
    snprintf(program, sizeof(program), "%s/duet", bin ? bin : ".");
    pid_t pid = fork();
    if (pid == 0) {
        execl(program, "duet", "study", "compare", "--data", in("data.duet"), "--out", dir, "--epochs", "2", "--seeds", "2",
              "--points", "2", "--threads", "1", (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 60000 && count_results(dir) < n_results; i++)
        usleep(1000);
    kill(pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status)); // it was not done yet
}

static void assert_same(const char *a, const char *b, const char *up_to)
{
    size_t n, m;
    char *x = get_file(a, &n), *y = get_file(b, &m);
    if (up_to) {
        char *ex = strstr(x, up_to), *ey = strstr(y, up_to);
        assert_true(ex && ey);
        *ex = *ey = 0;
    }
    assert_string_equal(x, y);
    free(x);
    free(y);
}

static void killed_and_resumed_it_writes_the_same_tables(void **state)
{
    (void)state;
    const char *killed = in("killed"), *whole = in("whole");
    kill_after(3, killed);
    kill_after(9, killed);
    size_t n = count_results(killed);
    assert_in_range(n, 9, 29);
    struct run r = duet(0, "study compare --data %s --out %s --dry-run " SMALL, in("data.duet"), killed);
    size_t done = 0;
    for (const char *p = r.out; (p = strstr(p, "done     ")); p++)
        done++;
    assert_int_equal(done, n);
    run_fini(&r);
    r = duet(0, "study compare --data %s --out %s " SMALL, in("data.duet"), killed);
    assert_non_null(strstr(r.out, "33 of 33 runs done"));
    assert_int_not_equal(strncmp(r.err, "1/33 ", 5), 0);
    run_fini(&r);
    duet_ok("study compare --data %s --out %s " SMALL, in("data.duet"), whole);
    char a[PATH_MAX], b[PATH_MAX];
    static const char *const files[][2] = {{"compare.csv", NULL}, {"compare.svg", NULL}, {"compare.md", "## Training time"}};
    for (size_t i = 0; i < 3; i++) {
        snprintf(a, sizeof(a), "%s/%s", killed, files[i][0]);
        snprintf(b, sizeof(b), "%s/%s", whole, files[i][0]);
        assert_same(a, b, files[i][1]);
    }
}

/* The one file of DIR/runs whose name has that in it; "" where there is none. */
static void find_run(const char *dir, const char *part, char out[PATH_MAX])
{
    char runs[PATH_MAX];
    out[0] = 0;
    assert_true(fio_join(runs, dir, "runs", NULL));
    DIR *d = opendir(runs);
    for (const struct dirent *e; d && (e = readdir(d));)
        if (strstr(e->d_name, part))
            assert_true(fio_join(out, runs, e->d_name, NULL));
    if (d)
        closedir(d);
}

static bool has_an_epoch(const char *dir)
{
    char train[PATH_MAX], state[PATH_MAX];
    find_run(dir, ".train", train);
    return train[0] && fio_join(state, train, "optimizer.safetensors", NULL) && fio_exists(state);
}

static char *result_of(const char *dir)
{
    char path[PATH_MAX];
    size_t size;
    find_run(dir, ".json", path);
    return get_file(path, &size);
}

/* Killed between two epochs, a run of towers goes on from the last one, and ends with the same ranks. */
static void a_run_under_way_goes_on_from_its_last_epoch(void **state)
{
    (void)state;
#define ONE "--systems dat --seeds 1 --points 1 --threads 1"
    char program[PATH_MAX];
    const char *bin = getenv("DUET_BIN_DIR"), *killed = in("epoch"), *whole = in("epochs");
    snprintf(program, sizeof(program), "%s/duet", bin ? bin : ".");
    pid_t pid = fork();
    if (pid == 0) {
        execl(program, "duet", "study", "compare", "--data", in("data.duet"), "--out", killed, "--systems", "dat", "--seeds", "1",
              "--points", "1", "--threads", "1", (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 60000 && !has_an_epoch(killed); i++)
        usleep(500);
    kill(pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    duet_ok("study compare --data %s --out %s " ONE, in("data.duet"), killed);
    duet_ok("study compare --data %s --out %s " ONE, in("data.duet"), whole);
    char *a = result_of(killed), *b = result_of(whole);
    assert_non_null(strstr(a, "\"cpu_s\": null")); // it began in the middle: its time says nothing
    assert_null(strstr(b, "\"cpu_s\": null"));
    free(a);
    free(b);
    assert_same(in("epoch/compare.csv"), in("epochs/compare.csv"), NULL);
}

/* After the first one: nothing is left to train, and options that change a run are another run. */
static void a_changed_option_is_another_run(void **state)
{
    (void)state;
    struct run r = duet(0, "study compare --data %s --out %s " SMALL, in("data.duet"), in("whole"));
    assert_string_equal(r.err, "");
    run_fini(&r);
    r = duet(0, "study compare --data %s --out %s --dry-run --epochs 3 --seeds 2 --points 2", in("data.duet"), in("whole"));
    size_t done = 0;
    for (const char *p = r.out; (p = strstr(p, "done     ")); p++)
        done++;
    assert_int_equal(done, 3); // popularity, and EASE with two penalties
    run_fini(&r);
    r = duet(0, "study recipes --data %s --out %s --dry-run " SMALL, in("data.duet"), in("whole"));
    assert_non_null(strstr(r.out, "done")); // dat as in compare
    run_fini(&r);
}

static void what_is_there_is_drawn_and_what_is_missing_said(void **state)
{
    (void)state;
    struct run r = duet(1, "study dimension --data %s --out %s --render " SMALL, in("data.duet"), in("part"));
    assert_non_null(strstr(r.err, "no result"));
    run_fini(&r);
    r = duet(0, "study dimension --data %s --out %s --budget 0.00001 " SMALL, in("data.duet"), in("part"));
    assert_non_null(strstr(r.out, "1 of 20 runs done; the same command goes on"));
    run_fini(&r);
    duet_ok("study dimension --data %s --out %s --systems dat_d8,dat_d16 " SMALL, in("data.duet"), in("part"));
    r = duet(0, "study dimension --data %s --out %s --render " SMALL, in("data.duet"), in("part"));
    assert_non_null(strstr(r.out, "4 of 20 runs done"));
    assert_string_equal(r.err, ""); // nothing is trained
    run_fini(&r);
    size_t n;
    char *text = get_file(in("part/dimension.svg"), &n);
    assert_well_formed(text);
    assert_non_null(strstr(text, ">dat<"));
    free(text);
    text = get_file(in("part/dimension.md"), &n);
    assert_non_null(strstr(text, "done: 4 of 20 runs, what is not there yet is left out"));
    assert_non_null(strstr(text, "| two_tower_d8 | 0 |"));
    free(text);
}

/* The bundle is published, asked exactly and through its graph, and removed again. */
static void what_the_index_costs(void **state)
{
    (void)state;
    duet_ok("study index --data %s --out %s --systems dat,mind --epochs 2 --seeds 1 --threads 1", in("data.duet"), in("index"));
    size_t n;
    char *text = get_file(in("index/index.md"), &n);
    assert_non_null(strstr(text, ", served | "));
    assert_non_null(strstr(text, "| dat | 400 | "));
    assert_non_null(strstr(text, "| mind | 400 | "));
    char *at = strstr(text, "| dat | 400 | ");
    double graph, exact;
    assert_int_equal(sscanf(at, "| dat | 400 | %*f | %*f | %lf | %lf |", &graph, &exact), 2);
    assert_true(exact > 0.3 && graph > 0.99 * exact); // 150 items: ef = 400 sees them all
    free(text);
    text = get_file(in("index/index.svg"), &n);
    assert_well_formed(text);
    free(text);
    DIR *runs = opendir(in("index/runs"));
    for (const struct dirent *e; (e = readdir(runs));)
        assert_null(strstr(e->d_name, ".train"));
    closedir(runs);
}

static void wrong_usage_is_refused(void **state)
{
    (void)state;
    struct run r = duet(2, "study --data %s --out %s", in("data.duet"), in("x"));
    assert_non_null(strstr(r.err, "name of one study"));
    run_fini(&r);
    r = duet(2, "study comparison --data %s --out %s", in("data.duet"), in("x"));
    assert_non_null(strstr(r.err, "no study \"comparison\""));
    run_fini(&r);
    r = duet(2, "study compare --data %s", in("data.duet"));
    assert_non_null(strstr(r.err, "--out"));
    run_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_and_resumed_it_writes_the_same_tables),
        cmocka_unit_test(a_run_under_way_goes_on_from_its_last_epoch),
        cmocka_unit_test(a_changed_option_is_another_run),
        cmocka_unit_test(what_is_there_is_drawn_and_what_is_missing_said),
        cmocka_unit_test(what_the_index_costs),
        cmocka_unit_test(wrong_usage_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
