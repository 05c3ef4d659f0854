#include "core/als.h"

#include <string.h>

#include "core/blas.h"

#define BLOCK 128 // rows gathered for one product

size_t als_scratch(uint32_t d)
{
    return (size_t)d * d + (size_t)BLOCK * d;
}

void als_gram(const float *v, size_t n, uint32_t d, float *gram)
{
    blas_ssyrk(true, d, n, 1, v, d, 0, gram, d);
}

/* a += (1 - w0) sum v v', b += sum v over one block of rows. */
static void add_block(const struct als_side *s, const uint32_t *idx, size_t m, float *rows, float *a, float *b)
{
    size_t d = s->d;
    for (size_t i = 0; i < m; i++) {
        const float *v = s->v + (size_t)idx[i] * d;
        memcpy(rows + i * d, v, d * sizeof(*rows));
        for (size_t c = 0; c < d; c++)
            b[c] += v[c];
    }
    blas_ssyrk(true, d, m, 1 - s->w0, rows, d, 1, a, d);
}

bool als_row(const struct als_side *s, const uint32_t *idx, size_t m, float *scratch, float *out)
{
    size_t d = s->d;
    float *a = scratch, *rows = scratch + d * d;
    memset(out, 0, d * sizeof(*out));
    if (m == 0)
        return true;
    for (size_t i = 0; i < d * d; i++)
        a[i] = s->w0 * s->gram[i];
    for (size_t at = 0; at < m; at += BLOCK)
        add_block(s, idx + at, m - at < BLOCK ? m - at : BLOCK, rows, a, out);
    float penalty = s->lambda * ((float)m + s->w0 * (float)s->n);
    for (size_t c = 0; c < d; c++)
        a[c * d + c] += penalty;
    if (blas_sposv(d, a, d, out))
        return true;
    memset(out, 0, d * sizeof(*out));
    return false;
}
