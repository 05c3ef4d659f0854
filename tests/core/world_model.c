#include "tests/core/support.h"
#include "tests/core/world.h"

static void randomise(struct tower *t, struct rng *r)
{
    for (size_t i = 0; i < t->block_floats; i++)
        t->block[i] = 0.5f * (float)rng_normal(r);
    for (uint32_t s = 0; t->aug && s < t->shape.n_segments * t->shape.d_aug; s++)
        t->aug_segment[s] *= 0.2f;
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
