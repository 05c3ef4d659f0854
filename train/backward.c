#include "train/backward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/blas.h"

/* Rows go through all layers in blocks, so that a block's activations (256 x 256 floats a layer) stay in the
 * second-level cache between the layers:
 *
 *     z [B][z_dim] -W1-> h1 -W2-> h2 -W3-> h3 -norm-> p        forward, left to right
 *     dz <-W1'- dh1 <-W2'- dh2 <-W3'- dh3 <----------- dp      backward; dW_l += dh_l' h_(l-1)
 *
 * W and b gradients are summed per thread, the first's in place, and added up at the end; the tables' rows are
 * scattered field by field, so two threads never write one table. */
#define PASS_BLOCK 256

#define NORM2_MIN 1e-30f // below this |h|^2 counts as zero: p = 0, no gradient

// ------------------------------------------------------------------------------------------------------- memory

static uint32_t widest(const struct tower *t)
{
    uint32_t w = t->z_dim;
    for (uint32_t l = 0; l < t->shape.n_layers; l++)
        if (t->shape.width[l] > w)
            w = t->shape.width[l];
    return w;
}

static uint32_t layer_in(const struct tower *t, uint32_t l)
{
    return l ? t->shape.width[l - 1] : t->z_dim;
}

static float *carve(float *block, size_t *at, size_t n)
{
    float *p = block ? block + *at : NULL;
    *at += (n + 15) & ~(size_t)15; // 64-byte steps
    return p;
}

/* Lays out the views and returns their size in floats; with block = NULL only that. */
static size_t layout(struct tower_pass *s, const struct tower *t, float *block)
{
    size_t n = s->max_rows, at = 0;
    s->z = carve(block, &at, n * t->z_dim);
    s->dz = carve(block, &at, n * t->z_dim);
    for (uint32_t l = 0; l < t->shape.n_layers; l++)
        s->h[l] = carve(block, &at, n * t->shape.width[l]);
    s->p = carve(block, &at, n * t->d);
    s->inv_norm = carve(block, &at, n);
    for (unsigned i = 0; i < pool_threads(s->pool); i++) {
        s->dh[i] = carve(block, &at, (size_t)2 * PASS_BLOCK * widest(t));
        s->gw[i] = i ? carve(block, &at, s->n_dense) : NULL;
    }
    return at;
}

bool tower_pass_init(struct tower_pass *s, const struct tower *t, size_t max_rows, struct pool *pool, struct err *err)
{
    *s = (struct tower_pass){.pool = pool, .max_rows = max_rows};
    for (uint32_t l = 0; l < t->shape.n_layers; l++) {
        s->w_off[l] = s->n_dense;
        s->n_dense += (size_t)t->shape.width[l] * layer_in(t, l);
        s->b_off[l] = s->n_dense;
        s->n_dense += t->shape.width[l];
    }
    s->block_floats = layout(s, t, NULL);
    s->block = mem_block(s->block_floats * sizeof(float), err);
    if (!s->block)
        return err_prefix(err, "activations of %zu rows", max_rows);
    layout(s, t, s->block);
    if (by_value_init(&s->values, t, max_rows, pool_threads(pool), err))
        return true;
    tower_pass_fini(s);
    return false;
}

void tower_pass_fini(struct tower_pass *s)
{
    by_value_fini(&s->values);
    mem_block_free(s->block, s->block_floats * sizeof(float));
    free(s->keep);
    *s = (struct tower_pass){0};
}

bool tower_pass_drop(struct tower_pass *s, const struct tower *t, double chance, struct err *err)
{
    s->drop = (float)chance;
    return chance == 0 || s->keep || (s->keep = mem_array(s->max_rows, t->d, err)) != NULL;
}

// ------------------------------------------------------------------------------------------------------- forward

/* e = mean of the field's rows named in x; one row for all but multi-valued fields. */
static void embed_field(const struct tower *t, const struct tower_field *f, const uint32_t *x, float *e)
{
    uint32_t k = t->shape.k, n = 0;
    memset(e, 0, k * sizeof(*e));
    for (uint32_t s = f->slot; s < f->slot + f->n_slots && x[s] != SLOT_EMPTY; s++, n++) {
        const float *row = t->emb + (f->first_row + x[s]) * k;
        for (uint32_t c = 0; c < k; c++)
            e[c] += row[c];
    }
    for (uint32_t c = 0; n > 1 && c < k; c++)
        e[c] /= (float)n;
}

