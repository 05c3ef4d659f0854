#include "train/wals.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "train/baseline.h"

#define UNSEEN_MOST 0.1  // w0 on dense data; with DENSITY_HALF chosen on validation: docs/results.md, "Weights of wals"
#define DENSITY_HALF 0.005 // of the data where w0 is half of it
#define PENALTY 0.01

/* A row with m of N seen has a weight of m for these and w0 N for the others, and a penalty of reg (m + w0 N): by the density r, m (1 + w0 / r).
 * A constant w0 on sparse data is all about what was not seen. UNSEEN_MOST r / (r + DENSITY_HALF) keeps w0 / r below 20. */
void wals_weights(struct recipe_data data, struct recipe *out)
{
    double pairs = (double)data.n_users * data.n_items, density = pairs > 0 ? (double)data.n_pairs / pairs : 0;
    out->w0 = UNSEEN_MOST * density / (density + DENSITY_HALF);
    out->reg = PENALTY;
}

static bool transpose(struct wals *w, struct err *err)
{
    const struct interactions *t = &w->d->train;
    uint32_t n_users = w->d->n_users, n_items = w->d->n_items;
    w->item_off = mem_array((size_t)n_items + 1, sizeof(*w->item_off), err);
    w->item_user = mem_array((size_t)t->off[n_users], sizeof(*w->item_user), err);
    if (!w->item_off || !w->item_user)
        return false;
    for (uint64_t q = 0; q < t->off[n_users]; q++)
        w->item_off[t->item[q] + 1]++;
    for (uint32_t i = 0; i < n_items; i++)
        w->item_off[i + 1] += w->item_off[i];
    for (uint32_t u = 0; u < n_users; u++) // item_off[i] runs to the end of i's rows
        for (uint64_t q = t->off[u]; q < t->off[u + 1]; q++)
            w->item_user[w->item_off[t->item[q]]++] = u;
    memmove(w->item_off + 1, w->item_off, n_items * sizeof(*w->item_off)); // and is set back
    w->item_off[0] = 0;
    return true;
}

bool wals_init(struct wals *w, const struct dataset *d, const struct recipe *r, struct pool *pool, struct err *err)
{
    struct rng rng;
    *w = (struct wals){
        .d = d, .pool = pool, .k = r->width[r->n_layers - 1], .w0 = (float)r->w0, .lambda = (float)r->reg};
    w->user = mem_array(d->n_users, w->k * sizeof(float), err);
    w->item = mem_array(d->n_items, w->k * sizeof(float), err);
    w->gram = mem_array((size_t)w->k * w->k, sizeof(float), err);
    w->scratch = mem_array(pool_threads(pool), als_scratch(w->k) * sizeof(float), err);
    if (!w->user || !w->item || !w->gram || !w->scratch || !transpose(w, err)) {
        wals_fini(w);
        return false;
    }
    rng_init(&rng, r->seed);
    for (size_t i = 0; i < (size_t)d->n_items * w->k; i++)
        w->item[i] = (float)(r->init_std * rng_normal(&rng));
    return true;
}

void wals_fini(struct wals *w)
{
    free(w->user);
    free(w->item);
    free(w->gram);
    free(w->scratch);
    free(w->item_off);
    free(w->item_user);
    *w = (struct wals){0};
}

/* One half-step: every row of one side. */
struct half {
    const struct wals *w;
    struct als_side side;
    const uint64_t *off;
    const uint32_t *idx;
    size_t n;
    float *out;
};

static void solve_part(void *ctx, unsigned part)
{
    const struct half *h = ctx;
    size_t lo, hi, k = h->w->k;
    float *scratch = h->w->scratch + part * als_scratch(h->w->k);
    pool_range(h->n, part, pool_threads(h->w->pool), &lo, &hi);
    for (size_t i = lo; i < hi; i++)
        als_row(&h->side, h->idx + h->off[i], (size_t)(h->off[i + 1] - h->off[i]), scratch, h->out + i * k);
}

