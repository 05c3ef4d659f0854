#include "train/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

// -------------------------------------------------------------------------------------------------------- memory

/* Several ranks: what is gathered needs room of its own. */
static bool side_views(struct step_side *s, size_t max, struct err *err)
{
    bool alone = s->part.dist->size == 1;
    s->p = alone ? s->pass.p : mem_array(max * s->tower->d, sizeof(*s->p), err);
    s->mine = alone ? s->own : mem_array(max, sizeof(*s->mine), err);
    return s->p && s->mine;
}

static bool side_init(struct step_side *s, const struct dist *dist, struct tower *t, const struct schema_side *schema,
                      const uint32_t *all_x, size_t max, const struct recipe *r, struct pool *pool, struct err *err)
{
    struct adam_params p = {
        .lr = (float)r->lr, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = (float)r->weight_decay};
    size_t d_aug = t->shape.d_aug;
    *s = (struct step_side){.tower = t, .schema = schema, .all_x = all_x};
    if (!tower_pass_init(&s->pass, t, dist_most(max, dist->size), pool, err) ||
        !adam_init(&s->adam, t, &p, pool, err) || !part_init(&s->part, dist, t, &s->adam, max, err))
        return false;
    s->hist_f = mem_array(max, sizeof(*s->hist_f), err);
    s->x = mem_array(max * t->shape.n_slots, sizeof(*s->x), err);
    s->own = mem_array(max, sizeof(*s->own), err);
    s->through = mem_array(max, sizeof(*s->through), err);
    s->a = mem_array(max * d_aug, sizeof(*s->a), err);
    s->own_a = mem_array(max * d_aug, sizeof(*s->own_a), err);
    s->da = mem_array(max * d_aug, sizeof(*s->da), err);
    s->dp = mem_array(max * t->d, sizeof(*s->dp), err);
    return s->x && s->own && s->through && s->hist_f && s->a && s->own_a && s->da && s->dp && side_views(s, max, err);
}

static void side_fini(struct step_side *s)
{
    if (s->part.dist && s->part.dist->size > 1) {
        free(s->p);
        free(s->mine);
    }
    part_fini(&s->part);
    tower_pass_fini(&s->pass);
    adam_fini(&s->adam);
    ema_fini(&s->ema);
    free(s->hist_f);
    free(s->x);
    free(s->own);
    free(s->through);
    free(s->a);
    free(s->own_a);
    free(s->da);
    free(s->dp);
}

static bool check_ids(const struct model *m, struct err *err)
{
    if (m->kind != MODEL_DAT || (m->schema->user.id_field >= 0 && m->schema->item.id_field >= 0))
        return true;
    return err_set(err, ERR_ARG,
                   "the %s schema has no id field, so dat has nothing to augment; add one or use --model two_tower",
                   m->schema->user.id_field < 0 ? "users'" : "items'");
}

static void own_average(struct step_side *s)
{
    s->ema.emb_lo = s->adam.emb.lo;
    s->ema.emb_hi = s->adam.emb.hi;
    s->ema.aug_lo = s->adam.aug.lo;
    s->ema.aug_hi = s->adam.aug.hi;
}

static bool init_options(struct step *s, struct err *err)
{
    const struct recipe *r = s->recipe;
    struct cal_params p = {r->cal_min_rows, r->cal_weighted, r->cal_detach_major};
    if (s->use_cal && !cal_init(&s->cal, s->data->category.n, s->model->item.d, s->sampler->max_items, &p, err))
        return false;
    if (r->ema > 0 &&
        (!ema_init(&s->user.ema, s->user.tower, !s->closed, err) || !ema_init(&s->item.ema, s->item.tower, true, err)))
        return false;
    own_average(&s->user);
    own_average(&s->item);
    return tower_pass_drop(&s->item.pass, s->item.tower, r->item_dropout, err);
}

