#include "tests/core/support.h"
#include "tests/core/world.h"

static void fill(float *v, size_t n, float scale, struct rng *r)
{
    for (size_t i = 0; v && i < n; i++)
        v[i] = scale * (float)rng_normal(r);
}

static void randomise(struct tower *t, struct rng *r)
{
    uint32_t in = t->z_dim;
    fill(t->emb, t->shape.n_rows * t->shape.k, 0.5f, r);
    fill(t->aug, (size_t)t->shape.n_ids * t->shape.d_aug, 0.3f, r);
    fill(t->aug_segment, (size_t)t->shape.n_segments * t->shape.d_aug, 0.1f, r);
    for (uint32_t l = 0; l < t->shape.n_layers; in = t->shape.width[l++]) {
        fill(t->w[l], (size_t)t->shape.width[l] * in, 0.4f, r);
        fill(t->b[l], t->shape.width[l], 0.1f, r);
    }
}

struct world *world_new(const struct world_params *p)
{
    struct world_params q = world_defaults(p);
    struct world *w = world_data(p);
    struct err e = {0};
    struct rng r;
    rng_init(&r, q.seed + 1);
    struct tower_params t = {.k = 8, .d_aug = q.d_aug, .n_layers = 2, .width = {24, q.d}, .with_aug = true};
    w->model = model_new(q.kind, w->schema, &t, &t, &e);
    w->schema = NULL;
    if (!w->model)
        fail_msg("world: %s", e.msg);
    w->free_model = model_free;
    randomise(&w->model->user, &r);
    randomise(&w->model->item, &r);
    w->in.model = w->model;
    return w;
}
