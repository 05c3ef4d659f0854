/* publish_probes.c - what is measured with users while a bundle is published: its probes, and the curves of its
 * calibration. */
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/publish_priv.h"

#define PROBES_DEFAULT 256
#define CALIBRATE_DEFAULT 500

// ---------------------------------------------------------------------------------------------------------- probes

/* Vectors of a model without towers that say something: what its probes are drawn from. */
static uint32_t count_known(const struct stored *s)
{
    uint32_t n = 0;
    for (size_t i = 0; i < (size_t)s->n_users * s->n_interest; i++)
        n += stored_known(s->user + i * s->d, s->d);
    return n;
}

static bool alloc_probes(struct job *j)
{
    const struct model *m = j->in->model;
    uint32_t n = j->p->n_probes ? j->p->n_probes : PROBES_DEFAULT, n_slots = m->stored ? 0 : m->schema->user.n_slots;
    uint32_t most = m->stored ? count_known(m->stored) : j->in->n_users;
    n = n < PROBES_MAX ? n : PROBES_MAX;
    struct probes *q = &j->probes;
    *q =
        (struct probes){.n = n < most ? n : most, .k = j->m.head.probe_k, .d = m->user.d, .d_aug = m->user.shape.d_aug};
    q->x = j->probe_x = mem_array((size_t)q->n * n_slots, sizeof(*q->x), j->err);
    q->aug = j->probe_aug = mem_array((size_t)q->n * q->d_aug, sizeof(*q->aug), j->err);
    q->p = j->probe_p = mem_array((size_t)q->n * q->d, sizeof(*q->p), j->err);
    q->vec_row = j->probe_row = m->stored ? mem_array(q->n, sizeof(*q->vec_row), j->err) : NULL;
    q->top = j->probe_top = mem_array((size_t)q->n * q->k, sizeof(*q->top), j->err);
    q->score = j->probe_score = mem_array((size_t)q->n * q->k, sizeof(*q->score), j->err);
    return q->x && q->aug && q->p && (q->vec_row || !m->stored) && q->top && q->score;
}

/* The same over vectors of a model without towers. */
static void draw_vectors(struct job *j)
{
    struct rng r;
    const struct probes *q = &j->probes;
    const struct stored *s = j->in->model->stored;
    uint32_t taken = 0, left = count_known(s);
    rng_init(&r, j->m.seed);
    for (uint32_t i = 0; i < s->n_users * s->n_interest && taken < q->n; i++)
        if (stored_known(s->user + (size_t)i * s->d, s->d) && rng_below(&r, left--) < q->n - taken)
            j->probe_row[taken++] = i;
}

/* Each user is taken with the chance (still wanted) / (still left): every subset is equally likely, one pass, in order.
 */
static void draw_users(struct job *j)
{
    struct rng r;
    const struct probes *q = &j->probes;
    size_t n_slots = j->in->model->schema->user.n_slots, taken = 0;
    rng_init(&r, j->m.seed);
    for (uint32_t u = 0; u < j->in->n_users && taken < q->n; u++) {
        if (rng_below(&r, j->in->n_users - u) >= q->n - taken)
            continue;
        memcpy(j->probe_x + taken * n_slots, j->in->user_x + u * n_slots, n_slots * sizeof(*q->x));
        memcpy(j->probe_aug + taken * q->d_aug, j->aug + (size_t)u * q->d_aug, q->d_aug * sizeof(*q->aug));
        taken++;
    }
}

/* Expected vectors and exact answers. */
static bool answer_probes(struct job *j)
{
    const struct probes *q = &j->probes;
    const struct model *m = j->in->model;
    const struct hnsw_query query = {.k = q->k};
    struct tower_ws *ws = m->stored ? NULL : tower_ws_new(&m->user, 1, j->err);
    struct hnsw_ws *search = hnsw_ws_new();
    struct hnsw_hit *hit = mem_array(q->k, sizeof(*hit), j->err);
    struct hnsw_err e = {0};
    bool ok = (ws || m->stored) && search && hit;
    for (size_t i = 0; ok && i < q->n; i++) {
        float *p = j->probe_p + i * q->d;
        if (m->stored)
            memcpy(p, m->stored->user + (size_t)q->vec_row[i] * q->d, q->d * sizeof(*p));
        else
            tower_forward(&m->user, q->x + i * m->schema->user.n_slots, q->aug + i * q->d_aug, 1, ws, p);
        ok = users_check_finite(p, q->d, "the user tower gives no numbers: p_u", j->err) &&
             (hnsw_search_exact(j->hnsw, p, &query, search, hit, &e) == q->k || publish_hnsw_failed(&e, j->err));
        for (size_t r = 0; ok && r < q->k; r++) {
            j->probe_top[i * q->k + r] = (uint32_t)hit[r].label;
            j->probe_score[i * q->k + r] = hit[r].score;
        }
    }
    tower_ws_free(ws);
    hnsw_ws_free(search);
    free(hit);
    return ok || err_set(j->err, ERR_NOMEM, "out of memory");
}

static double target_of(const struct job *j)
{
    return j->p->target_recall > 0 ? j->p->target_recall : PUBLISH_TARGET_RECALL;
}

