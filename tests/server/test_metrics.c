/* Breaks when counts are lost between threads, buckets do not add up, or the text is no longer what Prometheus reads.
 */
#include <ctype.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "server/metrics.h"
#include "tests/server/metrics_text.h"

static struct metrics *make(unsigned shards)
{
    struct err err = {0};
    struct metrics *m = metrics_new(shards, &err);
    assert_non_null(m);
    return m;
}

static char *text_of(struct metrics *m)
{
    struct buf out = {0};
    metrics_write(m, &out);
    buf_puts(&out, "");
    assert_false(out.failed);
    char message[200];
    if (!metrics_text_is_valid(out.data, message, sizeof(message)))
        fail_msg("%s in:\n%s", message, out.data);
    return out.data;
}

static double seven(void *ctx)
{
    return *(double *)ctx;
}

static void kinds_and_text(void **state)
{
    (void)state;
    struct metrics *m = make(3);
    double value = 7.5;
    char label[32];
    metric_id c = metrics_counter(m, "duet_things_total", "Things.", "kind=\"a\"");
    metric_id d = metrics_counter(m, "duet_things_total", "Things.", "kind=\"b\"");
    metric_id g = metrics_gauge(m, "duet_level", "Level.", NULL);
    metric_id h = metrics_seconds(m, "duet_wait_seconds", "Wait.", "model=\"x\"");
    metric_id s = metrics_sizes(m, "duet_k", "Candidates.", "");
    metrics_gauge_fn(m, "duet_asked", "Asked.", "", seven, &value);
    metrics_counter_fn(m, "duet_grown_total", "Grown.", "", seven, &value);
    assert_int_equal(metrics_counter(m, "duet_things_total", "Things.", "kind=\"a\""), c);
    assert_int_not_equal(c, d);
    assert_int_equal(metrics_gauge(m, "duet_things_total", "Another kind.", ""), METRIC_NONE);
    metrics_add(m, 0, c, 1);
    metrics_add(m, 2, c, 4);
    metrics_set(m, g, -0.25);
    metrics_observe_ns(m, 1, h, 50000); // on the bound: belongs below it
    metrics_observe_ns(m, 1, h, 50001);
    metrics_observe_ns(m, 1, h, 60000000000); // beyond the last
    metrics_observe_size(m, 1, s, 100);
    metrics_observe_size(m, 1, s, 0);
    metrics_add(m, 99, c, 1); // no such shard: counted all the same
    assert_int_equal(metrics_value(m, c), 6);
    char *t = text_of(m);
    static const char *const lines[] = {
        "# TYPE duet_things_total counter\nduet_things_total{kind=\"a\"} 6\nduet_things_total{kind=\"b\"} 0\n",
        "# HELP duet_level Level.\n# TYPE duet_level gauge\nduet_level -0.25\n",
        "duet_wait_seconds_bucket{model=\"x\",le=\"5e-05\"} 1\n",
        "duet_wait_seconds_bucket{model=\"x\",le=\"0.0001\"} 2\n",
        "duet_wait_seconds_bucket{model=\"x\",le=\"10\"} 2\n",
        "duet_wait_seconds_bucket{model=\"x\",le=\"+Inf\"} 3\n",
        "duet_wait_seconds_sum{model=\"x\"} 60.000100001\n",
        "duet_wait_seconds_count{model=\"x\"} 3\n",
        "duet_k_bucket{le=\"1\"} 1\n",
        "duet_k_bucket{le=\"100\"} 2\n",
        "duet_k_sum 100\n",
        "duet_asked 7.5\n",
        "duet_grown_total 7.5\n"};
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        if (!strstr(t, lines[i]))
            fail_msg("missing %s in\n%s", lines[i], t);
    free(t);
    assert_string_equal(metrics_label("a\"b\\c\nd", label, sizeof(label)), "a\\\"b\\\\c\\nd");
    assert_string_equal(metrics_label("abcdefgh", label, 6), "abcd");
    metrics_free(m);
}

