/* plot.h - line plots as SVG: axes with ticks that never collide, logarithmic scales, markers, a legend beside the plot.
 * Place: knows nothing of what it draws. Needs no library; any browser shows the file, and so do web pages of repositories. */
#ifndef BENCH_PLOT_H
#define BENCH_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum plot_scale {
    PLOT_LOG,   // positive values; labels as 20, 1k, 5M
    PLOT_NINES, // shares below 1, spread by log(1 - x): .9 .99 .999 are equally far apart
};

struct plot_series {
    const char *name;
    const double *x, *y; // [n] in the order of the line; n = 1 with `across` set: a level
    size_t n;
    bool across; // dashed, from one side to the other, at y[0]
};

struct plot {
    const char *title, *x_label, *y_label;
    enum plot_scale x_scale, y_scale;
    double x_min, x_max; // points outside are left out; x_min = x_max: as the points need
    const struct plot_series *series;
    size_t n_series; // at most PLOT_SERIES_MAX
};

#define PLOT_SERIES_MAX 8 // colours and markers that can be told apart

/* False if there is nothing to draw (no point in range, a value that its scale cannot show, too many series) or writing failed. */
bool plot_write(const struct plot *p, FILE *f);

/* Tick values of a logarithmic axis of `pixels` from lo to hi (0 < lo < hi), at least `gap` pixels apart; out [max]. Returns how many. */
size_t plot_ticks(double lo, double hi, double pixels, double gap, double *out, size_t max);

#endif