static void solve(struct wals *w, const float *fixed, size_t n_fixed, const uint64_t *off, const uint32_t *idx,
                  size_t n, float *out)
{
    als_gram(fixed, n_fixed, w->k, w->gram);
    struct half h = {
        .w = w, .side = {fixed, n_fixed, w->k, w->gram, w->w0, w->lambda}, .off = off, .idx = idx, .n = n, .out = out};
    pool_run(w->pool, solve_part, &h);
}

void wals_users(struct wals *w)
{
    const struct dataset *d = w->d;
    solve(w, w->item, d->n_items, d->train.off, d->train.item, d->n_users, w->user);
}

void wals_items(struct wals *w)
{
    const struct dataset *d = w->d;
    solve(w, w->user, d->n_users, w->item_off, w->item_user, d->n_items, w->item);
}

static double dot(const float *a, const float *b, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += (double)a[i] * (double)b[i];
    return s;
}

static double penalty(const struct wals *w, const float *row, const uint64_t *off, size_t n, size_t n_other)
{
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += ((double)(off[i + 1] - off[i]) + (double)w->w0 * (double)n_other) *
             dot(row + i * w->k, row + i * w->k, w->k);
    return (double)w->lambda * s;
}

/* sum over all pairs of <u, v>^2 = <U'U, V'V>; gram is free between two half-steps. */
static double all_pairs(const struct wals *w, float *users)
{
    als_gram(w->user, w->d->n_users, w->k, users);
    als_gram(w->item, w->d->n_items, w->k, w->gram);
    return dot(users, w->gram, (size_t)w->k * w->k);
}

double wals_loss(const struct wals *w)
{
    const struct dataset *d = w->d;
    double loss = w->w0 * all_pairs(w, w->scratch);
    for (uint32_t u = 0; u < d->n_users; u++)
        for (uint64_t q = d->train.off[u]; q < d->train.off[u + 1]; q++) {
            double s = dot(w->user + (size_t)u * w->k, w->item + (size_t)d->train.item[q] * w->k, w->k);
            loss += (1 - s) * (1 - s) - (double)w->w0 * s * s;
        }
    loss += penalty(w, w->user, d->train.off, d->n_users, d->n_items) +
            penalty(w, w->item, w->item_off, d->n_items, d->n_users);
    return loss / (double)(d->train.off[d->n_users] ? d->train.off[d->n_users] : 1);
}

// ------------------------------------------------------------------------------------------------- as a baseline

static void *create(const struct dataset *d, const struct recipe *r, struct pool *pool, struct err *err)
{
    struct wals *w = mem_array(1, sizeof(*w), err);
    if (w && wals_init(w, d, r, pool, err))
        return w;
    free(w);
    return NULL;
}

static bool epoch(void *state, double *loss, struct err *err)
{
    (void)err;
    wals_users(state);
    wals_items(state);
    *loss = wals_loss(state);
    return true;
}

/* Users once more, to the items that are kept: what folding in their history would give. */
static struct stored *vectors(void *state, struct err *err)
{
    struct wals *w = state;
    const struct dataset *d = w->d;
    struct stored *s = stored_new(w->k, 1, d->n_users, d->n_items, true, err);
    if (!s)
        return NULL;
    wals_users(w);
    memcpy(s->user, w->user, (size_t)d->n_users * w->k * sizeof(float));
    memcpy(s->item, w->item, (size_t)d->n_items * w->k * sizeof(float));
    memcpy(s->gram, w->gram, (size_t)w->k * w->k * sizeof(float));
    s->w0 = w->w0;
    s->lambda = w->lambda;
    s->n_fold = d->n_items;
    return s;
}

/* Users are solved for the items as they are, so the items are all that the next sweep begins with. */
static void list_state(void *state, struct resume_list *out)
{
    struct wals *w = state;
    resume_add(out, "item", ST_F32, w->item, (size_t)w->d->n_items * w->k);
}

static void destroy(void *state)
{
    if (state)
        wals_fini(state);
    free(state);
}

const struct baseline_ops wals_ops = {"sweep", create, epoch, vectors, list_state, NULL, destroy};
