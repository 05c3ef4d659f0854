/* results.h - what bench_ann wrote, read again: JSON lines of the types `build` and `point`. */
#ifndef ANN_RESULTS_H
#define ANN_RESULTS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/err.h"

#define RESULTS_NAME_MAX 64

struct result_point {
    char data[RESULTS_NAME_MAX], system[RESULTS_NAME_MAX];
    size_t n, dim, k, ef;
    double recall, qps, qps_min, qps_max, p50_us, p99_us, ratio, load;
};

struct result_build {
    char data[RESULTS_NAME_MAX], system[RESULTS_NAME_MAX];
    size_t n, dim, threads;
    double cpu_s, wall_s, layout_cpu_s, bytes_per_item; // -1: not known, or there is none
};

struct results {
    struct result_point *point; // as read
    struct result_build *build;
    size_t n_points, n_builds;
};

/* Adds a file to *r (zeroed before the first). A line that is no such object: ERR_FORMAT names file, line and member. */
bool results_read(struct results *r, const char *path, struct err *err);
void results_fini(struct results *r);

#endif
