#include "train/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

#define NO_ITEM UINT32_MAX

// ------------------------------------------------------------------------------------------------------- set-up

static size_t degree(const struct dataset *d, uint32_t u)
{
    return (size_t)(d->train.off[u + 1] - d->train.off[u]);
}

static int by_size_desc(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* How often a user comes up in an epoch. */
static size_t turns(const struct sampler *s, uint32_t u)
{
    size_t n = degree(s->d, u), w = s->r->window;
    return n == 0 ? 0 : w == 0 || n < w ? 1 : n / w;
}

/* Positives of the `batch` busiest rows: no batch has more. */
static bool bound_users(struct sampler *s, struct err *err)
{
    size_t *deg = mem_array(s->n_order, sizeof(*deg), err), n = 0;
    if (!deg)
        return false;
    for (uint32_t u = 0; u < s->d->n_users; u++)
        for (size_t t = turns(s, u); t > 0; t--)
            deg[n++] = degree(s->d, u);
    qsort(deg, n, sizeof(*deg), by_size_desc);
    for (size_t i = 0; i < s->max_users; i++)
        s->max_pos += deg[i];
    free(deg);
    return true;
}

static bool order_init(struct sampler *s, struct err *err)
{
    const struct dataset *d = s->d;
    bool pairs = s->r->batching == BATCH_PAIRS;
    size_t users = 0;
    for (uint32_t u = 0; u < d->n_users; u++) {
        users += turns(s, u);
        s->n_pairs += degree(d, u);
    }
    if (s->n_pairs == 0 || s->n_pairs > UINT32_MAX)
        return err_set(err, ERR_ARG, "the dataset has %zu training interactions, want 1 to %u", s->n_pairs, UINT32_MAX);
    s->n_order = pairs ? s->n_pairs : users;
    s->max_users = s->r->batch < s->n_order ? s->r->batch : s->n_order;
    s->n_batches = (s->n_order + s->r->batch - 1) / s->r->batch;
    s->order = mem_array(s->n_order, sizeof(*s->order), err);
    if (!s->order)
        return false;
    if (!pairs)
        return bound_users(s, err);
    s->max_pos = s->max_users;
    if (!(s->pair_user = mem_array(s->n_pairs, sizeof(*s->pair_user), err)))
        return false;
    for (uint32_t u = 0; u < d->n_users; u++)
        for (uint64_t i = d->train.off[u]; i < d->train.off[u + 1]; i++)
            s->pair_user[i] = u;
    return true;
}

/* Mean weight of a user; 0 says that there is nothing to weigh: all pairs alike. */
static void weight_init(struct sampler *s)
{
    if (s->r->batching == BATCH_PAIRS || (s->r->user_weight == 1 && s->r->denoise == 0 && s->r->window == 0))
        return;
    for (uint32_t u = 0; u < s->d->n_users; u++)
        s->mean_weight += degree(s->d, u) ? pow((double)degree(s->d, u), s->r->user_weight) : 0;
    s->mean_weight /= (double)s->n_order;
}

/* Held-out items do not exist while training: no negative, no candidate. */
static bool corpus_init(struct sampler *s, struct err *err)
{
    const struct dataset *d = s->d;
    s->corpus = mem_array(d->n_items, sizeof(*s->corpus), err);
    s->local = mem_array(d->n_items, sizeof(*s->local), err);
    if (!s->corpus || !s->local)
        return false;
    for (uint32_t i = 0; i < d->n_items; i++) {
        s->local[i] = NO_ITEM;
        if (!d->item_held_out || !d->item_held_out[i])
            s->corpus[s->n_corpus++] = i;
    }
    return s->n_corpus || err_set(err, ERR_ARG, "the dataset has no item to train on");
}

/* log P(no positive of a batch is the item): a batch holds a share of the users (or pairs), and the item has
 * `item_count`. */
static bool absence_init(struct sampler *s, struct err *err)
{
    const struct dataset *d = s->d;
    if (!(s->log_absent = mem_array(d->n_items, sizeof(*s->log_absent), err)))
        return false;
    for (uint64_t i = 0; i < d->train.off[d->n_users]; i++)
        s->log_absent[d->train.item[i]] += 1;
    for (uint32_t i = 0; i < d->n_items; i++) {
        double share = s->log_absent[i] / (double)s->n_order;
        s->log_absent[i] = share >= 1 ? -HUGE_VAL : (double)s->max_users * log1p(-share);
    }
    return true;
}

static bool batch_alloc(struct sampler *s, struct err *err)
{
    struct batch *b = &s->batch;
    b->user = mem_array(s->max_users, sizeof(*b->user), err);
    b->item = mem_array(s->max_items, sizeof(*b->item), err);
    b->rows = mem_array(s->max_items, sizeof(*b->rows), err);
    b->pos_off = mem_array(s->max_users + 1, sizeof(*b->pos_off), err);
    b->pos = mem_array(s->max_pos, sizeof(*b->pos), err);
    b->hist_off = mem_array(s->max_users + 1, sizeof(*b->hist_off), err);
    b->hist = mem_array(s->r->aug == AUG_CLOSED || s->r->window > 0 ? s->max_pos : 0, sizeof(*b->hist), err);
    b->neg = mem_array(s->max_pos * b->n_neg, sizeof(*b->neg), err);
    if (s->mean_weight > 0 && !(b->share = mem_array(s->max_users, sizeof(*b->share), err)))
        return false;
    if (s->r->loss == LOSS_SAMPLED && !(b->log_q = mem_array(s->max_items, sizeof(*b->log_q), err)))
        return false;
    return b->user && b->item && b->rows && b->pos_off && b->pos && b->hist_off && b->hist && b->neg;
}

/* The whole catalogue is every batch's item list: laid down once. */
static void fix_catalogue(struct sampler *s)
{
    struct batch *b = &s->batch;
    b->n_items = s->n_corpus;
    for (size_t i = 0; i < s->n_corpus; i++) {
        b->item[i] = s->corpus[i];
        s->local[s->corpus[i]] = (uint32_t)i;
    }
}

bool sampler_init(struct sampler *s, const struct dataset *d, const struct recipe *r, struct err *err)
{
    *s = (struct sampler){.d = d, .r = r};
    rng_init(&s->rng, r->seed);
    if (r->window > 0 && !d->train.time) {
        err_set(err, ERR_ARG, "window is %u, but the dataset's interactions have no times; use --window 0", r->window);
        goto fail;
    }
    if (!order_init(s, err) || !corpus_init(s, err) || !absence_init(s, err))
        goto fail;
    weight_init(s);
    s->batch.n_neg = r->loss == LOSS_BCE ? r->negatives : 0;
    size_t seen = s->max_pos * (1 + s->batch.n_neg) + (r->loss == LOSS_SAMPLED ? r->negatives : 0);
    s->max_items = r->loss == LOSS_SOFTMAX || seen > s->n_corpus ? s->n_corpus : seen;
    s->batch.masked = r->denoise > 0 || r->window > 0;
    if (!batch_alloc(s, err))
        goto fail;
    if (r->loss == LOSS_SOFTMAX)
        fix_catalogue(s);
    return true;
fail:
    err_prefix(err, "sampler");
    sampler_fini(s);
    return false;
}

void sampler_fini(struct sampler *s)
{
    struct batch *b = &s->batch;
    free(b->user);
    free(b->item);
    free(b->rows);
    free(b->pos_off);
    free(b->pos);
    free(b->share);
    free(b->hist_off);
    free(b->hist);
    free(b->neg);
    free(b->log_q);
    free(s->order);
    free(s->pair_user);
    free(s->corpus);
    free(s->local);
    free(s->log_absent);
    *s = (struct sampler){0};
}

// ------------------------------------------------------------------------------------------------------ batches

/* Fisher and Yates from the identity, so that an epoch depends on the generator's state alone. */
void sampler_epoch(struct sampler *s)
{
    uint32_t n = 0;
    s->at = 0;
    if (s->r->batching == BATCH_PAIRS) {
        for (size_t i = 0; i < s->n_order; i++)
            s->order[i] = (uint32_t)i;
    } else {
        for (uint32_t u = 0; u < s->d->n_users; u++)
            for (size_t t = turns(s, u); t > 0; t--)
                s->order[n++] = u;
    }
    for (size_t i = s->n_order; i > 1; i--) {
        size_t j = rng_below(&s->rng, (uint32_t)i);
        uint32_t t = s->order[i - 1];
        s->order[i - 1] = s->order[j];
        s->order[j] = t;
    }
}

/* Index of a dataset item in the batch, entering it if it is new. */
static uint32_t enter_item(struct sampler *s, uint32_t item)
{
    if (s->local[item] == NO_ITEM) {
        s->local[item] = (uint32_t)s->batch.n_items;
        s->batch.item[s->batch.n_items++] = item;
    }
    return s->local[item];
}

static void forget_items(struct sampler *s)
{
    for (size_t i = 0; i < s->batch.n_items; i++)
        s->local[s->batch.item[i]] = NO_ITEM;
    s->batch.n_items = 0;
}

/* What is asked for and what the history is, drawn positive by positive; the last resort is one at random. */
static void take_denoised(struct sampler *s, uint32_t u)
{
    struct batch *b = &s->batch;
    size_t pos = b->n_pos, hist = b->n_hist;
    for (uint64_t q = s->d->train.off[u]; q < s->d->train.off[u + 1]; q++) {
        uint32_t v = enter_item(s, s->d->train.item[q]);
        if (rng_unit(&s->rng) < s->r->denoise)
            b->pos[b->n_pos++] = v;
        else
            b->hist[b->n_hist++] = v;
    }
    if (b->n_pos == pos) {
        uint32_t *one = b->hist + hist + rng_below(&s->rng, (uint32_t)degree(s->d, u));
        b->pos[b->n_pos++] = *one;
        *one = b->hist[--b->n_hist];
    }
}

/* A moment in the user's past: what came before is history, the next `window` items are asked for. */
static void take_causal(struct sampler *s, uint32_t u)
{
    struct batch *b = &s->batch;
    const uint32_t *item = s->d->train.item + s->d->train.off[u];
    uint32_t n = (uint32_t)degree(s->d, u), now = n > 1 ? 1 + rng_below(&s->rng, n - 1) : 0;
    uint32_t end = n - now < s->r->window ? n : now + s->r->window;
    for (uint32_t i = 0; i < now; i++)
        b->hist[b->n_hist++] = enter_item(s, item[i]);
    for (uint32_t i = now; i < end; i++)
        b->pos[b->n_pos++] = enter_item(s, item[i]);
}

/* Every positive is asked for; in closed form without denoising it is in the history too. */
static void take_whole(struct sampler *s, uint32_t u)
{
    struct batch *b = &s->batch;
    for (uint64_t q = s->d->train.off[u]; q < s->d->train.off[u + 1]; q++) {
        b->pos[b->n_pos++] = enter_item(s, s->d->train.item[q]);
        if (s->r->aug == AUG_CLOSED)
            b->hist[b->n_hist++] = b->pos[b->n_pos - 1];
    }
}

static void take_users(struct sampler *s, size_t n)
{
    struct batch *b = &s->batch;
    for (size_t i = 0; i < n; i++) {
        uint32_t u = s->order[s->at + i];
        b->user[b->n_users++] = u;
        if (s->r->window > 0)
            take_causal(s, u);
        else if (s->r->denoise > 0)
            take_denoised(s, u);
        else
            take_whole(s, u);
        b->pos_off[b->n_users] = (uint32_t)b->n_pos;
        b->hist_off[b->n_users] = (uint32_t)b->n_hist;
    }
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Pair numbers ascend with their users, so sorting this batch's pairs brings each user's together. */
static void take_pairs(struct sampler *s, size_t n)
{
    struct batch *b = &s->batch;
    uint32_t *pair = s->order + s->at;
    qsort(pair, n, sizeof(*pair), by_value);
    for (size_t i = 0; i < n; i++) {
        uint32_t u = s->pair_user[pair[i]];
        if (i == 0 || u != b->user[b->n_users - 1])
            b->user[b->n_users++] = u;
        b->pos[b->n_pos++] = enter_item(s, s->d->train.item[pair[i]]);
        b->pos_off[b->n_users] = (uint32_t)b->n_pos;
    }
}

static uint32_t random_item(struct sampler *s)
{
    return s->corpus[rng_below(&s->rng, (uint32_t)s->n_corpus)];
}

static void draw_negatives(struct sampler *s)
{
    struct batch *b = &s->batch;
    for (size_t i = 0; i < b->n_pos * b->n_neg; i++)
        b->neg[i] = enter_item(s, random_item(s));
}

/* S shared negatives, and for each item of the batch log q (see sampler.h). An item that is only there as a positive is
 * a candidate for other users with in_batch; without it q is infinite for them, which takes it out of their sum. */
static void draw_shared(struct sampler *s)
{
    struct batch *b = &s->batch;
    size_t n_pos_items = b->n_items;
    double log_undrawn = s->r->negatives * log1p(-1 / (double)s->n_corpus);
    for (size_t i = 0; i < n_pos_items; i++)
        b->log_q[i] = s->r->in_batch ? 0 : (float)HUGE_VAL;
    for (uint32_t i = 0; i < s->r->negatives; i++)
        b->log_q[enter_item(s, random_item(s))] = 0;
    for (size_t i = 0; s->r->logq && i < b->n_items; i++)
        if (b->log_q[i] == 0)
            b->log_q[i] = (float)log(-expm1((s->r->in_batch ? s->log_absent[b->item[i]] : 0) + log_undrawn));
}

/* A user weighs n^user_weight of the mean user, spread evenly over its positives. */
static void weigh_users(struct sampler *s)
{
    struct batch *b = &s->batch;
    for (size_t u = 0; b->share && u < b->n_users; u++) {
        double weight =
            pow((double)degree(s->d, b->user[u]), s->r->user_weight) / (double)turns(s, b->user[u]) / s->mean_weight;
        size_t n = b->pos_off[u + 1] - b->pos_off[u];
        b->share[u] = (float)(weight / ((double)b->n_users * (double)n));
    }
}

static void count_rows(struct sampler *s)
{
    struct batch *b = &s->batch;
    bool bce = s->r->loss == LOSS_BCE;
    for (size_t i = 0; i < b->n_items; i++)
        b->rows[i] = bce || s->r->cal_positives ? 0 : 1;
    for (size_t i = 0; (bce || s->r->cal_positives) && i < b->n_pos; i++)
        b->rows[b->pos[i]]++;
    for (size_t i = 0; !s->r->cal_positives && i < b->n_pos * b->n_neg; i++)
        b->rows[b->neg[i]]++;
}

bool sampler_next(struct sampler *s)
{
    struct batch *b = &s->batch;
    size_t n = s->n_order - s->at < s->r->batch ? s->n_order - s->at : s->r->batch;
    if (n == 0)
        return false;
    b->n_users = b->n_pos = b->n_hist = 0;
    if (s->r->loss != LOSS_SOFTMAX)
        forget_items(s);
    if (s->r->batching == BATCH_PAIRS)
        take_pairs(s, n);
    else
        take_users(s, n);
    weigh_users(s);
    draw_negatives(s);
    if (s->r->loss == LOSS_SAMPLED)
        draw_shared(s);
    count_rows(s);
    s->at += n;
    return true;
}
