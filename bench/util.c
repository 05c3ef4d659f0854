/* util.c - see util.h. */
#include "bench/util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CENTERS ((size_t)4096)

double bench_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *v, size_t n)
{
    qsort(v, n, sizeof(*v), by_value);
    return v[n / 2];
}

float bench_uniform(uint64_t *seed)
{
    uint64_t x = (*seed += 0x9e3779b97f4a7c15u);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (float)((x ^ (x >> 31)) >> 40) * 0x1p-24f;
}

static float normal(uint64_t *s)
{
    return sqrtf(-2 * logf(bench_uniform(s) + 0x1p-25f)) * cosf(6.2831853f * bench_uniform(s));
}

float *bench_vectors(size_t n, size_t dim, uint64_t seed)
{
    float *v = malloc(n * dim * sizeof(*v)), *c = malloc(CENTERS * dim * sizeof(*c));
    uint64_t fixed = 99;
    if (!v || !c) {
        fprintf(stderr, "out of memory for %zu vectors\n", n);
        exit(1);
    }
    for (size_t i = 0; i < CENTERS * dim; i++)
        c[i] = normal(&fixed);
    for (size_t i = 0; i < n; i++) {
        size_t at = (size_t)(bench_uniform(&seed) * (float)CENTERS);
        float len = 0;
        for (size_t j = 0; j < dim; j++) {
            v[i * dim + j] = c[at * dim + j] + 0.7f * normal(&seed);
            len += v[i * dim + j] * v[i * dim + j];
        }
        for (size_t j = 0; j < dim; j++)
            v[i * dim + j] /= sqrtf(len);
    }
    free(c);
    return v;
}

const char *bench_option(int argc, char **argv, const char *name, const char *otherwise)
{
    size_t n = strlen(name);
    for (int i = 2; i < argc; i++)
        if (strncmp(argv[i], name, n) == 0 && argv[i][n] == '=')
            return argv[i] + n + 1;
    return otherwise;
}
