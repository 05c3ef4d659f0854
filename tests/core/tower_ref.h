/* tower_ref.h - DAT eq. (1) in double, written straight from the definition: what the fast towers are compared with. */
#ifndef DUET_TEST_TOWER_REF_H
#define DUET_TEST_TOWER_REF_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/rng.h"
#include "core/tower.h"

static inline void ref_forward(const struct tower *t, const uint32_t *x, const float *a, float *out)
{
    const struct tower_shape *s = &t->shape;
    size_t most = t->z_dim;
    for (uint32_t l = 0; l < s->n_layers; l++)
        most = s->width[l] > most ? s->width[l] : most;
    double *in = calloc(most, sizeof(*in)), *h = calloc(most, sizeof(*h)), norm = 0;
    for (uint32_t f = 0; f < s->n_fields; f++) {
        const struct tower_field *tf = &s->field[f];
        uint32_t n = 0;
        for (uint32_t j = tf->slot; j < tf->slot + tf->n_slots; j++)
            n += x[j] != SLOT_EMPTY;
        for (uint32_t j = tf->slot; j < tf->slot + tf->n_slots; j++)
            for (uint32_t c = 0; x[j] != SLOT_EMPTY && c < s->k; c++)
                in[f * s->k + c] += (double)t->emb[(tf->first_row + x[j]) * s->k + c] / n;
    }
    for (uint32_t c = 0; c < s->d_aug; c++)
        in[s->n_fields * s->k + c] = (double)a[c];
    double *skip = calloc(t->d, sizeof(*skip));
    for (uint32_t c = 0; s->skip_aug && c < t->d; c++)
        skip[c] = in[t->skip_at + c];
    size_t n_in = t->z_dim;
    for (uint32_t l = 0; l < s->n_layers; l++) {
        for (uint32_t o = 0; o < s->width[l]; o++) {
            h[o] = (double)t->b[l][o];
            for (size_t i = 0; i < n_in; i++)
                h[o] += (double)t->w[l][o * n_in + i] * in[i];
            if ((l + 1 < s->n_layers || s->relu_out) && h[o] < 0)
                h[o] = 0;
        }
        n_in = s->width[l];
        memcpy(in, h, n_in * sizeof(*in));
    }
    for (uint32_t c = 0; c < t->d; c++)
        h[c] += skip[c];
    free(skip);
    for (uint32_t c = 0; c < t->d; c++)
        norm += h[c] * h[c];
    for (uint32_t c = 0; c < t->d; c++)
        out[c] = norm > 0 ? (float)(h[c] / sqrt(norm)) : 0;
    free(in);
    free(h);
}

/* Weights of the size that He initialisation gives, so that outputs stay near 1. */
static inline void ref_randomise(struct tower *t, struct rng *r)
{
    const struct tower_shape *s = &t->shape;
    for (size_t i = 0; i < s->n_rows * s->k; i++)
        t->emb[i] = (float)rng_normal(r);
    for (size_t i = 0; t->aug && i < (size_t)s->n_ids * s->d_aug; i++)
        t->aug[i] = (float)rng_normal(r);
    for (size_t i = 0; t->aug_segment && i < (size_t)s->n_segments * s->d_aug; i++)
        t->aug_segment[i] = (float)rng_normal(r);
    for (uint32_t l = 0; l < s->n_layers; l++) {
        size_t n_in = l ? s->width[l - 1] : t->z_dim;
        for (size_t i = 0; i < n_in * s->width[l]; i++)
            t->w[l][i] = (float)(rng_normal(r) * sqrt(2.0 / (double)n_in));
        for (uint32_t i = 0; i < s->width[l]; i++)
            t->b[l][i] = (float)(0.1 * rng_normal(r));
    }
}

#endif
