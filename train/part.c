#include "train/part.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/mem.h"

// ------------------------------------------------------------------------------------------------------- memory

static uint32_t layer_in(const struct tower *t, uint32_t l)
{
    return l ? t->shape.width[l - 1] : t->z_dim;
}

/* The tower over borrowed rows: one table for all fields, whose rows x names directly. */
static bool make_work(struct part *p, struct err *err)
{
    const struct tower *t = p->tower;
    struct tower_field *f = mem_array(t->shape.n_fields, sizeof(*f), err);
    if (!f)
        return false;
    for (uint32_t i = 0; i < t->shape.n_fields; i++) {
        f[i] = t->shape.field[i];
        f[i].first_row = 0;
    }
    p->work.shape.field = p->grad.shape.field = f;
    p->work.emb = p->emb.param;
    p->grad.emb = p->emb.grad;
    p->work.aug = t->aug ? p->aug.param : NULL;
    p->grad.aug = t->aug ? p->aug.grad : NULL;
    return true;
}

bool part_init(struct part *p, const struct dist *dist, struct tower *t, struct adam *a, size_t max_batch,
               struct err *err)
{
    *p = (struct part){
        .dist = dist, .tower = t, .adam = a, .max = dist_most(max_batch, dist->size), .work = *t, .grad = a->grad};
    if (dist->size == 1)
        return true;
    for (uint32_t l = 0; l < t->shape.n_layers; l++)
        p->n_dense += (size_t)t->shape.width[l] * (layer_in(t, l) + 1);
    p->work.shape.field = NULL;
    dist_range(a->emb.n, dist->rank, dist->size, &a->emb.lo, &a->emb.hi);
    dist_range(a->aug.n, dist->rank, dist->size, &a->aug.lo, &a->aug.hi);
    p->x_buf = mem_array(p->max * t->shape.n_slots, sizeof(*p->x_buf), err);
    p->own_buf = mem_array(2 * p->max, sizeof(*p->own_buf), err);
    p->sums = mem_array(p->n_dense, sizeof(*p->sums), err);
    return p->x_buf && p->own_buf && p->sums && lend_init(&p->emb, dist, &a->emb, p->max * t->shape.n_slots, err) &&
           lend_init(&p->aug, dist, &a->aug, p->max, err) && make_work(p, err);
}

void part_fini(struct part *p)
{
    if (p->dist && p->dist->size > 1)
        free(p->work.shape.field);
    free(p->x_buf);
    free(p->own_buf);
    free(p->sums);
    lend_fini(&p->emb);
    lend_fini(&p->aug);
    *p = (struct part){0};
}

// ------------------------------------------------------------------------------------------------ rows of a share

static void note_rows(struct part *p, const uint32_t *x, const uint32_t *own, size_t n)
{
    const struct tower_shape *s = &p->tower->shape;
    lend_begin(&p->emb);
    lend_begin(&p->aug);
    for (size_t i = 0; i < n; i++) {
        for (uint32_t f = 0; f < s->n_fields; f++)
            for (uint32_t q = s->field[f].slot; q < s->field[f].slot + s->field[f].n_slots; q++)
                if (x[i * s->n_slots + q] != SLOT_EMPTY)
                    lend_note(&p->emb, s->field[f].first_row + x[i * s->n_slots + q]);
        if (p->tower->aug && own[i])
            lend_note(&p->aug, own[i]);
    }
}

/* The same rows by where they lie in `work`. */
static void translate(struct part *p, const uint32_t *x, const uint32_t *own, size_t n)
{
    const struct tower_shape *s = &p->tower->shape;
    for (size_t i = 0; i < n; i++) {
        uint32_t *to = p->x_buf + i * s->n_slots;
        memcpy(to, x + i * s->n_slots, s->n_slots * sizeof(*to));
        for (uint32_t f = 0; f < s->n_fields; f++)
            for (uint32_t q = s->field[f].slot; q < s->field[f].slot + s->field[f].n_slots; q++)
                if (to[q] != SLOT_EMPTY)
                    to[q] = lend_at(&p->emb, s->field[f].first_row + to[q]);
        p->own_buf[i] = p->tower->aug && own[i] ? lend_at(&p->aug, own[i]) : 0;
    }
    p->x = p->x_buf;
    p->own = p->own_buf;
}

