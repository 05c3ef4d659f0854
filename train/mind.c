/* Source: Li et al., "Multi-Interest Network with Dynamic Routing for Recommendation at Tmall", CIKM 2019:
 * behaviour-to-interest routing with one bilinear map S for all capsules (sec. 4.3), K' = max(1, min(K, log2 n))
 * interests, label-aware attention with p = infinity (sec. 4.5: the interest nearest to the target), max over interests
 * when serving. Routing logits begin as N(0, 1), as in the paper, but drawn once for each item, so that a history gives
 * the same interests whenever it is asked for. Routing weights are constants for the gradient, which flows through the
 * last weighted sum. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/blas.h"
#include "train/history_net.h"

#define ITERATIONS 3

static uint32_t interests(const struct recipe *r, size_t n_history)
{
    uint32_t n = 1;
    while (n < r->n_interest && ((size_t)1 << (n + 1)) <= n_history)
        n++;
    return n;
}

static bool init(struct history_net *m, struct err *err)
{
    size_t k = m->n_interest, d = m->dim, n_items = m->d->n_items;
    m->route_init = mem_array(n_items, k * sizeof(float), err);
    m->route = mem_array(m->sampler.max_pos, k * sizeof(float), err);
    m->routed = mem_array(n_items, d * sizeof(float), err);
    m->drouted = mem_array(m->sampler.max_items, d * sizeof(float), err);
    m->capsule = mem_array(m->max_rows, d * sizeof(float), err);
    m->dcapsule = mem_array(m->max_rows, d * sizeof(float), err);
    if (!m->route_init || !m->route || !m->routed || !m->drouted || !m->capsule || !m->dcapsule ||
        !param_init(&m->bilinear, d * d, err))
        return false;
    for (size_t i = 0; i < n_items * k; i++)
        m->route_init[i] = (float)rng_normal(&m->rng);
    for (size_t c = 0; c < d; c++) // the identity: interests begin as means of items
        m->bilinear.w[c * d + c] = 1;
    return true;
}

static float dot(const float *a, const float *b, size_t d)
{
    float s = 0;
    for (size_t c = 0; c < d; c++)
        s += a[c] * b[c];
    return s;
}

static void softmax(float *w, size_t n)
{
    float max = w[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        max = w[i] > max ? w[i] : max;
    for (size_t i = 0; i < n; i++)
        sum += w[i] = expf(w[i] - max);
    for (size_t i = 0; i < n; i++)
        w[i] /= sum;
}

/* |z|^2 / (1 + |z|^2) z / |z| = f z */
static float squash_factor(float norm2)
{
    return norm2 > 0 ? sqrtf(norm2) / (1 + norm2) : 0;
}

/* z_j = sum of w_ij S e_i, u_j = squash(z_j). */
static void collect(struct history_net *m, const uint32_t *hist, size_t n, size_t used, const float *w, float *z,
                    float *u)
{
    size_t d = m->dim, k = m->n_interest;
    memset(z, 0, k * d * sizeof(*z));
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < used; j++)
            for (size_t c = 0; c < d; c++)
                z[j * d + c] += w[i * k + j] * m->routed[hist[i] * d + c];
    for (size_t j = 0; j < k; j++) {
        float f = squash_factor(dot(z + j * d, z + j * d, d));
        for (size_t c = 0; c < d; c++)
            u[j * d + c] = f * z[j * d + c];
    }
}

