/* fast.c - making the fast layout of fast.h from a finished graph. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"
#include "index/parallel.h"

#define AHEAD 4        // elements whose codes or links are asked for before they are needed
#define SEEDS_MAX 8192 // scanning so many codes takes 2 us; a descent through the levels they replace takes longer

void hnsw_fast_free(struct fast *p)
{
    if (!p)
        return;
    free(p->block);
    free(p->seed);
    free(p->flat);
    free(p->low);
    free(p->step);
    free(p->element);
    free(p);
}

size_t hnsw_fast_bytes(const struct fast *p)
{
    return p ? sizeof(*p) + (p->n + p->n_seed + (p->flat ? fast_blocks(p) : 0)) * p->stride + p->n * sizeof(*p->element) +
                   8 * (size_t)p->words * sizeof(float)
             : 0;
}

// ---------------------------------------------------------------------------------------------------------- codes

/* What the loops over all elements share. */
struct making {
    const struct hnsw *h;
    struct fast *p;
    const uint32_t *number; // [n] of an element
    unsigned char *code;    // [n][4 words] by number
};

static void find_range(const struct making *m, unsigned threads)
{
    struct fast *p = m->p;
    hnsw_range(m->h, threads, p->low, p->step);
    for (size_t j = 0; j < m->h->dim; j++)
        p->step[j] = (p->step[j] - p->low[j]) / 255;
}

/* Codes by number, zero beyond dim. */
static void encode_part(void *ctx, size_t from, size_t to)
{
    const struct making *m = ctx;
    const struct fast *p = m->p;
    size_t size = 4 * (size_t)p->words, dim = m->h->dim;
    float inv[HNSW_DIM_MAX];
    for (size_t j = 0; j < dim; j++)
        inv[j] = p->step[j] > 0 ? 1 / p->step[j] : 0;
    for (size_t i = from; i < to; i++) {
        const float *v = node_vec(m->h, p->element[i]);
        unsigned char *code = m->code + i * size;
        if (i + AHEAD < to)
            for (size_t at = 0; at < dim; at += HNSW_ALIGN / sizeof(float))
                __builtin_prefetch(node_vec(m->h, p->element[i + AHEAD]) + at);
        memset(code + size - 4, 0, 4);
        for (size_t j = 0; j < dim; j++) {
            float c = (v[j] - p->low[j]) * inv[j] + 0.5f;
            code[j] = (unsigned char)(c < 255 ? c : 255);
        }
    }
}

/* Neighbour number `at` of a block: block `number`, which is element `id`. */
static void put_neighbour(const struct hnsw *h, struct fast *p, unsigned char *block, unsigned at, uint32_t number,
                          const unsigned char *code)
{
    size_t group = at / FAST_GROUP, lane = at % FAST_GROUP;
    unsigned char *to = block + (fast_codes(p, block) - block) + group * p->words * 64 + lane * 4;
    memcpy(block + at * sizeof(number), &number, sizeof(number));
    for (unsigned w = 0; w < p->words; w++)
        memcpy(to + 64 * w, code + (size_t)number * 4 * p->words + 4 * w, 4);
    if (p->has_bias) {
        float bias = (float)hnsw_metric_norm2(node_vec(h, p->element[number]), h->dim);
        memcpy(block + (p->width + at) * sizeof(float), &bias, sizeof(bias));
    }
}

static void clear_block(struct fast *p, unsigned char *block)
{
    memset(block, 0, p->stride);
    memset(block, 0xff, p->width * sizeof(uint32_t));
}

/* The codes that block i will need, to the cache. */
static void ask_for_codes(const struct making *m, size_t i)
{
    const uint32_t *link = node_links(m->h, m->p->element[i], 0);
    size_t size = 4 * (size_t)m->p->words;
    for (unsigned j = 0; j < m->h->m0 && link[j] != NO_ID; j++)
        for (size_t at = 0; at < size; at += HNSW_ALIGN)
            __builtin_prefetch(m->code + m->number[link[j]] * size + at);
}

static void blocks_part(void *ctx, size_t from, size_t to)
{
    const struct making *m = ctx;
    struct fast *p = m->p;
    for (size_t i = from; i < to; i++) {
        unsigned char *block = p->block + i * p->stride;
        const uint32_t *link = node_links(m->h, p->element[i], 0);
        if (i + 2 * AHEAD < to)
            ask_for_links0(m->h, p->element[i + 2 * AHEAD]);
        if (i + AHEAD < to)
            ask_for_codes(m, i + AHEAD);
        clear_block(p, block);
        for (unsigned j = 0; j < m->h->m0 && link[j] != NO_ID; j++)
            put_neighbour(m->h, p, block, j, m->number[link[j]], m->code);
    }
}

// ---------------------------------------------------------------------------------------------------------- seeds

static size_t count_at(const struct hnsw *h, int level)
{
    size_t n = 0;
    for (size_t i = 0; i < h->n; i++)
        n += h->level[i] >= level;
    return n;
}

/* The lowest level that has few enough elements to be scanned. */
static int seed_level(const struct hnsw *h, size_t *n)
{
    int level = 0;
    while ((*n = count_at(h, level)) > SEEDS_MAX && level < h->max_level)
        level++;
    return level;
}

static bool fill_seeds(const struct hnsw *h, struct fast *p, const uint32_t *number, const unsigned char *code)
{
    size_t n, at = 0;
    int level = seed_level(h, &n);
    p->n_seed = (n + p->width - 1) / p->width;
    if (!(p->seed = hnsw_mem_block(p->n_seed, p->stride)))
        return false;
    for (size_t b = 0; b < p->n_seed; b++)
        clear_block(p, p->seed + b * p->stride);
    for (uint32_t i = 0; i < h->n; i++)
        if (h->level[i] >= level) {
            put_neighbour(h, p, p->seed + at / p->width * p->stride, (unsigned)(at % p->width), number[i], code);
            at++;
        }
    return true;
}

