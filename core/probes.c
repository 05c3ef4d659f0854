#include "core/probes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/base/pace.h"
#include "core/users.h"

#define P_TOLERANCE 1e-4f   // between processors and BLAS kernels; measured differences are below 1e-6
#define HIT_TOLERANCE 1e-5f // scores of different kernels, d up to 128

// -------------------------------------------------------------------------------------------------------- reading

static bool check_top(const struct probes *p, uint32_t n_items, struct err *err)
{
    for (uint32_t i = 0; i < p->n; i++)
        for (uint32_t j = 0; j < p->k; j++) {
            size_t at = (size_t)i * p->k + j;
            if (p->top[at] >= n_items)
                return err_set(err, ERR_FORMAT, "top: probe %u has item %u, there are %u", i, p->top[at], n_items);
            if (j > 0 && p->score[at] > p->score[at - 1])
                return err_set(err, ERR_FORMAT, "score: values of probe %u are not descending", i);
        }
    return true;
}

static bool read_columns(struct probes *p, const struct model *m, uint32_t n_items, struct err *err)
{
    size_t rows;
    const struct schema_side *side = &m->schema->user;
    if (!(p->p = pack_get(p->pack, "p", PACK_F32, p->d, &rows, err)))
        return false;
    if (rows > PROBES_MAX)
        return err_set(err, ERR_LIMIT, "%zu probes, at most %d allowed", rows, PROBES_MAX);
    p->n = (uint32_t)rows;
    if (m->stored && !(p->vec_row = pack_need(p->pack, "vec_row", PACK_U32, 1, p->n, err)))
        return false;
    if (!m->stored && side->n_slots &&
        (!(p->x = pack_need(p->pack, "x", PACK_U32, side->n_slots, p->n, err)) ||
         !schema_check_x(side, p->x, p->n, err)))
        return false;
    if (p->d_aug && !(p->aug = pack_need(p->pack, "aug", PACK_F32, p->d_aug, p->n, err)))
        return false;
    return (p->top = pack_need(p->pack, "top", PACK_U32, p->k, p->n, err)) &&
           (p->score = pack_need(p->pack, "score", PACK_F32, p->k, p->n, err)) &&
           users_check_finite(p->p, rows * p->d, "p", err) && users_check_finite(p->aug, rows * p->d_aug, "aug", err) &&
           users_check_finite(p->score, rows * p->k, "score", err) && check_top(p, n_items, err);
}

bool probes_from_pack(struct probes *out, struct pack *pack, const struct model *m, uint32_t n_items, uint32_t k,
                      struct err *err)
{
    *out = (struct probes){.pack = pack, .k = k, .d = m->user.d, .d_aug = m->user.shape.d_aug};
    if (read_columns(out, m, n_items, err))
        return true;
    probes_fini(out);
    return false;
}

void probes_fini(struct probes *p)
{
    pack_close(p->pack);
    *p = (struct probes){0};
}

bool probes_save(const char *path, const struct probes *p, uint32_t n_slots, const char *fingerprint, struct err *err)
{
    n_slots = p->vec_row ? 0 : n_slots;
    struct pack_writer *w = pack_writer_new(path, "probes", err);
    bool ok = w && pack_put(w, "fingerprint", PACK_U8, 1, 32, fingerprint, err) &&
              (n_slots == 0 || pack_put(w, "x", PACK_U32, p->n, n_slots, p->x, err)) &&
              (!p->vec_row || pack_put(w, "vec_row", PACK_U32, p->n, 1, p->vec_row, err)) &&
              (p->d_aug == 0 || pack_put(w, "aug", PACK_F32, p->n, p->d_aug, p->aug, err)) &&
              pack_put(w, "p", PACK_F32, p->n, p->d, p->p, err) &&
              pack_put(w, "top", PACK_U32, p->n, p->k, p->top, err) &&
              pack_put(w, "score", PACK_F32, p->n, p->k, p->score, err) && pack_writer_finish(w, err);
    pack_writer_free(w);
    return ok;
}

// ------------------------------------------------------------------------------------------------------- checking

