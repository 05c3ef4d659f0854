#include "train/fm.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

// -------------------------------------------------------------------------------------------------------- memory

static bool side_init(struct fm_side *s, const struct schema_side *schema, const uint32_t *x, uint32_t k, double std,
                      struct rng *rng, struct err *err)
{
    *s = (struct fm_side){.n_slots = schema->n_slots, .x = x};
    if (!(s->field = mem_array(schema->n_fields, sizeof(*s->field), err)))
        return false;
    for (uint32_t i = 0; i < schema->n_fields; i++) {
        const struct schema_field *f = &schema->field[i];
        if (f->n_slots == 0)
            continue;
        s->field[s->n_fields++] = (struct fm_field){f->slot, f->n_slots, s->n_rows};
        s->n_rows += f->n_rows;
    }
    if (!param_init(&s->factor, s->n_rows * k, err))
        return false;
    param_draw(&s->factor, std, rng);
    for (uint32_t i = 0; i < s->n_fields; i++) // row 0: what is unknown says nothing until it is trained
        memset(s->factor.w + s->field[i].first_row * k, 0, k * sizeof(float));
    return true;
}

static bool alloc_batch(struct fm *m, struct err *err)
{
    size_t d = (m->k + 1) * sizeof(float);
    const struct sampler *s = &m->sampler;
    return (m->pu = mem_array(s->max_users, d, err)) && (m->dpu = mem_array(s->max_users, d, err)) &&
           (m->pv = mem_array(s->max_items, d, err)) && (m->dpv = mem_array(s->max_items, d, err)) &&
           loss_ws_init(&m->loss, s->max_users, s->max_items, m->pool, err);
}

bool fm_init(struct fm *m, const struct dataset *d, const struct recipe *r, struct pool *pool, struct err *err)
{
    *m = (struct fm){.d = d, .r = r, .pool = pool, .k = r->width[r->n_layers - 1]};
    if (m->k > FM_FACTORS_MAX || r->loss == LOSS_BCE)
        return err_set(err, ERR_ARG, "fm: %u factors, loss %s; want at most %d, and softmax or sampled", m->k,
                       loss_kind_name(r->loss), FM_FACTORS_MAX);
    if (sampler_init(&m->sampler, d, r, err) &&
        side_init(&m->user, &d->schema->user, d->user_x, m->k, r->init_std, &m->sampler.rng, err) &&
        side_init(&m->item, &d->schema->item, d->item_x, m->k, r->init_std, &m->sampler.rng, err) &&
        param_init(&m->weight, m->item.n_rows, err) && alloc_batch(m, err))
        return true;
    fm_fini(m);
    return false;
}

void fm_fini(struct fm *m)
{
    free(m->user.field);
    free(m->item.field);
    param_fini(&m->user.factor);
    param_fini(&m->item.factor);
    param_fini(&m->weight);
    sampler_fini(&m->sampler);
    loss_ws_fini(&m->loss);
    free(m->pu);
    free(m->pv);
    free(m->dpu);
    free(m->dpv);
    *m = (struct fm){0};
}

// ------------------------------------------------------------------------------------------------------- forward

/* Rows of a field's values in x, at most `slots`: their number. */
static uint32_t rows_of(const struct fm_field *f, const uint32_t *x, size_t *row)
{
    uint32_t n = 0;
    for (uint32_t s = 0; s < f->n_slots && x[f->slot + s] != SLOT_EMPTY; s++)
        row[n++] = f->first_row + x[f->slot + s];
    return n;
}

/* e_f: mean of its values' rows. */
static void embed(const struct fm_side *s, const size_t *row, uint32_t n, size_t k, float *e)
{
    memset(e, 0, k * sizeof(*e));
    for (uint32_t q = 0; q < n; q++)
        for (size_t c = 0; c < k; c++)
            e[c] += s->factor.w[row[q] * k + c] / (float)n;
}

/* Sum of all e_f to `out`; returns the sum of |e_f|^2. */
static float sum_fields(const struct fm_side *s, const uint32_t *x, size_t k, float *out)
{
    float e[FM_FACTORS_MAX], squares = 0;
    size_t row[SCHEMA_MULTI_MAX];
    memset(out, 0, k * sizeof(*out));
    for (uint32_t f = 0; f < s->n_fields; f++) {
        embed(s, row, rows_of(&s->field[f], x, row), k, e);
        for (size_t c = 0; c < k; c++) {
            out[c] += e[c];
            squares += e[c] * e[c];
        }
    }
    return squares;
}

void fm_user_vector(const struct fm *m, uint32_t u, float *out)
{
    sum_fields(&m->user, m->user.x + (size_t)u * m->user.n_slots, m->k, out);
    out[m->k] = 1;
}

void fm_item_vector(const struct fm *m, uint32_t i, float *out)
{
    const uint32_t *x = m->item.x + (size_t)i * m->item.n_slots;
    size_t row[SCHEMA_MULTI_MAX];
    float b = -sum_fields(&m->item, x, m->k, out);
    for (uint32_t c = 0; c < m->k; c++)
        b += out[c] * out[c];
    b /= 2;
    for (uint32_t f = 0; f < m->item.n_fields; f++) {
        uint32_t n = rows_of(&m->item.field[f], x, row);
        for (uint32_t q = 0; q < n; q++)
            b += m->weight.w[row[q]] / (float)n;
    }
    out[m->k] = b;
}