/* Logits in place; at the end the weights with which z was collected. */
static void route(struct history_net *m, const uint32_t *hist, size_t n, size_t used, float *w, float *z, float *u)
{
    size_t d = m->dim, k = m->n_interest;
    float weights[STORED_INTERESTS_MAX];
    for (int t = 0; t < ITERATIONS - 1; t++) {
        memset(z, 0, k * d * sizeof(*z));
        for (size_t i = 0; i < n; i++) {
            memcpy(weights, w + i * k, used * sizeof(*weights));
            softmax(weights, used);
            for (size_t j = 0; j < used; j++)
                for (size_t c = 0; c < d; c++)
                    z[j * d + c] += weights[j] * m->routed[hist[i] * d + c];
        }
        for (size_t j = 0; j < used; j++) {
            float f = squash_factor(dot(z + j * d, z + j * d, d));
            for (size_t i = 0; i < n; i++)
                w[i * k + j] += f * dot(z + j * d, m->routed + hist[i] * d, d);
        }
    }
    for (size_t i = 0; i < n; i++)
        softmax(w + i * k, used);
    collect(m, hist, n, used, w, z, u);
}

static void prepare(struct history_net *m, const struct history *h)
{
    size_t d = m->dim;
    blas_sgemm(false, true, h->n_items, d, d, 1, h->pv, d, m->bilinear.w, d, 0, m->routed, d);
}

static void forward(struct history_net *m, const struct history *h, float *out)
{
    size_t d = m->dim, k = m->n_interest;
    for (size_t u = 0; u < h->n_users; u++) {
        size_t n = h->off[u + 1] - h->off[u], used = interests(m->r, n);
        const uint32_t *hist = h->hist + h->off[u];
        float *w = m->route + h->off[u] * k, *z = m->capsule + u * k * d;
        for (size_t i = 0; i < n && !m->keep_route; i++)
            memcpy(w + i * k, m->route_init + h->item[hist[i]] * k, k * sizeof(*w));
        if (m->keep_route)
            collect(m, hist, n, used, w, z, out + u * k * d);
        else
            route(m, hist, n, used, w, z, out + u * k * d);
    }
}

/* du of one capsule -> dz: u = f z, f = n / (1 + n^2), n = |z|. */
static void squash_backward(const float *z, const float *du, size_t d, float *dz)
{
    float norm2 = dot(z, z, d), norm = sqrtf(norm2), f = squash_factor(norm2);
    float g = norm > 0 ? (1 - norm2) / ((1 + norm2) * (1 + norm2) * norm) * dot(z, du, d) : 0;
    for (size_t c = 0; c < d; c++)
        dz[c] = f * du[c] + g * z[c];
}

static void backward(struct history_net *m, const struct history *h, const float *dout, size_t stride, float *dpv)
{
    size_t d = m->dim, k = m->n_interest;
    memset(m->drouted, 0, h->n_items * d * sizeof(*m->drouted));
    for (size_t u = 0; u < h->n_users; u++) {
        size_t n = h->off[u + 1] - h->off[u], used = interests(m->r, n);
        float *dz = m->dcapsule + u * k * d;
        for (size_t j = 0; j < used; j++)
            squash_backward(m->capsule + (u * k + j) * d, dout + (u * k + j) * stride, d, dz + j * d);
        for (size_t i = 0; i < n; i++) {
            float *to = m->drouted + h->hist[h->off[u] + i] * d;
            for (size_t j = 0; j < used; j++)
                for (size_t c = 0; c < d; c++)
                    to[c] += m->route[(h->off[u] + i) * k + j] * dz[j * d + c];
        }
    }
    blas_sgemm(false, false, h->n_items, d, d, 1, m->drouted, d, m->bilinear.w, d, 1, dpv, d);
    blas_sgemm(true, false, d, d, h->n_items, 1, m->drouted, d, h->pv, d, 1, m->bilinear.grad, d);
}

const struct pooling capsule_pooling = {interests, init, prepare, forward, backward};

static void *create(const struct dataset *d, const struct recipe *r, struct pool *pool, struct err *err)
{
    return history_net_create(&capsule_pooling, d, r, pool, err);
}

const struct baseline_ops mind_ops = {"epoch",
                                      create,
                                      history_net_epoch,
                                      history_net_vectors,
                                      history_net_state,
                                      history_net_resumed,
                                      history_net_destroy};