static void embed_row(const struct by_value *v, const struct tower *t, const uint32_t *x, const float *a, float *z)
{
    for (uint32_t f = 0; f < t->shape.n_fields; f++)
        if (!v->on[f])
            embed_field(t, &t->shape.field[f], x, z + (size_t)f * t->shape.k);
    if (t->shape.d_aug)
        memcpy(z + (size_t)t->shape.n_fields * t->shape.k, a, t->shape.d_aug * sizeof(*a));
}

/* Outputs of the first layer for rows i .. i + n. */
static void first_forward(const struct tower_pass *s, const struct tower *t, size_t i, size_t n, float *out)
{
    const struct by_value *v = &s->values;
    uint32_t w = t->shape.width[0], z = t->z_dim;
    for (size_t r = 0; r < n; r++)
        by_value_forward(v, t, s->x + (i + r) * t->shape.n_slots, out + r * w);
    for (const struct stretch *c = v->column; c < v->column + v->n_columns; c++)
        blas_sgemm(false, true, n, w, c->n, 1.0f, s->z + i * z + c->at, z, t->w[0] + c->at, z, 1.0f, out, w);
}

static void layer_forward(const struct tower *t, uint32_t l, const float *in, size_t n, float *out)
{
    uint32_t w = t->shape.width[l], m = layer_in(t, l);
    for (size_t i = 0; i < n; i++)
        memcpy(out + i * w, t->b[l], w * sizeof(*out));
    blas_sgemm(false, true, n, w, m, 1.0f, in, m, t->w[l], m, 1.0f, out, w);
}

/* h += a, or the id's embedding, columns of z */
static void add_skip(const struct tower *t, const float *z, size_t n, float *h)
{
    size_t d = t->d;
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < d; c++)
            h[i * d + c] += z[i * t->z_dim + t->skip_at + c];
}

/* One step of splitmix64: 8 components' choices, one a byte. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Each row's choice depends on the seed and its number alone. */
static void drop_row(const struct tower_pass *s, size_t row, size_t d, float *h)
{
    uint8_t *keep = s->keep + row * d;
    uint32_t below = (uint32_t)(s->drop * 256 + 0.5f);
    uint64_t bits = 0;
    for (size_t c = 0; c < d; c++) {
        if (c % 8 == 0)
            bits = mix(s->drop_seed + ((s->first + row) * d + c + 8) * 0x9e3779b97f4a7c15u);
        keep[c] = (uint8_t)(bits >> (8 * (c % 8))) >= below;
        h[c] = keep[c] ? h[c] : 0;
    }
}

static void normalise(const float *h, size_t n, size_t d, float *p, float *inv_norm)
{
    for (size_t i = 0; i < n; i++) {
        float s = 0;
        for (size_t c = 0; c < d; c++)
            s += h[i * d + c] * h[i * d + c];
        inv_norm[i] = s > NORM2_MIN ? 1.0f / sqrtf(s) : 0;
        for (size_t c = 0; c < d; c++)
            p[i * d + c] = h[i * d + c] * inv_norm[i];
    }
}

struct forward_job {
    struct tower_pass *s;
    const struct tower *t;
    const float *a;
};

static void forward_part(void *ctx, unsigned part)
{
    const struct forward_job *j = ctx;
    struct tower_pass *s = j->s;
    const struct tower *t = j->t;
    uint32_t last = t->shape.n_layers - 1;
    size_t lo, hi;
    pool_range(s->n, part, pool_threads(s->pool), &lo, &hi);
    for (size_t i = lo; i < hi; i += PASS_BLOCK) {
        size_t n = hi - i < PASS_BLOCK ? hi - i : PASS_BLOCK;
        for (size_t r = i; r < i + n; r++)
            embed_row(&s->values, t, s->x + r * t->shape.n_slots, t->shape.d_aug ? j->a + r * t->shape.d_aug : NULL,
                      s->z + r * t->z_dim);
        const float *in = NULL;
        for (uint32_t l = 0; l <= last; l++) {
            float *out = s->h[l] + i * t->shape.width[l];
            if (l == 0)
                first_forward(s, t, i, n, out);
            else
                layer_forward(t, l, in, n, out);
            if (l < last || t->shape.relu_out)
                s->values.wide->relu(out, n * t->shape.width[l]);
            in = out;
        }
        float *h = s->h[last] + i * t->d;
        if (t->shape.skip_aug)
            add_skip(t, s->z + i * t->z_dim, n, h);
        for (size_t r = i; s->drop > 0 && r < i + n; r++)
            drop_row(s, r, t->d, h + (r - i) * t->d);
        normalise(h, n, t->d, s->p + i * t->d, s->inv_norm + i);
    }
}

void tower_pass_forward(struct tower_pass *s, const struct tower *t, const uint32_t *x, const float *a, size_t n)
{
    s->n = n;
    s->x = x;
    by_value_begin(&s->values, t, x, n);
    struct forward_job j = {s, t, a};
    pool_run(s->pool, forward_part, &j);
}

