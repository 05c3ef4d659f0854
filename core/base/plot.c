/* plot.c - see plot.h.
 * Both logarithmic scales are one: the axis shows u = log10(x) or -log10(1 - x), and ticks are 1, 2, 5 times powers of ten of x or of 1 - x.
 * Text is placed where it cannot meet other text: ticks keep a distance on their axis, names stand one below the other in the legend. */
#include <math.h>
#include <string.h>

#include "core/base/plot_svg.h"

enum { WIDTH = 840, HEIGHT = 480, LEFT = 78, RIGHT = 170, TOP = 48, BOTTOM = 62, X_GAP = 52, Y_GAP = 24, TICKS_MAX = 64 };
#define X0 ((double)LEFT)
#define X1 ((double)(WIDTH - RIGHT))
#define Y0 ((double)(HEIGHT - BOTTOM)) // of the lower end: SVG counts downwards
#define Y1 ((double)TOP)

// Okabe and Ito's colours, which colour-blind readers can tell apart, without their yellow.
const char *const plot_color[PLOT_SERIES_MAX] = {"#000000", "#0072b2", "#e69f00", "#d55e00",
                                                   "#009e73", "#cc79a7", "#56b4e9", "#7f7f7f"};

struct axis {
    enum plot_scale scale;
    double lo, hi;     // ends, in the unit u
    double from, to;   // the same in pixels
};

static double unit(enum plot_scale s, double v)
{
    return s == PLOT_LINEAR ? v : s == PLOT_NINES ? -log10(1 - v) : log10(v);
}

static double pixel(const struct axis *a, double v)
{
    return a->from + (unit(a->scale, v) - a->lo) / (a->hi - a->lo) * (a->to - a->from);
}

// ---------------------------------------------------------------------------------------------------------- ticks

size_t plot_ticks(double lo, double hi, double pixels, double gap, double *out, size_t max)
{
    static const struct {
        int n;
        double digit[9];
    } set[] = {{9, {1, 2, 3, 4, 5, 6, 7, 8, 9}}, {3, {1, 2, 5}}, {2, {1, 3}}, {1, {1}}};
    double per_decade = pixels / (log10(hi) - log10(lo));
    size_t n = 0;
    for (size_t s = 0, step = 1; step < 64; s < 3 ? s++ : step++) { // denser sets first, then every second decade, third ..
        bool fits = true;
        n = 0;
        for (int e = (int)floor(log10(lo)); e <= (int)ceil(log10(hi)) && fits; e++) {
            for (int d = 0; d < set[s].n && e % (int)step == 0; d++) {
                double v = set[s].digit[d] * pow(10, e);
                if (v < lo * (1 - 1e-9) || v > hi * (1 + 1e-9))
                    continue;
                fits = n < max && (n == 0 || log10(v / out[n - 1]) * per_decade >= gap);
                if (!fits)
                    break;
                out[n++] = v;
            }
        }
        if (fits)
            return n;
    }
    return n < max ? n : max;
}

size_t plot_ticks_linear(double lo, double hi, double pixels, double gap, double *out, size_t max)
{
    static const double digit[] = {1, 2, 5};
    double least = (hi - lo) * gap / pixels, power = pow(10, floor(log10(least))), step = 10 * power;
    for (int i = 2; i >= 0; i--)
        if (digit[i] * power >= least * (1 - 1e-9))
            step = digit[i] * power;
    size_t n = 0;
    for (double i = ceil(lo / step - 1e-6); i * step <= hi + 1e-6 * step && n < max; i++)
        out[n++] = i == 0 ? 0 : i * step;
    return n;
}

void plot_linear_ends(double min, double max, double *lo, double *hi)
{
    if (min == max) {
        double d = min == 0 ? 1 : fabs(min) * 0.1;
        min -= d;
        max += d;
    }
    double power = pow(10, floor(log10(max - min))), part = (max - min) / power, step = power / (part < 2 ? 10 : part < 5 ? 5 : 2);
    *lo = floor(min / step + 1e-9) * step;
    *hi = ceil(max / step - 1e-9) * step;
}

void plot_linear_label(char out[24], double v)
{
    snprintf(out, 24, "%.6g", v);
    char *dot = strstr(out, "0.");
    if (dot && (dot == out || dot == out + 1)) // .45 and -.45, as tables have it
        memmove(dot, dot + 1, strlen(dot));
}

