/* ease.h - EASE^R: the linear item-to-item model in closed form; a yardstick of the evaluator, not a model that is served.
 * Source:  Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019: P = (X'X + lambda I)^-1,
 *          B = -P / diag(P) by columns with a zero diagonal, scores = X B.
 * Threads: init uses BLAS's own, set by the caller; scoring is const. */
#ifndef DUET_TRAIN_EASE_H
#define DUET_TRAIN_EASE_H

#include "train/dataset.h"

#define EASE_ITEMS_MAX 25000 // n^2 doubles and n^3 operations: 5 GB and ten minutes

struct ease {
    const struct dataset *d;
    size_t n;   // items
    double *p;  // [n][n]
};

bool ease_init(struct ease *e, const struct dataset *d, double lambda, struct err *err);
void ease_fini(struct ease *e); // accepts zeroed

/* Scores of all items for somebody with these items behind them; the diagonal is not taken out, for those items themselves are
 * never candidates.  out [n] */
void ease_scores(const struct ease *e, const uint32_t *history, size_t n_history, double *sum, float *out);

/* B[i][j], weight of item i in the score of item j. */
double ease_weight(const struct ease *e, size_t i, size_t j);

#endif
