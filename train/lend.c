#include "train/lend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

bool lend_init(struct lend *l, const struct dist *dist, struct adam_rows *rows, size_t max, struct err *err)
{
    *l = (struct lend){.dist = dist, .rows = rows, .max = max < rows->n ? max : rows->n};
    l->block_floats = 2 * (l->max + 1) * rows->cols;
    l->stamp = mem_array(rows->n, sizeof(*l->stamp), err);
    l->at = mem_array(rows->n, sizeof(*l->at), err);
    l->seen = mem_array(l->max, sizeof(*l->seen), err);
    l->want = mem_array(l->max, sizeof(*l->want), err);
    l->n_of = mem_array(dist->size, sizeof(*l->n_of), err);
    l->n_asked_of = mem_array(dist->size, sizeof(*l->n_asked_of), err);
    l->param = mem_block(l->block_floats * sizeof(float), err);
    if (!l->stamp || !l->at || !l->seen || !l->want || !l->n_of || !l->n_asked_of || !l->param)
        return err_prefix(err, "rows borrowed from other ranks");
    l->grad = l->param + (l->max + 1) * rows->cols;
    return true;
}

void lend_fini(struct lend *l)
{
    if (l->param)
        mem_block_free(l->param, l->block_floats * sizeof(float));
    free(l->stamp);
    free(l->at);
    free(l->seen);
    free(l->want);
    free(l->n_of);
    free(l->n_asked_of);
    free(l->asked);
    free(l->box);
    *l = (struct lend){0};
}

void lend_begin(struct lend *l)
{
    l->now++;
    l->n_want = 0;
}

void lend_note(struct lend *l, size_t row)
{
    if (l->stamp[row] == l->now)
        return;
    l->stamp[row] = l->now;
    l->seen[l->n_want++] = (uint32_t)row;
}

/* `seen` -> `want`, a counting sort by owner; `at` says where each went. */
static void sort_by_owner(struct lend *l)
{
    unsigned size = l->dist->size;
    size_t n = l->rows->n;
    memset(l->n_of, 0, size * sizeof(*l->n_of));
    for (size_t i = 0; i < l->n_want; i++)
        l->n_of[dist_owner(n, size, l->seen[i])]++;
    uint32_t *next = l->n_asked_of, at = 0; // free until the counts are exchanged
    for (unsigned r = 0; r < size; r++) {
        next[r] = at;
        at += l->n_of[r];
    }
    for (size_t i = 0; i < l->n_want; i++) {
        uint32_t to = next[dist_owner(n, size, l->seen[i])]++;
        l->want[to] = l->seen[i];
        l->at[l->seen[i]] = to + 1;
    }
}

static void make_room(struct lend *l)
{
    if (l->n_asked <= l->asked_cap)
        return;
    struct err err = {0};
    size_t cap = l->n_asked + l->n_asked / 2;
    uint32_t *asked = mem_grow(l->asked, cap, sizeof(*asked), &err);
    float *box = asked ? mem_grow(l->box, cap, l->rows->cols * sizeof(*box), &err) : NULL;
    if (!box) { // the others wait for these rows: there is no way back to the caller
        fprintf(stderr, "duet: rank %u: %zu rows lent to other ranks: %s\n", l->dist->rank, cap, err.msg);
        dist_abort(l->dist, 1);
    }
    l->asked = asked;
    l->box = box;
    l->asked_cap = cap;
}

void lend_ask(struct lend *l)
{
    if (l->rows->n == 0)
        return;
    sort_by_owner(l);
    dist_counts(l->dist, l->n_of, l->n_asked_of);
    l->n_asked = 0;
    for (unsigned r = 0; r < l->dist->size; r++)
        l->n_asked += l->n_asked_of[r];
    make_room(l);
    dist_exchange(l->dist, l->want, l->n_of, l->asked, l->n_asked_of, sizeof(*l->want));
}

void lend_fetch(struct lend *l)
{
    size_t cols = l->rows->cols, bytes = cols * sizeof(float);
    if (l->rows->n == 0)
        return;
    for (size_t i = 0; i < l->n_asked; i++)
        memcpy(l->box + i * cols, l->rows->param + l->asked[i] * cols, bytes);
    dist_exchange(l->dist, l->box, l->n_asked_of, l->param + cols, l->n_of, bytes);
}

void lend_return(struct lend *l)
{
    size_t cols = l->rows->cols, bytes = cols * sizeof(float);
    if (l->rows->n == 0)
        return;
    dist_exchange(l->dist, l->grad + cols, l->n_of, l->box, l->n_asked_of, bytes);
    for (size_t i = 0; i < l->n_asked; i++) {
        float *g = l->rows->grad + l->asked[i] * cols;
        for (size_t c = 0; c < cols; c++)
            g[c] += l->box[i * cols + c];
    }
    memset(l->grad, 0, (l->n_want + 1) * bytes);
}
