/* plot_svg.h - what both kinds of plots are drawn with; shared by plot.c and plot_rows.c. */
#ifndef DUET_BASE_PLOT_SVG_H
#define DUET_BASE_PLOT_SVG_H

#include "core/base/plot.h"

extern const char *const plot_color[PLOT_SERIES_MAX];

void plot_svg_begin(FILE *f, int width, int height);
void plot_svg_text(FILE *f, const char *s); // with the entities that XML needs
void plot_svg_marker(FILE *f, size_t kind, double x, double y);

/* Ends of a linear axis: multiples of 1, 2 or 5 times a power of ten outside of min .. max. */
void plot_linear_ends(double min, double max, double *lo, double *hi);
void plot_linear_label(char out[24], double v);

#endif
