#include "train/adam.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

// -------------------------------------------------------------------------------------------------- memory

/* A tower of zeros with the same layout; shares the shape's field array. */
static bool clone_zero(struct tower *to, const struct tower *t, struct err *err)
{
    *to = *t;
    to->block = mem_block(t->block_floats * sizeof(float), err);
    if (!to->block)
        return false;
    to->emb = to->block + (t->emb - t->block);
    to->aug = t->aug ? to->block + (t->aug - t->block) : NULL;
    to->aug_segment = t->aug_segment ? to->block + (t->aug_segment - t->block) : NULL;
    for (uint32_t l = 0; l < t->shape.n_layers; l++) {
        to->w[l] = to->block + (t->w[l] - t->block);
        to->b[l] = to->block + (t->b[l] - t->block);
    }
    return true;
}

static bool rows_init(struct adam_rows *r, size_t n, uint32_t cols, float *param, float *grad, float *m, float *v,
                      struct err *err)
{
    *r = (struct adam_rows){.param = param, .grad = grad, .m = m, .v = v, .n = n, .hi = n, .cols = cols};
    r->last = mem_array(n, sizeof(*r->last), err);
    r->stamp = mem_array(n, sizeof(*r->stamp), err);
    r->touched = mem_array(n, sizeof(*r->touched), err);
    return r->last && r->stamp && r->touched;
}

static void rows_fini(struct adam_rows *r)
{
    free(r->last);
    free(r->stamp);
    free(r->touched);
}

bool adam_init(struct adam *a, struct tower *t, const struct adam_params *p, struct pool *pool, struct err *err)
{
    *a = (struct adam){.p = *p, .pool = pool, .tower = t};
    if (missed_init(&a->gaps, p, err) && clone_zero(&a->grad, t, err) && clone_zero(&a->m, t, err) &&
        clone_zero(&a->v, t, err) &&
        rows_init(&a->emb, t->shape.n_rows, t->shape.k, t->emb, a->grad.emb, a->m.emb, a->v.emb, err) &&
        rows_init(&a->aug, t->aug ? t->shape.n_ids : 0, t->shape.d_aug, t->aug, a->grad.aug, a->m.aug, a->v.aug, err))
        return true;
    adam_fini(a);
    return err_prefix(err, "optimiser");
}

void adam_fini(struct adam *a)
{
    struct tower *copy[] = {&a->grad, &a->m, &a->v};
    for (size_t i = 0; i < 3; i++)
        mem_block_free(copy[i]->block, copy[i]->block_floats * sizeof(float));
    rows_fini(&a->emb);
    rows_fini(&a->aug);
    missed_fini(&a->gaps);
    *a = (struct adam){0};
}

// ------------------------------------------------------------------------------------------------ touched rows

static void touch(struct adam_rows *r, size_t row, uint32_t step)
{
    if (r->stamp[row] == step)
        return;
    r->stamp[row] = step;
    r->touched[r->n_touched++] = (uint32_t)row;
}

void adam_begin(struct adam *a)
{
    a->step++;
    a->emb.n_touched = a->aug.n_touched = 0;
}

void adam_touch(struct adam *a, const uint32_t *x, const uint32_t *aug_row, size_t n)
{
    const struct tower_shape *s = &a->tower->shape;
    for (size_t i = 0; i < n; i++) {
        for (uint32_t f = 0; f < s->n_fields; f++)
            for (uint32_t q = s->field[f].slot; q < s->field[f].slot + s->field[f].n_slots; q++)
                if (x[i * s->n_slots + q] != SLOT_EMPTY)
                    touch(&a->emb, s->field[f].first_row + x[i * s->n_slots + q], a->step);
        if (aug_row && aug_row[i])
            touch(&a->aug, aug_row[i], a->step);
    }
}

void adam_touch_rows(struct adam_rows *r, const uint32_t *row, size_t n, uint32_t step)
{
    for (size_t i = 0; i < n; i++)
        touch(r, row[i], step);
}

// ------------------------------------------------------------------------------------------------------- steps

/* Steps last + 1 .. to of the gaps' tables with a zero gradient (see the header). */
static void row_idle(const struct missed *gaps, struct adam_rows *r, size_t row)
{
    uint32_t from = r->last[row];
    if (from == gaps->to)
        return;
    r->last[row] = gaps->to;
    float *x = r->param + row * r->cols, *m = r->m + row * r->cols, *v = r->v + row * r->cols;
    if (from == 0) { // never had a gradient: only the decay
        float keep = (float)pow(1 - (double)gaps->p.lr * gaps->p.weight_decay, gaps->to);
        for (uint32_t c = 0; keep < 1 && c < r->cols; c++)
            x[c] *= keep;
        return;
    }
    const struct missed_step s = missed_of(gaps, from);
    for (uint32_t c = 0; c < r->cols; c++) {
        x[c] = x[c] * s.keep - s.move * m[c] / (sqrtf(v[c]) + s.eps);
        m[c] *= s.m_left;
        v[c] *= s.v_left;
    }
}

