/* plot_rows.c - rows of dots, see plot.h: names on the left, one linear axis below, a legend on top. */
#include <math.h>

#include "core/base/plot_svg.h"

enum { WIDTH = 840, LEFT = 250, RIGHT = 30, TOP = 66, ROW = 26, BOTTOM = 56, X_GAP = 52, TICKS_MAX = 64 };

struct scale {
    double lo, hi;
};

static double pixel(const struct scale *s, double v)
{
    return LEFT + (v - s->lo) / (s->hi - s->lo) * (WIDTH - LEFT - RIGHT);
}

static bool find_scale(const struct plot_rows *p, struct scale *s)
{
    double min = INFINITY, max = -INFINITY;
    for (size_t r = 0; r < p->n_rows; r++)
        for (size_t i = 0; i < p->n_dots; i++)
            if (isfinite(p->row[r].value[i])) {
                min = fmin(min, p->row[r].value[i] - p->row[r].dev[i]);
                max = fmax(max, p->row[r].value[i] + p->row[r].dev[i]);
            }
    if (!(min <= max))
        return false;
    plot_linear_ends(min, max, &s->lo, &s->hi);
    return true;
}

static void draw_axis(FILE *f, const struct plot_rows *p, const struct scale *s, double bottom)
{
    double v[TICKS_MAX];
    size_t n = plot_ticks_linear(s->lo, s->hi, WIDTH - LEFT - RIGHT, X_GAP, v, TICKS_MAX);
    for (size_t i = 0; i < n; i++) {
        char label[24];
        plot_linear_label(label, v[i]);
        fprintf(f,
                "<path class=\"grid\" d=\"M%.1f %.1fV%d\"/><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n",
                pixel(s, v[i]), bottom, TOP, pixel(s, v[i]), bottom + 19, label);
    }
    fprintf(f, "<path d=\"M%d %dV%.1fH%d\" fill=\"none\" stroke=\"#333\"/>\n", LEFT, TOP, bottom, WIDTH - RIGHT);
    fprintf(f, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"middle\">", (LEFT + WIDTH - RIGHT) / 2, bottom + 42);
    plot_svg_text(f, p->x_label);
    fputs("</text>\n", f);
}

static void draw_legend(FILE *f, const struct plot_rows *p)
{
    fputs("<text x=\"12\" y=\"24\" class=\"title\">", f);
    plot_svg_text(f, p->title);
    fputs("</text>\n", f);
    for (size_t i = 0; i < p->n_dots; i++) {
        double x = LEFT + 130 * (double)i;
        plot_svg_marker(f, i + 1, x + 6, 46);
        fprintf(f, "<text x=\"%.1f\" y=\"50\">", x + 18);
        plot_svg_text(f, p->dot[i]);
        fputs("</text>\n", f);
    }
}

static void draw_row(FILE *f, const struct plot_rows *p, const struct scale *s, size_t r)
{
    const struct plot_row *row = &p->row[r];
    double y = TOP + ROW * ((double)r + 0.5);
    fprintf(f, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", LEFT - 10, y + 4);
    plot_svg_text(f, row->name);
    fprintf(f, "</text><path class=\"grid\" d=\"M%d %.1fH%d\"/>\n", LEFT, y, WIDTH - RIGHT);
    for (size_t i = 0; i < p->n_dots; i++) {
        if (!isfinite(row->value[i]))
            continue;
        if (row->dev[i] > 0)
            fprintf(f, "<path d=\"M%.1f %.1fH%.1f\" class=\"line\" stroke=\"%s\"/>\n", pixel(s, row->value[i] - row->dev[i]), y,
                    pixel(s, row->value[i] + row->dev[i]), plot_color[i + 1]);
        plot_svg_marker(f, i + 1, pixel(s, row->value[i]), y);
    }
}

bool plot_write_rows(const struct plot_rows *p, FILE *f)
{
    struct scale s;
    if (p->n_dots + 1 > PLOT_SERIES_MAX || !find_scale(p, &s))
        return false;
    double bottom = TOP + ROW * (double)p->n_rows;
    plot_svg_begin(f, WIDTH, (int)bottom + BOTTOM);
    draw_axis(f, p, &s, bottom);
    draw_legend(f, p);
    for (size_t r = 0; r < p->n_rows; r++)
        draw_row(f, p, &s, r);
    fputs("</svg>\n", f);
    return !ferror(f);
}
