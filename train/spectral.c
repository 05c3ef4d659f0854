#include "train/spectral.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/blas.h"

#define EXTRA 16     // directions beyond those wanted, which make the wanted ones converge faster
#define ITERATIONS 4 // products with Z'Z
#define SWEEPS 30    // of Jacobi rotations, at most

struct spectral {
    const struct dataset *d;
    struct pool *pool;
    size_t n, m;                   // items, directions
    float *q;                      // [n][m] orthonormal columns
    float *y[POOL_THREADS_MAX];    // [n][m] Z'Z q, a thread's users' part of it
    float *user[POOL_THREADS_MAX]; // [m]
    float *item_w;                 // [n] n_items^-1/2
    double *gram, *vec;            // [m][m]
    float *small;                  // [m][m]
    float *block;
    size_t block_floats;
};

// -------------------------------------------------------------------------------------------------------- memory

static float *carve(float *block, size_t *at, size_t n)
{
    float *p = block ? block + *at : NULL;
    *at += n;
    return p;
}

static size_t layout(struct spectral *s, float *block)
{
    size_t at = 0;
    s->q = carve(block, &at, s->n * s->m);
    for (unsigned i = 0; i < pool_threads(s->pool); i++) {
        s->y[i] = carve(block, &at, s->n * s->m);
        s->user[i] = carve(block, &at, s->m);
    }
    s->item_w = carve(block, &at, s->n);
    s->small = carve(block, &at, s->m * s->m);
    return at;
}

static bool spectral_init(struct spectral *s, struct err *err)
{
    size_t bytes;
    s->block_floats = layout(s, NULL);
    if (__builtin_mul_overflow(s->block_floats, sizeof(float), &bytes) || !(s->block = mem_block(bytes, err)))
        return false;
    layout(s, s->block);
    s->gram = mem_array(s->m * s->m, sizeof(*s->gram), err);
    s->vec = mem_array(s->m * s->m, sizeof(*s->vec), err);
    const struct interactions *t = &s->d->train;
    for (uint64_t i = 0; i < t->off[s->d->n_users]; i++)
        s->item_w[t->item[i]] += 1;
    for (size_t i = 0; i < s->n; i++)
        s->item_w[i] = s->item_w[i] > 0 ? 1 / sqrtf(s->item_w[i]) : 0;
    return s->gram && s->vec;
}

static void spectral_fini(struct spectral *s)
{
    mem_block_free(s->block, s->block_floats * sizeof(float));
    free(s->gram);
    free(s->vec);
}

// ------------------------------------------------------------------------------------------------------- products

/* y += z (z' q) for one user's row z of Z. */
static void add_user(const struct spectral *s, const uint32_t *item, size_t n, float *t, float *y)
{
    size_t m = s->m;
    memset(t, 0, m * sizeof(*t));
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < m; c++)
            t[c] += s->item_w[item[i]] * s->q[item[i] * m + c];
    float w = 1 / sqrtf((float)n); // both factors n^-1/4 of the row
    for (size_t c = 0; c < m; c++)
        t[c] *= w;
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < m; c++)
            y[item[i] * m + c] += s->item_w[item[i]] * t[c];
}

static void product_part(void *ctx, unsigned part)
{
    const struct spectral *s = ctx;
    const struct interactions *t = &s->d->train;
    size_t lo, hi;
    memset(s->y[part], 0, s->n * s->m * sizeof(float));
    pool_range(s->d->n_users, part, pool_threads(s->pool), &lo, &hi);
    for (size_t u = lo; u < hi; u++)
        if (t->off[u + 1] > t->off[u])
            add_user(s, t->item + t->off[u], (size_t)(t->off[u + 1] - t->off[u]), s->user[part], s->y[part]);
}

/* y[0] = Z'Z q */
static void product(struct spectral *s)
{
    pool_run(s->pool, product_part, s);
    for (unsigned k = 1; k < pool_threads(s->pool); k++)
        for (size_t i = 0; i < s->n * s->m; i++)
            s->y[0][i] += s->y[k][i];
}

// -------------------------------------------------------------------------------------------------- small algebra

/* Lower Cholesky factor of the symmetric a, in place; a pivot that has nothing left of it becomes 0, which drops its
 * direction. */
static void cholesky(double *a, size_t m)
{
    for (size_t j = 0; j < m; j++) {
        double full = a[j * m + j], d = full;
        for (size_t k = 0; k < j; k++)
            d -= a[j * m + k] * a[j * m + k];
        double root = d > 1e-7 * full && d > 0 ? sqrt(d) : 0;
        a[j * m + j] = root;
        for (size_t i = j + 1; i < m; i++) {
            double v = a[i * m + j];
            for (size_t k = 0; k < j; k++)
                v -= a[i * m + k] * a[j * m + k];
            a[i * m + j] = root > 0 ? v / root : 0;
        }
    }
}

/* inv := inverse of the lower triangle l; 0 in the columns and rows that were dropped. */
static void invert_lower(const double *l, size_t m, double *inv)
{
    memset(inv, 0, m * m * sizeof(*inv));
    for (size_t j = 0; j < m; j++)
        for (size_t i = j; i < m && l[j * m + j] > 0; i++) {
            double v = i == j;
            for (size_t k = j; k < i; k++)
                v -= l[i * m + k] * inv[k * m + j];
            inv[i * m + j] = l[i * m + i] > 0 ? v / l[i * m + i] : 0;
        }
}

