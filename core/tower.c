#include "core/tower.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/blas.h"
#include "core/dense.h"

#define WIDTH_MAX 65536u        // of k, d_aug and a layer: far above use, far below overflow
#define GEMM_MIN 512            // rows from which sgemm is as fast as our own kernels: bench/results.md, "Tower"
#define VIEW_ALIGN ((size_t)16) // floats: views begin on 64-byte lines

// ------------------------------------------------------------------------------------------------------- memory

static bool check_params(const struct tower_params *p, struct err *err)
{
    if (p->k > WIDTH_MAX || p->d_aug > WIDTH_MAX)
        return err_set(err, ERR_ARG, "embedding width %u, augmented width %u; at most %u allowed", p->k, p->d_aug,
                       WIDTH_MAX);
    if (p->n_layers < 1 || p->n_layers > TOWER_LAYERS_MAX)
        return err_set(err, ERR_ARG, "%u layers, want 1 to %d", p->n_layers, TOWER_LAYERS_MAX);
    for (uint32_t l = 0; l < p->n_layers; l++)
        if (p->width[l] < 1 || p->width[l] > WIDTH_MAX)
            return err_set(err, ERR_ARG, "layer %u has width %u, want 1 to %u", l, p->width[l], WIDTH_MAX);
    return true;
}

static bool set_fields(struct tower_shape *s, const struct schema_side *side, struct err *err)
{
    s->field = mem_array(side->n_fields, sizeof(*s->field), err);
    if (!s->field)
        return false;
    for (uint32_t i = 0; i < side->n_fields; i++) {
        const struct schema_field *f = &side->field[i];
        if (f->n_slots == 0)
            continue;
        struct tower_field *to = &s->field[s->n_fields++];
        *to = (struct tower_field){.slot = f->slot, .n_slots = f->n_slots, .n_rows = f->n_rows, .first_row = s->n_rows};
        memcpy(to->name, f->name, sizeof(to->name));
        s->n_rows += f->n_rows;
    }
    s->n_slots = side->n_slots;
    s->n_segments = schema_n_segments(side);
    s->n_ids = side->id_field < 0 ? 0 : side->field[side->id_field].n_rows;
    return true;
}

/* What goes round the layers: the augmented vector, or the id's embedding. */
static bool set_skip(struct tower *t, const struct schema_side *side, struct err *err)
{
    const struct tower_shape *s = &t->shape;
    uint32_t width = s->d_aug;
    t->skip_at = t->z_dim - s->d_aug;
    for (uint32_t f = 0; s->d_aug == 0 && side->id_field >= 0 && f < s->n_fields; f++)
        if (s->field[f].slot == side->field[side->id_field].slot) {
            t->skip_at = f * s->k;
            width = s->k;
        }
    return (width == t->d && !s->relu_out) ||
           err_set(err, ERR_ARG,
                   "vector of width %u (augmented, or the id's) past %u outputs%s; want the same width and a linear "
                   "last layer",
                   width, t->d, s->relu_out ? " with ReLU" : "");
}

static bool set_shape(struct tower *t, const struct schema_side *side, const struct tower_params *p, struct err *err)
{
    struct tower_shape *s = &t->shape;
    if (!check_params(p, err) || !set_fields(s, side, err))
        return false;
    s->k = p->k;
    s->d_aug = p->d_aug;
    s->n_layers = p->n_layers;
    s->relu_out = p->relu_out;
    s->skip_aug = p->skip_aug;
    memcpy(s->width, p->width, p->n_layers * sizeof(*s->width));
    t->z_dim = s->n_fields * s->k + s->d_aug; // <= 257 * 65536
    t->d = s->width[s->n_layers - 1];
    if (s->skip_aug && !set_skip(t, side, err))
        return false;
    if (s->n_fields > 0 && s->k == 0)
        return err_set(err, ERR_ARG, "embedding width 0, want 1 to %u", WIDTH_MAX);
    return t->z_dim > 0 || err_set(err, ERR_ARG, "no inputs: neither a field with a table nor an augmented vector");
}

static uint32_t layer_in(const struct tower *t, uint32_t l)
{
    return l ? t->shape.width[l - 1] : t->z_dim;
}

/* Gives out the next rows x cols floats of the block; with block = NULL only counts. Cannot overflow: fewer than 2^38
 * rows, widths of at most 2^24. */
static float *carve(float *block, size_t *at, size_t rows, size_t cols)
{
    float *view = block ? block + *at : NULL;
    *at += (rows * cols + VIEW_ALIGN - 1) & ~(VIEW_ALIGN - 1);
    return view;
}