bool step_init(struct step *s, const struct dist *dist, const struct recipe *r, const struct dataset *d,
               struct model *m, struct sampler *sampler, struct pool *pool, struct err *err)
{
    *s = (struct step){.dist = dist, .recipe = r, .data = d, .model = m, .sampler = sampler, .pool = pool};
    s->use_mimic = m->kind == MODEL_DAT && r->amm;
    s->use_cal = m->kind == MODEL_DAT && r->cal && r->lambda3 > 0;
    s->closed = m->kind == MODEL_DAT && r->aug == AUG_CLOSED;
    if (check_ids(m, err) &&
        side_init(&s->user, dist, &m->user, &m->schema->user, d->user_x, sampler->max_users, r, pool, err) &&
        side_init(&s->item, dist, &m->item, &m->schema->item, d->item_x, sampler->max_items, r, pool, err) &&
        loss_ws_init(&s->loss, r->loss == LOSS_BCE ? 0 : sampler->max_users, sampler->max_items, pool, err) &&
        (s->category = mem_array(sampler->max_items, sizeof(*s->category), err)) && init_options(s, err))
        return true;
    step_fini(s);
    return false;
}

void step_fini(struct step *s)
{
    side_fini(&s->user);
    side_fini(&s->item);
    loss_ws_fini(&s->loss);
    cal_fini(&s->cal);
    free(s->category);
    *s = (struct step){0};
}

/* Spread of the starting values; 0 = stay at zero. Rows of other ranks are drawn, for the generator to go on alike, and
 * left. */
struct start {
    int id_slot; // -1 = none
    double table, id, aug;
    size_t emb_lo, emb_hi, aug_lo, aug_hi;
};

/* Not row 0; rows lo .. hi are kept. */
static void draw_rows(float *row, size_t cols, size_t n_rows, size_t lo, size_t hi, double std, struct rng *rng)
{
    for (size_t i = 1; row && std > 0 && i < n_rows; i++)
        for (size_t c = 0; c < cols; c++) {
            float x = (float)(std * rng_normal(rng));
            if (i >= lo && i < hi)
                row[i * cols + c] = x;
        }
}

static size_t less(size_t a, size_t b)
{
    return a > b ? a - b : 0;
}

/* Where a goes past the layers, these begin as a small correction of it. */
static void init_tower(struct tower *t, const struct start *from, struct rng *rng)
{
    const struct tower_shape *s = &t->shape;
    for (uint32_t f = 0; f < s->n_fields; f++)
        draw_rows(t->emb + s->field[f].first_row * s->k, s->k, s->field[f].n_rows,
                  less(from->emb_lo, s->field[f].first_row), less(from->emb_hi, s->field[f].first_row),
                  (int)s->field[f].slot == from->id_slot ? from->id : from->table, rng);
    draw_rows(t->aug, s->d_aug, s->n_ids, from->aug_lo, from->aug_hi, from->aug, rng);
    for (uint32_t l = 0; l < s->n_layers; l++) {
        size_t in = l ? s->width[l - 1] : t->z_dim, out = s->width[l];
        double bound = sqrt(6.0 / (double)(in + out)) * (s->skip_aug && l + 1 == s->n_layers ? 0.1 : 1);
        for (size_t i = 0; i < in * out; i++)
            t->w[l][i] = (float)(bound * (2 * rng_unit(rng) - 1));
    }
}

void step_init_tower(struct tower *t, double std, struct rng *rng)
{
    init_tower(t, &(struct start){-1, std, std, std, 0, SIZE_MAX, 0, SIZE_MAX}, rng);
}

#define USER_START                                                                                                     \
    0.2 // users' own vectors begin small where items' say something already: their first gradients point the way