static void hidden_series_come_back(void **state)
{
    (void)state;
    struct metrics *m = make(1);
    metric_id c = metrics_counter(m, "duet_x_total", "X.", "model=\"gone\"");
    metrics_add(m, 0, c, 3);
    metrics_hide(m, c);
    char *t = text_of(m);
    assert_null(strstr(t, "duet_x_total"));
    free(t);
    assert_int_equal(metrics_counter(m, "duet_x_total", "X.", "model=\"gone\""), c);
    t = text_of(m);
    assert_non_null(strstr(t, "duet_x_total{model=\"gone\"} 3\n")); // a counter never goes back
    free(t);
    metrics_free(m);
}

static void a_full_registry_drops(void **state)
{
    (void)state;
    struct metrics *m = make(1);
    char labels[40];
    metric_id last = 1;
    for (int i = 0; i < 3000; i++) {
        snprintf(labels, sizeof(labels), "n=\"%d\"", i);
        last = metrics_seconds(m, "duet_many_seconds", "Many.", labels);
    }
    assert_int_equal(last, METRIC_NONE);
    metrics_observe_ns(m, 0, last, 5);
    metrics_add(m, 0, last, 5);
    metrics_set(m, last, 5);
    struct buf out = {0};
    metrics_write(m, &out);
    assert_null(strstr(out.data, "n=\"2999\""));
    buf_fini(&out);
    metrics_free(m);
}

static struct metrics *shared;
static metric_id shared_counter, shared_seconds;

static void *hammer(void *arg)
{
    unsigned shard = (unsigned)(uintptr_t)arg;
    for (int i = 0; i < 20000; i++) {
        metrics_add(shared, shard, shared_counter, 1);
        metrics_observe_ns(shared, shard, shared_seconds, (uint64_t)i * 1000);
        if (i % 4000 == 0)
            metrics_counter(shared, "duet_late_total", "Late.", i % 8000 ? "a=\"1\"" : "a=\"2\"");
    }
    return NULL;
}

static void nothing_is_lost_between_threads(void **state)
{
    (void)state;
    enum { N = 6 };
    pthread_t t[N];
    shared = make(3);
    shared_counter = metrics_counter(shared, "duet_a_total", "A.", "");
    shared_seconds = metrics_seconds(shared, "duet_b_seconds", "B.", "");
    for (uintptr_t i = 0; i < N; i++) // two to a shard
        pthread_create(&t[i], NULL, hammer, (void *)(i % 3));
    for (int i = 0; i < 20; i++)
        free(text_of(shared));
    for (int i = 0; i < N; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(metrics_value(shared, shared_counter), N * 20000);
    char *text = text_of(shared);
    assert_non_null(strstr(text, "duet_b_seconds_count 120000\n"));
    free(text);
    metrics_free(shared);
}

/* The checker itself must see what is wrong. */
static void the_checker_checks(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "duet_x 1\n",                                // no TYPE
        "# TYPE duet_x gauge\nduet_x one\n",         // no number
        "# TYPE duet_x counter\nduet_x 1\n",         // counter without _total
        "# TYPE duet_x gauge\nduet_x{a=b} 1\n",      // label not quoted
        "# TYPE duet_x gauge\nduet_x 1",             // no newline at the end
        "# TYPE duet_x gauge\nduet_x 1\nduet_x 2\n", // twice
        "# TYPE x histogram\nx_bucket{le=\"1\"} 2\nx_bucket{le=\"+Inf\"} 1\nx_sum 1\nx_count 1\n"}; // falls
    char message[200];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (metrics_text_is_valid(bad[i], message, sizeof(message)))
            fail_msg("accepted: %s", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds_and_text),        cmocka_unit_test(hidden_series_come_back),
        cmocka_unit_test(a_full_registry_drops), cmocka_unit_test(nothing_is_lost_between_threads),
        cmocka_unit_test(the_checker_checks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