static size_t place_views(struct tower *t, bool with_aug, float *block)
{
    const struct tower_shape *s = &t->shape;
    size_t at = 0;
    t->emb = carve(block, &at, s->n_rows, s->k);
    if (s->d_aug && with_aug && s->n_ids)
        t->aug = carve(block, &at, s->n_ids, s->d_aug);
    if (s->d_aug)
        t->aug_segment = carve(block, &at, s->n_segments, s->d_aug);
    for (uint32_t l = 0; l < s->n_layers; l++) {
        t->w[l] = carve(block, &at, s->width[l], layer_in(t, l));
        t->b[l] = carve(block, &at, s->width[l], 1);
    }
    return at;
}

bool tower_init(struct tower *t, const struct schema_side *side, const struct tower_params *p, struct err *err)
{
    *t = (struct tower){0};
    if (!set_shape(t, side, p, err))
        goto fail;
    if (p->shape_only) {
        place_views(t, false, NULL);
        return true;
    }
    t->block_floats = place_views(t, p->with_aug, NULL);
    t->block = mem_block(t->block_floats * sizeof(float), err);
    if (!t->block)
        goto fail;
    place_views(t, p->with_aug, t->block);
    return true;
fail:
    err_prefix(err, "tower");
    tower_fini(t);
    return false;
}

void tower_fini(struct tower *t)
{
    mem_block_free(t->block, t->block_floats * sizeof(float));
    free(t->shape.field);
    *t = (struct tower){0};
}

// ------------------------------------------------------------------------------------------------------- scratch

struct tower_ws {
    size_t max_batch, block_floats;
    uint32_t z_dim, width; // of the tower it was made for: its z_dim and widest layer
    dense_fn *dense;
    float *z;    // [max_batch][z_dim]
    float *h[2]; // [max_batch][width] each: a layer reads one and writes the other
    float *block;
};

static uint32_t widest(const struct tower *t)
{
    uint32_t w = 0;
    for (uint32_t l = 0; l < t->shape.n_layers; l++)
        if (t->shape.width[l] > w)
            w = t->shape.width[l];
    return w;
}

struct tower_ws *tower_ws_new(const struct tower *t, size_t max_batch, struct err *err)
{
    if (max_batch < 1 || max_batch > INT32_MAX) {
        err_set(err, ERR_ARG, "tower scratch: batch of %zu rows, want 1 to %d", max_batch, INT32_MAX);
        return NULL;
    }
    struct tower_ws *ws = mem_array(1, sizeof(*ws), err);
    if (!ws)
        return NULL;
    *ws = (struct tower_ws){.max_batch = max_batch, .z_dim = t->z_dim, .width = widest(t), .dense = dense_best()};
    size_t at = 0;
    for (int pass = 0; pass < 2; pass++) {
        at = 0;
        ws->z = carve(ws->block, &at, max_batch, ws->z_dim);
        ws->h[0] = carve(ws->block, &at, max_batch, ws->width);
        ws->h[1] = carve(ws->block, &at, max_batch, ws->width);
        if (pass == 0 && !(ws->block = mem_block(at * sizeof(float), err))) {
            free(ws);
            return NULL;
        }
    }
    ws->block_floats = at;
    return ws;
}

void tower_ws_free(struct tower_ws *ws)
{
    if (!ws)
        return;
    mem_block_free(ws->block, ws->block_floats * sizeof(float));
    free(ws);
}

bool tower_ws_use(struct tower_ws *ws, enum dense_isa isa)
{
    dense_fn *f = dense_kernel(isa);
    if (f)
        ws->dense = f;
    return f != NULL;
}

// -------------------------------------------------------------------------------------------------------- inputs

static void add_row(float *restrict e, const float *restrict row, uint32_t k)
{
    for (uint32_t c = 0; c < k; c++)
        e[c] += row[c];
}

/* e[k] = mean of the table rows that the field's slots name: one row, but for multi-valued fields. */
static void embed_field(const struct tower *t, const struct tower_field *f, const uint32_t *x, float *e)
{
    uint32_t k = t->shape.k, n = 1;
    const float *table = t->emb + f->first_row * k;
    memcpy(e, table + (size_t)x[f->slot] * k, k * sizeof(*e));
    while (n < f->n_slots && x[f->slot + n] != SLOT_EMPTY)
        add_row(e, table + (size_t)x[f->slot + n++] * k, k);
    for (uint32_t c = 0; n > 1 && c < k; c++)
        e[c] /= (float)n;
}

