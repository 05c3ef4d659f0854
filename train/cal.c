#include "train/cal.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/blas.h"

/* With X_i the n_i rows of category i, centred, C_i = X_i' X_i / (n_i - 1), and w_i the term's weight:
 *
 *     loss    = sum_i w_i |C_major - C_i|^2
 *     dC_i    = 2 w_i (C_i - C_major)         dC_major = sum_i 2 w_i (C_major - C_i)
 *     dx      = 2 / (n - 1) dC (x - mean)     the mean's own gradient vanishes, because centred rows sum to zero
 *
 * An item that stands for several rows of the batch counts that often in n, in the mean and in C. */

bool cal_init(struct cal *c, uint32_t n_categories, uint32_t d, size_t max_items, const struct cal_params *p,
              struct err *err)
{
    size_t dd = (size_t)d * d;
    *c = (struct cal){.n_categories = n_categories, .d = d, .max_items = max_items, .p = *p};
    if (c->p.min_rows < 2)
        c->p.min_rows = 2;
    c->rows = mem_array(n_categories, sizeof(*c->rows), err);
    c->off = mem_array((size_t)n_categories + 1, sizeof(*c->off), err);
    c->order = mem_array(max_items, sizeof(*c->order), err);
    c->centred = mem_array(max_items, d * sizeof(float), err);
    c->weighted = mem_array(max_items, d * sizeof(float), err);
    c->cov = mem_array(n_categories, dd * sizeof(float), err);
    c->dcov = mem_array(2, dd * sizeof(float), err);
    if (c->rows && c->off && c->order && c->centred && c->weighted && c->cov && c->dcov)
        return true;
    cal_fini(c);
    return false;
}

void cal_fini(struct cal *c)
{
    free(c->rows);
    free(c->off);
    free(c->order);
    free(c->centred);
    free(c->weighted);
    free(c->cov);
    free(c->dcov);
    *c = (struct cal){0};
}

/* Counting sort of the items that take part by category, and rows per category. */
static void group(struct cal *c, const uint32_t *category, const uint32_t *count, size_t n)
{
    memset(c->rows, 0, c->n_categories * sizeof(*c->rows));
    memset(c->off, 0, ((size_t)c->n_categories + 1) * sizeof(*c->off));
    for (size_t i = 0; i < n; i++) {
        c->rows[category[i]] += count[i];
        c->off[category[i] + 1] += count[i] > 0;
    }
    for (uint32_t k = 0; k < c->n_categories; k++)
        c->off[k + 1] += c->off[k];
    for (size_t i = 0; i < n; i++)
        if (count[i])
            c->order[c->off[category[i]]++] = (uint32_t)i;
    for (uint32_t k = c->n_categories; k > 0; k--) // each start moved to its end: shift back
        c->off[k] = c->off[k - 1];
    c->off[0] = 0;
}

static bool takes_part(const struct cal *c, uint32_t k)
{
    return c->rows[k] >= c->p.min_rows;
}

/* Mean, centred rows and covariance of category k. */
static void covariance(struct cal *c, uint32_t k, const float *pv, const uint32_t *count)
{
    size_t d = c->d, lo = c->off[k], n = c->off[k + 1] - lo;
    double mean[512];
    memset(mean, 0, d * sizeof(*mean));
    for (size_t i = lo; i < lo + n; i++)
        for (size_t q = 0; q < d; q++)
            mean[q] += (double)count[c->order[i]] * pv[c->order[i] * d + q];
    for (size_t i = lo; i < lo + n; i++)
        for (size_t q = 0; q < d; q++) {
            float x = (float)(pv[c->order[i] * d + q] - mean[q] / (double)c->rows[k]);
            c->centred[i * d + q] = x;
            c->weighted[i * d + q] = x * (float)count[c->order[i]];
        }
    float f = 1.0f / (float)(c->rows[k] - 1);
    blas_sgemm(true, false, d, d, n, f, c->weighted + lo * d, d, c->centred + lo * d, d, 0, c->cov + k * d * d, d);
}

/* Adds 2 / (n - 1) * weight * count (x - mean) dC to the items' gradients; `weighted` is free to be overwritten. */
static void push_back(struct cal *c, uint32_t k, const float *dcov, double weight, float *dpv)
{
    size_t d = c->d, lo = c->off[k], n = c->off[k + 1] - lo;
    float f = (float)(2 * weight / (double)(c->rows[k] - 1));
    float *dx = c->centred + lo * d;
    blas_sgemm(false, false, n, d, d, f, c->weighted + lo * d, d, dcov, d, 0, dx, d);
    for (size_t i = 0; i < n; i++)
        for (size_t q = 0; q < d; q++)
            dpv[c->order[lo + i] * d + q] += dx[i * d + q];
}

/* The category with most rows that takes part, or n_categories. */
static uint32_t major_of(const struct cal *c)
{
    uint32_t best = c->n_categories;
    for (uint32_t k = 0; k < c->n_categories; k++)
        if (takes_part(c, k) && (best == c->n_categories || c->rows[k] > c->rows[best]))
            best = k;
    return best;
}

/* |C_major - C_k|^2, its gradient to C_k written to dk and subtracted from dmajor. */
static double compare(const float *major, const float *cov, size_t dd, float w, float *dk, float *dmajor)
{
    double s = 0;
    for (size_t i = 0; i < dd; i++) {
        float e = cov[i] - major[i];
        s += (double)e * e;
        dk[i] = 2 * w * e;
        dmajor[i] -= dk[i];
    }
    return s * w;
}

double cal_loss(struct cal *c, const float *pv, const uint32_t *category, const uint32_t *count, size_t n,
                double weight, float *dpv)
{
    size_t dd = (size_t)c->d * c->d;
    uint64_t all = 0;
    double sum = 0;
    group(c, category, count, n);
    uint32_t major = major_of(c);
    for (uint32_t k = 0; k < c->n_categories; k++)
        if (takes_part(c, k)) {
            covariance(c, k, pv, count);
            all += c->rows[k];
        }
    float *dk = c->dcov, *dmajor = c->dcov + dd;
    memset(dmajor, 0, dd * sizeof(*dmajor));
    for (uint32_t k = 0; k < c->n_categories; k++) {
        if (k == major || !takes_part(c, k))
            continue;
        float w = c->p.weighted ? (float)((double)c->rows[k] / (double)all) : 1;
        sum += compare(c->cov + major * dd, c->cov + k * dd, dd, w, dk, dmajor);
        push_back(c, k, dk, weight, dpv);
    }
    if (major < c->n_categories && !c->p.detach_major)
        push_back(c, major, dmajor, weight, dpv);
    return sum;
}
