#include "train/ease.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/blas.h"

static void count_pairs(struct ease *e)
{
    const struct interactions *t = &e->d->train;
    for (uint32_t u = 0; u < e->d->n_users; u++)
        for (uint64_t a = t->off[u]; a < t->off[u + 1]; a++) {
            double *row = e->p + (size_t)t->item[a] * e->n;
            for (uint64_t b = t->off[u]; b < t->off[u + 1]; b++)
                row[t->item[b]] += 1;
        }
}

bool ease_init(struct ease *e, const struct dataset *d, double lambda, struct err *err)
{
    *e = (struct ease){.d = d, .n = d->n_items};
    if (e->n > EASE_ITEMS_MAX)
        return err_set(err, ERR_LIMIT, "EASE^R: %zu items, at most %d: it inverts a matrix of items x items", e->n,
                       EASE_ITEMS_MAX);
    if (!(lambda > 0))
        return err_set(err, ERR_ARG, "EASE^R: lambda is %g, want more than 0", lambda);
    if (!(e->p = mem_array(e->n * e->n, sizeof(*e->p), err)))
        return err_prefix(err, "EASE^R");
    count_pairs(e);
    for (size_t i = 0; i < e->n; i++)
        e->p[i * e->n + i] += lambda;
    if (blas_dpotri(e->n, e->p))
        return true;
    ease_fini(e);
    return err_set(err, ERR_ARG, "EASE^R: X'X + %g I cannot be inverted; take a larger lambda", lambda);
}

void ease_fini(struct ease *e)
{
    free(e->p);
    *e = (struct ease){0};
}

double ease_weight(const struct ease *e, size_t i, size_t j)
{
    return i == j ? 0 : -e->p[i * e->n + j] / e->p[j * e->n + j];
}

void ease_scores(const struct ease *e, const uint32_t *history, size_t n_history, double *sum, float *out)
{
    memset(sum, 0, e->n * sizeof(*sum));
    for (size_t i = 0; i < n_history; i++) {
        const double *row = e->p + (size_t)history[i] * e->n;
        for (size_t j = 0; j < e->n; j++)
            sum[j] += row[j];
    }
    for (size_t j = 0; j < e->n; j++)
        out[j] = (float)(-sum[j] / e->p[j * e->n + j]);
}
