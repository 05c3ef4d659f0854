#include "server/chi2.h"

#include <float.h>
#include <math.h>

#define TERMS_MAX 10000 // far more than are needed for 15 degrees of freedom

/* lgamma without its global sign. */
static double log_gamma(double a)
{
    int sign;
    return lgamma_r(a, &sign);
}

/* P(a, x) = x^a e^-x / Gamma(a + 1) (1 + x / (a + 1) + x^2 / ((a + 1)(a + 2)) + ..) */
static double lower_series(double a, double x)
{
    double term = 1, sum = 1;
    for (int i = 1; i < TERMS_MAX && term > sum * DBL_EPSILON; i++) {
        term *= x / (a + i);
        sum += term;
    }
    return sum * exp(a * log(x) - x - log_gamma(a + 1));
}

/* Q(a, x) = x^a e^-x / Gamma(a) 1 / (x + 1 - a - 1 (1 - a) / (x + 3 - a - 2 (2 - a) / (..))), by Lentz's method. */
static double upper_fraction(double a, double x)
{
    double b = x + 1 - a, c = 1 / DBL_MIN, d = 1 / b, f = d;
    for (int i = 1; i < TERMS_MAX; i++) {
        double an = -i * (i - a);
        b += 2;
        d = an * d + b;
        c = b + an / c;
        d = 1 / d;
        f *= c * d;
        if (fabs(c * d - 1) <= DBL_EPSILON)
            break;
    }
    return f * exp(a * log(x) - x - log_gamma(a));
}

double chi2_tail(double x, unsigned df)
{
    double a = df / 2.0, half = x / 2;
    if (half <= 0)
        return 1;
    return half < a + 1 ? 1 - lower_series(a, half) : upper_fraction(a, half);
}

double chi2_of_shares(const uint64_t *count, const uint32_t *share, size_t n)
{
    double total = 0, shares = 0, x = 0;
    unsigned used = 0;
    for (size_t i = 0; i < n; i++) {
        total += share[i] ? (double)count[i] : 0;
        shares += share[i];
        used += share[i] > 0;
    }
    if (used < 2 || total <= 0)
        return 1;
    for (size_t i = 0; i < n; i++) {
        double want = total * share[i] / shares;
        if (share[i])
            x += ((double)count[i] - want) * ((double)count[i] - want) / want;
    }
    return chi2_tail(x, used - 1);
}
