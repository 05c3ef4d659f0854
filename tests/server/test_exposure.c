/* If this fails, exposures are lost without being counted, are torn, or the log grows without bound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <time.h>

#include "core/base/fio.h"
#include "server/exposure.h"
#include "server/exposure_file.h"

static char dir[64], path[96];
static struct log quiet;
static const struct exposure_kafka_params no_kafka = {"", "", ""};

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/duet-exposure-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof(path), "%s/x.log", dir);
    quiet.fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    return quiet.fd < 0;
}

static int remove_dir(void **state)
{
    (void)state;
    close(quiet.fd);
    return fio_remove_tree(dir, NULL) ? 0 : -1;
}

static char *content(const char *suffix, size_t *n)
{
    char name[128];
    snprintf(name, sizeof(name), "%s%s", path, suffix);
    return fio_exists(name) ? fio_read_all(name, 1u << 28, n, NULL) : NULL;
}

static void holds(const char *suffix, const char *want)
{
    size_t n = 0;
    char *text = content(suffix, &n);
    if (!want)
        assert_null(text);
    else
        assert_string_equal(text, want);
    free(text);
}

static void must_write(struct exposure_file *f, const char *lines)
{
    struct err err = {0};
    size_t written;
    if (!exposure_file_write(f, lines, strlen(lines), &written, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(written, strlen(lines));
}

static void files_rotate_between_lines(void **state)
{
    (void)state;
    struct exposure_file f;
    assert_true(exposure_file_open(&f, path, 10, 2, NULL));
    must_write(&f, "1234\n6789\n"); // exactly full
    holds("", "1234\n6789\n");
    must_write(&f, "a\nb\nc\nd\ne\nf\n"); // 12 bytes
    holds(".2", "1234\n6789\n");
    holds(".1", "a\nb\nc\nd\ne\n");
    holds("", "f\n");
    exposure_file_close(&f);
    assert_true(exposure_file_open(&f, path, 10, 2, NULL)); // a restart goes on in the same file
    must_write(&f, "a line that is longer than a file\n");
    must_write(&f, "x\n");
    holds("", "x\n");
    holds(".1", "a line that is longer than a file\n");
    holds(".3", NULL);
    exposure_file_close(&f);
    assert_true(exposure_file_open(&f, path, 10, 0, NULL));
    must_write(&f, "12345678\n");
    holds("", "12345678\n");
    exposure_file_close(&f);
}

static void a_renamed_file_is_left_alone(void **state)
{
    (void)state;
    struct exposure_file f;
    char moved[128];
    struct err err = {0};
    snprintf(moved, sizeof(moved), "%s.moved", path);
    assert_true(exposure_file_open(&f, path, 1000, 2, NULL));
    must_write(&f, "1\n");
    assert_int_equal(rename(path, moved), 0);
    must_write(&f, "2\n");
    assert_true(exposure_file_reopen(&f, NULL));
    must_write(&f, "3\n");
    holds(".moved", "1\n2\n");
    holds("", "3\n");
    exposure_file_close(&f);
    assert_false(exposure_file_open(&f, dir, 1000, 2, &err));
    assert_non_null(strstr(err.msg, dir));
}

/* /dev/full takes nothing: no rotation, no torn line, and what is lost is said. */
static void a_full_disk_is_told(void **state)
{
    (void)state;
    struct exposure_file f;
    struct err err = {0};
    size_t written = 9;
    assert_true(exposure_file_open(&f, path, 1000, 2, NULL));
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_true(full >= 0 && dup2(full, f.fd) == f.fd);
    assert_false(exposure_file_write(&f, "1\n", 2, &written, &err));
    assert_int_equal(written, 0);
    assert_non_null(strstr(err.msg, "No space left"));
    close(full);
    exposure_file_close(&f);
}

enum { LOOPS = 4, LINES = 20000 };

struct loop {
    struct exposure *e;
    unsigned i;
    uint64_t refused;
};

