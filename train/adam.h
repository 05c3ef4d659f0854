/* adam.h - Adam (Kingma, Ba 2015) over one tower, with lazy rows for its tables.
 * A step touches only the rows that the batch names; a row that was left out is brought up to date when it is next read: with
 * a zero gradient, n missed steps move a parameter by
 *     -lr * m / sqrt(v) * sum_{j=1..n} (b1 / sqrt(b2))^j * sqrt(1 - b2^(s+j)) / (1 - b1^(s+j))        s = its last step
 *, decayed on the way, and multiply m by b1^n, v by b2^n: the same result as dense Adam (to the eps of the denominator), at the cost of the rows
 * in the batch. Weight decay is decoupled (AdamW) and meant for the tables only.
 * Order of a step:  adam_begin, adam_touch for each row, adam_catch_up, (forward, backward into grad), adam_step.
 * Threads: one user at a time; loops are split over the pool by rows, with the same result for any number of threads. */
#ifndef DUET_TRAIN_ADAM_H
#define DUET_TRAIN_ADAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/tower.h"
#include "train/missed.h"
#include "train/pool.h"

/* One table: the rows of all embeddings of a tower, or its augmented vectors. */
struct adam_rows {
    float *param, *grad, *m, *v; // [n][cols]
    size_t n;
    size_t lo, hi;     // rows that this process keeps: all, or a rank's own (part.h); the others are not looked at
    uint32_t cols;
    uint32_t *last;    // [n] step that the row was brought up to; 0 = never had a gradient
    uint32_t *stamp;   // [n] step that touched it last
    uint32_t *touched; // [n_touched] rows of this step
    size_t n_touched;
};

struct adam {
    struct adam_params p;
    struct pool *pool;
    struct tower *tower;
    struct tower grad, m, v; // same shape as the tower; their `field` is the tower's own
    struct adam_rows emb, aug;
    struct missed gaps;
    uint32_t step; // steps begun
};

bool adam_init(struct adam *a, struct tower *t, const struct adam_params *p, struct pool *pool, struct err *err);
void adam_fini(struct adam *a); // accepts zeroed

void adam_begin(struct adam *a); // the next step; every gradient is zero now
/* All table rows that encoded entities x [n][n_slots] name, and rows aug_row [n] of `aug` (0 = none; NULL = none at all). */
void adam_touch(struct adam *a, const uint32_t *x, const uint32_t *aug_row, size_t n);
/* The same rows of one table by number, repeats allowed. */
void adam_touch_rows(struct adam_rows *r, const uint32_t *row, size_t n, uint32_t step);
void adam_catch_up(struct adam *a); // touched rows are now what dense Adam would have made them
void adam_step(struct adam *a);     // applies a->grad and zeroes it again
void adam_flush(struct adam *a);    // every row up to date: before reading parameters elsewhere

/* Parameters and moments were filled as adam_flush left them after that many steps. */
void adam_resume(struct adam *a, uint32_t step);

/* Sum of squares of the gradients of all W and b. Every row's gradient went through them, so one that is not finite shows here. */
double adam_grad_norm2(const struct adam *a);

#endif
