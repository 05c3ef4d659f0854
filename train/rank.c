#include "train/rank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/blas.h"

#define RANK_BLOCK 64 // users a thread scores at a time: 64 x 10,000 scores are 2.5 MB

size_t rank_count(const struct rank_input *in)
{
    size_t n = 0;
    for (size_t i = 0; i < in->n_users; i++)
        n += (size_t)(in->target->off[in->user[i] + 1] - in->target->off[in->user[i]]);
    return n;
}

/* Better and equal items of one target; the target's own entry is in `row` as one of the equal ones. */
static float rank_of(const float *row, size_t n, float score)
{
    size_t better = 0, equal = 0;
    for (size_t i = 0; i < n; i++) {
        better += row[i] > score;
        equal += row[i] == score;
    }
    return isnan(score) ? (float)n : (float)(1 + better + (equal - 1) / 2);
}

static void leave_out(const struct interactions *x, uint32_t u, float *row)
{
    for (uint64_t i = x->off[u]; i < x->off[u + 1]; i++)
        row[x->item[i]] = -INFINITY;
}

/* One user's scores -> ranks of its targets. Targets are left out too, and each is put back while it is ranked. */
static size_t rank_user(const struct rank_input *in, uint32_t u, float *row, float *score, float *rank)
{
    const struct interactions *t = in->target;
    size_t n = (size_t)(t->off[u + 1] - t->off[u]);
    for (size_t i = 0; i < n; i++)
        score[i] = row[t->item[t->off[u] + i]];
    for (size_t k = 0; k < 2; k++)
        if (in->exclude[k])
            leave_out(in->exclude[k], u, row);
    leave_out(t, u, row);
    for (size_t i = 0; i < n; i++) {
        float *own = &row[t->item[t->off[u] + i]];
        *own = score[i];
        rank[i] = rank_of(row, in->n_items, score[i]);
        *own = -INFINITY;
    }
    return n;
}

struct rank_job {
    const struct rank_input *in;
    struct pool *pool;
    float *rank;
    size_t *first; // [n_users] first rank of each user
    size_t max_targets;
    bool failed[POOL_THREADS_MAX];
};

/* Scores of users first .. first + n: [n][n_items]; `scores` has room for as many rows as there are query vectors. */
static void score_users(const struct rank_input *in, size_t first, size_t n, size_t n_interest, float *scores)
{
    size_t d = in->d, m = in->n_items;
    if (in->score) {
        in->score(in->score_ctx, first, n, scores);
        return;
    }
    blas_sgemm(false, true, n * n_interest, m, d, 1, in->pu + first * n_interest * d, d, in->pv, d, 0, scores, m);
    for (size_t u = 0; n_interest > 1 && u < n; u++) {
        float *to = scores + u * m;
        const float *from = scores + u * n_interest * m;
        for (size_t i = 0; i < m; i++) {
            float best = from[i];
            for (size_t k = 1; k < n_interest; k++)
                best = from[k * m + i] > best ? from[k * m + i] : best;
            to[i] = best;
        }
    }
}

static void rank_part(void *ctx, unsigned part)
{
    struct rank_job *j = ctx;
    const struct rank_input *in = j->in;
    size_t lo, hi, n_interest = in->n_interest ? in->n_interest : 1;
    pool_range(in->n_users, part, pool_threads(j->pool), &lo, &hi);
    float *scores = malloc(RANK_BLOCK * n_interest * in->n_items * sizeof(float));
    float *own = malloc((j->max_targets + 1) * sizeof(float));
    j->failed[part] = !scores || !own;
    for (size_t i = lo; i < hi && !j->failed[part]; i += RANK_BLOCK) {
        size_t n = hi - i < RANK_BLOCK ? hi - i : RANK_BLOCK;
        score_users(in, i, n, n_interest, scores);
        for (size_t u = 0; u < n; u++)
            rank_user(in, in->user[i + u], scores + u * in->n_items, own, j->rank + j->first[i + u]);
    }
    free(scores);
    free(own);
}

bool rank_targets(const struct rank_input *in, struct pool *pool, float *rank, struct err *err)
{
    struct rank_job j = {.in = in, .pool = pool, .rank = rank};
    size_t at = 0;
    if (!(j.first = mem_array(in->n_users, sizeof(*j.first), err)))
        return false;
    for (size_t i = 0; i < in->n_users; i++) {
        size_t n = (size_t)(in->target->off[in->user[i] + 1] - in->target->off[in->user[i]]);
        j.max_targets = n > j.max_targets ? n : j.max_targets;
        j.first[i] = at;
        at += n;
    }
    pool_run(pool, rank_part, &j);
    free(j.first);
    for (unsigned i = 0; i < pool_threads(pool); i++)
        if (j.failed[i])
            return err_set(err, ERR_NOMEM, "ranking: no memory for %zu scores; use fewer --threads",
                           RANK_BLOCK * in->n_items);
    return true;
}

struct metrics metrics_of(const struct metrics_spec *spec, const float *rank, const uint8_t *keep, size_t n)
{
    struct metrics m = {0};
    for (size_t i = 0; i < n; i++) {
        if (keep && !keep[i])
            continue;
        m.n++;
        for (size_t k = 0; k < spec->n_k; k++)
            m.hr[k] += rank[i] <= (float)spec->k[k];
        m.mrr += 1.0 / rank[i];
        m.mrr10 += 1.0 / ceil(rank[i] / 10.0);
    }
    double n_kept = m.n ? (double)m.n : 1;
    for (size_t k = 0; k < spec->n_k; k++)
        m.hr[k] /= n_kept;
    m.mrr /= n_kept;
    m.mrr10 /= n_kept;
    return m;
}
