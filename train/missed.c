#include "train/missed.h"

#include <math.h>
#include <stdlib.h>

#include "core/base/mem.h"

#define MISSED_KNOWN 32768 // b2^t = 6e-15 there, and both corrections are 1 to a double's last digits

bool missed_init(struct missed *s, const struct adam_params *p, struct err *err)
{
    *s = (struct missed){.p = *p};
    s->root = mem_array(2 * MISSED_KNOWN, sizeof(*s->root), err);
    if (!s->root)
        return false;
    s->rate = s->root + MISSED_KNOWN;
    for (uint32_t t = 1; t < MISSED_KNOWN; t++) {
        s->root[t] = sqrt(1 - pow(p->beta2, t));
        s->rate[t] = s->root[t] / (1 - pow(p->beta1, t));
    }
    for (uint32_t n = 0; n <= MISSED_MAX; n++) {
        s->m_left[n] = (float)pow(p->beta1, n);
        s->v_left[n] = (float)pow(p->beta2, n);
    }
    return true;
}

void missed_fini(struct missed *s)
{
    free(s->root);
    *s = (struct missed){0};
}

double missed_root(const struct missed *s, uint32_t t)
{
    return t < MISSED_KNOWN ? s->root[t] : 1;
}

double missed_rate(const struct missed *s, uint32_t t)
{
    return t < MISSED_KNOWN ? s->rate[t] : 1;
}

static double decay_of(const struct missed *s)
{
    return 1 - (double)s->p.lr * s->p.weight_decay;
}

static double ratio_of(const struct missed *s)
{
    return s->p.beta1 / sqrt(s->p.beta2);
}

/* With q = b1 / sqrt(b2), c = the decay and r(t) the rate, n steps that end at `to` move by
 *     M(n) = sum_{j=1..n} q^j c^(n-j) r(to - n + j)
 * and one more step in front of them makes that M(n) = q M(n-1) + q c^(n-1) r(to - n + 1): all n in one sweep. */
void missed_at(struct missed *s, const struct adam_params *p, uint32_t to)
{
    s->p = *p;
    s->to = to;
    double ratio = ratio_of(s), decay = decay_of(s), left = 1;
    s->move[0] = 0;
    s->keep[0] = 1;
    for (uint32_t n = 1; n <= MISSED_MAX; n++) {
        s->move[n] = n <= to ? ratio * (s->move[n - 1] + left * missed_rate(s, to - n + 1)) : 0;
        left *= decay;
        s->keep[n] = (float)left;
    }
}

/* The first MISSED_MAX steps move the row, the others only decay what it has. */
static struct missed_step long_gap(const struct missed *s, uint32_t from)
{
    uint32_t n = s->to - from;
    double ratio = ratio_of(s), decay = decay_of(s), power = 1, move = 0;
    for (uint32_t j = 1; j <= MISSED_MAX; j++)
        move = move * decay + (power *= ratio) * missed_rate(s, from + j);
    return (struct missed_step){.keep = (float)pow(decay, n),
                                .move = (float)(s->p.lr * move * pow(decay, n - MISSED_MAX)),
                                .m_left = 0,
                                .v_left = (float)pow(s->p.beta2, n)};
}

struct missed_step missed_of(const struct missed *s, uint32_t from)
{
    uint32_t n = s->to - from;
    struct missed_step step = n <= MISSED_MAX ? (struct missed_step){.keep = s->keep[n],
                                                                     .move = (float)(s->p.lr * s->move[n]),
                                                                     .m_left = s->m_left[n],
                                                                     .v_left = s->v_left[n]}
                                              : long_gap(s, from);
    step.eps = (float)(s->p.eps * missed_root(s, from + 1));
    return step;
}
