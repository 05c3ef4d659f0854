#include "tests/train/step_ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double *view(const struct tower *t, const double *block, const float *p)
{
    return block + (p - t->block);
}

static void embed(const struct tower *t, const double *block, const uint32_t *x, double *z)
{
    const double *emb = view(t, block, t->emb);
    for (uint32_t f = 0; f < t->shape.n_fields; f++) {
        const struct tower_field *tf = &t->shape.field[f];
        uint32_t n = 0;
        for (uint32_t q = 0; q < tf->n_slots; q++)
            n += x[tf->slot + q] != SLOT_EMPTY;
        for (uint32_t c = 0; c < t->shape.k; c++) {
            z[f * t->shape.k + c] = 0;
            for (uint32_t q = 0; q < n; q++)
                z[f * t->shape.k + c] += emb[(tf->first_row + x[tf->slot + q]) * t->shape.k + c] / n;
        }
    }
}

/* Rows whose augmented input is their own read the table; in closed form with its gradient the sum is taken once more;
 * the others take what the step gathered, a constant. */
static void augment(const struct ref *r, const struct step_side *s, const double *block, size_t i, double *z)
{
    const struct tower *t = s->tower;
    const struct batch *b = &r->s->sampler->batch;
    z += (size_t)t->shape.n_fields * t->shape.k;
    if (s == &r->s->user && r->s->closed && r->s->recipe->aug_grad && s->hist_f[i] > 0) {
        double norm2 = 0;
        size_t lo = b->hist_off[i], hi = b->hist_off[i + 1];
        for (size_t q = lo; q < hi; q++)
            norm2 += exp(2 * r->theta[history_step(hi - 1 - q)]);
        for (uint32_t c = 0; c < t->d; c++) {
            z[c] = 0;
            for (size_t q = lo; q < hi; q++)
                z[c] += exp(r->theta[history_step(hi - 1 - q)]) * r->pv[b->hist[q] * t->d + c] *
                        pow(norm2, -r->s->recipe->alpha);
        }
        return;
    }
    for (uint32_t c = 0; c < t->shape.d_aug; c++)
        z[c] =
            s->through[i] ? view(t, block, t->aug)[s->through[i] * t->shape.d_aug + c] : s->a[i * t->shape.d_aug + c];
}

static void forward(const struct ref *r, const struct step_side *s, const double *block, size_t n, double *out)
{
    const struct tower *t = s->tower;
    for (size_t i = 0; i < n; i++) {
        double in[256], h[256], a[64] = {0}, norm = 0;
        embed(t, block, s->x + i * t->shape.n_slots, in);
        augment(r, s, block, i, in);
        for (uint32_t c = 0; t->shape.skip_aug && c < t->d; c++)
            a[c] = in[t->skip_at + c];
        uint32_t m = t->z_dim;
        for (uint32_t l = 0; l < t->shape.n_layers; l++) {
            const double *w = view(t, block, t->w[l]), *b = view(t, block, t->b[l]);
            for (uint32_t o = 0; o < t->shape.width[l]; o++) {
                h[o] = b[o];
                for (uint32_t c = 0; c < m; c++)
                    h[o] += w[o * m + c] * in[c];
                if ((l + 1 < t->shape.n_layers || t->shape.relu_out) && h[o] < 0)
                    h[o] = 0;
            }
            m = t->shape.width[l];
            memcpy(in, h, m * sizeof(*h));
        }
        for (uint32_t c = 0; c < m; c++)
            h[c] = s->pass.drop > 0 && !s->pass.keep[i * m + c] ? 0 : h[c] + a[c];
        for (uint32_t c = 0; c < m; c++)
            norm += h[c] * h[c];
        for (uint32_t c = 0; c < m; c++)
            out[i * m + c] = norm > 0 ? h[c] / sqrt(norm) : 0;
    }
}

static double cosine(const struct ref *r, size_t u, size_t v)
{
    size_t d = r->s->model->user.d;
    double s = 0;
    for (size_t c = 0; c < d; c++)
        s += r->pu[u * d + c] * r->pv[v * d + c];
    return s;
}

static double main_bce(const struct ref *r, const struct batch *b, size_t u, size_t i)
{
    double s = r->scale * cosine(r, u, b->pos[i]), sum = -log(1 / (1 + exp(-s)));
    for (size_t q = 0; q < b->n_neg; q++)
        sum -= log(1 - 1 / (1 + exp(-r->scale * cosine(r, u, b->neg[i * b->n_neg + q]))));
    return sum / (double)(1 + b->n_neg);
}

static double main_softmax(const struct ref *r, const struct batch *b, size_t u, size_t i)
{
    double sum = 0;
    for (size_t v = 0; v < b->n_items; v++) {
        bool own = false, hidden = false;
        for (size_t q = b->hist_off[u]; b->masked && q < b->hist_off[u + 1]; q++)
            hidden |= b->hist[q] == v;
        if (hidden)
            continue;
        for (size_t q = b->pos_off[u]; q < b->pos_off[u + 1]; q++)
            own |= b->pos[q] == v;
        sum += exp(r->scale * cosine(r, u, v) - (b->log_q && !own ? b->log_q[v] : 0));
    }
    return log(sum) - r->scale * cosine(r, u, b->pos[i]);
}

static double mimic(const struct step_side *s, const double *block, size_t i, const double *p)
{
    const struct tower *t = s->tower;
    double sum = 0;
    for (uint32_t c = 0; s->own[i] && c < t->d; c++) {
        double e = view(t, block, t->aug)[s->own[i] * t->d + c] - p[c];
        sum += e * e;
    }
    return sum;
}