/* The smallest ef of a geometric row whose recall suffices in the layout that `h` has, from the one that others took on; the last if none
 * does. What is promised is the lowest of all layouts: a poor graph is walked better in one of them. */
static bool choose_ef(struct job *j, const struct hnsw *h)
{
    static const uint32_t tried[] = {100,  128,  160,  200,  256,  320,  400,  512,  640,  800,  1000,
                                     1280, 1600, 2000, 2560, 3200, 4000, 5120, 6400, 8000, 10000};
    const size_t n = sizeof(tried) / sizeof(tried[0]);
    struct bundle_manifest *head = &j->m.head;
    size_t i = 0;
    while (!j->fixed_ef && i + 1 < n && tried[i] < head->default_ef)
        i++;
    double recall;
    do {
        head->default_ef = head->probe_ef = j->fixed_ef ? j->fixed_ef : tried[i];
        recall = probes_recall(&j->probes, j->probes.p, h, j->item_emb, head->probe_ef, j->err);
    } while (!j->fixed_ef && recall >= 0 && recall < target_of(j) && head->probe_ef < j->in->n_items && ++i < n);
    if (recall < head->probe_recall)
        head->probe_recall = recall;
    return recall >= 0;
}

bool publish_probes(struct job *j)
{
    char path[PATH_MAX];
    publish_report(j, "probing", 0);
    j->m.head.probe_recall = 1;
    if (!alloc_probes(j))
        return false;
    (j->in->model->stored ? draw_vectors : draw_users)(j);
    j->m.n_probes = j->probes.n;
    bool ok = answer_probes(j) && choose_ef(j, j->hnsw) && publish_path(j, MF_PROBES, path) &&
              probes_save(path, &j->probes, j->in->model->schema->user.n_slots, j->m.head.fingerprint, j->err);
    publish_report(j, "probing", 1);
    return ok;
}

// ------------------------------------------------------------------------------------------------------ calibration

/* Vectors of users drawn as those of the probes are, with another seed: what the curves are measured with. Owned by j.
 */
static bool draw_queries(struct job *j)
{
    struct rng r;
    const struct model *m = j->in->model;
    const struct stored *s = m->stored;
    uint32_t d = m->user.d, d_aug = m->user.shape.d_aug, n_slots = m->schema->user.n_slots;
    uint32_t rows = s ? s->n_users * s->n_interest : j->in->n_users, left = s ? count_known(s) : rows;
    uint32_t want = j->p->n_calibrate ? j->p->n_calibrate : CALIBRATE_DEFAULT;
    want = want < left ? want : left;
    struct tower_ws *ws = s ? NULL : tower_ws_new(&m->user, 1, j->err);
    j->query = mem_array((size_t)want * d, sizeof(*j->query), j->err);
    bool ok = j->query && (s || ws);
    rng_init(&r, j->m.seed + 1);
    for (size_t i = 0; ok && i < rows && j->n_query < want; i++) {
        float *q = j->query + (size_t)j->n_query * d;
        if ((s && !stored_known(s->user + i * d, d)) || rng_below(&r, left--) >= want - j->n_query)
            continue;
        if (s)
            memcpy(q, s->user + i * d, d * sizeof(*q));
        else
            tower_forward(&m->user, j->in->user_x + i * n_slots, j->aug + i * d_aug, 1, ws, q);
        j->n_query++;
    }
    tower_ws_free(ws);
    return ok;
}

/* Vectors that codes of 8 bits cannot hold have no fast layout: daemons search the plain one, which is measured already. */
static bool make_layout(const struct job *j, struct hnsw *h, enum hnsw_layout layout, bool *made)
{
    struct hnsw_err e = {0};
    *made = hnsw_optimize(h, HNSW_PLAIN, 1, &e) && hnsw_optimize(h, layout, j->p->threads, &e);
    return *made || (layout == HNSW_FAST && e.code == HNSW_ARG) || publish_hnsw_failed(&e, j->err);
}

bool publish_measure(struct job *j, struct hnsw *h, double target)
{
    struct bundle_manifest *head = &j->m.head;
    struct calibrate_truth truth = {0};
    bool calibrated = !j->p->no_calibration && j->in->n_users > 0, ok = true;
    publish_report(j, "calibrating", 0);
    if (calibrated)
        ok = draw_queries(j) && (j->n_query == 0 || calibrate_truth_init(&truth, j->item_emb, j->in->n_items, head->d,
                                                                         j->query, j->n_query, j->err));
    for (int l = 0; ok && l < BUNDLE_LAYOUTS; l++) { // the compact one last: nothing can be made from it
        bool made;
        ok = make_layout(j, h, (enum hnsw_layout)l, &made) && (!made || l == HNSW_PLAIN || choose_ef(j, h)) &&
             (!made || !j->n_query || calibrate(&truth, h, (enum hnsw_layout)l, &head->calibration, j->err));
        publish_report(j, "calibrating", (double)(l + 1) / BUNDLE_LAYOUTS);
    }
    if (calibrated)
        head->target_recall = j->p->target_recall > 0 ? j->p->target_recall : j->p->default_ef ? 0 : target;
    calibrate_truth_fini(&truth);
    return ok;
}
