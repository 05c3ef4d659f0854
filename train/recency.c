#include "train/recency.h"

#include <math.h>
#include <string.h>

/* The first number of newer items that history_step gives that step. */
static size_t first_of(uint32_t step)
{
    if (step < 4)
        return step;
    size_t octave = (size_t)1 << (2 + (step - 4) / 2);
    return octave + (step % 2) * octave / 2;
}

void recency_weights(const struct recency *r, struct history_form *f)
{
    for (uint32_t i = 0; i < HISTORY_STEPS; i++)
        f->weight[i] = expf(r->theta[i]);
}

void recency_begin(struct recency *r, struct history_form *f)
{
    *r = (struct recency){0};
    for (uint32_t i = 0; i < HISTORY_STEPS; i++)
        r->theta[i] = -0.5f * log1pf((float)first_of(i));
    recency_weights(r, f);
}

static float dot(const float *a, const float *b, size_t d)
{
    float s = 0;
    for (size_t c = 0; c < d; c++)
        s += a[c] * b[c];
    return s;
}

/* a = s N^-alpha, s = sum w p, N = sum w^2:  dL/dw = N^-alpha <da, p> - 2 alpha w / N <da, a>;  dL/dtheta = w dL/dw. */
void recency_backward(struct recency *r, const struct history_form *f, const float *p, const uint32_t *idx, size_t n,
                      size_t d, const float *a, float scale, const float *da, float *dp)
{
    float norm2 = 0, along = dot(da, a, d);
    for (size_t i = 0; i < n; i++) {
        float w = f->weight[history_step(n - 1 - i)];
        norm2 += w * w;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t step = history_step(n - 1 - i);
        const float *v = p + (size_t)idx[i] * d;
        float w = f->weight[step];
        r->grad[step] += w * (scale * dot(da, v, d) - 2 * f->alpha * w / norm2 * along);
        for (size_t c = 0; dp && c < d; c++)
            dp[(size_t)idx[i] * d + c] += scale * w * da[c];
    }
}

void recency_step(struct recency *r, uint32_t step, double lr, struct history_form *f)
{
    const double b1 = 0.9, b2 = 0.999;
    for (size_t i = 0; i < HISTORY_STEPS; i++) {
        double g = r->grad[i], m = b1 * r->m[i] + (1 - b1) * g, v = b2 * r->v[i] + (1 - b2) * g * g;
        r->m[i] = (float)m;
        r->v[i] = (float)v;
        r->theta[i] -= (float)(lr * (m / (1 - pow(b1, step))) / (sqrt(v / (1 - pow(b2, step))) + 1e-8));
        r->grad[i] = 0;
    }
    recency_weights(r, f);
}
