#include "train/evaluate_stored.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "train/checkpoint.h"
#include "train/ease.h"

struct ask {
    struct evaluation *e;
    const struct stored *s;
    float *pu; // [users of a set][n_interest][d]
};

static bool rank(const struct ask *a, const struct target_set *set, size_t n_interest, struct err *err)
{
    struct rank_input in = evaluation_rank_input(a->e, set);
    in.pu = a->pu;
    in.pv = a->s->item;
    in.d = a->s->d;
    in.n_interest = n_interest;
    return rank_targets(&in, a->e->pool, a->e->rank, err);
}

static bool own_view(const struct ask *a, json_t *o, struct err *err)
{
    const struct target_set *set = &a->e->known;
    size_t row = (size_t)a->s->n_interest * a->s->d;
    for (size_t i = 0; i < set->n_users; i++)
        memcpy(a->pu + i * row, a->s->user + set->user[i] * row, row * sizeof(*a->pu));
    return rank(a, set, a->s->n_interest, err) && evaluation_put_metrics(a->e, set, a->e->rank, o, err);
}

/* Everybody of the set as somebody of whom the service knows the history alone. */
static bool history_view(const struct ask *a, const struct target_set *set, const struct interactions *past,
                         const char *view, json_t *cold, struct err *err)
{
    if (set->n == 0 || !past->off)
        return true;
    float *scratch = mem_array(stored_scratch(a->s), sizeof(*scratch), err);
    if (!scratch)
        return false;
    for (size_t i = 0; i < set->n_users; i++) {
        uint64_t lo = past->off[set->user[i]], hi = past->off[set->user[i] + 1];
        stored_from_history(a->s, a->s->item, past->item + lo, (size_t)(hi - lo), scratch, a->pu + i * a->s->d);
    }
    free(scratch);
    if (!rank(a, set, 1, err))
        return false;
    evaluation_put_cold(a->e, cold, view, set->keep_known, set->n);
    return true;
}

static bool all_views(const struct ask *a, json_t *o, struct err *err)
{
    const struct dataset *d = a->e->p.data;
    json_t *cold = json_array();
    json_object_set_new(o, "cold_start", cold);
    return own_view(a, o, err) &&
           history_view(a, &a->e->known, &d->train, "every user as unknown, by history", cold, err) &&
           history_view(a, &a->e->cold, &d->held, "held-out users, by history", cold, err);
}

json_t *evaluation_stored(struct evaluation *e, const char *name, const struct model *m, struct err *err)
{
    const struct dataset *d = e->p.data;
    const struct stored *s = m->stored;
    size_t most = e->known.n_users > e->cold.n_users ? e->known.n_users : e->cold.n_users;
    json_t *o = evaluation_system_new(name, model_kind_name(m->kind));
    struct ask a = {.e = e, .s = s};
    bool ok = s->n_users == d->n_users && s->n_items == d->n_items;
    if (!ok)
        err_set(err, ERR_MISMATCH,
                "vectors of %u users and %u items, the dataset has %u and %u; evaluate the model on the "
                "dataset that it was trained on",
                s->n_users, s->n_items, d->n_users, d->n_items);
    ok = ok && (a.pu = mem_array(most, (size_t)s->n_interest * s->d * sizeof(float), err)) && all_views(&a, o, err);
    free(a.pu);
    if (ok)
        return o;
    json_decref(o);
    err_prefix(err, "evaluating %s", name);
    return NULL;
}

// --------------------------------------------------------------------------------------------------------- EASE^R

struct ease_job {
    const struct ease *ease;
    const struct target_set *set;
    const struct interactions *past;
};

static void ease_block(const void *ctx, size_t first, size_t n, float *scores)
{
    const struct ease_job *j = ctx;
    double *sum = malloc(j->ease->n * sizeof(*sum));
    for (size_t i = 0; sum && i < n; i++) {
        uint32_t u = j->set->user[first + i];
        ease_scores(j->ease, j->past->item + j->past->off[u], (size_t)(j->past->off[u + 1] - j->past->off[u]), sum,
                    scores + i * j->ease->n);
    }
    if (!sum)
        memset(scores, 0xff, n * j->ease->n * sizeof(*scores)); // NaN: ranks last
    free(sum);
}

static bool ease_rank(struct evaluation *e, const struct ease *ease, const struct target_set *set,
                      const struct interactions *past, struct err *err)
{
    struct ease_job job = {ease, set, past};
    struct rank_input in = evaluation_rank_input(e, set);
    in.score = ease_block;
    in.score_ctx = &job;
    return rank_targets(&in, e->pool, e->rank, err);
}

static bool ease_views(struct evaluation *e, const struct ease *ease, json_t *o, struct err *err)
{
    const struct dataset *d = e->p.data;
    json_t *cold = json_array();
    json_object_set_new(o, "cold_start", cold);
    if (!ease_rank(e, ease, &e->known, &d->train, err) || !evaluation_put_metrics(e, &e->known, e->rank, o, err))
        return false;
    if (e->cold.n == 0 || !d->held.off)
        return true;
    if (!ease_rank(e, ease, &e->cold, &d->held, err))
        return false;
    evaluation_put_cold(e, cold, "held-out users, by history", e->cold.keep_known, e->cold.n);
    return true;
}

json_t *evaluation_ease(struct evaluation *e, double lambda, struct err *err)
{
    struct ease ease;
    json_t *o = evaluation_system_new("EASE^R", "ease");
    json_object_set_new(o, "note", json_sprintf("lambda %g", lambda));
    bool ok = ease_init(&ease, e->p.data, lambda, err) && ease_views(e, &ease, o, err);
    ease_fini(&ease);
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}