static void gram_of(struct spectral *s, const float *a, const float *b)
{
    blas_sgemm(true, false, s->m, s->m, s->n, 1, a, s->m, b, s->m, 0, s->small, s->m);
    for (size_t i = 0; i < s->m; i++)
        for (size_t j = 0; j < s->m; j++)
            s->gram[i * s->m + j] = 0.5 * ((double)s->small[i * s->m + j] + (double)s->small[j * s->m + i]);
}

/* q := the columns of y, made orthonormal: y L'^-1 with y'y = L L'. */
static void orthonormalise(struct spectral *s, const float *y)
{
    gram_of(s, y, y);
    cholesky(s->gram, s->m);
    invert_lower(s->gram, s->m, s->vec);
    for (size_t i = 0; i < s->m * s->m; i++)
        s->small[i] = (float)s->vec[i];
    blas_sgemm(false, true, s->n, s->m, s->m, 1, y, s->m, s->small, s->m, 0, s->q, s->m);
}

/* Rotates rows and columns p, q of the symmetric a so that a[p][q] = 0; v collects the rotations in its columns. */
static void rotate(double *a, double *v, size_t m, size_t p, size_t q)
{
    double apq = a[p * m + q];
    if (fabs(apq) < 1e-300)
        return;
    double theta = (a[q * m + q] - a[p * m + p]) / (2 * apq);
    double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1)), c = 1 / sqrt(t * t + 1), sn = t * c;
    for (size_t k = 0; k < m; k++) {
        double x = a[k * m + p], y = a[k * m + q];
        a[k * m + p] = c * x - sn * y;
        a[k * m + q] = sn * x + c * y;
    }
    for (size_t k = 0; k < m; k++) {
        double x = a[p * m + k], y = a[q * m + k], vx = v[p * m + k], vy = v[q * m + k];
        a[p * m + k] = c * x - sn * y;
        a[q * m + k] = sn * x + c * y;
        v[p * m + k] = c * vx - sn * vy;
        v[q * m + k] = sn * vx + c * vy;
    }
}

/* Eigenvectors of gram into the rows of vec, eigenvalues onto gram's diagonal (cyclic Jacobi). */
static void eigen(struct spectral *s)
{
    size_t m = s->m;
    memset(s->vec, 0, m * m * sizeof(*s->vec));
    for (size_t i = 0; i < m; i++)
        s->vec[i * m + i] = 1;
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        double off = 0, diag = 0;
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < m; j++)
                *(i == j ? &diag : &off) += s->gram[i * m + j] * s->gram[i * m + j];
        if (off <= 1e-16 * diag)
            return;
        for (size_t p = 0; p + 1 < m; p++)
            for (size_t q = p + 1; q < m; q++)
                rotate(s->gram, s->vec, m, p, q);
    }
}

// --------------------------------------------------------------------------------------------------------- result

/* Row of vec with the r-th largest eigenvalue, by taking the largest left over. */
static size_t take_largest(struct spectral *s, double *value)
{
    size_t best = 0;
    for (size_t i = 1; i < s->m; i++)
        if (s->gram[i * s->m + i] > s->gram[best * s->m + best])
            best = i;
    *value = s->gram[best * s->m + best];
    s->gram[best * s->m + best] = -HUGE_VAL;
    return best;
}

/* Rayleigh and Ritz: within the subspace q, the eigenvectors of Z'Z; out = q vec' S^1/2, as wide as asked. */
static void ritz(struct spectral *s, size_t cols, float *out)
{
    size_t m = s->m, have = cols < m ? cols : m;
    product(s);
    gram_of(s, s->q, s->y[0]);
    eigen(s);
    memset(s->small, 0, m * m * sizeof(*s->small));
    for (size_t r = 0; r < have; r++) {
        double value;
        size_t from = take_largest(s, &value);
        double f = value > 0 ? pow(value, 0.25) : 0; // eigenvalues are S^2
        for (size_t c = 0; c < m; c++)
            s->small[r * m + c] = (float)(f * s->vec[from * m + c]);
    }
    memset(out, 0, s->n * cols * sizeof(*out));
    blas_sgemm(false, true, s->n, have, m, 1, s->q, m, s->small, m, 0, out, cols);
}

static void scale_to(float *out, size_t n, double std)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)out[i] * out[i];
    float f = sum > 0 ? (float)(std / sqrt(sum / (double)n)) : 0;
    for (size_t i = 0; i < n; i++)
        out[i] *= f;
}

bool spectral_items(const struct dataset *d, size_t cols, double std, struct rng *rng, struct pool *pool, float *out,
                    struct err *err)
{
    struct spectral s = {
        .d = d, .pool = pool, .n = d->n_items, .m = cols + EXTRA < d->n_items ? cols + EXTRA : d->n_items};
    bool ok = spectral_init(&s, err);
    if (ok) {
        for (size_t i = 0; i < s.n * s.m; i++)
            s.y[0][i] = (float)rng_normal(rng);
        orthonormalise(&s, s.y[0]);
        for (int i = 0; i < ITERATIONS; i++) {
            product(&s);
            orthonormalise(&s, s.y[0]);
        }
        ritz(&s, cols, out);
        scale_to(out, s.n * cols, std);
    }
    spectral_fini(&s);
    return ok || err_prefix(err, "starting vectors of %u items", d->n_items);
}
