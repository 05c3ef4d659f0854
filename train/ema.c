#include "train/ema.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

bool ema_init(struct ema *e, struct tower *t, bool with_aug, struct err *err)
{
    *e = (struct ema){.tower = t, .with_aug = with_aug};
    e->emb_hi = t->shape.n_rows;
    e->aug_hi = t->shape.n_ids;
    e->block = mem_block(t->block_floats * sizeof(float), err);
    return e->block || err_prefix(err, "average of the parameters");
}

void ema_fini(struct ema *e)
{
    if (e->block)
        mem_block_free(e->block, e->tower->block_floats * sizeof(float));
    *e = (struct ema){0};
}

/* The learned stretches of the block, as [from, to): embeddings, augmented vectors, layers. */
static size_t stretches(const struct ema *e, size_t range[3][2])
{
    const struct tower *t = e->tower;
    size_t n = 0, emb = (size_t)(t->emb - t->block), layers = (size_t)(t->w[0] - t->block);
    range[n][0] = emb + e->emb_lo * t->shape.k;
    range[n++][1] = emb + e->emb_hi * t->shape.k;
    if (e->with_aug && t->aug) {
        size_t aug = (size_t)(t->aug - t->block);
        range[n][0] = aug + e->aug_lo * t->shape.d_aug;
        range[n++][1] = aug + e->aug_hi * t->shape.d_aug;
    }
    range[n][0] = layers;
    range[n++][1] = t->block_floats;
    return n;
}

void ema_take(struct ema *e, double decay)
{
    size_t range[3][2], n = stretches(e, range);
    float keep = e->started ? (float)decay : 0;
    for (size_t k = 0; k < n; k++)
        for (size_t i = range[k][0]; i < range[k][1]; i++)
            e->block[i] = keep * e->block[i] + (1 - keep) * e->tower->block[i];
    e->started = true;
}

void ema_swap(struct ema *e)
{
    size_t range[3][2], n = e->started ? stretches(e, range) : 0;
    for (size_t k = 0; k < n; k++)
        for (size_t i = range[k][0]; i < range[k][1]; i++) {
            float x = e->block[i];
            e->block[i] = e->tower->block[i];
            e->tower->block[i] = x;
        }
}

bool ema_array_init(struct ema_array *e, float *w, size_t n, struct err *err)
{
    *e = (struct ema_array){.w = w, .n = n};
    e->average = mem_array(n, sizeof(*e->average), err);
    return e->average || err_prefix(err, "average of the parameters");
}

void ema_array_fini(struct ema_array *e)
{
    free(e->average);
    *e = (struct ema_array){0};
}

void ema_array_take(struct ema_array *e, double decay)
{
    float keep = e->started ? (float)decay : 0;
    for (size_t i = 0; i < e->n; i++)
        e->average[i] = keep * e->average[i] + (1 - keep) * e->w[i];
    e->started = true;
}

void ema_array_swap(struct ema_array *e)
{
    for (size_t i = 0; e->started && i < e->n; i++) {
        float x = e->average[i];
        e->average[i] = e->w[i];
        e->w[i] = x;
    }
}
