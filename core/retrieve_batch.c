/* retrieve_batch.c - the vectors of many queries: the ladder one by one, then one pass of all through the tower. */
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/retrieve_priv.h"

struct retrieve_many {
    struct tower_ws *tower;          // NULL for models without
    uint32_t *x;                     // [RETRIEVE_BATCH][n_slots] of those that go through the tower
    float *a;                        // [RETRIEVE_BATCH][d_aug]
    float *made;                     // [RETRIEVE_BATCH][d] what comes out
    float *p;                        // [RETRIEVE_BATCH][n_interest][d] of all
    size_t query[RETRIEVE_BATCH];    // whose row it is
};

void retrieve_many_free(struct retrieve_many *m)
{
    if (!m)
        return;
    tower_ws_free(m->tower);
    free(m->x);
    free(m->a);
    free(m->made);
    free(m->p);
    free(m);
}

static struct retrieve_many *many_new(const struct bundle *b, struct err *err)
{
    const struct tower *t = &b->model->user;
    struct retrieve_many *m = mem_array(1, sizeof(*m), err);
    if (!m)
        return NULL;
    bool towers = !b->model->stored;
    m->tower = towers ? tower_ws_new(t, RETRIEVE_BATCH, err) : NULL;
    m->x = mem_array(RETRIEVE_BATCH * (size_t)b->model->schema->user.n_slots, sizeof(*m->x), err);
    m->a = mem_array(RETRIEVE_BATCH * (size_t)t->shape.d_aug, sizeof(*m->a), err);
    m->made = mem_array(RETRIEVE_BATCH * (size_t)b->manifest.d, sizeof(*m->made), err);
    m->p = mem_array(RETRIEVE_BATCH * retrieve_width(b), sizeof(*m->p), err);
    if ((m->tower || !towers) && m->x && m->a && m->made && m->p)
        return m;
    err_set(err, ERR_NOMEM, "retrieve: out of memory");
    retrieve_many_free(m);
    return NULL;
}

bool retrieve_embed_batch(const struct bundle *b, const struct retrieve_query *const *q, size_t n, struct retrieve_ws *ws,
                          struct retrieve_embedded *out, struct err *err)
{
    uint64_t start = retrieve_now_ns();
    const struct tower *t = &b->model->user;
    size_t width = retrieve_width(b), d = b->manifest.d, n_slots = b->model->schema->user.n_slots, d_aug = t->shape.d_aug;
    size_t rows = 0;
    if (!ws->many && !(ws->many = many_new(b, err)))
        return false;
    struct retrieve_many *m = ws->many;
    for (size_t i = 0; i < n; i++) {
        out[i] = (struct retrieve_embedded){.p = m->p + i * width};
        if (!retrieve_prepare(b, q[i], ws, &out[i].result, &out[i].err))
            continue;
        out[i].result.n_vectors = out[i].result.fallback == FALLBACK_POPULAR ? 0 : ws->n_p;
        if (ws->needs_tower) {
            memcpy(m->x + rows * n_slots, ws->x, n_slots * sizeof(*m->x));
            memcpy(m->a + rows * d_aug, ws->a, d_aug * sizeof(*m->a));
            m->query[rows++] = i;
        } else {
            memcpy(m->p + i * width, ws->p, ws->n_p * d * sizeof(*m->p));
        }
    }
    if (rows)
        tower_forward(t, m->x, m->a, rows, m->tower, m->made);
    for (size_t row = 0; row < rows; row++)
        memcpy(m->p + m->query[row] * width, m->made + row * d, d * sizeof(*m->p));
    for (size_t i = 0; i < n; i++)
        out[i].result.embed_ns = (retrieve_now_ns() - start) / n;
    return true;
}
