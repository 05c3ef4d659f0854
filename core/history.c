#include "core/history.h"

#include <math.h>
#include <string.h>

void history_form_plain(struct history_form *f, float alpha)
{
    f->alpha = alpha;
    for (size_t i = 0; i < HISTORY_STEPS; i++)
        f->weight[i] = 1;
}

bool history_form_is_plain(const struct history_form *f)
{
    bool plain = true;
    for (size_t i = 0; i < HISTORY_STEPS; i++)
        plain &= f->weight[i] == 1;
    return plain;
}

uint32_t history_step(size_t newer)
{
    if (newer < 4)
        return (uint32_t)newer;
    uint32_t octave = 63 - (uint32_t)__builtin_clzll(newer); // 2^octave <= newer
    uint32_t step = 4 + 2 * (octave - 2) + (uint32_t)(newer >> (octave - 1) & 1);
    return step < HISTORY_STEPS ? step : HISTORY_STEPS - 1;
}

float history_sum(const struct history_form *f, const float *p, const uint32_t *idx, size_t n, size_t d, float *out)
{
    float norm2 = 0;
    memset(out, 0, d * sizeof(*out));
    for (size_t i = 0; i < n; i++) {
        const float *v = p + (size_t)idx[i] * d;
        float w = f->weight[history_step(n - 1 - i)];
        norm2 += w * w;
        for (size_t c = 0; c < d; c++)
            out[c] += w * v[c];
    }
    float scale = n ? powf(norm2, -f->alpha) : 0;
    for (size_t c = 0; c < d; c++)
        out[c] *= scale;
    return scale;
}
