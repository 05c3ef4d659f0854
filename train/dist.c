#include "train/dist.h"

#include <stdlib.h>
#include <string.h>

const struct dist dist_alone = {0, 1, NULL};

static bool several(const char *name)
{
    const char *v = getenv(name);
    return v && atoi(v) > 1;
}

/* Open MPI's mpirun and MPICH say how many there are. srun --mpi=pmix gives a PMIx rank, and how many tasks its step
 * has; without one the tasks know nothing of each other, so each may train a model of its own. */
bool dist_launched(void)
{
    return several("OMPI_COMM_WORLD_SIZE") || several("PMI_SIZE") || several("PMIX_SIZE") ||
           (getenv("PMIX_RANK") && several("SLURM_STEP_NUM_TASKS"));
}

void dist_range(size_t n, unsigned i, unsigned size, size_t *lo, size_t *hi)
{
    *lo = n * i / size;
    *hi = n * (i + 1) / size;
}

/* The range with n i / size <= row < n (i + 1) / size. */
unsigned dist_owner(size_t n, unsigned size, size_t row)
{
    return (unsigned)(((row + 1) * size - 1) / n);
}

size_t dist_most(size_t n, unsigned size)
{
    return (n + size - 1) / size;
}

void dist_sum(const struct dist *d, float *x, size_t n)
{
    if (d->size > 1)
        d->ops->sum(x, n);
}

void dist_sum_double(const struct dist *d, double *x, size_t n)
{
    if (d->size > 1)
        d->ops->sum_double(x, n);
}

void dist_gather(const struct dist *d, float *x, size_t n, size_t cols)
{
    if (d->size > 1)
        d->ops->gather(x, n, cols, true);
}

void dist_collect(const struct dist *d, float *x, size_t n, size_t cols)
{
    if (d->size > 1)
        d->ops->gather(x, n, cols, false);
}

void dist_reduce(const struct dist *d, float *x, size_t n, size_t cols)
{
    if (d->size > 1)
        d->ops->reduce(x, n, cols);
}

void dist_counts(const struct dist *d, const uint32_t *to, uint32_t *from)
{
    if (d->size > 1)
        d->ops->counts(to, from);
    else
        from[0] = to[0];
}

void dist_exchange(const struct dist *d, const void *out, const uint32_t *n_out, void *in, const uint32_t *n_in,
                   size_t bytes)
{
    if (d->size > 1)
        d->ops->exchange(out, n_out, in, n_in, bytes);
    else if (n_out[0])
        memcpy(in, out, n_out[0] * bytes);
}

_Noreturn void dist_abort(const struct dist *d, int status)
{
    if (d->size > 1)
        d->ops->abort(status);
    exit(status);
}
