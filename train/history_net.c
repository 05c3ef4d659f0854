#include "train/history_net.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "train/step.h"

#define EMA_EVERY 4      // steps between two looks of the average at the parameters
#define TARGET_SHARE 0.5 // of a user's items that are targets; the others are the history

// -------------------------------------------------------------------------------------------------------- memory

static bool alloc_batch(struct history_net *m, struct err *err)
{
    const struct sampler *s = &m->sampler;
    size_t row = m->dim * sizeof(float), rows = m->max_rows, n_slots = m->user.shape.n_slots;
    struct batch *b = &m->rows;
    m->hist = mem_array(s->max_pos, sizeof(*m->hist), err);
    m->target = mem_array(s->max_pos, sizeof(*m->target), err);
    m->hist_off = mem_array(s->max_users + 1, sizeof(*m->hist_off), err);
    m->target_off = mem_array(s->max_users + 1, sizeof(*m->target_off), err);
    m->zeros = mem_array(rows, sizeof(*m->zeros), err);
    m->x = mem_array(rows * n_slots, sizeof(*m->x), err);
    m->a = mem_array(rows, row, err);
    m->dpu = mem_array(rows, row, err);
    m->pv = mem_array(m->d->n_items, row, err);
    m->dpv = mem_array(s->max_items, row, err);
    m->inv_norm = mem_array(m->d->n_items, sizeof(*m->inv_norm), err);
    m->every_item = mem_array(m->d->n_items, sizeof(*m->every_item), err);
    for (uint32_t i = 0; m->every_item && i < m->d->n_items; i++)
        m->every_item[i] = i;
    b->pos_off = mem_array(rows + 1, sizeof(*b->pos_off), err);
    b->pos = mem_array(s->max_pos, sizeof(*b->pos), err);
    return m->hist && m->target && m->hist_off && m->target_off && m->zeros && m->x && m->a && m->dpu && m->pv &&
           m->dpv && m->inv_norm && m->every_item && b->pos_off && b->pos;
}

static bool init_average(struct history_net *m, struct err *err)
{
    return ema_init(&m->ema, &m->user, false, err) && ema_array_init(&m->ema_item, m->item.w, m->item.n, err) &&
           ema_array_init(&m->ema_bilinear, m->bilinear.w, m->bilinear.n, err);
}

static bool init_parts(struct history_net *m, struct err *err)
{
    const struct recipe *r = m->r;
    struct tower_params t = recipe_tower(r);
    const struct adam_params p = {
        .lr = (float)r->lr, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = (float)r->weight_decay};
    t.d_aug = m->dim;
    t.with_aug = false;
    if (!sampler_init(&m->sampler, m->d, r, err))
        return false;
    m->max_rows = m->sampler.max_users * m->n_interest;
    if (!tower_init(&m->user, &m->d->schema->user, &t, err) ||
        !tower_pass_init(&m->pass, &m->user, m->max_rows, m->pool, err) ||
        !adam_init(&m->adam, &m->user, &p, m->pool, err) ||
        !param_init(&m->item, (size_t)m->d->n_items * m->dim, err) ||
        !loss_ws_init(&m->loss, m->max_rows, m->sampler.max_items, m->pool, err) || !alloc_batch(m, err))
        return false;
    step_init_tower(&m->user, r->init_std, &m->rng);
    param_draw(&m->item, r->init_std, &m->rng);
    return m->pooling->init(m, err) && (r->ema == 0 || init_average(m, err));
}

bool history_net_init(struct history_net *m, const struct pooling *p, const struct dataset *d, const struct recipe *r,
                      struct pool *pool, struct err *err)
{
    *m = (struct history_net){.d = d, .r = r, .pooling = p, .pool = pool, .dim = r->width[r->n_layers - 1]};
    m->n_interest = p->interests(r, SIZE_MAX);
    rng_init(&m->rng, r->seed + 1);
    if (r->loss == LOSS_BCE)
        return err_set(err, ERR_ARG, "%s: loss bce; want softmax or sampled", model_kind_name(r->model));
    if (init_parts(m, err))
        return true;
    history_net_fini(m);
    return false;
}