// ------------------------------------------------------------------------------------------------------ backward

static void add_row(float *to, const float *g, size_t k, float f)
{
    for (size_t c = 0; c < k; c++)
        to[c] += f * g[c];
}

static void user_backward(struct fm *m, uint32_t u, const float *dp)
{
    size_t row[SCHEMA_MULTI_MAX], k = m->k;
    for (uint32_t f = 0; f < m->user.n_fields; f++) {
        uint32_t n = rows_of(&m->user.field[f], m->user.x + (size_t)u * m->user.n_slots, row);
        for (uint32_t q = 0; q < n; q++)
            add_row(m->user.factor.grad + row[q] * k, dp, k, 1 / (float)n);
    }
}

/* d e_f = dQ + db (Q - e_f). */
static void item_backward(struct fm *m, uint32_t i, const float *p, const float *dp)
{
    float e[FM_FACTORS_MAX];
    size_t row[SCHEMA_MULTI_MAX], k = m->k;
    for (uint32_t f = 0; f < m->item.n_fields; f++) {
        uint32_t n = rows_of(&m->item.field[f], m->item.x + (size_t)i * m->item.n_slots, row);
        embed(&m->item, row, n, k, e);
        for (size_t c = 0; c < k; c++)
            e[c] = dp[c] + dp[k] * (p[c] - e[c]);
        for (uint32_t q = 0; q < n; q++) {
            add_row(m->item.factor.grad + row[q] * k, e, k, 1 / (float)n);
            m->weight.grad[row[q]] += dp[k] / (float)n;
        }
    }
}

double fm_gradients(struct fm *m)
{
    const struct batch *b = &m->sampler.batch;
    size_t d = m->k + 1;
    for (size_t u = 0; u < b->n_users; u++)
        fm_user_vector(m, b->user[u], m->pu + u * d);
    for (size_t i = 0; i < b->n_items; i++)
        fm_item_vector(m, b->item[i], m->pv + i * d);
    memset(m->dpu, 0, b->n_users * d * sizeof(*m->dpu));
    memset(m->dpv, 0, b->n_items * d * sizeof(*m->dpv));
    const struct loss_io io = {.b = b, .pu = m->pu, .pv = m->pv, .d = d, .scale = 1, .dpu = m->dpu, .dpv = m->dpv};
    double loss = loss_softmax(&io, &m->loss);
    for (size_t u = 0; u < b->n_users; u++)
        user_backward(m, b->user[u], m->dpu + u * d);
    for (size_t i = 0; i < b->n_items; i++)
        item_backward(m, b->item[i], m->pv + i * d, m->dpv + i * d);
    return loss;
}

void fm_update(struct fm *m)
{
    struct adam_params a = {
        .lr = (float)m->r->lr, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = (float)m->r->weight_decay};
    m->step++;
    param_step(&m->user.factor, &a, m->step, m->pool);
    param_step(&m->item.factor, &a, m->step, m->pool);
    a.weight_decay = 0; // a bias says how often, which is no overfitting
    param_step(&m->weight, &a, m->step, m->pool);
}

// ------------------------------------------------------------------------------------------------- as a baseline

static void *create(const struct dataset *d, const struct recipe *r, struct pool *pool, struct err *err)
{
    struct fm *m = mem_array(1, sizeof(*m), err);
    if (m && fm_init(m, d, r, pool, err))
        return m;
    free(m);
    return NULL;
}

static bool epoch(void *state, double *loss, struct err *err)
{
    struct fm *m = state;
    double sum = 0;
    size_t n = 0;
    (void)err;
    for (sampler_epoch(&m->sampler); sampler_next(&m->sampler); n++) {
        sum += fm_gradients(m);
        fm_update(m);
    }
    *loss = n ? sum / (double)n : 0;
    return true;
}

static struct stored *vectors(void *state, struct err *err)
{
    const struct fm *m = state;
    const struct dataset *d = m->d;
    struct stored *s = stored_new(m->k + 1, 1, d->n_users, d->n_items, false, err);
    if (!s)
        return NULL;
    s->item_bias = true;
    for (uint32_t u = 0; u < d->n_users; u++)
        fm_user_vector(m, u, s->user + (size_t)u * s->d);
    for (uint32_t i = 0; i < d->n_items; i++)
        fm_item_vector(m, i, s->item + (size_t)i * s->d);
    return s;
}

static void list_state(void *state, struct resume_list *out)
{
    static const char *const user[] = {"user", "user.m", "user.v"}, *const item[] = {"item", "item.m", "item.v"},
                             *const weight[] = {"weight", "weight.m", "weight.v"};
    struct fm *m = state;
    param_state(&m->user.factor, user, out);
    param_state(&m->item.factor, item, out);
    param_state(&m->weight, weight, out);
    resume_add(out, "step", ST_U32, &m->step, 1);
    resume_add(out, "sampler", ST_U64, m->sampler.rng.s, 4);
}

static void destroy(void *state)
{
    if (state)
        fm_fini(state);
    free(state);
}

const struct baseline_ops fm_ops = {"epoch", create, epoch, vectors, list_state, NULL, destroy};