static void *put_lines(void *arg)
{
    struct loop *l = arg;
    char line[300];
    for (unsigned i = 0; i < LINES; i++) {
        int n = snprintf(line, sizeof(line), "%u %u %0*d\n", l->i, i, (int)(i * 7 % 250) + 1, 0);
        l->refused += !exposure_put(l->e, l->i, line, (size_t)n);
        if (i % 1000 == 0)
            nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return NULL;
}

/* Several loops put as fast as they can: each line arrives whole and in order, or is counted. */
static void lines_arrive_or_are_counted(void **state)
{
    (void)state;
    struct metrics *m = metrics_new(LOOPS, NULL);
    struct exposure_params p = {.path = path, .max_bytes = 1u << 30, .keep = 1, .kafka = no_kafka, .n_rings = LOOPS, .sample = 1, .metrics = m, .log = &quiet};
    struct err err = {0};
    struct exposure *e = exposure_new(&p, &err);
    if (!e)
        fail_msg("%s", err.msg);
    pthread_t t[LOOPS];
    struct loop loop[LOOPS];
    uint64_t refused = 0, seen = 0;
    for (unsigned i = 0; i < LOOPS; i++) {
        loop[i] = (struct loop){e, i, 0};
        assert_int_equal(pthread_create(&t[i], NULL, put_lines, &loop[i]), 0);
    }
    for (unsigned i = 0; i < LOOPS; i++) {
        pthread_join(t[i], NULL);
        refused += loop[i].refused;
    }
    char *whole = malloc(EXPOSURE_RING);
    memset(whole, 'x', EXPOSURE_RING);
    exposure_put(e, 0, "0 20000 0\n", 10);
    assert_false(exposure_put(e, 0, whole, EXPOSURE_RING)); // never room beside the line before
    free(whole);
    exposure_free(e); // writes what is left
    metric_id written = metrics_counter(m, "duet_exposure_lines_total", "", "sink=\"file\""),
              lost = metrics_counter(m, "duet_exposure_dropped_total", "", "reason=\"no_room\"");
    size_t n = 0;
    char *text = content("", &n);
    unsigned next[LOOPS] = {0};
    for (char *at = text, *end; at < text + n; at = end + 1) {
        unsigned i, number;
        int zeros = 0;
        end = memchr(at, '\n', (size_t)(text + n - at));
        assert_non_null(end);
        *end = '\0';
        assert_int_equal(sscanf(at, "%u %u %n", &i, &number, &zeros), 2);
        assert_true(i < LOOPS && number >= next[i]);
        next[i] = number + 1;
        if (number < LINES)
            assert_int_equal(strlen(at + zeros), number * 7 % 250 + 1);
        seen++;
    }
    assert_int_equal(seen + refused, LOOPS * LINES + 1);
    assert_int_equal(metrics_value(m, written), seen);
    assert_int_equal(metrics_value(m, lost), refused + 1);
    free(text);
    metrics_free(m);
}

static void sampling_keeps_whole_units(void **state)
{
    (void)state;
    struct metrics *m = metrics_new(1, NULL);
    struct exposure_params p = {.path = path, .max_bytes = 1u << 20, .kafka = no_kafka, .n_rings = 1, .sample = 10, .metrics = m, .log = &quiet};
    struct exposure *e = exposure_new(&p, NULL);
    assert_true(exposure_wants(e, 70));
    assert_false(exposure_wants(e, 71));
    exposure_tune(e, 1);
    assert_true(exposure_wants(e, 71));
    exposure_free(e);
    struct err err = {0};
    p.path = "/no/such/folder/x";
    assert_null(exposure_new(&p, &err));
    assert_non_null(strstr(err.msg, "exposure.path: cannot open /no/such/folder/x"));
    metrics_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(files_rotate_between_lines, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_renamed_file_is_left_alone, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_full_disk_is_told, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(lines_arrive_or_are_counted, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(sampling_keeps_whole_units, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