void tower_gather(const struct tower *t, const uint32_t *x, const float *a, size_t B, float *z)
{
    const struct tower_shape *s = &t->shape;
    for (size_t i = 0; i < B; i++, x += s->n_slots, z += t->z_dim) {
        for (uint32_t f = 0; f < s->n_fields; f++)
            embed_field(t, &s->field[f], x, z + (size_t)f * s->k);
        if (s->d_aug && a)
            memcpy(z + (size_t)s->n_fields * s->k, a + i * s->d_aug, s->d_aug * sizeof(*a));
    }
}

const float *tower_aug_of(const struct tower *t, const struct schema_side *side, const uint32_t *x)
{
    uint32_t id = side->id_field < 0 ? 0 : x[side->field[side->id_field].slot];
    if (id != 0 && t->aug)
        return t->aug + (size_t)id * t->shape.d_aug;
    return t->aug_segment + (size_t)schema_segment(side, x) * t->shape.d_aug;
}

// ------------------------------------------------------------------------------------------------------- layers

static void relu_all(float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        v[i] = v[i] > 0 ? v[i] : 0;
}

/* Many rows: the bias laid in first, then one product on top. */
static void layer_gemm(const struct dense *d, const float *in, size_t B, float *out)
{
    for (size_t i = 0; i < B; i++)
        memcpy(out + i * d->n_out, d->b, d->n_out * sizeof(*out));
    blas_sgemm(false, true, B, d->n_out, d->n_in, 1.0f, in, d->n_in, d->w, d->n_in, 1.0f, out, d->n_out);
    if (d->relu)
        relu_all(out, B * d->n_out);
}

static void layer(const struct tower *t, uint32_t l, const struct tower_ws *ws, const float *in, size_t B, float *out)
{
    bool relu = l + 1 < t->shape.n_layers || t->shape.relu_out;
    const struct dense d = {
        .w = t->w[l], .b = t->b[l], .n_out = t->shape.width[l], .n_in = layer_in(t, l), .relu = relu};
    if (B < GEMM_MIN)
        ws->dense(&d, in, B, out);
    else
        layer_gemm(&d, in, B, out);
}

/* p = h / |h|. The squares are summed in double, where those of any finite float are in range; a length of 0, or one
 * that is not finite because the weights were absurd, gives p = 0. */
static void normalise(const float *h, size_t d, float *p)
{
    double s0 = 0, s1 = 0;
    size_t c = 0;
    for (; c + 2 <= d; c += 2) {
        s0 += (double)h[c] * (double)h[c];
        s1 += (double)h[c + 1] * (double)h[c + 1];
    }
    if (c < d)
        s0 += (double)h[c] * (double)h[c];
    double norm = sqrt(s0 + s1), scale = norm > 0 && isfinite(norm) ? 1 / norm : 0;
    for (c = 0; c < d; c++)
        p[c] = scale > 0 ? (float)((double)h[c] * scale) : 0;
}

/* From z in ws->z to out. */
static void run_layers(const struct tower *t, struct tower_ws *ws, size_t B, float *out)
{
    const float *in = ws->z;
    float *h = NULL;
    for (uint32_t l = 0; l < t->shape.n_layers; l++) {
        h = ws->h[l & 1];
        layer(t, l, ws, in, B, h);
        in = h;
    }
    for (size_t i = 0; t->shape.skip_aug && i < B; i++)
        add_row(h + i * t->d, ws->z + i * t->z_dim + t->skip_at, t->d);
    for (size_t i = 0; i < B; i++)
        normalise(in + i * t->d, t->d, out + i * t->d);
}

void tower_forward(const struct tower *t, const uint32_t *x, const float *a, size_t B, struct tower_ws *ws, float *out)
{
    assert(B <= ws->max_batch && ws->z_dim == t->z_dim && ws->width >= widest(t) && (a || !t->shape.d_aug));
    tower_gather(t, x, a, B, ws->z);
    run_layers(t, ws, B, out);
}

void tower_forward_own(const struct tower *t, const struct schema_side *side, const uint32_t *x, size_t B,
                       struct tower_ws *ws, float *out)
{
    assert(B <= ws->max_batch && ws->z_dim == t->z_dim && ws->width >= widest(t));
    size_t d_aug = t->shape.d_aug;
    tower_gather(t, x, NULL, B, ws->z);
    for (size_t i = 0; d_aug && i < B; i++)
        memcpy(ws->z + (i + 1) * t->z_dim - d_aug, tower_aug_of(t, side, x + i * t->shape.n_slots),
               d_aug * sizeof(float));
    run_layers(t, ws, B, out);
}