/* Ids that the recipe does not embed stay at zero, and so do augmented vectors that are computed. */
static struct start start_of(const struct schema_side *side, const struct recipe *r, bool user, const struct adam *a)
{
    double own = r->init_std * (user && r->spectral ? USER_START : 1);
    return (struct start){.id_slot = side->id_field < 0 ? -1 : (int)side->field[side->id_field].slot,
                          .table = r->init_std,
                          .id = r->id_tables ? own : 0,
                          .aug = user && r->aug == AUG_CLOSED ? 0 : own,
                          .emb_lo = a ? a->emb.lo : 0,
                          .emb_hi = a ? a->emb.hi : SIZE_MAX,
                          .aug_lo = a ? a->aug.lo : 0,
                          .aug_hi = a ? a->aug.hi : SIZE_MAX};
}

void step_init_params(struct model *m, const struct recipe *r, const struct step *of, struct rng *rng)
{
    const struct start user = start_of(&m->schema->user, r, true, of ? &of->user.adam : NULL);
    const struct start item = start_of(&m->schema->item, r, false, of ? &of->item.adam : NULL);
    init_tower(&m->user, &user, rng);
    init_tower(&m->item, &item, rng);
    m->logit_scale = (float)r->scale;
    history_form_plain(&m->history, (float)r->alpha);
}

// -------------------------------------------------------------------------------------------------------- gather

static void drop_feature(const struct schema_field *f, uint32_t *x)
{
    x[f->slot] = 0;
    for (uint32_t q = 1; q < f->n_slots; q++)
        x[f->slot + q] = SLOT_EMPTY;
}

/* Encoded rows of the batch's entities. `own` is the augmented row by id; an id that is dropped goes to row 0 in x, and
 * `through` = 0 says that z will hold a mean instead of the own row. Ids without an embedding are left out of x. */
static void gather_x(struct step_side *s, const uint32_t *entity, size_t n, const struct recipe *r, struct rng *rng)
{
    uint32_t slots = s->tower->shape.n_slots;
    const struct schema_field *id = s->schema->id_field >= 0 ? &s->schema->field[s->schema->id_field] : NULL;
    for (size_t i = 0; i < n; i++) {
        uint32_t *x = s->x + i * slots;
        memcpy(x, s->all_x + (size_t)entity[i] * slots, slots * sizeof(*x));
        s->own[i] = s->through[i] = id ? x[id->slot] : 0;
        if (id && r->oov_dropout > 0 && rng_unit(rng) < r->oov_dropout)
            s->through[i] = x[id->slot] = 0;
        for (uint32_t f = 0; r->feature_dropout > 0 && f < s->schema->n_fields; f++)
            if (s->schema->field[f].kind != FIELD_ID && s->schema->field[f].kind != FIELD_DISPLAY &&
                rng_unit(rng) < r->feature_dropout)
                drop_feature(&s->schema->field[f], x);
        if (id && !r->id_tables)
            x[id->slot] = SLOT_EMPTY;
    }
}

/* Augmented inputs of this rank's share: own rows, or the mean of the segment. */
static void gather_a(struct step_side *s, size_t n)
{
    const struct tower *t = &s->part.work;
    size_t d = t->shape.d_aug, bytes = d * sizeof(float), lo = s->part.lo;
    for (size_t i = lo; d && i < s->part.hi; i++) {
        const float *own = t->aug + s->part.own[i - lo] * d;
        const float *mean = t->aug_segment + schema_segment(s->schema, s->x + i * t->shape.n_slots) * d;
        memcpy(s->own_a + i * d, own, bytes);
        memcpy(s->a + i * d, s->through[i] ? own : mean, bytes);
    }
    for (size_t i = 0; s->mine != s->own && i < n; i++)
        s->mine[i] = i >= lo && i < s->part.hi ? s->own[i] : 0;
}

/* This rank's share through the tower, and everybody's outputs. */
static void run_tower(struct step *s, struct step_side *side, size_t n)
{
    size_t lo = side->part.lo, m = side->part.hi - lo, d = side->tower->d;
    side->pass.first = lo;
    tower_pass_forward(&side->pass, &side->part.work, side->part.x, side->a + lo * side->tower->shape.d_aug, m);
    if (side->p == side->pass.p)
        return;
    memcpy(side->p + lo * d, side->pass.p, m * d * sizeof(float));
    dist_gather(s->dist, side->p, n, d);
}

