/* util.h - what measuring programs in C share: clocks, medians, made-up vectors, options. */
#ifndef BENCH_UTIL_H
#define BENCH_UTIL_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

double bench_seconds(clockid_t clock);
double bench_median(double *v, size_t n); // sorts v

/* n unit vectors of `dim` around 4,096 centres that are the same for every seed; for free(). Exits if out of memory. */
float *bench_vectors(size_t n, size_t dim, uint64_t seed);
float bench_uniform(uint64_t *seed); // [0, 1), splitmix64

/* What follows NAME= in one of the arguments after the first, or `otherwise`; not copied. */
const char *bench_option(int argc, char **argv, const char *name, const char *otherwise);

#endif