// The next value of 1, 2, 5 times a power of ten, downwards or upwards: where an axis may end.
static double round_end(double v, bool up)
{
    static const double digit[] = {1, 2, 5, 10};
    double power = pow(10, floor(log10(v) + 1e-9)), best = up ? 10 * power : power;
    for (int i = 0; i < 4; i++) {
        double x = digit[i] * power;
        if (up ? (x >= v * (1 - 1e-9) && x < best) : (x <= v * (1 + 1e-9) && x > best))
            best = x;
    }
    return best;
}

static bool set_axis(struct axis *a, enum plot_scale scale, double min, double max, double from, double to)
{
    *a = (struct axis){.scale = scale, .from = from, .to = to};
    if (scale == PLOT_LINEAR) {
        if (!(min <= max) || !isfinite(min) || !isfinite(max))
            return false;
        plot_linear_ends(min, max, &a->lo, &a->hi);
        return true;
    }
    if (!(min <= max) || (scale == PLOT_LOG ? min <= 0 : max >= 1 || min < 0))
        return false;
    double lo = scale == PLOT_LOG ? min : 1 - max, hi = scale == PLOT_LOG ? max : 1 - min; // what ticks are powers of
    double rounded_lo = round_end(lo, false), rounded_hi = round_end(hi, true);
    if (rounded_lo == rounded_hi)
        rounded_hi = round_end(rounded_hi * 1.01, true);
    if (scale == PLOT_NINES && rounded_hi > 1)
        rounded_hi = 1;
    a->lo = scale == PLOT_LOG ? log10(rounded_lo) : -log10(rounded_hi);
    a->hi = scale == PLOT_LOG ? log10(rounded_hi) : -log10(rounded_lo);
    return a->hi > a->lo;
}

static void number(char out[24], enum plot_scale scale, double v)
{
    static const char suffix[] = {'k', 'M', 'G'};
    if (scale == PLOT_LINEAR) {
        plot_linear_label(out, v);
        return;
    }
    if (scale == PLOT_NINES) {
        snprintf(out, 24, "%.10g", v);
        if (out[0] == '0' && out[1] == '.')
            memmove(out, out + 1, strlen(out));
        return;
    }
    int s = -1;
    for (; s < 2 && v >= 999.5; s++)
        v /= 1000;
    snprintf(out, 24, "%.4g%.*s", v, s >= 0, s >= 0 ? &suffix[s] : "");
}

// -------------------------------------------------------------------------------------------------------- drawing

void plot_svg_begin(FILE *f, int width, int height)
{
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n"
            "<style>.grid{stroke:#ddd;fill:none}.line{fill:none;stroke-width:2;stroke-linejoin:round}"
            ".title{font-size:15px;font-weight:bold}</style>\n<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
            width, height, width, height, width, height);
}

void plot_svg_text(FILE *f, const char *s)
{
    for (; *s; s++) {
        const char *entity = *s == '&' ? "&amp;" : *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : NULL;
        entity ? fputs(entity, f) : fputc(*s, f);
    }
}

static void draw_ticks(FILE *f, const struct axis *a, bool is_x)
{
    double v[TICKS_MAX], lo = pow(10, a->lo), hi = pow(10, a->hi);
    if (a->scale == PLOT_NINES) {
        lo = pow(10, -a->hi);
        hi = pow(10, -a->lo);
    }
    double pixels = fabs(a->to - a->from), gap = is_x ? X_GAP : Y_GAP;
    size_t n = a->scale == PLOT_LINEAR ? plot_ticks_linear(a->lo, a->hi, pixels, gap, v, TICKS_MAX)
                                       : plot_ticks(lo, hi, pixels, gap, v, TICKS_MAX);
    for (size_t i = 0; i < n; i++) {
        double value = a->scale == PLOT_NINES ? 1 - v[i] : v[i], at = pixel(a, value);
        char label[24];
        number(label, a->scale, value);
        if (is_x)
            fprintf(f, "<path class=\"grid\" d=\"M%.1f %.1fV%.1f\"/><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n", at,
                    Y0, Y1, at, Y0 + 19, label);
        else
            fprintf(f, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", X0, at,
                    X1, X0 - 8, at + 4, label);
    }
}

void plot_svg_marker(FILE *f, size_t kind, double x, double y)
{
    static const char *const shape[] = {"M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", "M-3.6-3.6h7.2v7.2h-7.2z", "M0-5L4.6 3.2H-4.6z",
                                        "M0-5L5 0L0 5L-5 0z",                   "M0 5L4.6-3.2H-4.6z"};
    fprintf(f, "<path d=\"%s\" transform=\"translate(%.1f %.1f)\" fill=\"%s\"/>\n", shape[kind % 5], x, y, plot_color[kind]);
}

static bool in_range(const struct plot *p, double x)
{
    return p->x_min == p->x_max || (x >= p->x_min && x <= p->x_max);
}