/* Every second user whose id was dropped is answered from its history instead: a_u = mean p_v of a random half of its
 * positives. Half, so that the pair being learned is often not in the mean. */
static void history_a(struct step *s)
{
    const struct batch *b = &s->sampler->batch;
    size_t d = s->model->item.d;
    for (size_t u = 0; u < b->n_users; u++) {
        if (s->user.through[u] || rng_below(&s->sampler->rng, 2))
            continue;
        float *a = s->user.a + u * d;
        size_t n = 0;
        for (size_t i = b->pos_off[u]; i < b->pos_off[u + 1]; i++) {
            if (rng_below(&s->sampler->rng, 2))
                continue;
            const float *p = s->item.p + b->pos[i] * d;
            for (size_t c = 0; c < d; c++)
                a[c] = (n ? a[c] : 0) + p[c];
            n++;
        }
        for (size_t c = 0; n && c < d; c++)
            a[c] /= (float)n;
    }
}

/* a_u = n^-alpha times the sum of the history's p_v. Users whose id was dropped keep the mean of their segment, as
 * strangers without a history will, and so do users of whose history nothing is left. */
static void closed_part(void *ctx, unsigned part)
{
    struct step *s = ctx;
    const struct batch *b = &s->sampler->batch;
    size_t d = s->model->item.d, first = s->user.part.lo, lo, hi;
    pool_range(s->user.part.hi - first, part, pool_threads(s->pool), &lo, &hi);
    for (size_t u = first + lo; u < first + hi; u++) {
        size_t n = b->hist_off[u + 1] - b->hist_off[u];
        bool dropped = s->user.own[u] && !s->user.through[u];
        s->user.part.through[u - first] = 0;
        s->user.hist_f[u] = 0;
        if (n && !dropped)
            s->user.hist_f[u] =
                history_sum(&s->model->history, s->item.p, b->hist + b->hist_off[u], n, d, s->user.a + u * d);
    }
}

/* The gradient of a_u in closed form, on into the weights and, with aug_grad, the p_v that it is made of. */
static void closed_backward(struct step *s)
{
    const struct batch *b = &s->sampler->batch;
    size_t d = s->model->item.d, z_dim = s->user.tower->z_dim, first = s->user.part.lo;
    for (size_t u = first; u < s->user.part.hi; u++) {
        const float *da = s->user.pass.dz + (u - first + 1) * z_dim - d;
        size_t lo = b->hist_off[u], n = b->hist_off[u + 1] - lo;
        if (s->user.hist_f[u] > 0)
            recency_backward(&s->recency, &s->model->history, s->item.p, b->hist + lo, n, d, s->user.a + u * d,
                             s->user.hist_f[u], da, s->recipe->aug_grad ? s->item.dp : NULL);
    }
}

static void forward(struct step *s)
{
    const struct batch *b = &s->sampler->batch;
    const struct recipe *r = s->recipe;
    gather_x(&s->item, b->item, b->n_items, r, &s->sampler->rng);
    gather_x(&s->user, b->user, b->n_users, r, &s->sampler->rng);
    part_begin(&s->item.part, s->item.x, s->item.own, s->item.through, true, b->n_items);
    part_begin(&s->user.part, s->user.x, s->user.own, s->user.through, !s->closed, b->n_users);
    gather_a(&s->item, b->n_items);
    gather_a(&s->user, b->n_users);
    s->item.pass.drop_seed = s->item.pass.drop > 0 ? rng_u64(&s->sampler->rng) : 0;
    run_tower(s, &s->item, b->n_items);
    if (s->closed)
        pool_run(s->pool, closed_part, s);
    else if (s->user.tower->shape.d_aug && r->oov_dropout > 0 && r->batching == BATCH_USERS)
        history_a(s);
    run_tower(s, &s->user, b->n_users);
}

// -------------------------------------------------------------------------------------------------------- losses

