#include "train/study/paired.h"

#include <math.h>
#include <stdbool.h>

// ------------------------------------------------------------------------------------------------ t-distribution

/* Continued fraction of the incomplete beta function (Abramowitz, Stegun 26.5.8), by Lentz's method. */
static double beta_fraction(double a, double b, double x)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double f = d;
    for (int m = 1; m < 500; m++) {
        for (int odd = 0; odd < 2; odd++) {
            double k = odd ? -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
                           : m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
            d = 1 + k * d;
            c = 1 + k / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = fabs(c) < tiny ? tiny : c;
            f *= c * d;
        }
        if (fabs(c * d - 1) < 1e-14)
            break;
    }
    return f;
}

/* I_x(a, b) */
static double beta_share(double a, double b, double x)
{
    if (x <= 0 || x >= 1)
        return x <= 0 ? 0 : 1;
    double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    bool left = x < (a + 1) / (a + b + 2);
    return left ? front * beta_fraction(a, b, x) / a : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double student_two_sided(double t, double df)
{
    return isinf(t) ? 0 : beta_share(df / 2, 0.5, df / (df + t * t));
}

/* The t beyond which 5 % lie, by bisection. */
static double student_95(double df)
{
    double lo = 0, hi = 1000;
    for (int i = 0; i < 100; i++) {
        double t = (lo + hi) / 2;
        *(student_two_sided(t, df) > 0.05 ? &lo : &hi) = t;
    }
    return (lo + hi) / 2;
}

// ----------------------------------------------------------------------------------------------------------- test

struct paired paired_test(const double *d, const double *n, size_t n_users)
{
    struct paired out = {.p = 1};
    double sum_d = 0, sum_n = 0, squares = 0;
    for (size_t u = 0; u < n_users; u++) {
        out.n_users += n[u] > 0;
        sum_d += n[u] > 0 ? d[u] : 0;
        sum_n += n[u];
    }
    if (out.n_users == 0)
        return out;
    out.diff = out.lo = out.hi = sum_d / sum_n;
    for (size_t u = 0; u < n_users; u++) {
        double r = n[u] > 0 ? d[u] - out.diff * n[u] : 0;
        squares += r * r;
    }
    if (out.n_users < 2)
        return out;
    double df = (double)out.n_users - 1;
    out.se = sqrt((double)out.n_users / df * squares) / sum_n;
    if (out.se > 0)
        out.t = out.diff / out.se;
    else if (out.diff != 0)
        out.t = copysign(INFINITY, out.diff);
    out.p = student_two_sided(out.t, df);
    double reach = student_95(df) * out.se;
    out.lo = out.diff - reach;
    out.hi = out.diff + reach;
    return out;
}

void paired_holm(double *p, size_t m)
{
    double last = 0;
    bool done[64] = {false};
    for (size_t left = m; left > 0 && m <= 64; left--) {
        size_t at = m;
        for (size_t i = 0; i < m; i++)
            if (!done[i] && (at == m || p[i] < p[at]))
                at = i;
        double corrected = fmin(1, p[at] * (double)left);
        last = p[at] = fmax(last, corrected);
        done[at] = true;
    }
}