void history_net_fini(struct history_net *m)
{
    void *const arrays[] = {m->route_init, m->route,     m->routed,   m->drouted,    m->capsule, m->dcapsule,
                            m->hist,       m->hist_off,  m->target,   m->target_off, m->zeros,   m->x,
                            m->a,          m->pv,        m->inv_norm, m->dpv,        m->dpu,     m->rows.pos_off,
                            m->rows.pos,   m->every_item};
    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
        free(arrays[i]);
    ema_fini(&m->ema);
    ema_array_fini(&m->ema_item);
    ema_array_fini(&m->ema_bilinear);
    sampler_fini(&m->sampler);
    tower_pass_fini(&m->pass);
    adam_fini(&m->adam);
    tower_fini(&m->user);
    param_fini(&m->item);
    param_fini(&m->bilinear);
    loss_ws_fini(&m->loss);
    *m = (struct history_net){0};
}

// ------------------------------------------------------------------------------------------------------- a batch

/* A random part of one user's items to be targets, at least one; of the others at most r->history. */
static void split_user(struct history_net *m, size_t u, uint32_t *item, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = rng_below(&m->rng, (uint32_t)i);
        uint32_t t = item[i - 1];
        item[i - 1] = item[j];
        item[j] = t;
    }
    size_t n_target = (size_t)ceil(TARGET_SHARE * (double)n), n_hist = n - n_target;
    n_hist = n_hist < m->r->history ? n_hist : m->r->history;
    memcpy(m->target + m->target_off[u], item, n_target * sizeof(*item));
    memcpy(m->hist + m->hist_off[u], item + n_target, n_hist * sizeof(*item));
    m->target_off[u + 1] = m->target_off[u] + (uint32_t)n_target;
    m->hist_off[u + 1] = m->hist_off[u] + (uint32_t)n_hist;
}

/* The sampler's cut in time: of what came before, the latest. */
static void copy_cut(struct history_net *m)
{
    const struct batch *b = &m->sampler.batch;
    memcpy(m->target, b->pos, b->n_pos * sizeof(*b->pos));
    memcpy(m->target_off, b->pos_off, (b->n_users + 1) * sizeof(*b->pos_off));
    for (size_t u = 0; u < b->n_users; u++) {
        uint32_t n = b->hist_off[u + 1] - b->hist_off[u];
        n = n < m->r->history ? n : m->r->history;
        memcpy(m->hist + m->hist_off[u], b->hist + b->hist_off[u + 1] - n, n * sizeof(*b->hist));
        m->hist_off[u + 1] = m->hist_off[u] + n;
    }
}

void history_net_split(struct history_net *m)
{
    const struct batch *b = &m->sampler.batch;
    if (m->r->window > 0) {
        copy_cut(m);
        return;
    }
    memcpy(m->rows.pos, b->pos, b->n_pos * sizeof(*b->pos));
    for (size_t u = 0; u < b->n_users; u++)
        split_user(m, u, m->rows.pos + b->pos_off[u], b->pos_off[u + 1] - b->pos_off[u]);
}

/* Unit vectors of n items (NULL: 0 .. n - 1). */
static void embed_items(struct history_net *m, const uint32_t *item, size_t n)
{
    size_t d = m->dim;
    for (size_t i = 0; i < n; i++) {
        const float *w = m->item.w + (item ? item[i] : i) * d;
        double sum = 0;
        for (size_t c = 0; c < d; c++)
            sum += (double)w[c] * (double)w[c];
        m->inv_norm[i] = sum > 1e-30 ? (float)(1 / sqrt(sum)) : 0;
        for (size_t c = 0; c < d; c++)
            m->pv[i * d + c] = m->inv_norm[i] * w[c];
    }
}

/* Features of a user for each of its rows; the id is not one of them. */
static void gather_x(struct history_net *m, const uint32_t *user, size_t n)
{
    const struct schema_side *side = &m->d->schema->user;
    size_t n_slots = side->n_slots;
    for (size_t i = 0; i < n * m->n_interest; i++) {
        uint32_t *x = m->x + i * n_slots;
        memcpy(x, m->d->user_x + user[i / m->n_interest] * n_slots, n_slots * sizeof(*x));
        if (side->id_field >= 0)
            x[side->field[side->id_field].slot] = 0;
    }
}

static size_t nearest(const struct history_net *m, const float *p, const float *v, size_t used)
{
    size_t best = 0;
    float most = -INFINITY;
    for (size_t j = 0; j < used; j++) {
        float s = 0;
        for (size_t c = 0; c < m->dim; c++)
            s += p[j * m->dim + c] * v[c];
        if (s > most) {
            most = s;
            best = j;
        }
    }
    return best;
}

