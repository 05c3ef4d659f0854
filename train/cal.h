/* cal.h - category alignment: makes the covariance of every category's item vectors resemble that of the largest.
 * Source:  DAT eq. (3): sum_i |C(S_major) - C(S_i)|_F^2, C = X'X / (n - 1) after centring.
 * Threads: one user at a time. */
#ifndef DUET_TRAIN_CAL_H
#define DUET_TRAIN_CAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"

struct cal_params {
    uint32_t min_rows;   // categories with fewer rows are left out; at least 2
    bool weighted;       // weigh a category's term by its share of the rows instead of 1
    bool detach_major;   // no gradient to the major category
};

struct cal {
    uint32_t n_categories, d;
    size_t max_items;
    struct cal_params p;
    uint64_t *rows;      // [n_categories] rows of the batch, repeats counted
    uint32_t *off;       // [n_categories + 1] items of a category in `order`
    uint32_t *order;     // [max_items]
    float *centred;      // [max_items][d] x - mean of its category, in `order`
    float *weighted;     // [max_items][d] the same times the item's rows
    float *cov;          // [n_categories][d][d]
    float *dcov;         // [2][d][d] gradient of one category's, and of the major's
};

bool cal_init(struct cal *c, uint32_t n_categories, uint32_t d, size_t max_items, const struct cal_params *p, struct err *err);
void cal_fini(struct cal *c); // accepts zeroed

/* Value of the term; adds weight times its gradient to dpv.
 *   category [n] of each item      count [n] how many rows each item stands for (0: none)
 * A tie for the major category goes to the lowest id. Category 0 ("none") takes part as any other. */
double cal_loss(struct cal *c, const float *pv, const uint32_t *category, const uint32_t *count, size_t n, double weight, float *dpv);

#endif