// -------------------------------------------------------------------------------------------------- all in a row

/* Blocks of elements by number. */
static void flat_part(void *ctx, size_t from, size_t to)
{
    const struct making *m = ctx;
    struct fast *p = m->p;
    for (size_t b = from; b < to; b++) {
        unsigned char *block = p->flat + b * p->stride;
        clear_block(p, block);
        for (size_t i = b * p->width; i < (b + 1) * p->width && i < p->n; i++)
            put_neighbour(m->h, p, block, (unsigned)(i % p->width), (uint32_t)i, m->code);
    }
}

static bool fill_flat(struct making *m, unsigned threads)
{
    struct fast *p = m->p;
    size_t n_blocks = (p->n + p->width - 1) / p->width;
    if (p->n_seed == n_blocks) // the seeds are of level 0: all
        return true;
    if (!(p->flat = hnsw_mem_block(n_blocks, p->stride)))
        return false;
    hnsw_parallel(threads, n_blocks, HNSW_PART / p->width + 1, flat_part, m);
    return true;
}

static double most_norm2(const struct hnsw *h)
{
    double most = h->metric == HNSW_COSINE ? 1.0001 : 0;
    for (uint32_t i = 0; i < h->n && h->metric != HNSW_COSINE; i++)
        most = fmax(most, hnsw_metric_norm2(node_vec(h, i), h->dim));
    return most;
}

// --------------------------------------------------------------------------------------------------------- making

static struct fast *fast_new(const struct hnsw *h)
{
    struct fast *p = hnsw_mem_new(1, sizeof(*p));
    if (!p)
        return NULL;
    p->width = (h->m0 + FAST_GROUP - 1) / FAST_GROUP * FAST_GROUP;
    p->words = (unsigned)(h->dim + 3) / 4;
    p->has_bias = h->metric == HNSW_L2;
    p->n = h->n;
    p->stride = p->width * (sizeof(uint32_t) + (p->has_bias ? sizeof(float) : 0) + 4 * (size_t)p->words);
    p->stride = (p->stride + HNSW_ALIGN - 1) / HNSW_ALIGN * HNSW_ALIGN;
    p->block = hnsw_mem_block(p->n, p->stride);
    p->element = hnsw_mem_block(h->n, sizeof(*p->element));
    p->low = hnsw_mem_new(h->dim, sizeof(float));
    p->step = hnsw_mem_new(h->dim, sizeof(float));
    if (p->block && p->element && p->low && p->step)
        return p;
    hnsw_fast_free(p);
    return NULL;
}

static bool plain_labels(const struct hnsw *h)
{
    for (size_t i = 0; i < h->n; i++)
        if (h->label[i] != i)
            return false;
    return true;
}

struct fast *hnsw_fast_make(const struct hnsw *h, unsigned threads)
{
    struct making m = {.h = h, .p = fast_new(h)};
    uint32_t *number = m.p ? hnsw_order(h, m.p->element) : NULL;
    m.number = number;
    m.code = number ? hnsw_mem_block(h->n, 4 * (size_t)m.p->words) : NULL;
    if (m.code) {
        find_range(&m, threads);
        hnsw_parallel(threads, h->n, HNSW_PART, encode_part, &m);
        hnsw_parallel(threads, h->n, HNSW_PART, blocks_part, &m);
    }
    bool ok = m.code && fill_seeds(h, m.p, number, m.code) && fill_flat(&m, threads);
    free(m.code);
    free(number);
    if (ok) {
        m.p->plain_labels = plain_labels(h);
        m.p->most_norm2 = most_norm2(h);
        return m.p;
    }
    hnsw_fast_free(m.p);
    return NULL;
}

// --------------------------------------------------------------------------------------------------------- choosing

static void use_codes(struct hnsw *h, void *codes, bool on)
{
    h->fast = on ? codes : NULL;
}

static bool make_fast(struct hnsw *h, unsigned threads, struct hnsw_err *err)
{
    struct fast *p = hnsw_fast_make(h, threads);
    struct hnsw_ws *ws = p ? hnsw_ws_new() : NULL;
    bool ok = ws != NULL;
    if (!ok)
        hnsw_fail(err, HNSW_NOMEM, "optimize: no memory for %zu elements", h->n);
    else if (!(ok = h->n_removed > 0 || hnsw_codes_find_enough(h, use_codes, p, ws))) // with removals searches go by the graph anyway
        hnsw_fail(err, HNSW_ARG, "optimize: codes of 8 bits do not tell these vectors apart: a dimension's values differ by far more than "
                                 "neighbours do; wanted the plain layout");
    hnsw_ws_free(ws);
    if (ok)
        h->fast = p;
    else
        hnsw_fast_free(p);
    return ok;
}

bool hnsw_optimize(struct hnsw *h, enum hnsw_layout layout, unsigned threads, struct hnsw_err *err)
{
    if (layout != HNSW_COMPACT && hnsw_compact_refuses(h, "optimize", err))
        return false;
    switch (layout) {
    case HNSW_PLAIN:
        hnsw_fast_free(h->fast);
        h->fast = NULL;
        return true;
    case HNSW_FAST:
        return h->fast || h->n == 0 || make_fast(h, threads, err);
    case HNSW_COMPACT:
        return h->compact || hnsw_compact_make(h, threads, err);
    }
    return hnsw_fail(err, HNSW_ARG, "optimize: layout %d, wanted HNSW_PLAIN, HNSW_FAST or HNSW_COMPACT", (int)layout);
}