// ------------------------------------------------------------------------------------------------------- backward

/* p = h / |h|:  dh = (dp - p <p, dp>) / |h| */
static void normalise_backward(const float *p, const float *inv_norm, const float *dp, size_t n, size_t d, float *dh)
{
    for (size_t i = 0; i < n; i++) {
        float s = 0;
        for (size_t c = 0; c < d; c++)
            s += p[i * d + c] * dp[i * d + c];
        for (size_t c = 0; c < d; c++)
            dh[i * d + c] = (dp[i * d + c] - s * p[i * d + c]) * inv_norm[i];
    }
}

/* The same for rows i .. i + n, without the components that were dropped. */
static void output_backward(const struct tower_pass *s, const float *dp, size_t i, size_t n, size_t d, float *dh)
{
    normalise_backward(s->p + i * d, s->inv_norm + i, dp + i * d, n, d, dh);
    for (size_t c = 0; s->drop > 0 && c < n * d; c++)
        dh[c] = s->keep[i * d + c] ? dh[c] : 0;
}

/* Where a thread adds up W's and b's gradients. */
struct dense_grad {
    float *w[TOWER_LAYERS_MAX], *b[TOWER_LAYERS_MAX];
};

/* dh [n][w] of layer l in; its W and b gradients into g; the gradient of the layer's input to din. */
static void layer_backward(const struct tower *t, uint32_t l, const float *in, const float *dh, size_t n,
                           const struct dense_grad *g, float *din)
{
    uint32_t w = t->shape.width[l], m = layer_in(t, l);
    blas_sgemm(true, false, w, m, n, 1.0f, dh, w, in, m, 1.0f, g->w[l], m);
    float *db = g->b[l];
    for (size_t i = 0; i < n; i++)
        for (uint32_t c = 0; c < w; c++)
            db[c] += dh[i * w + c];
    blas_sgemm(false, false, n, m, w, 1.0f, dh, w, t->w[l], m, 0.0f, din, m);
}

/* The same of the first layer, rows i .. i + n: what goes by value is summed by value. */
static void first_backward(struct tower_pass *s, const struct tower *t, unsigned part, size_t i, const float *dh,
                           size_t n, const struct dense_grad *g)
{
    struct by_value *v = &s->values;
    uint32_t w = t->shape.width[0], z = t->z_dim;
    for (size_t r = 0; r < n; r++)
        by_value_backward(v, t, part, s->x + (i + r) * t->shape.n_slots, dh + r * w, g->b[0]);
    for (const struct stretch *c = v->column; c < v->column + v->n_columns; c++) {
        blas_sgemm(true, false, w, c->n, n, 1.0f, dh, w, s->z + i * z + c->at, z, 1.0f, g->w[0] + c->at, z);
        blas_sgemm(false, false, n, c->n, w, 1.0f, dh, w, t->w[0] + c->at, z, 0.0f, s->dz + i * z + c->at, z);
    }
}

/* The way past the layers: dz's columns += dh. */
static void add_rows(const float *dh, size_t n, const struct tower *t, float *dz)
{
    size_t d = t->d;
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < d; c++)
            dz[i * t->z_dim + t->skip_at + c] += dh[i * d + c];
}

struct backward_job {
    struct tower_pass *s;
    const struct tower *t;
    const float *dp;
    const uint32_t *aug_row;
    struct tower *grad;
};

/* The first thread adds to the gradient itself, the others to blocks of their own, empty at the start. */
static struct dense_grad dense_grad(const struct backward_job *j, unsigned part)
{
    struct tower_pass *s = j->s;
    struct dense_grad g;
    if (part)
        memset(s->gw[part], 0, s->n_dense * sizeof(float));
    for (uint32_t l = 0; l < j->t->shape.n_layers; l++) {
        g.w[l] = part ? s->gw[part] + s->w_off[l] : j->grad->w[l];
        g.b[l] = part ? s->gw[part] + s->b_off[l] : j->grad->b[l];
    }
    return g;
}

