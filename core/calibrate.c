/* calibrate.c - measuring the curves of calibration.h. */
#include <math.h>
#include <stdlib.h>

#include "core/base/mem.h"
#include "core/best.h"
#include "core/calibration.h"

#define BLOCK 256           // items scored at a time
#define HIT_TOLERANCE 1e-5f // as of the probes: scores of different kernels
#define STEP 1.25           // from one ef to the next, beginning at k
#define RECALL_ENOUGH 0.9995

/* The ks of the curves: what fits into the catalogue, and the catalogue itself where it is small. */
static uint32_t choose_ks(uint32_t n_items, uint32_t k[CALIBRATION_KS])
{
    static const uint32_t ks[CALIBRATION_KS] = {10, 30, 100, 300, 1000};
    uint32_t n = 0;
    while (n < CALIBRATION_KS && ks[n] <= n_items) {
        k[n] = ks[n];
        n++;
    }
    if (n == 0)
        k[n++] = n_items;
    return n;
}

/* The most.k best items of one query, best first. */
static void scan(const float *emb, uint32_t n_items, uint32_t d, const float *q, size_t k, struct retrieve_hit *hit)
{
    float score[BLOCK];
    size_t n = 0;
    for (uint32_t at = 0; at < n_items; at += BLOCK) {
        uint32_t m = n_items - at < BLOCK ? n_items - at : BLOCK;
        hnsw_scores(HNSW_IP, d, q, emb + (size_t)at * d, NULL, m, score);
        for (uint32_t i = 0; i < m; i++)
            n = best_offer(hit, n, k, (struct retrieve_hit){.item_idx = at + i, .score = score[i]});
    }
    best_sort(hit, n);
}

bool calibrate_truth_init(struct calibrate_truth *t, const float *emb, uint32_t n_items, uint32_t d, const float *q,
                          uint32_t n, struct err *err)
{
    *t = (struct calibrate_truth){.n = n, .d = d, .q = q, .emb = emb};
    t->n_k = choose_ks(n_items, t->k);
    uint32_t k = t->k[t->n_k - 1];
    struct retrieve_hit *hit = mem_array(k, sizeof(*hit), err);
    t->kth = mem_array((size_t)n * t->n_k, sizeof(*t->kth), err);
    bool ok = hit && t->kth;
    for (uint32_t i = 0; ok && i < n; i++) {
        scan(emb, n_items, d, q + (size_t)i * d, k, hit);
        for (uint32_t j = 0; j < t->n_k; j++)
            t->kth[(size_t)i * t->n_k + j] = hit[t->k[j] - 1].score;
    }
    free(hit);
    return ok;
}

void calibrate_truth_fini(struct calibrate_truth *t)
{
    free(t->kth);
    *t = (struct calibrate_truth){0};
}

/* Mean share of the k best that searches with `ef` find; below 0 on failure. */
static double recall_at(const struct calibrate_truth *t, const struct hnsw *h, uint32_t j, uint32_t ef,
                        struct hnsw_ws *ws, struct hnsw_hit *hit, struct hnsw_err *e)
{
    const struct hnsw_query query = {.k = t->k[j], .ef = ef, .plan = HNSW_PLAN_WALK};
    size_t hits = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        const float *q = t->q + (size_t)i * t->d;
        float least = t->kth[(size_t)i * t->n_k + j] - HIT_TOLERANCE;
        size_t n = hnsw_search(h, q, &query, ws, hit, e);
        if (e->code)
            return -1;
        for (size_t r = 0; r < n; r++) { // the compact layout's own scores are rounded
            float score;
            hnsw_scores(HNSW_IP, t->d, q, t->emb + hit[r].label * t->d, NULL, 1, &score);
            hits += score >= least;
        }
    }
    return (double)hits / ((double)t->n * t->k[j]);
}

static bool measure(const struct calibrate_truth *t, const struct hnsw *h, uint32_t j, struct calibration_curve *c,
                    struct hnsw_ws *ws, struct hnsw_hit *hit, struct hnsw_err *e)
{
    double before = 0, at = t->k[j];
    for (c->k = t->k[j]; c->n < CALIBRATION_POINTS; at = fmax(at * STEP, c->ef[c->n - 1] + 1.0)) {
        c->ef[c->n] = (uint32_t)at;
        double recall = recall_at(t, h, j, c->ef[c->n], ws, hit, e);
        if (recall < 0)
            return false;
        before = c->recall[c->n++] = fmax(before, recall);
        if (recall >= RECALL_ENOUGH || at >= (double)hnsw_count(h))
            break;
    }
    return true;
}

bool calibrate(const struct calibrate_truth *t, const struct hnsw *h, enum hnsw_layout layout, struct calibration *out,
               struct err *err)
{
    struct hnsw_err e = {0};
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit *hit = mem_array(t->k[t->n_k - 1], sizeof(*hit), err);
    bool ok = ws && hit;
    out->n_queries = t->n;
    for (uint32_t j = 0; ok && j < t->n_k; j++) {
        struct calibration_curve *c = &out->curve[out->n_curves++];
        *c = (struct calibration_curve){.layout = layout};
        ok = measure(t, h, j, c, ws, hit, &e);
    }
    hnsw_ws_free(ws);
    free(hit);
    return ok || err_set(err, ERR_NOMEM, "calibration: %s", e.code ? e.msg : "out of memory");
}