static void ask(struct part *p, const uint32_t *x, const uint32_t *own, size_t n)
{
    note_rows(p, x, own, n);
    lend_ask(&p->emb);
    lend_ask(&p->aug);
}

static void fetch(struct part *p, const uint32_t *x, const uint32_t *own, size_t n)
{
    lend_fetch(&p->emb);
    lend_fetch(&p->aug);
    translate(p, x, own, n);
}

static void begin_alone(struct part *p, const uint32_t *x, uint32_t *own, uint32_t *through, bool with_aug, size_t n)
{
    adam_touch(p->adam, x, p->tower->aug && with_aug ? own : NULL, n);
    adam_catch_up(p->adam);
    p->x = x;
    p->own = own;
    p->through = through;
}

void part_begin(struct part *p, const uint32_t *x, uint32_t *own, uint32_t *through, bool with_aug, size_t n)
{
    dist_range(n, p->dist->rank, p->dist->size, &p->lo, &p->hi);
    adam_begin(p->adam);
    if (p->dist->size == 1) {
        begin_alone(p, x, own, through, with_aug, n);
        return;
    }
    size_t m = p->hi - p->lo;
    const uint32_t *first = x + p->lo * p->tower->shape.n_slots;
    ask(p, first, own + p->lo, m);
    adam_touch_rows(&p->adam->emb, p->emb.asked, p->emb.n_asked, p->adam->step);
    if (with_aug)
        adam_touch_rows(&p->adam->aug, p->aug.asked, p->aug.n_asked, p->adam->step);
    adam_catch_up(p->adam);
    fetch(p, first, own + p->lo, m);
    p->through = p->own_buf + p->max;
    for (size_t i = 0; i < m; i++)
        p->through[i] = through[p->lo + i] ? p->own[i] : 0;
}

void part_look(struct part *p, const uint32_t *x, uint32_t *own, size_t n)
{
    if (p->dist->size == 1) {
        p->x = x;
        p->own = own;
        return;
    }
    ask(p, x, own, n);
    fetch(p, x, own, n);
}

/* Layers' gradients lie apart in the tower's block: packed, summed, laid back. */
static void sum_layers(struct part *p)
{
    const struct tower *t = p->tower;
    for (int back = 0; back < 2; back++) {
        float *at = p->sums;
        for (uint32_t l = 0; l < t->shape.n_layers; l++) {
            size_t n[2] = {(size_t)t->shape.width[l] * layer_in(t, l), t->shape.width[l]};
            float *g[2] = {p->grad.w[l], p->grad.b[l]};
            for (int k = 0; k < 2; at += n[k++])
                memcpy(back ? g[k] : at, back ? at : g[k], n[k] * sizeof(*at));
        }
        if (!back)
            dist_sum(p->dist, p->sums, p->n_dense);
    }
}

void part_end(struct part *p)
{
    if (p->dist->size == 1)
        return;
    lend_return(&p->emb);
    lend_return(&p->aug);
    sum_layers(p);
}

// ------------------------------------------------------------------------------------------------- whole tables

void part_collect(const struct part *p, float *block)
{
    const struct tower *t = p->tower;
    dist_collect(p->dist, block + (t->emb - t->block), t->shape.n_rows, t->shape.k);
    if (t->aug)
        dist_collect(p->dist, block + (t->aug - t->block), t->shape.n_ids, t->shape.d_aug);
}

/* Whole pages of [from, to) go back to the system. */
static void drop_pages(float *from, float *to)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t lo = ((uintptr_t)from + page - 1) / page * page, hi = (uintptr_t)to / page * page;
    if (lo < hi)
        madvise((void *)lo, hi - lo, MADV_DONTNEED);
}

static void forget_rows(float *rows, const struct adam_rows *r)
{
    drop_pages(rows, rows + r->lo * r->cols);
    drop_pages(rows + r->hi * r->cols, rows + r->n * r->cols);
}

void part_forget(const struct part *p, float *block)
{
    const struct tower *t = p->tower;
    if (p->dist->size == 1)
        return;
    forget_rows(block + (t->emb - t->block), &p->adam->emb);
    if (t->aug)
        forget_rows(block + (t->aug - t->block), &p->adam->aug);
}