static double covariance(const struct ref *r, uint32_t category, double *cov)
{
    const struct batch *b = &r->s->sampler->batch;
    size_t d = r->s->model->item.d;
    double n = 0, mean[64] = {0};
    memset(cov, 0, d * d * sizeof(*cov));
    for (size_t i = 0; i < b->n_items; i++)
        if (r->s->data->item_category[b->item[i]] == category) {
            n += b->rows[i];
            for (size_t c = 0; c < d; c++)
                mean[c] += b->rows[i] * r->pv[i * d + c];
        }
    for (size_t i = 0; i < b->n_items && n >= 2; i++)
        if (r->s->data->item_category[b->item[i]] == category)
            for (size_t a = 0; a < d; a++)
                for (size_t c = 0; c < d; c++)
                    cov[a * d + c] +=
                        b->rows[i] * (r->pv[i * d + a] - mean[a] / n) * (r->pv[i * d + c] - mean[c] / n) / (n - 1);
    return n;
}

static double cal(struct ref *r)
{
    const struct recipe *p = r->s->recipe;
    size_t d = r->s->model->item.d;
    uint32_t n_cat = r->s->data->category.n, major = 0;
    double rows[64], cov[64][256], all = 0, sum = 0;
    for (uint32_t k = 0; k < n_cat; k++) {
        rows[k] = covariance(r, k, cov[k]);
        if (rows[k] < p->cal_min_rows)
            rows[k] = 0;
        all += rows[k];
        major = rows[k] > rows[major] ? k : major;
    }
    if (!r->started)
        memcpy(r->major0, cov[major], d * d * sizeof(double));
    const double *to = p->cal_detach_major ? r->major0 : cov[major];
    for (uint32_t k = 0; k < n_cat; k++)
        for (size_t i = 0; rows[k] > 0 && k != major && i < d * d; i++)
            sum += (p->cal_weighted ? rows[k] / all : 1) * pow(to[i] - cov[k][i], 2);
    return sum;
}

static double turns(const struct step *s, double n)
{
    double w = s->recipe->window;
    return w > 0 && n > w ? floor(n / w) : 1;
}

/* Of each of a user's positives that are asked for. */
static double weight(const struct step *s, size_t u)
{
    const struct batch *b = &s->sampler->batch;
    const uint64_t *off = s->data->train.off;
    double all = 0, rows = 0;
    if (s->recipe->denoise == 0 && s->recipe->window == 0 && s->recipe->user_weight == 1)
        return 1 / (double)b->n_pos;
    for (uint32_t i = 0; i < s->data->n_users; i++)
        if (off[i + 1] > off[i]) {
            all += pow((double)(off[i + 1] - off[i]), s->recipe->user_weight);
            rows += turns(s, (double)(off[i + 1] - off[i]));
        }
    double n = (double)(off[b->user[u] + 1] - off[b->user[u]]);
    return pow(n, s->recipe->user_weight) / turns(s, n) / (all / rows) / (double)b->n_users /
           (double)(b->pos_off[u + 1] - b->pos_off[u]);
}

double ref_loss(struct ref *r)
{
    const struct step *s = r->s;
    const struct batch *b = &s->sampler->batch;
    const struct recipe *p = s->recipe;
    size_t d = s->model->user.d;
    double main = 0, mu = 0, mv = 0;
    forward(r, &s->item, r->item, b->n_items, r->pv);
    forward(r, &s->user, r->user, b->n_users, r->pu);
    for (size_t u = 0; u < b->n_users; u++)
        for (size_t i = b->pos_off[u]; i < b->pos_off[u + 1]; i++) {
            main +=
                p->loss == LOSS_BCE ? main_bce(r, b, u, i) / (double)b->n_pos : weight(s, u) * main_softmax(r, b, u, i);
            if (s->use_mimic) {
                mu += s->closed ? 0 : mimic(&s->user, r->user, u, r->pv0 + b->pos[i] * d);
                mv += mimic(&s->item, r->item, b->pos[i], r->pu0 + u * d);
            }
        }
    double t = (double)b->n_pos * (double)(1 + b->n_neg);
    return main + (p->lambda1 * mu + p->lambda2 * mv) / t + (s->use_cal ? p->lambda3 * cal(r) : 0);
}

static double *copy(const struct tower *t)
{
    double *p = malloc(t->block_floats * sizeof(*p));
    for (size_t i = 0; i < t->block_floats; i++)
        p[i] = t->block[i];
    return p;
}

void ref_init(struct ref *r, const struct step *s)
{
    const struct batch *b = &s->sampler->batch;
    size_t d = s->model->user.d;
    *r = (struct ref){.s = s, .user = copy(s->user.tower), .item = copy(s->item.tower), .scale = s->model->logit_scale};
    for (size_t i = 0; i < HISTORY_STEPS; i++)
        r->theta[i] = log((double)s->model->history.weight[i]);
    r->pu = calloc(b->n_users * d, sizeof(double));
    r->pv = calloc(b->n_items * d, sizeof(double));
    r->pu0 = calloc(b->n_users * d, sizeof(double));
    r->pv0 = calloc(b->n_items * d, sizeof(double));
    r->major0 = calloc(d * d, sizeof(double));
    ref_loss(r); // leaves what the constants are taken from
    memcpy(r->pu0, r->pu, b->n_users * d * sizeof(double));
    memcpy(r->pv0, r->pv, b->n_items * d * sizeof(double));
    r->started = true;
}

void ref_fini(struct ref *r)
{
    free(r->user);
    free(r->item);
    free(r->pu);
    free(r->pv);
    free(r->pu0);
    free(r->pv0);
    free(r->major0);
}