static void draw_series(FILE *f, const struct plot *p, size_t i, const struct axis *ax, const struct axis *ay)
{
    const struct plot_series *s = &p->series[i];
    if (s->across) {
        double y = pixel(ay, s->y[0]);
        fprintf(f, "<path d=\"M%.1f %.1fH%.1f\" class=\"line\" stroke=\"%s\" stroke-dasharray=\"7 4\"/>\n", X0, y, X1, plot_color[i]);
        return;
    }
    for (size_t k = 0; s->dev && k < s->n; k++)
        if (in_range(p, s->x[k]))
            fprintf(f, "<path d=\"M%.1f %.1fV%.1f\" class=\"line\" stroke=\"%s\"/>\n", pixel(ax, s->x[k]),
                    pixel(ay, s->y[k] - s->dev[k]), pixel(ay, s->y[k] + s->dev[k]), plot_color[i]);
    bool first = true;
    fprintf(f, "<path class=\"line\" stroke=\"%s\" d=\"", plot_color[i]);
    for (size_t k = 0; k < s->n; k++) {
        if (!in_range(p, s->x[k]))
            continue;
        fprintf(f, "%c%.1f %.1f", first ? 'M' : 'L', pixel(ax, s->x[k]), pixel(ay, s->y[k]));
        first = false;
    }
    fputs("\"/>\n", f);
    for (size_t k = 0; k < s->n; k++)
        if (in_range(p, s->x[k]))
            plot_svg_marker(f, i, pixel(ax, s->x[k]), pixel(ay, s->y[k]));
}

static void draw_legend(FILE *f, const struct plot *p)
{
    for (size_t i = 0; i < p->n_series; i++) {
        double x = X1 + 18, y = Y1 + 14 + 24 * (double)i;
        fprintf(f, "<path d=\"M%.1f %.1fh26\" class=\"line\" stroke=\"%s\"%s/>\n", x, y, plot_color[i],
                p->series[i].across ? " stroke-dasharray=\"7 4\"" : "");
        if (!p->series[i].across)
            plot_svg_marker(f, i, x + 13, y);
        fprintf(f, "<text x=\"%.1f\" y=\"%.1f\">", x + 34, y + 4);
        plot_svg_text(f, p->series[i].name);
        fputs("</text>\n", f);
    }
}

static void draw_frame(FILE *f, const struct plot *p)
{
    fprintf(f, "<path d=\"M%.1f %.1fV%.1fH%.1f\" fill=\"none\" stroke=\"#333\"/>\n", X0, Y1, Y0, X1);
    fprintf(f, "<text x=\"%.1f\" y=\"26\" class=\"title\">", X0);
    plot_svg_text(f, p->title);
    fprintf(f, "</text>\n<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", (X0 + X1) / 2, Y0 + 44);
    plot_svg_text(f, p->x_label);
    fprintf(f, "</text>\n<text transform=\"translate(20 %.1f) rotate(-90)\" text-anchor=\"middle\">", (Y0 + Y1) / 2);
    plot_svg_text(f, p->y_label);
    fputs("</text>\n", f);
}

bool plot_write(const struct plot *p, FILE *f)
{
    double x_min = INFINITY, x_max = -INFINITY, y_min = INFINITY, y_max = -INFINITY;
    for (size_t i = 0; i < p->n_series && i < PLOT_SERIES_MAX; i++) {
        const struct plot_series *s = &p->series[i];
        for (size_t k = 0; k < s->n; k++) {
            if (!s->across && !in_range(p, s->x[k]))
                continue;
            if (!s->across) {
                x_min = fmin(x_min, s->x[k]);
                x_max = fmax(x_max, s->x[k]);
            }
            y_min = fmin(y_min, s->y[k] - (s->dev ? s->dev[k] : 0));
            y_max = fmax(y_max, s->y[k] + (s->dev ? s->dev[k] : 0));
        }
    }
    struct axis ax, ay;
    if (p->n_series > PLOT_SERIES_MAX || !set_axis(&ax, p->x_scale, x_min, x_max, X0, X1) ||
        !set_axis(&ay, p->y_scale, y_min, y_max, Y0, Y1))
        return false;
    plot_svg_begin(f, WIDTH, HEIGHT);
    draw_ticks(f, &ax, true);
    draw_ticks(f, &ay, false);
    draw_frame(f, p);
    for (size_t i = 0; i < p->n_series; i++)
        draw_series(f, p, i, &ax, &ay);
    draw_legend(f, p);
    fputs("</svg>\n", f);
    return !ferror(f);
}