/* Each target to the nearest vector of its user: the positives of that row. */
static void assign_targets(struct history_net *m)
{
    const struct batch *b = &m->sampler.batch;
    struct batch *rows = &m->rows;
    size_t k = m->n_interest, d = m->dim, at = 0;
    for (size_t u = 0; u < b->n_users; u++) {
        size_t used = m->pooling->interests(m->r, m->hist_off[u + 1] - m->hist_off[u]);
        for (size_t j = 0; j < k; j++) {
            for (uint32_t t = m->target_off[u]; t < m->target_off[u + 1]; t++)
                if (k == 1 || nearest(m, m->pass.p + u * k * d, m->pv + m->target[t] * d, used) == j)
                    rows->pos[at++] = m->target[t];
            rows->pos_off[u * k + j + 1] = (uint32_t)at;
        }
    }
    rows->n_pos = at;
    rows->n_users = b->n_users * k;
    rows->n_items = b->n_items;
    rows->log_q = b->log_q;
}

/* Through the normalisation of item vectors: dw = (dp - p <p, dp>) / |w|. */
static void items_backward(struct history_net *m)
{
    const struct batch *b = &m->sampler.batch;
    size_t d = m->dim;
    for (size_t i = 0; i < b->n_items; i++) {
        const float *p = m->pv + i * d, *dp = m->dpv + i * d;
        float along = 0, *to = m->item.grad + b->item[i] * d;
        for (size_t c = 0; c < d; c++)
            along += p[c] * dp[c];
        for (size_t c = 0; c < d; c++)
            to[c] += m->inv_norm[i] * (dp[c] - p[c] * along);
    }
}

double history_net_gradients(struct history_net *m)
{
    const struct batch *b = &m->sampler.batch;
    size_t d = m->dim, n_rows = b->n_users * m->n_interest;
    embed_items(m, b->item, b->n_items);
    const struct history h = {b->n_users, m->hist_off, m->hist, b->item, m->pv, b->n_items};
    m->pooling->prepare(m, &h);
    m->pooling->forward(m, &h, m->a);
    gather_x(m, b->user, b->n_users);
    adam_begin(&m->adam);
    adam_touch(&m->adam, m->x, NULL, n_rows);
    adam_catch_up(&m->adam);
    tower_pass_forward(&m->pass, &m->user, m->x, m->a, n_rows);
    if (!m->keep_route)
        assign_targets(m);
    memset(m->dpu, 0, n_rows * d * sizeof(*m->dpu));
    memset(m->dpv, 0, b->n_items * d * sizeof(*m->dpv));
    const struct loss_io io = {
        .b = &m->rows, .pu = m->pass.p, .pv = m->pv, .d = d, .scale = (float)m->r->scale, .dpu = m->dpu, .dpv = m->dpv};
    double loss = loss_softmax(&io, &m->loss);
    tower_pass_backward(&m->pass, &m->user, m->dpu, m->zeros, &m->adam.grad);
    m->pooling->backward(m, &h, m->pass.dz + (m->user.z_dim - d), m->user.z_dim, m->dpv);
    items_backward(m);
    return loss;
}

void history_net_update(struct history_net *m)
{
    struct adam_params p = m->adam.p;
    m->step++;
    adam_step(&m->adam);
    param_step(&m->item, &p, m->step, m->pool);
    p.weight_decay = 0;
    if (m->bilinear.n)
        param_step(&m->bilinear, &p, m->step, m->pool);
}

// ------------------------------------------------------------------------------------------------- as a baseline

void *history_net_create(const struct pooling *p, const struct dataset *d, const struct recipe *r, struct pool *pool,
                         struct err *err)
{
    struct history_net *m = mem_array(1, sizeof(*m), err);
    if (m && history_net_init(m, p, d, r, pool, err))
        return m;
    free(m);
    return NULL;
}

/* `epoch` counts from 1 here. */
static void average(struct history_net *m)
{
    if (m->r->ema == 0 || m->epoch <= m->r->ema_after || m->step % EMA_EVERY)
        return;
    double decay = pow(m->r->ema, EMA_EVERY);
    ema_take(&m->ema, decay);
    ema_array_take(&m->ema_item, decay);
    ema_array_take(&m->ema_bilinear, decay);
    m->averaged++;
}

static void swap_average(struct history_net *m)
{
    if (m->r->ema == 0)
        return;
    ema_swap(&m->ema);
    ema_array_swap(&m->ema_item);
    ema_array_swap(&m->ema_bilinear);
}