static bool check_vector(const struct probes *p, uint32_t i, const float *found, struct err *err)
{
    const float *want = p->p + (size_t)i * p->d;
    for (uint32_t j = 0; j < p->d; j++)
        if (!(fabsf(found[j] - want[j]) <= P_TOLERANCE)) // NaN fails too
            return err_set(err, ERR_MISMATCH,
                           "probe %u: component %u of p_u is %.9g, want %.9g: model and probes do not belong together",
                           i, j, (double)found[j], (double)want[j]);
    return true;
}

static bool look_up(const struct probes *p, const struct stored *s, const struct users *users, float *p_u,
                    struct err *err)
{
    for (uint32_t i = 0; i < p->n; i++) {
        if (p->vec_row[i] >= (uint64_t)users->n * s->n_interest)
            return err_set(err, ERR_MISMATCH, "probe %u: vector %u, there are %u of %u users", i, p->vec_row[i],
                           s->n_interest, users->n);
        memcpy(p_u + (size_t)i * p->d, users->vec + (size_t)p->vec_row[i] * p->d, p->d * sizeof(*p_u));
        if (!check_vector(p, i, p_u + (size_t)i * p->d, err))
            return false;
    }
    return true;
}

bool probes_embed(const struct probes *p, const struct model *m, const struct users *users, float *p_u, struct err *err)
{
    if (m->stored)
        return look_up(p, m->stored, users, p_u, err);
    struct tower_ws *ws = tower_ws_new(&m->user, 1, err);
    if (!ws)
        return false;
    uint32_t n_slots = m->schema->user.n_slots;
    bool ok = true;
    for (uint32_t i = 0; ok && i < p->n; i++) {
        float *out = p_u + (size_t)i * p->d;
        tower_forward(&m->user, p->x ? p->x + (size_t)i * n_slots : NULL, p->aug ? p->aug + (size_t)i * p->d_aug : NULL,
                      1, ws, out);
        ok = check_vector(p, i, out, err);
        pace_point();
    }
    tower_ws_free(ws);
    return ok;
}

static size_t count_hits(const struct probes *p, uint32_t i, const float *q, const float *emb,
                         const struct hnsw_hit *hit, size_t n, uint32_t *idx, float *score)
{
    size_t hits = 0;
    float kth;
    hnsw_scores(HNSW_IP, p->d, q, emb, &p->top[(size_t)i * p->k + p->k - 1], 1, &kth);
    for (size_t j = 0; j < n; j++)
        idx[j] = (uint32_t)hit[j].label;
    hnsw_scores(HNSW_IP, p->d, q, emb, idx, n, score);
    for (size_t j = 0; j < n; j++)
        hits += score[j] >= kth - HIT_TOLERANCE;
    return hits;
}

double probes_recall(const struct probes *p, const float *p_u, const struct hnsw *h, const float *emb, uint32_t ef,
                     struct err *err)
{
    if (p->n == 0)
        return 1;
    size_t hits = 0;
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit *hit = mem_array(p->k, sizeof(*hit), err);
    uint32_t *idx = mem_array(p->k, sizeof(*idx), err);
    float *score = mem_array(p->k, sizeof(*score), err);
    struct hnsw_query query = {.k = p->k, .ef = ef, .plan = HNSW_PLAN_WALK};
    struct hnsw_err e = {0};
    bool ok = ws && hit && idx && score;
    for (uint32_t i = 0; ok && i < p->n; i++) {
        const float *q = p_u + (size_t)i * p->d;
        size_t n = hnsw_search(h, q, &query, ws, hit, &e);
        ok = e.code == HNSW_OK;
        hits += ok ? count_hits(p, i, q, emb, hit, n, idx, score) : 0;
        pace_point();
    }
    if (!ok)
        err_set(err, ERR_NOMEM, "probes: %s", e.code ? e.msg : "out of memory");
    hnsw_ws_free(ws);
    free(hit);
    free(idx);
    free(score);
    return ok ? (double)hits / ((double)p->n * p->k) : -1;
}
