#include "train/loss.h"

#include <math.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/blas.h"

// ---------------------------------------------------------------------------------------------------- workspace

bool loss_ws_init(struct loss_ws *ws, size_t max_users, size_t max_items, struct pool *pool, struct err *err)
{
    size_t bytes;
    *ws = (struct loss_ws){.pool = pool, .wide = wide_best()};
    if (__builtin_mul_overflow(max_users, max_items, &ws->n_logit) ||
        __builtin_mul_overflow(ws->n_logit, sizeof(float), &bytes))
        return err_set(err, ERR_NOMEM, "logits of %zu users and %zu items do not fit in memory", max_users, max_items);
    ws->logit = mem_block(bytes, err);
    return ws->logit ||
           err_prefix(err, "logits of %zu users and %zu items; try a smaller --batch", max_users, max_items);
}

void loss_ws_fini(struct loss_ws *ws)
{
    mem_block_free(ws->logit, ws->n_logit * sizeof(float));
    *ws = (struct loss_ws){0};
}

static float dot(const float *a, const float *b, size_t d)
{
    float s = 0;
    for (size_t c = 0; c < d; c++)
        s += a[c] * b[c];
    return s;
}

static void add_scaled(float *to, float f, const float *x, size_t d)
{
    for (size_t c = 0; c < d; c++)
        to[c] += f * x[c];
}

// ------------------------------------------------------------------------------------------ binary cross-entropy

