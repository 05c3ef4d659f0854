/* plot.h - plots as SVG: lines over axes with ticks that never collide, logarithmic scales, markers, a legend beside the plot;
 * and rows of dots with their deviations.
 * Place: knows nothing of what it draws; used by the benchmarks and by studies. Needs no library; any browser shows the file, and
 *        so do web pages of repositories. */
#ifndef DUET_BASE_PLOT_H
#define DUET_BASE_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum plot_scale {
    PLOT_LOG,    // positive values; labels as 20, 1k, 5M
    PLOT_NINES,  // shares below 1, spread by log(1 - x): .9 .99 .999 are equally far apart
    PLOT_LINEAR, // any finite values
};

struct plot_series {
    const char *name;
    const double *x, *y; // [n] in the order of the line; n = 1 with `across` set: a level
    size_t n;
    bool across;         // dashed, from one side to the other, at y[0]
    const double *dev;   // [n] whiskers of y +- dev; NULL = none
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

/* One line of dots for each row, from left to right on one linear axis: systems compared. A value that is not finite is not there. */
struct plot_row {
    const char *name;
    double value[PLOT_SERIES_MAX], dev[PLOT_SERIES_MAX]; // of each dot; dev 0 = no whiskers
};

struct plot_rows {
    const char *title, *x_label;
    const char *dot[PLOT_SERIES_MAX]; // names of the dots, for the legend
    size_t n_dots;
    const struct plot_row *row;       // from top to bottom
    size_t n_rows;
};

/* False if there is no finite value, there are too many dots, or writing failed. */
bool plot_write_rows(const struct plot_rows *p, FILE *f);

/* Tick values of a logarithmic axis of `pixels` from lo to hi (0 < lo < hi), at least `gap` pixels apart; out [max]. Returns how many. */
size_t plot_ticks(double lo, double hi, double pixels, double gap, double *out, size_t max);

/* The same for a linear axis: multiples of 1, 2 or 5 times a power of ten (lo < hi). */
size_t plot_ticks_linear(double lo, double hi, double pixels, double gap, double *out, size_t max);

#endif
