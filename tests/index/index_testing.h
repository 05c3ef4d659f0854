/* index_testing.h - what the tests of index/ share: seeded data and recall. Include first. */
#ifndef INDEX_TESTING_H
#define INDEX_TESTING_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "index/hnsw.h"

#define assert_ok(call, err)                                                                                           \
    do {                                                                                                               \
        if (!(call))                                                                                                   \
            fail_msg("%s: %s", #call, (err).msg);                                                                      \
    } while (0)

static inline uint64_t rnd(uint64_t *s) // splitmix64
{
    uint64_t x = (*s += 0x9e3779b97f4a7c15u);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline float rnd_unit(uint64_t *s) // [0, 1)
{
    return (float)(rnd(s) >> 40) * 0x1p-24f;
}

static inline float rnd_normal(uint64_t *s)
{
    return sqrtf(-2 * logf(rnd_unit(s) + 0x1p-25f)) * cosf(6.2831853f * rnd_unit(s));
}

/* n unit vectors around `centers` centres: what towers give, easier than uniform directions. Freed by the caller. */
static inline float *clustered(size_t n, size_t dim, size_t centers, uint64_t seed)
{
    float *v = malloc(n * dim * sizeof(*v)), *c = malloc(centers * dim * sizeof(*c));
    uint64_t fixed = 99, s = seed;
    assert_non_null(v);
    assert_non_null(c);
    for (size_t i = 0; i < centers * dim; i++)
        c[i] = rnd_normal(&fixed);
    for (size_t i = 0; i < n; i++) {
        size_t at = rnd(&s) % centers;
        float len = 0;
        for (size_t j = 0; j < dim; j++) {
            v[i * dim + j] = c[at * dim + j] + 0.7f * rnd_normal(&s);
            len += v[i * dim + j] * v[i * dim + j];
        }
        for (size_t j = 0; j < dim; j++)
            v[i * dim + j] /= sqrtf(len);
    }
    free(c);
    return v;
}

static inline struct hnsw *new_index(enum hnsw_metric metric, size_t dim, size_t capacity)
{
    struct hnsw_params p = {.metric = metric, .dim = dim, .capacity = capacity, .seed = 7};
    struct hnsw_err err = {0};
    struct hnsw *h = hnsw_new(&p, &err);
    if (!h)
        fail_msg("%s", err.msg);
    return h;
}

static inline void assert_sound(const struct hnsw *h, size_t max_unreachable)
{
    struct hnsw_err err = {0};
    size_t lost = 0;
    assert_ok(hnsw_check(h, &lost, &err), err);
    assert_true(lost <= max_unreachable);
}

/* How much of the exact answer the graph finds, mean over nq queries. */
static inline double recall(const struct hnsw *h, const float *q, size_t nq, const struct hnsw_query *p)
{
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit *a = calloc(p->k, sizeof(*a)), *b = calloc(p->k, sizeof(*b));
    struct hnsw_err err = {0};
    struct hnsw_query walk = *p;
    size_t same = 0, all = 0;
    walk.plan = HNSW_PLAN_WALK; // few elements would be scanned
    for (size_t i = 0; i < nq; i++) {
        size_t na = hnsw_search(h, q + i * hnsw_dim(h), &walk, ws, a, &err);
        size_t nb = hnsw_search_exact(h, q + i * hnsw_dim(h), p, ws, b, &err);
        assert_int_equal(err.code, HNSW_OK);
        assert_true(p->has_min_score ? na <= nb : na == nb); // never fewer than there are, but for recall at min_score
        for (size_t x = 0; x < na; x++)
            for (size_t y = 0; y < nb; y++)
                same += a[x].label == b[y].label;
        all += nb;
    }
    free(a);
    free(b);
    hnsw_ws_free(ws);
    return all ? (double)same / (double)all : 1;
}

#endif
