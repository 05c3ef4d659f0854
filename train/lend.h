/* lend.h - one table whose rows are spread over the ranks: a rank borrows the rows of its share of a batch from their owners and
 * sends their gradients back.
 *
 *     lend_begin, lend_note for each row, lend_ask, (the owners bring `asked` up to date), lend_fetch, .. param read, grad added to .., lend_return
 *
 * Rank i owns rows dist_range(n, i): of the table's arrays it reads and writes these alone, so the others take up addresses and no
 * memory. For the rest it keeps two numbers a row that it has ever borrowed.
 * Threads: one user at a time. */
#ifndef DUET_TRAIN_LEND_H
#define DUET_TRAIN_LEND_H

#include "train/adam.h"
#include "train/dist.h"

struct lend {
    const struct dist *dist;
    struct adam_rows *rows;
    size_t max;               // rows that may be borrowed at a time
    uint32_t *stamp, *at;     // [rows->n] when it was noted last, and where it is in `param`
    uint32_t now;
    uint32_t *seen, *want;    // [n_want] as noted; by owner
    size_t n_want;
    uint32_t *n_of, *n_asked_of; // [ranks] borrowed from each, lent to each
    uint32_t *asked;          // [n_asked] rows that others (and this rank) want of us, by who wants them; some more than once
    size_t n_asked, asked_cap;
    float *param, *grad;      // [1 + n_want][cols]; row 0 is zero and no row of the table
    float *box;               // [asked_cap][cols] on the way
    size_t block_floats;
};

bool lend_init(struct lend *l, const struct dist *dist, struct adam_rows *rows, size_t max, struct err *err);
void lend_fini(struct lend *l); // accepts zeroed

void lend_begin(struct lend *l);
void lend_note(struct lend *l, size_t row);
void lend_ask(struct lend *l);
void lend_fetch(struct lend *l);
void lend_return(struct lend *l); // adds to the owners' gradients and makes `grad` zero

static inline uint32_t lend_at(const struct lend *l, size_t row) // of a noted row, in `param` and `grad`
{
    return l->at[row];
}

#endif