static void backward_part(void *ctx, unsigned part)
{
    const struct backward_job *j = ctx;
    struct tower_pass *s = j->s;
    const struct tower *t = j->t;
    uint32_t last = t->shape.n_layers - 1;
    float *buf[2] = {s->dh[part], s->dh[part] + (size_t)PASS_BLOCK * widest(t)};
    const struct dense_grad g = dense_grad(j, part);
    const struct wide *wide = s->values.wide;
    size_t lo, hi;
    by_value_clear(&s->values, part);
    pool_range(s->n, part, pool_threads(s->pool), &lo, &hi);
    for (size_t i = lo; i < hi; i += PASS_BLOCK) {
        size_t n = hi - i < PASS_BLOCK ? hi - i : PASS_BLOCK;
        float *dh = buf[0], *other = buf[1];
        output_backward(s, j->dp, i, n, t->d, dh);
        if (t->shape.relu_out)
            wide->relu_back(s->h[last] + i * t->d, n * t->d, dh);
        for (uint32_t l = last; l > 0; l--) {
            uint32_t m = t->shape.width[l - 1];
            layer_backward(t, l, s->h[l - 1] + i * m, dh, n, &g, other);
            wide->relu_back(s->h[l - 1] + i * m, n * m, other);
            float *swap = dh;
            dh = other;
            other = swap;
        }
        first_backward(s, t, part, i, dh, n, &g);
        if (t->shape.skip_aug) {
            output_backward(s, j->dp, i, n, t->d, other);
            add_rows(other, n, t, s->dz + i * t->z_dim);
        }
    }
    by_value_weights(&s->values, t, part, g.w[0]);
}

static void scatter_field(const struct tower_pass *s, const struct tower *t, uint32_t field, struct tower *grad)
{
    const struct tower_field *f = &t->shape.field[field];
    uint32_t k = t->shape.k;
    for (size_t i = 0; i < s->n; i++) {
        const uint32_t *x = s->x + i * t->shape.n_slots + f->slot;
        const float *dz = s->dz + i * t->z_dim + (size_t)field * k;
        uint32_t n = 0;
        while (n < f->n_slots && x[n] != SLOT_EMPTY)
            n++;
        float share = n > 1 ? 1.0f / (float)n : 1.0f;
        for (uint32_t q = 0; q < n; q++) {
            float *g = grad->emb + (f->first_row + x[q]) * k;
            for (uint32_t c = 0; c < k; c++)
                g[c] += share * dz[c];
        }
    }
}

static void scatter_aug(const struct tower_pass *s, const struct tower *t, const uint32_t *aug_row, struct tower *grad)
{
    uint32_t d = t->shape.d_aug;
    for (size_t i = 0; i < s->n; i++) {
        if (!aug_row[i])
            continue;
        const float *da = s->dz + i * t->z_dim + (size_t)t->shape.n_fields * t->shape.k;
        float *g = grad->aug + (size_t)aug_row[i] * d;
        for (uint32_t c = 0; c < d; c++)
            g[c] += da[c];
    }
}

/* Fields round robin over the threads; the augmented table counts as one more. */
static void scatter_part(void *ctx, unsigned part)
{
    const struct backward_job *j = ctx;
    uint32_t n = j->t->shape.n_fields, step = pool_threads(j->s->pool);
    for (uint32_t f = part; f < n + (j->t->shape.d_aug ? 1u : 0u); f += step)
        if (f < n && j->s->values.on[f])
            by_value_scatter(&j->s->values, j->t, f, step, j->grad->emb);
        else if (f < n)
            scatter_field(j->s, j->t, f, j->grad);
        else
            scatter_aug(j->s, j->t, j->aug_row, j->grad);
}

static void add_range(float *to, const float *x, size_t n, unsigned part, unsigned parts)
{
    size_t lo, hi;
    pool_range(n, part, parts, &lo, &hi);
    for (size_t c = lo; c < hi; c++)
        to[c] += x[c];
}

/* What the other threads summed up, each thread a range of every W and b. */
static void add_dense_part(void *ctx, unsigned part)
{
    const struct backward_job *j = ctx;
    const struct tower *t = j->t;
    const struct tower_pass *s = j->s;
    unsigned parts = pool_threads(s->pool);
    for (unsigned i = 1; i < parts; i++)
        for (uint32_t l = 0; l < t->shape.n_layers; l++) {
            add_range(j->grad->w[l], s->gw[i] + s->w_off[l], (size_t)t->shape.width[l] * layer_in(t, l), part, parts);
            add_range(j->grad->b[l], s->gw[i] + s->b_off[l], t->shape.width[l], part, parts);
        }
}

/* Dense and table gradients have nothing in common, so no barrier stands between them. */
static void after_part(void *ctx, unsigned part)
{
    scatter_part(ctx, part);
    add_dense_part(ctx, part);
}

void tower_pass_backward(struct tower_pass *s, const struct tower *t, const float *dp, const uint32_t *aug_row,
                         struct tower *grad)
{
    struct backward_job j = {s, t, dp, aug_row, grad};
    pool_run(s->pool, backward_part, &j);
    pool_run(s->pool, after_part, &j);
}
