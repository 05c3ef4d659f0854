/* part.h - one rank's part of one tower: its share of a batch's rows, and the table rows that these name.
 * A rank alone works on the tower and the optimiser themselves. One of several has of each table the rows that it owns (lend.h),
 * borrows what its share names, and reads them through `work`, a tower of the same layers over the borrowed rows; layers are at
 * every rank, and their gradients are summed.
 * Threads: one user at a time. */
#ifndef DUET_TRAIN_PART_H
#define DUET_TRAIN_PART_H

#include "train/adam.h"
#include "train/dist.h"
#include "train/lend.h"

struct part {
    const struct dist *dist;
    struct tower *tower;
    struct adam *adam;
    size_t max;                   // rows of the largest share
    size_t lo, hi;                // this rank's share of the batch's rows
    struct tower work, grad;      // to be read, to be added to
    const uint32_t *x;            // [hi - lo][n_slots] the share's rows in `work`
    uint32_t *own, *through;      // [hi - lo] rows of work.aug, 0 = none
    uint32_t *x_buf, *own_buf;    // [max] with several ranks; through follows own
    float *sums;                  // [n_dense] layers' gradients on their way
    size_t n_dense;
    struct lend emb, aug;
};

/* For batches of up to max_batch rows. Borrows everything. */
bool part_init(struct part *p, const struct dist *dist, struct tower *t, struct adam *a, size_t max_batch, struct err *err);
void part_fini(struct part *p); // accepts zeroed

/* The next step: a batch of n rows, all of it given at each rank. Rows are those that dense Adam would have by now.
 *   x [n][n_slots]    own [n] row of `aug`, 0 = none    through [n] the same, or 0 where a is something else
 * with_aug: augmented rows are learned, not only read. Alone, x, own and through are what p->x.. point to. */
void part_begin(struct part *p, const uint32_t *x, uint32_t *own, uint32_t *through, bool with_aug, size_t n);
void part_end(struct part *p); // gradients are summed and with their owners: adam_step may follow

/* Rows as they stand, for reading: n <= max rows of this rank's own choice, n = 0 too, for all ranks call together. */
void part_look(struct part *p, const uint32_t *x, uint32_t *own, size_t n);

/* An array with the tower's layout: its tables' rows come together at rank 0; the rows of others are forgotten again. */
void part_collect(const struct part *p, float *block);
void part_forget(const struct part *p, float *block);

#endif
