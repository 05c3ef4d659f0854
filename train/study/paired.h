/* paired.h - is one system better than another on the same users? A paired t-test over users.
 * A user has n targets and, summed over them, a difference d of some gain (found or not in the first 100; 1 / rank), averaged over
 * seeds before. The estimate is sum d / sum n, what a table's two rows differ by; its error is that of a ratio over independent users:
 *     r_u = d_u - estimate n_u,   se = sqrt(U / (U - 1) sum r_u^2) / sum n,   t = estimate / se with U - 1 degrees of freedom.
 * With one target a user this is the textbook's paired t-test. What a seed changes is in the means, not in se: users are what is sampled. */
#ifndef DUET_TRAIN_STUDY_PAIRED_H
#define DUET_TRAIN_STUDY_PAIRED_H

#include <stddef.h>

struct paired {
    size_t n_users;
    double diff, se, t, p; // p two-sided
    double lo, hi;         // 95 % interval of diff
};

/* d, n [n_users]; users with n = 0 are left out. Fewer than two users, or none that differ: se = 0, p = 1. */
struct paired paired_test(const double *d, const double *n, size_t n_users);

/* Holm's step-down correction of m p-values, in place: what stays below .05 does so for all m questions together. */
void paired_holm(double *p, size_t m);

/* P(|T| >= |t|), T of Student's t-distribution. */
double student_two_sided(double t, double df);

#endif
