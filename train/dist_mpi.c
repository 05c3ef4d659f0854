/* The ranks of dist.h by MPI. Rows travel as one MPI type each, so that counts stay small numbers: MPI's are ints. */
#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/dist.h"

#define PIECE ((size_t)1 << 30) // elements that one call of MPI takes at most

static unsigned ranks(void)
{
    int size;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    return (unsigned)size;
}

static unsigned own_rank(void)
{
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return (unsigned)rank;
}

static void stop_all(int status)
{
    fflush(NULL);
    MPI_Abort(MPI_COMM_WORLD, status);
}

static int to_int(size_t n)
{
    if (n > INT_MAX) {
        fprintf(stderr, "duet: a message of %zu rows to one rank, at most %d are possible; use more ranks\n", n,
                INT_MAX);
        stop_all(1);
    }
    return (int)n;
}

static void sum(float *x, size_t n)
{
    for (size_t at = 0; at < n; at += PIECE)
        MPI_Allreduce(MPI_IN_PLACE, x + at, (int)(n - at < PIECE ? n - at : PIECE), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

static void sum_double(double *x, size_t n)
{
    for (size_t at = 0; at < n; at += PIECE)
        MPI_Allreduce(MPI_IN_PLACE, x + at, (int)(n - at < PIECE ? n - at : PIECE), MPI_DOUBLE, MPI_SUM,
                      MPI_COMM_WORLD);
}

/* Counts and places, an int for each rank. */
struct spans {
    int *n, *at;
};

static struct spans spans_new(void)
{
    size_t size = ranks();
    int *p = calloc(2 * size, sizeof(*p));
    if (!p) {
        fprintf(stderr, "duet: out of memory for the counts of %zu ranks\n", size);
        stop_all(1);
    }
    return (struct spans){p, p + size};
}

static struct spans spans_of_ranges(size_t n)
{
    struct spans s = spans_new();
    for (unsigned i = 0; i < ranks(); i++) {
        size_t lo, hi;
        dist_range(n, i, ranks(), &lo, &hi);
        s.n[i] = to_int(hi - lo);
        s.at[i] = to_int(lo);
    }
    return s;
}

static struct spans spans_of_counts(const uint32_t *n)
{
    struct spans s = spans_new();
    size_t at = 0;
    for (unsigned i = 0; i < ranks(); i++) {
        s.n[i] = to_int(n[i]);
        s.at[i] = to_int(at);
        at += n[i];
    }
    return s;
}

static MPI_Datatype row_type(size_t count, MPI_Datatype of)
{
    MPI_Datatype t;
    MPI_Type_contiguous(to_int(count), of, &t);
    MPI_Type_commit(&t);
    return t;
}

static void gather(float *x, size_t n, size_t cols, bool to_all)
{
    struct spans s = spans_of_ranges(n);
    MPI_Datatype row = row_type(cols, MPI_FLOAT);
    unsigned me = own_rank();
    if (to_all)
        MPI_Allgatherv(MPI_IN_PLACE, 0, row, x, s.n, s.at, row, MPI_COMM_WORLD);
    else if (me == 0)
        MPI_Gatherv(MPI_IN_PLACE, 0, row, x, s.n, s.at, row, 0, MPI_COMM_WORLD);
    else
        MPI_Gatherv(x + (size_t)s.at[me] * cols, s.n[me], row, NULL, NULL, NULL, row, 0, MPI_COMM_WORLD);
    MPI_Type_free(&row);
    free(s.n);
}

/* In place, MPI leaves the result at the array's beginning. */
static void reduce(float *x, size_t n, size_t cols)
{
    struct spans s = spans_of_ranges(n);
    unsigned me = own_rank();
    for (unsigned i = 0; i < ranks(); i++)
        s.n[i] = to_int((size_t)s.n[i] * cols);
    MPI_Reduce_scatter(MPI_IN_PLACE, x, s.n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    memmove(x + (size_t)s.at[me] * cols, x, (size_t)s.n[me] * sizeof(*x));
    free(s.n);
}

static void counts(const uint32_t *to, uint32_t *from)
{
    MPI_Alltoall(to, 1, MPI_UINT32_T, from, 1, MPI_UINT32_T, MPI_COMM_WORLD);
}

static void exchange(const void *out, const uint32_t *n_out, void *in, const uint32_t *n_in, size_t bytes)
{
    struct spans o = spans_of_counts(n_out), i = spans_of_counts(n_in);
    MPI_Datatype row = row_type(bytes, MPI_BYTE);
    MPI_Alltoallv(out, o.n, o.at, row, in, i.n, i.at, row, MPI_COMM_WORLD);
    MPI_Type_free(&row);
    free(o.n);
    free(i.n);
}

bool dist_open(struct dist *d, struct err *err)
{
    static const struct dist_ops ops = {sum, sum_double, gather, reduce, counts, exchange, stop_all};
    *d = dist_alone;
    if (!dist_launched()) // alone: MPI's start would cost more than small runs
        return true;
    if (MPI_Init(NULL, NULL) != MPI_SUCCESS)
        return err_set(err, ERR_IO, "MPI does not start");
    *d = (struct dist){own_rank(), ranks(), &ops};
    return true;
}

void dist_close(struct dist *d)
{
    if (d->ops)
        MPI_Finalize();
    *d = dist_alone;
}
