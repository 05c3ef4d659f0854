/* fast.c - making the fast layout of fast.h from a finished graph. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

#define AHEAD 4        // elements whose codes are asked for before they are needed
#define CLUSTER 64     // elements numbered together: some 70 KB of blocks
#define SEEDS_MAX 8192 // scanning so many codes takes 2 us; a descent through the levels they replace takes longer

void hnsw_fast_free(struct fast *p)
{
    if (!p)
        return;
    free(p->block);
    free(p->seed);
    free(p->low);
    free(p->step);
    free(p->element);
    free(p);
}

size_t hnsw_fast_bytes(const struct fast *p)
{
    return p ? sizeof(*p) + (p->n + p->n_seed) * p->stride + p->n * sizeof(*p->element) +
                   8 * (size_t)p->words * sizeof(float)
             : 0;
}

// ---------------------------------------------------------------------------------------------------------- codes

static void find_range(const struct hnsw *h, struct fast *p)
{
    for (size_t j = 0; j < h->dim; j++) {
        p->low[j] = INFINITY;
        p->step[j] = -INFINITY; // the highest, for now
    }
    for (uint32_t i = 0; i < h->n; i++) {
        const float *v = node_vec(h, i);
        for (size_t j = 0; j < h->dim; j++) {
            p->low[j] = v[j] < p->low[j] ? v[j] : p->low[j];
            p->step[j] = v[j] > p->step[j] ? v[j] : p->step[j];
        }
    }
    for (size_t j = 0; j < h->dim; j++)
        p->step[j] = (p->step[j] - p->low[j]) / 255;
}

/* code [n][4 words] by block, zero beyond dim */
static void encode(const struct hnsw *h, const struct fast *p, unsigned char *code)
{
    float inv[HNSW_DIM_MAX];
    for (size_t j = 0; j < h->dim; j++)
        inv[j] = p->step[j] > 0 ? 1 / p->step[j] : 0;
    for (uint32_t i = 0; i < h->n; i++, code += 4 * (size_t)p->words) {
        const float *v = node_vec(h, p->element[i]);
        memset(code + 4 * ((size_t)p->words - 1), 0, 4);
        for (size_t j = 0; j < h->dim; j++) {
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
static void ask_for_codes(const struct hnsw *h, const struct fast *p, uint32_t i, const uint32_t *number,
                          const unsigned char *code)
{
    const uint32_t *link = node_links(h, p->element[i], 0);
    size_t size = 4 * (size_t)p->words;
    for (unsigned j = 0; j < h->m0 && link[j] != NO_ID; j++)
        for (size_t at = 0; at < size; at += HNSW_ALIGN)
            __builtin_prefetch(code + number[link[j]] * size + at);
}

static void fill_blocks(const struct hnsw *h, struct fast *p, const uint32_t *number, const unsigned char *code)
{
    for (uint32_t i = 0; i < h->n; i++) {
        unsigned char *block = p->block + i * p->stride;
        const uint32_t *link = node_links(h, p->element[i], 0);
        if (i + AHEAD < h->n)
            ask_for_codes(h, p, i + AHEAD, number, code);
        clear_block(p, block);
        for (unsigned j = 0; j < h->m0 && link[j] != NO_ID; j++)
            put_neighbour(h, p, block, j, number[link[j]], code);
    }
}

// ---------------------------------------------------------------------------------------------------------- order

struct ordering {
    const struct hnsw *h;
    uint32_t *number;  // [n] of an element, or NO_ID
    uint32_t *element; // [n] of a number
    uint32_t *queue;   // [n] elements from which clusters may begin, each once
    uint8_t *queued;   // [n]
    size_t n, tail;
};

/* Number an element and those around it, breadth first, up to CLUSTER of them; those at the edge may begin others. */
static void number_cluster(struct ordering *o, uint32_t from)
{
    size_t begin = o->n;
    o->number[from] = (uint32_t)o->n;
    o->element[o->n++] = from;
    for (size_t i = begin; i < o->n; i++) {
        const uint32_t *link = node_links(o->h, o->element[i], 0);
        for (unsigned j = 0; j < o->h->m0 && link[j] != NO_ID; j++) {
            uint32_t to = link[j];
            if (o->number[to] != NO_ID)
                continue;
            if (o->n - begin < CLUSTER) {
                o->number[to] = (uint32_t)o->n;
                o->element[o->n++] = to;
            } else if (!o->queued[to]) {
                o->queued[to] = 1;
                o->queue[o->tail++] = to;
            }
        }
    }
}

static void number_all(struct ordering *o)
{
    size_t head = 0;
    memset(o->number, 0xff, o->h->n * sizeof(*o->number));
    number_cluster(o, o->h->entry);
    for (uint32_t i = 0; o->n < o->h->n; i++) { // what the entry point does not reach comes at the end
        for (; head < o->tail; head++)
            if (o->number[o->queue[head]] == NO_ID)
                number_cluster(o, o->queue[head]);
        if (o->number[i] == NO_ID)
            number_cluster(o, i);
    }
}

/* Number of each element, or NULL: out of memory. A walk stays in one region of the graph; so should its reads stay in
 * one of memory. */
static uint32_t *order(const struct hnsw *h, struct fast *p)
{
    struct ordering o = {.h = h, .element = p->element};
    o.number = hnsw_mem_block(h->n, sizeof(*o.number));
    o.queue = hnsw_mem_block(h->n, sizeof(*o.queue));
    o.queued = hnsw_mem_new(h->n, 1);
    bool ok = o.number && o.queue && o.queued;
    if (ok)
        number_all(&o);
    else
        free(o.number);
    free(o.queue);
    free(o.queued);
    return ok ? o.number : NULL;
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

bool hnsw_optimize(struct hnsw *h, struct hnsw_err *err)
{
    if (h->fast || h->n == 0)
        return true;
    struct fast *p = fast_new(h);
    uint32_t *number = p ? order(h, p) : NULL;
    unsigned char *code = number ? hnsw_mem_block(h->n, 4 * (size_t)p->words) : NULL;
    if (code) {
        find_range(h, p);
        encode(h, p, code);
        fill_blocks(h, p, number, code);
    }
    bool ok = code && fill_seeds(h, p, number, code);
    free(code);
    free(number);
    if (ok) {
        p->plain_labels = plain_labels(h);
        h->fast = p;
        return true;
    }
    hnsw_fast_free(p);
    return hnsw_fail(err, HNSW_NOMEM, "optimize: no memory for %zu elements", h->n);
}
