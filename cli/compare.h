/* compare.h - how far two ranked lists of items are apart. */
#ifndef DUET_CLI_COMPARE_H
#define DUET_CLI_COMPARE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/json.h"

struct comparison {
    size_t n_a, n_b, common;
    double overlap; // common / the longer one's length; 1 if both are empty
    double rbo;   // rank-biased overlap, p = 0.9, cut at the longer one's length and scaled so that equal lists have 1
    double drift; // mean of score b - score a over the common items
    double drift_abs;           // mean of |b - a|
    double drift_max;           // largest |b - a|
    bool same_first, identical; // identical: the same ids in the same order
};

/* a, b: arrays of {id, score}. An id twice in a list, or no memory: false. */
bool compare_items(const json_t *a, const json_t *b, struct comparison *out, struct err *err);

#endif
