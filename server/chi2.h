/* chi2.h - the chi-squared test of counts against the shares that were meant.
 * Source: Pearson's statistic; its tail is the regularised upper incomplete gamma function Q(df / 2, x / 2), by the series of P below
 *         a + 1 and Legendre's continued fraction of Q above (Abramowitz and Stegun 6.5.29, 6.5.31).
 * Checked: against R's pchisq, tests/server/test_chi2.c. */
#ifndef DUET_SERVER_CHI2_H
#define DUET_SERVER_CHI2_H

#include <stddef.h>
#include <stdint.h>

/* Probability that chi-squared of df >= 1 degrees of freedom is x or more; x >= 0. */
double chi2_tail(double x, unsigned df);

/* p-value of count[n] under the hypothesis that they fall to the variants in the ratio of share[n]. Where a share is 0 its count is
 * left out. 1 where there is nothing to compare: fewer than two shares, or no count. */
double chi2_of_shares(const uint64_t *count, const uint32_t *share, size_t n);

#endif
