/* Plots. If this fails, a browser refuses the file, points lie outside the frame, or ticks run into each other. */
#include "tests/core/support.h"

#include <math.h>

#include "core/base/plot.h"
#include "tests/core/base/xml.h"

static char *drawn(void **state, const struct plot *lines, const struct plot_rows *rows)
{
    const char *path = tmp_path(state, "p.svg");
    size_t n;
    FILE *f = fopen(path, "w");
    assert_true(lines ? plot_write(lines, f) : plot_write_rows(rows, f));
    fclose(f);
    char *text = get_file(path, &n);
    assert_well_formed(text);
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf"));
    return text;
}

/* Markers inside of the frame. */
static size_t count_markers(const char *text)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, "translate(")); at++) {
        double x, y;
        int end = 0;
        if (sscanf(at, "translate(%lf %lf)\" fill%n", &x, &y, &end) == 2 && end) {
            assert_true(x >= 0 && x <= 840 && y >= 0 && y <= 480);
            n++;
        }
    }
    return n;
}

static void lines_over_a_linear_axis(void **state)
{
    const double x[] = {8, 16, 32, 64}, y[] = {0.31, 0.345, 0.36, 0.35}, dev[] = {0.01, 0.01, 0.02, 0};
    const struct plot_series s[] = {{.name = "a & <b>", .x = x, .y = y, .n = 4, .dev = dev}};
    const struct plot p = {
        .title = "t", .x_label = "d", .y_label = "HR", .x_scale = PLOT_LOG, .y_scale = PLOT_LINEAR, .series = s, .n_series = 1};
    char *text = drawn(state, &p, NULL);
    assert_int_equal(count_markers(text), 5); // one in the legend
    assert_non_null(strstr(text, "a &amp; &lt;b&gt;"));
    assert_non_null(strstr(text, ">.35<"));
    free(text);
}

static void rows_of_dots(void **state)
{
    const struct plot_row row[] = {{"one", {0.2, 0.4}, {0.01, 0}}, {"two", {NAN, 0.3}, {0, 0.1}}};
    struct plot_rows p = {.title = "t", .x_label = "x", .dot = {"HR@50", "HR@100"}, .n_dots = 2, .row = row, .n_rows = 2};
    char *text = drawn(state, NULL, &p);
    assert_int_equal(count_markers(text), 5); // what is not there has none
    assert_non_null(strstr(text, ">two<"));
    free(text);
    FILE *f = fopen(tmp_path(state, "none.svg"), "w");
    p.n_rows = 0;
    assert_false(plot_write_rows(&p, f));
    fclose(f);
}

static void equal_values_have_an_axis(void **state)
{
    const struct plot_row row[] = {{"one", {0}, {0}}, {"two", {0}, {0}}};
    const struct plot_rows p = {.title = "t", .x_label = "x", .dot = {"a"}, .n_dots = 1, .row = row, .n_rows = 2};
    free(drawn(state, NULL, &p));
}

static void linear_ticks_are_round_and_apart(void **state)
{
    (void)state;
    for (double lo = -3; lo < 100; lo = lo * 1.7 + 2.1)
        for (double hi = lo + 0.003; hi < lo + 1e6; hi = lo + (hi - lo) * 2.9) {
            double v[64];
            size_t n = plot_ticks_linear(lo, hi, 500, 40, v, 64);
            assert_true(n >= 1 && n <= 13);
            for (size_t i = 0; i < n; i++)
                assert_true(v[i] >= lo - 1e-6 * (hi - lo) && v[i] <= hi + 1e-6 * (hi - lo));
            for (size_t i = 1; i < n; i++)
                assert_true((v[i] - v[i - 1]) * 500 / (hi - lo) >= 39.9);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lines_over_a_linear_axis, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(rows_of_dots, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(equal_values_have_an_axis, tmp_setup, tmp_teardown),
        cmocka_unit_test(linear_ticks_are_round_and_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