/* log(1 + e^x) without overflow */
static double softplus(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

/* One pair: -log sigma(s) if positive, -log(1 - sigma(s)) = softplus(s) if not; derivative sigma(s) - y. */
static double bce_pair(const struct loss_io *io, size_t u, size_t v, bool positive, double share)
{
    const float *pu = io->pu + u * io->d, *pv = io->pv + v * io->d;
    double s = (double)io->scale * dot(pu, pv, io->d);
    float g = (float)(share * io->scale * (1 / (1 + exp(-s)) - positive));
    add_scaled(io->dpu + u * io->d, g, pv, io->d);
    add_scaled(io->dpv + v * io->d, g, pu, io->d);
    return share * softplus(positive ? -s : s);
}

double loss_bce(const struct loss_io *io)
{
    const struct batch *b = io->b;
    double share = 1 / ((double)b->n_pos * (double)(1 + b->n_neg)), sum = 0;
    for (size_t u = 0; u < b->n_users; u++)
        for (size_t i = b->pos_off[u]; i < b->pos_off[u + 1]; i++) {
            sum += bce_pair(io, u, b->pos[i], true, share);
            for (size_t q = 0; q < b->n_neg; q++)
                sum += bce_pair(io, u, b->neg[i * b->n_neg + q], false, share);
        }
    return sum;
}

// ------------------------------------------------------------------------------------------------------ softmax

/* What the user's a_u is made of is no candidate; where every positive is asked for, nothing is masked. */
static void mask_history(const struct batch *b, size_t u, float *l, float value)
{
    for (size_t i = b->masked ? b->hist_off[u] : 0; b->masked && i < b->hist_off[u + 1]; i++)
        l[b->hist[i]] = value;
}

/* Turns user u's logits into their gradients and returns the user's part of the loss. */
static double softmax_row(const struct loss_io *io, const struct wide *wide, size_t u, float *l)
{
    const struct batch *b = io->b;
    size_t n = b->n_items, lo = b->pos_off[u], hi = b->pos_off[u + 1];
    double share = b->share ? (double)b->share[u] : 1 / (double)b->n_pos, loss = 0;
    if (lo == hi) {
        memset(l, 0, n * sizeof(*l));
        return 0;
    }
    for (size_t i = 0; b->log_q && i < n; i++)
        l[i] -= b->log_q[i];
    for (size_t i = lo; b->log_q && i < hi; i++) // own positives keep their plain logit
        l[b->pos[i]] = io->scale * dot(io->pu + u * io->d, io->pv + (size_t)b->pos[i] * io->d, io->d);
    mask_history(b, u, l, -HUGE_VALF);
    float max = wide->max(l, n);
    for (size_t i = lo; i < hi; i++)
        loss -= l[b->pos[i]] - max;
    double sum = wide->exp_sum(l, n, max);
    loss += (double)(hi - lo) * log(sum);
    wide->scale(l, n, (float)((double)(hi - lo) * share / sum));
    mask_history(b, u, l, 0); // not the smallest float, which slows down what follows
    for (size_t i = lo; i < hi; i++)
        l[b->pos[i]] -= (float)share;
    return loss * share;
}

struct softmax_job {
    const struct loss_io *io;
    struct loss_ws *ws;
};

static void softmax_users(void *ctx, unsigned part)
{
    const struct softmax_job *j = ctx;
    const struct loss_io *io = j->io;
    size_t lo, hi, d = io->d, m = io->b->n_items;
    float *l = j->ws->logit;
    pool_range(io->b->n_users, part, pool_threads(j->ws->pool), &lo, &hi);
    j->ws->part[part] = 0;
    if (lo == hi)
        return;
    blas_sgemm(false, true, hi - lo, m, d, io->scale, io->pu + lo * d, d, io->pv, d, 0, l + lo * m, m);
    for (size_t u = lo; u < hi; u++)
        j->ws->part[part] += softmax_row(io, j->ws->wide, u, l + u * m);
    blas_sgemm(false, false, hi - lo, d, m, io->scale, l + lo * m, m, io->pv, d, 1, io->dpu + lo * d, d);
}

static void softmax_items(void *ctx, unsigned part)
{
    const struct softmax_job *j = ctx;
    const struct loss_io *io = j->io;
    size_t lo, hi, d = io->d, m = io->b->n_items;
    pool_range(m, part, pool_threads(j->ws->pool), &lo, &hi);
    if (lo < hi)
        blas_sgemm(true, false, hi - lo, d, io->b->n_users, io->scale, j->ws->logit + lo, m, io->pu, d, 1,
                   io->dpv + lo * d, d);
}

double loss_softmax(const struct loss_io *io, struct loss_ws *ws)
{
    struct softmax_job j = {io, ws};
    pool_run(ws->pool, softmax_users, &j);
    pool_run(ws->pool, softmax_items, &j);
    double sum = 0;
    for (unsigned i = 0; i < pool_threads(ws->pool); i++)
        sum += ws->part[i];
    return sum;
}

double loss_scale_grad(const struct loss_io *io)
{
    double s = 0;
    for (size_t i = 0; i < io->b->n_users; i++)
        s += dot(io->pu + i * io->d, io->dpu + i * io->d, io->d);
    return s / io->scale;
}

// -------------------------------------------------------------------------------------------------------- mimic

/* |a - p|^2 of one pair; its gradient to a. */
static double mimic_pair(const float *a, const float *p, size_t d, float g, float *da)
{
    float s = 0;
    for (size_t c = 0; c < d; c++) {
        float e = a[c] - p[c];
        s += e * e;
        da[c] += g * e;
    }
    return s;
}

static double mimic(const struct loss_io *io, bool user_side, const float *a, const uint32_t *own, double weight,
                    float *da)
{
    const struct batch *b = io->b;
    size_t d = io->d;
    double share = 1 / ((double)b->n_pos * (double)(1 + b->n_neg)), sum = 0;
    float g = (float)(2 * weight * share);
    for (size_t u = 0; u < b->n_users; u++)
        for (size_t i = b->pos_off[u]; i < b->pos_off[u + 1]; i++) {
            size_t row = user_side ? u : b->pos[i];
            const float *p = user_side ? io->pv + (size_t)b->pos[i] * d : io->pu + u * d;
            if (own[row])
                sum += mimic_pair(a + row * d, p, d, g, da + row * d);
        }
    return sum * share;
}

double loss_mimic_user(const struct loss_io *io, const float *a, const uint32_t *own, double weight, float *da)
{
    return mimic(io, true, a, own, weight, da);
}

double loss_mimic_item(const struct loss_io *io, const float *a, const uint32_t *own, double weight, float *da)
{
    return mimic(io, false, a, own, weight, da);
}