/* The mimic gradient reaches the own rows only; p is a constant there. */
static void scatter_mimic(struct step_side *s)
{
    size_t d = s->tower->shape.d_aug, lo = s->part.lo;
    for (size_t i = lo; i < s->part.hi; i++)
        for (size_t c = 0; s->own[i] && c < d; c++)
            s->part.grad.aug[s->part.own[i - lo] * d + c] += s->da[i * d + c];
}

static void mimic_user(struct step *s, const struct loss_io *io)
{
    struct step_side *side = &s->user;
    size_t at = side->part.lo * io->d;
    memset(side->da + at, 0, io->b->n_users * io->d * sizeof(float));
    s->parts.mimic_u =
        loss_mimic_user(io, side->own_a + at, side->own + side->part.lo, s->recipe->lambda1, side->da + at);
    scatter_mimic(side);
}

static void mimic_item(struct step *s, const struct loss_io *io)
{
    memset(s->item.da, 0, io->b->n_items * io->d * sizeof(float));
    s->parts.mimic_v = loss_mimic_item(io, s->item.own_a, s->item.mine, s->recipe->lambda2, s->item.da);
    scatter_mimic(&s->item);
}

static void cal_term(struct step *s, const struct loss_io *io)
{
    const struct batch *b = io->b;
    for (size_t i = 0; i < b->n_items; i++)
        s->category[i] = s->data->item_category[b->item[i]];
    s->parts.cal = cal_loss(&s->cal, io->pv, s->category, b->rows, b->n_items, s->recipe->lambda3, io->dpv);
}

struct side_job {
    struct step *s;
    const struct loss_io *io, *share; // of the whole batch; of this rank's users
};

/* The three terms beside the main loss write different arrays, so they may run at the same time. */
static void side_terms(void *ctx, unsigned part)
{
    const struct side_job *j = ctx;
    unsigned n = pool_threads(j->s->pool);
    if (j->s->use_mimic && !j->s->closed && 0 % n == part)
        mimic_user(j->s, j->share);
    if (j->s->use_mimic && j->s->recipe->lambda2 > 0 && 1 % n == part)
        mimic_item(j->s, j->io);
    if (j->s->use_cal && j->s->dist->rank == 0 && 2 % n == part)
        cal_term(j->s, j->io);
}

/* Adam on log(scale), so that one rate suits any size of it; kept within 1 and 100. */
static double scale_gradient(const struct step *s, const struct loss_io *io)
{
    return s->recipe->learn_scale ? loss_scale_grad(io) * io->scale : 0;
}

static void step_scale(struct step *s, double g)
{
    double t = s->user.adam.step, lr = s->user.adam.p.lr;
    s->scale_m = 0.9 * s->scale_m + 0.1 * g;
    s->scale_v = 0.999 * s->scale_v + 0.001 * g * g;
    double move = lr * (s->scale_m / (1 - pow(0.9, t))) / (sqrt(s->scale_v / (1 - pow(0.999, t))) + 1e-8);
    double scale = exp(log(s->model->logit_scale) - move);
    s->model->logit_scale = (float)(scale < 1 ? 1 : scale > 100 ? 100 : scale);
}

static double zero_outputs(const struct tower_pass *p)
{
    double zero = 0;
    for (size_t i = 0; i < p->n; i++)
        zero += p->inv_norm[i] == 0;
    return zero;
}

/* Cosines of up to 512 positives and of the same users with some other item of the batch. */
static double score_spread(const struct loss_io *io)
{
    const struct batch *b = io->b;
    float min = 2, max = -2;
    size_t step = b->n_pos / 512 + 1;
    for (size_t u = 0, i = 0; i < b->n_pos; i += step) {
        while (i >= b->pos_off[u + 1])
            u++;
        size_t items[2] = {b->pos[i], (i * 2654435761u) % b->n_items};
        for (size_t k = 0; k < 2; k++) {
            float s = 0;
            for (size_t c = 0; c < io->d; c++)
                s += io->pu[u * io->d + c] * io->pv[items[k] * io->d + c];
            min = s < min ? s : min;
            max = s > max ? s : max;
        }
    }
    return max > min ? max - min : 0;
}