bool history_net_epoch(void *state, double *loss, struct err *err)
{
    struct history_net *m = state;
    double sum = 0;
    size_t n = 0;
    (void)err;
    m->adam.p.lr = (float)(m->r->lr * pow(m->r->lr_decay, m->epoch++));
    for (sampler_epoch(&m->sampler); sampler_next(&m->sampler); n++) {
        history_net_split(m);
        sum += history_net_gradients(m);
        history_net_update(m);
        average(m);
    }
    adam_flush(&m->adam);
    *loss = n ? sum / (double)n : 0;
    return true;
}

/* Query vectors of users first .. first + n out of their latest items. m->pv holds all items'. */
static void embed_users(struct history_net *m, const uint32_t *user, size_t n, float *out)
{
    const struct interactions *t = &m->d->train;
    size_t k = m->n_interest, d = m->dim;
    for (size_t u = 0; u < n; u++) {
        uint64_t lo = t->off[user[u]], hi = t->off[user[u] + 1];
        lo = hi - lo > m->r->history ? hi - m->r->history : lo;
        memcpy(m->hist + m->hist_off[u], t->item + lo, (size_t)(hi - lo) * sizeof(*m->hist));
        m->hist_off[u + 1] = m->hist_off[u] + (uint32_t)(hi - lo);
    }
    const struct history h = {n, m->hist_off, m->hist, m->every_item, m->pv, m->d->n_items};
    m->pooling->forward(m, &h, m->a);
    gather_x(m, user, n);
    tower_pass_forward(&m->pass, &m->user, m->x, m->a, n * k);
    memcpy(out, m->pass.p, n * k * d * sizeof(*out));
    for (size_t u = 0; u < n; u++) { // vectors that the user has no use for: the first once more, or nothing known
        size_t n_hist = m->hist_off[u + 1] - m->hist_off[u], used = m->pooling->interests(m->r, n_hist);
        for (size_t j = used; j < k; j++)
            memcpy(out + (u * k + j) * d, out + u * k * d, d * sizeof(*out));
        if (n_hist == 0)
            memset(out + u * k * d, 0, k * d * sizeof(*out));
    }
}

struct stored *history_net_vectors(void *state, struct err *err)
{
    struct history_net *m = state;
    const struct dataset *d = m->d;
    size_t row = (size_t)m->n_interest * m->dim;
    struct stored *s = stored_new(m->dim, m->n_interest, d->n_users, d->n_items, false, err);
    if (!s)
        return NULL;
    swap_average(m); // what is validated and kept
    embed_items(m, NULL, d->n_items);
    memcpy(s->item, m->pv, (size_t)d->n_items * m->dim * sizeof(float));
    const struct history all = {.item = m->every_item, .pv = m->pv, .n_items = d->n_items};
    m->pooling->prepare(m, &all);
    for (uint32_t u = 0; u < d->n_users; u++) // one by one: their histories may be longer than a batch's
        embed_users(m, &u, 1, s->user + u * row);
    swap_average(m);
    return s;
}

void history_net_state(void *state, struct resume_list *out)
{
    static const char *const item[] = {"item", "item.m", "item.v"}, *const bilinear[] = {"bilinear", "bilinear.m",
                                                                                         "bilinear.v"};
    struct history_net *m = state;
    resume_add(out, "user", ST_F32, m->user.block, m->user.block_floats);
    resume_add(out, "user.m", ST_F32, m->adam.m.block, m->user.block_floats);
    resume_add(out, "user.v", ST_F32, m->adam.v.block, m->user.block_floats);
    param_state(&m->item, item, out);
    param_state(&m->bilinear, bilinear, out);
    resume_add(out, "user.average", ST_F32, m->ema.block, m->ema.block ? m->user.block_floats : 0);
    resume_add(out, "item.average", ST_F32, m->ema_item.average, m->ema_item.n);
    resume_add(out, "bilinear.average", ST_F32, m->ema_bilinear.average, m->ema_bilinear.n);
    resume_add(out, "averaged", ST_U32, &m->averaged, 1);
    resume_add(out, "step", ST_U32, &m->step, 1);
    resume_add(out, "net_epoch", ST_U32, &m->epoch, 1);
    resume_add(out, "sampler", ST_U64, m->sampler.rng.s, 4);
    resume_add(out, "splits", ST_U64, m->rng.s, 4);
}

void history_net_resumed(void *state)
{
    struct history_net *m = state;
    adam_resume(&m->adam, m->step);
    m->ema.started = m->ema_item.started = m->ema_bilinear.started = m->averaged > 0;
}

void history_net_destroy(void *state)
{
    if (state)
        history_net_fini(state);
    free(state);
}
