/* Breaks when speed at equal recall is read off the measured curves wrongly, when a plot is no SVG, has ticks that
 * collide or points outside its frame, or when a damaged result file is read. */
#include "tests/core/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/ann/curve.h"
#include "bench/ann/results.h"
#include "core/base/plot.h"

static void speed_at_equal_recall(void **state)
{
    (void)state;
    struct curve_point pt[] = {{0.99, 1000}, {0.9, 4000}, {0.999, 250}};
    assert_true(fabs(curve_qps(pt, 3, 0.99) - 1000) < 1e-6);
    assert_true(fabs(curve_qps(pt, 3, 0.9) - 4000) < 1e-6);
    assert_true(fabs(curve_qps(pt, 3, 1 - sqrt(0.1 * 0.01)) - 2000) < 1e-6); // half way in log misses and log qps
    assert_true(fabs(curve_qps(pt, 3, 0.5) - 4000) < 1e-6);                  // less is as fast as the fastest measured
    assert_true(isnan(curve_qps(pt, 3, 0.9995)));
    assert_true(isnan(curve_qps(pt, 0, 0.5)));
    struct curve_point odd[] = {{0.9, 500}, {0.95, 900}}; // more recall and faster: nobody would choose the first
    assert_true(fabs(curve_qps(odd, 2, 0.9) - 900) < 1e-6);
}

static void ticks_keep_their_distance(void **state)
{
    (void)state;
    for (double lo = 1e-4; lo < 100; lo *= 3.7)
        for (double hi = lo * 1.5; hi < 1e7; hi *= 2.9) {
            double v[64];
            size_t n = plot_ticks(lo, hi, 500, 40, v, 64);
            assert_true(n <= 64);
            for (size_t i = 0; i < n; i++) {
                assert_true(v[i] >= lo * 0.999 && v[i] <= hi * 1.001);
                if (i > 0)
                    assert_true(log10(v[i] / v[i - 1]) * 500 / log10(hi / lo) >= 39.9);
            }
        }
}

static void a_plot_is_well_formed(void **state)
{
    double x[] = {0.9, 0.99, 0.999}, y[] = {4000, 1000, 250};
    struct plot_series s[] = {{.name = "a & <b>", .x = x, .y = y, .n = 3}, {.name = "level", .x = x, .y = y + 1, .n = 1, .across = true}};
    struct plot p = {.title = "t", .x_label = "x", .y_label = "y", .x_scale = PLOT_NINES, .series = s, .n_series = 2};
    const char *path = tmp_path(state, "p.svg");
    FILE *f = fopen(path, "w");
    assert_true(plot_write(&p, f));
    fclose(f);
    char text[20000];
    f = fopen(path, "r");
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    text[n] = 0;
    fclose(f);
    assert_int_equal(strncmp(text, "<svg ", 5), 0);
    assert_non_null(strstr(text, "</svg>"));
    assert_non_null(strstr(text, "a &amp; &lt;b&gt;"));
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf"));
    double px, py;
    size_t markers = 0;
    for (const char *at = text; (at = strstr(at, "translate(")); at++)
        if (sscanf(at, "translate(%lf %lf)\" fill", &px, &py) == 2) {
            assert_true(px >= 0 && px <= 840 && py >= 0 && py <= 480);
            markers++;
        }
    assert_true(markers >= 3);
    f = fopen(path, "w");
    p.n_series = 0;
    assert_false(plot_write(&p, f)); // nothing to draw
    fclose(f);
}

static void damaged_results_are_refused(void **state)
{
    static const char good[] = "{\"type\":\"build\",\"data\":\"d\",\"system\":\"s\",\"n\":1,\"dim\":2,\"threads\":1,\"cpu_s\":1,\"wall_s\":1,"
                               "\"layout_cpu_s\":-1,\"bytes_per_item\":3.5}\n";
    const char *path = tmp_path(state, "r.jsonl");
    for (int bad = 0; bad < 3; bad++) {
        FILE *f = fopen(path, "w");
        fputs(good, f);
        fputs(bad == 0 ? "" : bad == 1 ? "{\"type\":\"point\",\"data\":\"d\"}\n" : "{\"type\":\n", f);
        fclose(f);
        struct results r = {0};
        struct err e = {0};
        assert_true(results_read(&r, path, &e) == (bad == 0));
        if (bad == 0)
            assert_true(r.n_builds == 1 && r.build[0].bytes_per_item == 3.5);
        else
            assert_non_null(strstr(e.msg, "line 2"));
        results_fini(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(speed_at_equal_recall),
        cmocka_unit_test(ticks_keep_their_distance),
        cmocka_unit_test_setup_teardown(a_plot_is_well_formed, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(damaged_results_are_refused, tmp_setup, tmp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
