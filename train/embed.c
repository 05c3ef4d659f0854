#include "train/embed.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

#define EMBED_BLOCK 256

struct embed_job {
    const struct tower *t;
    const struct schema_side *side;
    const uint32_t *x, *row;
    size_t n;
    enum embed_as as;
    const float *a;
    struct pool *pool;
    float *out;
    struct err err[POOL_THREADS_MAX];
};

/* Encoded rows of one block, the id taken away unless it is to be used. */
static void gather(const struct embed_job *j, size_t at, size_t n, uint32_t *x)
{
    size_t slots = j->t->shape.n_slots;
    for (size_t i = 0; i < n; i++) {
        memcpy(x + i * slots, j->x + (j->row ? j->row[at + i] : at + i) * slots, slots * sizeof(*x));
        if (j->as != EMBED_OWN && j->side->id_field >= 0)
            x[i * slots + j->side->field[j->side->id_field].slot] = 0;
    }
}

static void embed_part(void *ctx, unsigned part)
{
    struct embed_job *j = ctx;
    size_t lo, hi;
    pool_range(j->n, part, pool_threads(j->pool), &lo, &hi);
    struct tower_ws *ws = tower_ws_new(j->t, EMBED_BLOCK, &j->err[part]);
    uint32_t *x = mem_array((size_t)EMBED_BLOCK * j->t->shape.n_slots, sizeof(*x), &j->err[part]);
    for (size_t i = lo; ws && x && i < hi; i += EMBED_BLOCK) {
        size_t n = hi - i < EMBED_BLOCK ? hi - i : EMBED_BLOCK;
        gather(j, i, n, x);
        if (j->as == EMBED_GIVEN)
            tower_forward(j->t, x, j->a ? j->a + i * j->t->shape.d_aug : NULL, n, ws, j->out + i * j->t->d);
        else
            tower_forward_own(j->t, j->side, x, n, ws, j->out + i * j->t->d);
    }
    free(x);
    tower_ws_free(ws);
}

bool embed_rows(const struct tower *t, const struct schema_side *side, const uint32_t *x, const uint32_t *row, size_t n,
                enum embed_as as, const float *a, struct pool *pool, float *out, struct err *err)
{
    struct embed_job *j = mem_array(1, sizeof(*j), err);
    if (!j)
        return false;
    *j = (struct embed_job){
        .t = t, .side = side, .x = x, .row = row, .n = n, .as = as, .a = a, .pool = pool, .out = out};
    pool_run(pool, embed_part, j);
    bool ok = true;
    for (unsigned i = 0; ok && i < pool_threads(pool); i++)
        if (j->err[i].code)
            ok = err_set(err, j->err[i].code, "embedding %zu rows: %s", n, j->err[i].msg);
    free(j);
    return ok;
}
