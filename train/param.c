#include "train/param.h"

#include <math.h>
#include <string.h>

#include "core/base/mem.h"

bool param_init(struct param *p, size_t n, struct err *err)
{
    *p = (struct param){.n = n};
    if (!(p->w = mem_block(4 * n * sizeof(float), err)))
        return false;
    p->grad = p->w + n;
    p->m = p->grad + n;
    p->v = p->m + n;
    return true;
}

void param_fini(struct param *p)
{
    mem_block_free(p->w, 4 * p->n * sizeof(float));
    *p = (struct param){0};
}

void param_draw(struct param *p, double std, struct rng *rng)
{
    for (size_t i = 0; i < p->n; i++)
        p->w[i] = (float)(std * rng_normal(rng));
}

struct step_job {
    struct param *p;
    const struct adam_params *a;
    float rate, v_scale; // lr / (1 - b1^t), 1 / (1 - b2^t)
    unsigned parts;
};

static void step_part(void *ctx, unsigned part)
{
    const struct step_job *j = ctx;
    struct param *p = j->p;
    const struct adam_params *a = j->a;
    float decay = 1 - a->lr * a->weight_decay;
    size_t lo, hi;
    pool_range(p->n, part, j->parts, &lo, &hi);
    for (size_t i = lo; i < hi; i++) {
        float g = p->grad[i];
        p->m[i] = a->beta1 * p->m[i] + (1 - a->beta1) * g;
        p->v[i] = a->beta2 * p->v[i] + (1 - a->beta2) * g * g;
        p->w[i] = decay * p->w[i] - j->rate * p->m[i] / (sqrtf(p->v[i] * j->v_scale) + a->eps);
        p->grad[i] = 0;
    }
}

void param_step(struct param *p, const struct adam_params *a, uint32_t step, struct pool *pool)
{
    struct step_job j = {.p = p,
                         .a = a,
                         .rate = (float)(a->lr / (1 - pow(a->beta1, step))),
                         .v_scale = (float)(1 / (1 - pow(a->beta2, step))),
                         .parts = pool_threads(pool)};
    pool_run(pool, step_part, &j);
}

void param_state(const struct param *p, const char *const names[3], struct resume_list *out)
{
    float *const at[] = {p->w, p->m, p->v};
    for (size_t i = 0; i < 3; i++)
        resume_add(out, names[i], ST_F32, at[i], p->n);
}