/* Terms and counts of all ranks. */
static void sum_parts(struct step *s, const struct batch *b)
{
    double x[] = {s->parts.main,
                  s->parts.mimic_u,
                  s->parts.mimic_v,
                  s->parts.cal,
                  s->scale_grad,
                  zero_outputs(&s->user.pass),
                  zero_outputs(&s->item.pass)};
    dist_sum_double(s->dist, x, sizeof(x) / sizeof(*x));
    s->parts = (struct loss_parts){.main = x[0], .mimic_u = x[1], .mimic_v = x[2], .cal = x[3]};
    const struct recipe *r = s->recipe;
    s->parts.total = x[0] + r->lambda1 * x[1] + r->lambda2 * x[2] + r->lambda3 * x[3];
    s->scale_grad = x[4];
    s->health.zero_users = x[5] / (double)b->n_users;
    s->health.zero_items = x[6] / (double)b->n_items;
}

static void take_health(struct step *s, const struct loss_io *io)
{
    s->health.spread = score_spread(io);
    s->health.finite = isfinite(s->parts.total) && isfinite(adam_grad_norm2(&s->user.adam)) &&
                       isfinite(adam_grad_norm2(&s->item.adam));
}

/* The batch as if it had this rank's users only; sizes that weigh terms stay those of the whole. */
static struct batch users_share(const struct step *s)
{
    struct batch b = s->sampler->batch;
    size_t lo = s->user.part.lo;
    b.user += lo;
    b.n_users = s->user.part.hi - lo;
    b.pos_off += lo;
    b.hist_off += lo;
    b.share = b.share ? b.share + lo : NULL;
    return b;
}

static void backward(struct step *s)
{
    const struct batch *b = &s->sampler->batch;
    struct part *user = &s->user.part, *item = &s->item.part;
    size_t d = s->model->item.d;
    tower_pass_backward(&s->user.pass, &user->work, s->user.dp + user->lo * d, user->through, &user->grad);
    if (s->closed && (s->recipe->aug_grad || s->recipe->recency))
        closed_backward(s);
    dist_sum(s->dist, s->recency.grad, HISTORY_STEPS);
    dist_reduce(s->dist, s->item.dp, b->n_items, d);
    tower_pass_backward(&s->item.pass, &item->work, s->item.dp + item->lo * d, item->through, &item->grad);
    part_end(user);
    part_end(item);
}

void step_gradients(struct step *s)
{
    const struct batch *b = &s->sampler->batch;
    size_t d = s->model->item.d;
    forward(s);
    struct batch mine = users_share(s);
    struct loss_io io = {b, s->user.p, s->item.p, d, s->model->logit_scale, s->user.dp, s->item.dp}, share = io;
    share.b = &mine;
    share.pu += s->user.part.lo * d;
    share.dpu += s->user.part.lo * d;
    memset(io.dpu, 0, b->n_users * d * sizeof(float));
    memset(io.dpv, 0, b->n_items * d * sizeof(float));
    s->parts =
        (struct loss_parts){.main = s->recipe->loss == LOSS_BCE ? loss_bce(&share) : loss_softmax(&share, &s->loss)};
    s->scale_grad = scale_gradient(s, &share);
    pool_run(s->pool, side_terms, &(struct side_job){s, &io, &share});
    sum_parts(s, b);
    backward(s);
    take_health(s, &io);
}

void step_update(struct step *s)
{
    adam_step(&s->user.adam);
    adam_step(&s->item.adam);
    if (s->recipe->learn_scale)
        step_scale(s, s->scale_grad);
    if (s->recipe->recency)
        recency_step(&s->recency, s->user.adam.step, s->user.adam.p.lr, &s->model->history);
}