/* One step with a gradient: x -= rate * m / (sqrt(v) + eps), the form in which both bias corrections are scalars. */
struct moved {
    float beta1, beta2, rate, eps;
};

/* Of n parameters; the gradient is used up. */
static void update(const struct moved *p, float keep, float *restrict x, float *restrict g, float *restrict m,
                   float *restrict v, size_t n)
{
    float b1 = p->beta1, b2 = p->beta2, rate = p->rate, eps = p->eps;
    for (size_t c = 0; c < n; c++) {
        m[c] = b1 * m[c] + (1 - b1) * g[c];
        v[c] = b2 * v[c] + (1 - b2) * g[c] * g[c];
        x[c] = x[c] * keep - rate * m[c] / (sqrtf(v[c]) + eps);
        g[c] = 0;
    }
}

static void catch_up_part(void *ctx, unsigned part)
{
    struct adam *a = ctx;
    struct adam_rows *r[] = {&a->emb, &a->aug};
    for (size_t k = 0; k < 2; k++) {
        size_t lo, hi;
        pool_range(r[k]->n_touched, part, pool_threads(a->pool), &lo, &hi);
        for (size_t i = lo; i < hi; i++)
            row_idle(&a->gaps, r[k], r[k]->touched[i]);
    }
}

void adam_catch_up(struct adam *a)
{
    missed_at(&a->gaps, &a->p, a->step - 1);
    pool_run(a->pool, catch_up_part, a);
}

static void step_rows(struct adam *a, struct adam_rows *r, const struct moved *by, unsigned part)
{
    float keep = 1 - a->p.lr * a->p.weight_decay;
    size_t lo, hi, cols = r->cols;
    pool_range(r->n_touched, part, pool_threads(a->pool), &lo, &hi);
    for (size_t i = lo; i < hi; i++) {
        size_t at = r->touched[i] * cols;
        update(by, keep, r->param + at, r->grad + at, r->m + at, r->v + at, cols);
        r->last[r->touched[i]] = a->step;
    }
}

/* All W and b: they lie one behind the other, the gaps between them being zero in every copy. */
static void step_layers(struct adam *a, const struct moved *by, unsigned part)
{
    size_t first = (size_t)(a->tower->w[0] - a->tower->block), lo, hi;
    pool_range(a->tower->block_floats - first, part, pool_threads(a->pool), &lo, &hi);
    lo += first;
    update(by, 1, a->tower->block + lo, a->grad.block + lo, a->m.block + lo, a->v.block + lo, hi + first - lo);
}

static void step_part(void *ctx, unsigned part)
{
    struct adam *a = ctx;
    const struct moved by = {a->p.beta1, a->p.beta2, (float)(a->p.lr * missed_rate(&a->gaps, a->step)),
                             (float)(a->p.eps * missed_root(&a->gaps, a->step))};
    step_rows(a, &a->emb, &by, part);
    step_rows(a, &a->aug, &by, part);
    step_layers(a, &by, part);
}

void adam_step(struct adam *a)
{
    pool_run(a->pool, step_part, a);
}

void adam_flush(struct adam *a)
{
    struct adam_rows *r[] = {&a->emb, &a->aug};
    missed_at(&a->gaps, &a->p, a->step);
    for (size_t k = 0; k < 2; k++)
        for (size_t i = r[k]->lo; i < r[k]->hi; i++)
            row_idle(&a->gaps, r[k], i);
}

void adam_resume(struct adam *a, uint32_t step)
{
    struct adam_rows *r[] = {&a->emb, &a->aug};
    a->step = step;
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < r[k]->n; i++)
            r[k]->last[i] = step;
}

#define LANES 8 // sums side by side, for the compiler to make vector code of

static double norm2(const float *g, size_t n)
{
    double lane[LANES] = {0}, s = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t c = 0; c < LANES; c++)
            lane[c] += (double)g[i + c] * g[i + c];
    for (; i < n; i++)
        s += (double)g[i] * g[i];
    for (size_t c = 0; c < LANES; c++)
        s += lane[c];
    return s;
}

double adam_grad_norm2(const struct adam *a)
{
    const struct tower *t = a->tower;
    double s = 0;
    for (uint32_t l = 0; l < t->shape.n_layers; l++) {
        size_t in = l ? t->shape.width[l - 1] : t->z_dim, w = t->shape.width[l];
        s += norm2(a->grad.w[l], w * in) + norm2(a->grad.b[l], w);
    }
    return s;
}
