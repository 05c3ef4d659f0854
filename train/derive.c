/* What follows from the parameters: outputs of all entities, a_u in closed form, the means of segments. Of several
 * ranks, each works for the rows of `aug` that it owns. */
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "train/embed.h"
#include "train/step.h"

// ------------------------------------------------------------------------------------------------------- outputs

static uint32_t id_row(const struct step_side *s, uint32_t entity)
{
    return s->all_x[(size_t)entity * s->tower->shape.n_slots + s->schema->field[s->schema->id_field].slot];
}

/* Entities of this rank, n <= part.max of them, as they are: x, own rows, augmented inputs. */
static void look_up(struct step_side *s, const uint32_t *entity, size_t from, size_t n)
{
    size_t slots = s->tower->shape.n_slots, d = s->tower->shape.d_aug;
    for (size_t i = 0; i < n; i++) {
        uint32_t e = entity ? entity[from + i] : (uint32_t)(from + i);
        memcpy(s->x + i * slots, s->all_x + e * slots, slots * sizeof(*s->x));
        s->own[i] = s->schema->id_field >= 0 ? id_row(s, e) : 0;
    }
    part_look(&s->part, s->x, s->own, n);
    for (size_t i = 0; d && i < n; i++) {
        const struct tower *t = &s->part.work;
        memcpy(s->a + i * d,
               s->own[i] ? t->aug + s->part.own[i] * d
                         : t->aug_segment + schema_segment(s->schema, s->x + i * slots) * d,
               d * sizeof(*s->a));
    }
}

/* Every rank goes round as often as the one with the largest share, for it may own rows that the last one needs. */
static void embed_shares(struct step *s, struct step_side *side, const uint32_t *entity, size_t n, float *out)
{
    size_t lo, hi, d = side->tower->d, rounds = (dist_most(n, s->dist->size) + side->part.max - 1) / side->part.max;
    float drop = side->pass.drop;
    side->pass.drop = 0;
    dist_range(n, s->dist->rank, s->dist->size, &lo, &hi);
    for (; rounds > 0; rounds--) {
        size_t m = hi - lo < side->part.max ? hi - lo : side->part.max;
        look_up(side, entity, lo, m);
        tower_pass_forward(&side->pass, &side->part.work, side->part.x, side->a, m);
        memcpy(out + lo * d, side->pass.p, m * d * sizeof(*out));
        lo += m;
    }
    side->pass.drop = drop;
    dist_gather(s->dist, out, n, d);
}

static bool embed_side(struct step *s, struct step_side *side, const uint32_t *entity, size_t n, float *out,
                       struct err *err)
{
    if (s->dist->size == 1)
        return embed_rows(side->tower, side->schema, side->all_x, entity, n, EMBED_OWN, NULL, s->pool, out, err);
    embed_shares(s, side, entity, n, out);
    return true;
}

bool step_embed_items(struct step *s, float *out, struct err *err)
{
    return embed_side(s, &s->item, NULL, s->data->n_items, out, err);
}

bool step_embed_users(struct step *s, const uint32_t *user, size_t n, float *out, struct err *err)
{
    return embed_side(s, &s->user, user, n, out, err);
}

// ------------------------------------------------------------------------------------------------- segment means

/* Trained entities: those with a row of their own and a training interaction. */
static bool trained(const struct step *s, bool user_side, uint32_t i)
{
    return user_side ? s->data->train.off[i + 1] > s->data->train.off[i] : s->data->item_count[i] > 0;
}

static bool kept(const struct step_side *s, uint32_t row)
{
    return row && row >= s->adam.aug.lo && row < s->adam.aug.hi;
}

/* sum [n_segments + 1][d + 1]: of the trained rows of each segment and of all, their number last. */
static void sum_segments(const struct step *s, const struct step_side *side, bool user_side, double *sum)
{
    const struct tower *t = side->tower;
    size_t d = t->shape.d_aug, n_seg = t->shape.n_segments, slots = t->shape.n_slots;
    uint32_t n = user_side ? s->data->n_users : s->data->n_items;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t row = id_row(side, i);
        if (!kept(side, row) || !trained(s, user_side, i))
            continue;
        size_t seg = schema_segment(side->schema, side->all_x + i * slots);
        for (size_t c = 0; c <= d; c++) {
            double x = c < d ? t->aug[row * d + c] : 1;
            sum[seg * (d + 1) + c] += x;
            sum[n_seg * (d + 1) + c] += x;
        }
    }
}

static bool segment_means(struct step *s, struct step_side *side, bool user_side, struct err *err)
{
    const struct tower *t = side->tower;
    size_t d = t->shape.d_aug, n_seg = t->shape.n_segments;
    double *sum = mem_array(n_seg + 1, (d + 1) * sizeof(*sum), err);
    if (!sum)
        return false;
    sum_segments(s, side, user_side, sum);
    dist_sum_double(s->dist, sum, (n_seg + 1) * (d + 1));
    for (size_t q = 0; q < n_seg; q++) {
        const double *of = sum + (sum[q * (d + 1) + d] > 0 ? q : n_seg) * (d + 1);
        for (size_t c = 0; c < d; c++)
            t->aug_segment[q * d + c] = of[d] > 0 ? (float)(of[c] / of[d]) : 0;
    }
    free(sum);
    return true;
}

// --------------------------------------------------------------------------------------------- a_u in closed form

/* a_u of every user with an id row and a history, by all of it. Users without get the mean of their segment later:
 * their row is not a trained one. */
static void fill_closed(struct step *s, const float *pv)
{
    const struct dataset *data = s->data;
    const struct tower *t = &s->model->user;
    size_t d = t->d;
    for (uint32_t u = 0; u < data->n_users; u++) {
        uint32_t row = id_row(&s->user, u);
        uint64_t lo = data->train.off[u], hi = data->train.off[u + 1];
        if (kept(&s->user, row))
            history_sum(&s->model->history, pv, data->train.item + lo, (size_t)(hi - lo), d, t->aug + (size_t)row * d);
    }
}

static void fill_untrained(struct step *s)
{
    const struct tower *t = &s->model->user;
    size_t d = t->d, slots = t->shape.n_slots;
    for (uint32_t u = 0; u < s->data->n_users; u++) {
        uint32_t row = id_row(&s->user, u), seg = schema_segment(s->user.schema, s->user.all_x + u * slots);
        if (kept(&s->user, row) && !trained(s, true, u))
            memcpy(t->aug + row * d, t->aug_segment + seg * d, d * sizeof(float));
    }
}

static bool closed_aug(struct step *s, struct err *err)
{
    float *pv = mem_array(s->data->n_items, s->model->item.d * sizeof(*pv), err);
    bool ok = pv && step_embed_items(s, pv, err);
    if (ok)
        fill_closed(s, pv);
    free(pv);
    return ok;
}

bool step_derive_aug(struct step *s, struct err *err)
{
    if (!s->user.tower->shape.d_aug)
        return true;
    if (!segment_means(s, &s->item, false, err) || (s->closed && !closed_aug(s, err)) ||
        !segment_means(s, &s->user, true, err))
        return false;
    if (s->closed)
        fill_untrained(s);
    return true;
}
