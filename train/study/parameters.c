#include "train/study/parameters.h"

#include "core/tower.h"

#define WIDTH_MAX 512 // of the last layer, as recipe_check has it

static bool count_side(const struct schema_side *side, const struct recipe *r, uint64_t *sum, struct err *err)
{
    struct tower t = {0};
    struct tower_params p = recipe_tower(r);
    p.shape_only = true;
    if (!tower_init(&t, side, &p, err))
        return false;
    uint64_t rows = t.shape.n_rows, in = t.z_dim;
    if (!r->id_tables && side->id_field >= 0)
        rows -= t.shape.n_ids;
    *sum += rows * t.shape.k + (uint64_t)t.shape.n_ids * t.shape.d_aug;
    for (uint32_t l = 0; l < t.shape.n_layers; l++) {
        *sum += (in + 1) * t.shape.width[l];
        in = t.shape.width[l];
    }
    tower_fini(&t);
    return true;
}

bool parameters_count(const struct schema *s, const struct recipe *r, uint64_t *out, struct err *err)
{
    *out = 0;
    return model_kind_stored(r->model) || (count_side(&s->user, r, out, err) && count_side(&s->item, r, out, err));
}

static void set_width(struct recipe *r, uint32_t width)
{
    r->k = width;
    if (r->skip)
        r->width[r->n_layers - 1] = width;
}

static uint64_t distance(uint64_t a, uint64_t b)
{
    return a < b ? b - a : a - b;
}

bool parameters_equal(const struct schema *s, const struct recipe *base, uint64_t want, struct recipe *out,
                      struct err *err)
{
    uint64_t best = UINT64_MAX;
    for (uint32_t width = 1; width <= WIDTH_MAX; width++) {
        struct recipe r = *base;
        uint64_t n;
        set_width(&r, width);
        if (!parameters_count(s, &r, &n, err))
            return false;
        if (distance(n, want) < best) {
            best = distance(n, want);
            *out = r;
        }
    }
    return true;
}
