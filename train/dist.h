/* dist.h - what the ranks of one training run do together: sums, shares gathered, rows exchanged. One rank alone does none of it.
 * Place:   the trainer and its parts call this and know no MPI; dist_mpi.c is the one file that does.
 * All ranks make the same calls in the same order. A rank that cannot go on calls dist_abort, which ends the others too; a message
 * that does not arrive does so by itself (MPI_ERRORS_ARE_FATAL), so nothing here returns an error.
 * Threads: the caller's thread only. */
#ifndef DUET_TRAIN_DIST_H
#define DUET_TRAIN_DIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"

struct dist_ops {
    void (*sum)(float *x, size_t n);
    void (*sum_double)(double *x, size_t n);
    void (*gather)(float *x, size_t n, size_t cols, bool to_all);
    void (*reduce)(float *x, size_t n, size_t cols);
    void (*counts)(const uint32_t *to, uint32_t *from);
    void (*exchange)(const void *out, const uint32_t *n_out, void *in, const uint32_t *n_in, size_t bytes);
    void (*abort)(int status);
};

struct dist {
    unsigned rank, size;
    const struct dist_ops *ops; // not called where size is 1
};

extern const struct dist dist_alone; // rank 0 of 1

/* Was this process started by mpirun (or srun) as one of several? Looks at the environment only. */
bool dist_launched(void);

/* This process among those that mpirun started. ERR_ARG where they did and this build has no MPI. */
bool dist_open(struct dist *d, struct err *err);
void dist_close(struct dist *d);

/* The i-th of `size` nearly equal ranges of 0 .. n: who works on what, and whose a table's rows are. */
void dist_range(size_t n, unsigned i, unsigned size, size_t *lo, size_t *hi);
unsigned dist_owner(size_t n, unsigned size, size_t row);
size_t dist_most(size_t n, unsigned size); // rows of the largest range

void dist_sum(const struct dist *d, float *x, size_t n); // over ranks, the same bits at each
void dist_sum_double(const struct dist *d, double *x, size_t n);

/* x [n][cols], of which each rank has filled its range: afterwards all is filled, at every rank or at rank 0. */
void dist_gather(const struct dist *d, float *x, size_t n, size_t cols);
void dist_collect(const struct dist *d, float *x, size_t n, size_t cols);
/* x [n][cols] with each rank's part of every row: afterwards a rank's own range holds the sums, the rest nothing of use. */
void dist_reduce(const struct dist *d, float *x, size_t n, size_t cols);

/* to [size] -> from [size]: what rank i said to us. */
void dist_counts(const struct dist *d, const uint32_t *to, uint32_t *from);
/* n_out[i] elements of `bytes` for rank i, one after the other, against n_in[i] from it. */
void dist_exchange(const struct dist *d, const void *out, const uint32_t *n_out, void *in, const uint32_t *n_in, size_t bytes);

/* Ends the whole run at once; what it was must have been said already. */
_Noreturn void dist_abort(const struct dist *d, int status);

#endif
