/* compact.c - making the compact layout of compact.h from a finished graph, and what can be asked about it.
 *
 * 16-bit steps instead of fp16: for values of one range, as tower outputs are, they are some ten times as exact in the
 * same two bytes, and their upper bytes alone are what an 8-bit code would be, so walks have those for nothing. A link
 * needs as many bits as the number of elements does: 20 for a million. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"
#include "index/parallel.h"

#define SEEDS_MAX 1024   // scanning 64 KB of codes takes about 5 us
#define SEED_STEP_MIN 64 // a walk crosses a small graph at once
#define AHEAD 4          // elements that are asked for before they are needed
#define STEPS 65534      // from -32,767 to 32,767

// ------------------------------------------------------------------------------------------------------- storage

static unsigned bits_for(size_t n) // numbers below n and all ones
{
    unsigned bits = 1;
    while (((uint64_t)1 << bits) - 1 < n)
        bits++;
    return bits;
}

size_t hnsw_compact_row(size_t n, unsigned width)
{
    return ((size_t)width * bits_for(n) + 7) / 8;
}

/* The next `bytes` of c->block, on a cache line of their own; of a block that is not there yet only how far they go. */
static void *place(struct compact *c, size_t *at, size_t bytes)
{
    void *p = c->block ? c->block + *at : NULL;
    *at += (bytes + HNSW_ALIGN - 1) / HNSW_ALIGN * HNSW_ALIGN;
    return p;
}

/* All that a walk jumps about in comes first, on huge pages but for the last of it; how long it is. */
static size_t place_all(struct compact *c, bool wide_labels)
{
    size_t at = 0;
    c->code.hi = place(c, &at, c->n * c->dim + COMPACT_PAST);
    c->link = place(c, &at, c->n * c->row + sizeof(uint64_t));
    c->seed.hi = place(c, &at, c->n_seed * c->dim + COMPACT_PAST);
    c->code.lo = place(c, &at, c->n * c->dim);
    void *label = place(c, &at, c->n * (wide_labels ? sizeof(*c->label64) : sizeof(*c->label32)));
    c->label64 = wide_labels ? label : NULL;
    c->label32 = wide_labels ? NULL : label;
    c->seed.lo = place(c, &at, c->n_seed * c->dim);
    c->mid = place(c, &at, c->dim * sizeof(*c->mid));
    c->step = place(c, &at, c->dim * sizeof(*c->step));
    c->by_label = place(c, &at, c->n * sizeof(*c->by_label));
    return at;
}

struct compact *hnsw_compact_new(size_t n, size_t dim, unsigned width, bool wide_labels)
{
    struct compact *c = hnsw_mem_new(1, sizeof(*c));
    if (!c)
        return NULL;
    c->n = n;
    c->dim = dim;
    c->width = width;
    c->bits = bits_for(n);
    c->row = hnsw_compact_row(n, width);
    c->seed_step = (n + SEEDS_MAX - 1) / SEEDS_MAX;
    c->seed_step = c->seed_step < SEED_STEP_MIN ? SEED_STEP_MIN : c->seed_step;
    c->n_seed = (n + c->seed_step - 1) / c->seed_step;
    c->bytes = place_all(c, wide_labels);
    if (!(c->block = hnsw_mem_block(c->bytes, 1))) {
        free(c);
        return NULL;
    }
    place_all(c, wide_labels);
    memset(c->mid, 0, dim * sizeof(*c->mid));
    memset(c->step, 0, dim * sizeof(*c->step));
    memset(c->code.hi + n * dim, 0, COMPACT_PAST);
    memset(c->seed.hi + c->n_seed * dim, 0, COMPACT_PAST);
    memset(c->link + n * c->row, 0, sizeof(uint64_t));
    return c;
}

void hnsw_compact_free(struct compact *c)
{
    if (!c)
        return;
    hnsw_mem_block_free(c->block, c->bytes);
    free(c);
}

size_t hnsw_compact_bytes(const struct compact *c)
{
    return c ? sizeof(*c) + c->bytes : 0;
}

/* The greatest length and distance from `mid`, by upper bytes and half a step more in every dimension, so no vector has more. The
 * square of a small value is no float. */
static void find_greatest(struct compact *c, const struct hnsw_load_opts *how)
{
    double top = 0, radius = 0;
    for (size_t i = 0; i < c->n; i++) {
        const uint8_t *hi = c->code.hi + i * c->dim;
        double length = 0, distance = 0;
        for (size_t j = 0; j < c->dim; j++) {
            float off = c->step[j] * (float)(256 * hi[j] - 32768 + 128), half = c->step[j] * 128;
            float v = fabsf(c->mid[j] + off) + half, d = fabsf(off) + half;
            length += (double)v * (double)v;
            distance += (double)d * (double)d;
        }
        top = fmax(top, length);
        radius = fmax(radius, distance);
        hnsw_pace_step(how, i);
    }
    c->top = (float)sqrt(top);
    c->radius = (float)sqrt(radius);
}

void hnsw_compact_derive(struct compact *c, const struct hnsw_load_opts *how)
{
    for (size_t i = 0; i < c->n_seed; i++) {
        size_t from = i * c->seed_step * c->dim;
        memcpy(c->seed.hi + i * c->dim, c->code.hi + from, c->dim);
        memcpy(c->seed.lo + i * c->dim, c->code.lo + from, c->dim);
    }
    find_greatest(c, how);
}

// --------------------------------------------------------------------------------------------------------- labels

struct labelled {
    uint64_t label;
    uint32_t id;
};

static int by_label(const void *a, const void *b)
{
    uint64_t x = ((const struct labelled *)a)->label, y = ((const struct labelled *)b)->label;
    return (x > y) - (x < y);
}

/* Labels 0 .. n - 1 are their own places. */
static bool place_plain_labels(struct compact *c, const struct hnsw_load_opts *how)
{
    memset(c->by_label, 0xff, c->n * sizeof(*c->by_label));
    for (uint32_t i = 0; i < c->n; i++) {
        uint64_t l = compact_label(c, i);
        if (l >= c->n || c->by_label[l] != NO_ID)
            return false;
        c->by_label[l] = i;
        hnsw_pace_step(how, i);
    }
    return true;
}

enum hnsw_err_code hnsw_compact_sort_labels(struct compact *c, const struct hnsw_load_opts *how, uint32_t *twice)
{
    if (place_plain_labels(c, how))
        return HNSW_OK;
    struct labelled *all = hnsw_mem_block(c->n, sizeof(*all));
    if (!all)
        return HNSW_NOMEM;
    for (uint32_t i = 0; i < c->n; i++)
        all[i] = (struct labelled){compact_label(c, i), i};
    qsort(all, c->n, sizeof(*all), by_label);
    enum hnsw_err_code code = HNSW_OK;
    for (size_t i = 0; i < c->n; i++) {
        c->by_label[i] = all[i].id;
        if (i > 0 && all[i].label == all[i - 1].label) {
            *twice = all[i].id;
            code = HNSW_FORMAT;
        }
    }
    free(all);
    return code;
}

uint32_t hnsw_compact_find(const struct compact *c, uint64_t label)
{
    if (label < c->n && compact_label(c, c->by_label[label]) == label)
        return c->by_label[label];
    for (size_t low = 0, high = c->n; low < high;) {
        size_t at = low + (high - low) / 2;
        uint64_t found = compact_label(c, c->by_label[at]);
        if (found == label)
            return c->by_label[at];
        if (found < label)
            low = at + 1;
        else
            high = at;
    }
    return NO_ID;
}

// --------------------------------------------------------------------------------------------------------- making

static bool wide_labels(const struct hnsw *h)
{
    for (size_t i = 0; i < h->n; i++)
        if (h->label[i] > UINT32_MAX)
            return true;
    return false;
}

struct making {
    const struct hnsw *h;
    struct compact *c;
    const uint32_t *element, *number; // [n] of a number; of an element
    uint8_t *removed;                 // [n] by number; NULL if none are
};

static void find_steps(const struct hnsw *h, struct compact *c, unsigned threads)
{
    hnsw_range(h, threads, c->mid, c->step);
    for (size_t j = 0; j < c->dim; j++) {
        float range = c->step[j] - c->mid[j], step = range / STEPS;
        c->mid[j] += range / 2;
        c->step[j] = step >= FLT_MIN ? step : 0; // below, 1 / step could be infinite
    }
}

static void encode(const struct hnsw *h, struct compact *c, uint32_t number, uint32_t element)
{
    const float *v = node_vec(h, element);
    struct planes row = metric_row16(c->code, &number, 0, c->dim);
    for (size_t j = 0; j < c->dim; j++) {
        float x = c->step[j] > 0 ? (v[j] - c->mid[j]) / c->step[j] : 0; // a rounding beyond 32,767 at most
        long code = lrintf(x > STEPS / 2 ? STEPS / 2 : x < -STEPS / 2 ? -STEPS / 2 : x) + 32768;
        row.hi[j] = (uint8_t)(code >> 8);
        row.lo[j] = (uint8_t)code;
    }
}

static void pack_links(const struct hnsw *h, struct compact *c, uint32_t id, uint32_t element, const uint32_t *number)
{
    const uint32_t *link = node_links(h, element, 0);
    unsigned char row[ROW_MAX * sizeof(uint32_t) + sizeof(uint64_t)], *out = row;
    uint64_t word = 0;
    unsigned filled = 0; // bits of word, below 32
    for (unsigned i = 0; i < c->width; i++) {
        word |= (uint64_t)(link[i] == NO_ID ? compact_none(c) : number[link[i]]) << filled;
        filled += c->bits;
        if (filled >= 32) {
            memcpy(out, &word, sizeof(uint32_t));
            out += sizeof(uint32_t);
            word >>= 32;
            filled -= 32;
        }
    }
    memcpy(out, &word, sizeof(word));
    memcpy(c->link + (size_t)id * c->row, row, c->row);
}

static void make_part(void *ctx, size_t from, size_t to)
{
    const struct making *m = ctx;
    struct compact *c = m->c;
    for (size_t i = from; i < to; i++) {
        uint32_t element = m->element[i];
        if (i + AHEAD < to) {
            ask_for_vector(m->h, m->element[i + AHEAD]);
            ask_for_links0(m->h, m->element[i + AHEAD]);
        }
        encode(m->h, c, (uint32_t)i, element);
        pack_links(m->h, c, (uint32_t)i, element, m->number);
        if (c->label32)
            c->label32[i] = (uint32_t)m->h->label[element];
        else
            c->label64[i] = m->h->label[element];
        if (m->removed)
            m->removed[i] = m->h->removed[element];
    }
}

void hnsw_compact_place(struct hnsw *h, struct compact *c, uint8_t *removed)
{
    hnsw_graph_drop_parts(h);
    h->n = h->capacity = c->n;
    h->upper_n = h->upper_cap = 0;
    h->stride = 0;
    h->entry = c->n ? 0 : NO_ID;
    h->max_level = c->n ? 0 : -1;
    h->removed = removed;
    h->removed_low = 0;
    h->compact = c;
}

/* Fill c; `element` [n] is scratch. */
static bool fill(const struct hnsw *h, struct compact *c, uint32_t *element, uint8_t *removed, unsigned threads)
{
    uint32_t twice, *number = hnsw_order(h, element);
    struct making m = {h, c, element, number, removed};
    if (!number)
        return false;
    find_steps(h, c, threads);
    hnsw_parallel(threads, h->n, HNSW_PART, make_part, &m);
    free(number);
    hnsw_compact_derive(c, NULL);
    return hnsw_compact_sort_labels(c, NULL, &twice) == HNSW_OK;
}

bool hnsw_compact_make(struct hnsw *h, unsigned threads, struct hnsw_err *err)
{
    struct compact *c = hnsw_compact_new(h->n, h->dim, h->m0, wide_labels(h));
    uint32_t *element = hnsw_mem_block(h->n, sizeof(*element));
    uint8_t *removed = h->n_removed ? hnsw_mem_new(h->n, 1) : NULL;
    bool ok = c && element && (removed || !h->n_removed) && (h->n == 0 || fill(h, c, element, removed, threads));
    free(element);
    if (ok) {
        hnsw_compact_place(h, c, removed);
        (void)hnsw_compact_settle(h); // without memory to try out walks go by whole codes, which is always right
        return true;
    }
    free(removed);
    hnsw_compact_free(c);
    return hnsw_fail(err, HNSW_NOMEM, "optimize: no memory for %zu elements", h->n);
}

static void use_upper_bytes(struct hnsw *h, void *codes, bool on)
{
    ((struct compact *)codes)->coarse = on;
    (void)h;
}

bool hnsw_compact_settle(struct hnsw *h)
{
    struct compact *c = h->compact;
    c->coarse = false;
    c->spread = 0;
    if (h->metric == HNSW_L2 || h->n == 0 || h->n_removed > 0) // there walks go by whole codes
        return true;
    struct hnsw_ws *ws = hnsw_ws_new();
    if (ws)
        c->coarse = hnsw_codes_find_enough(h, use_upper_bytes, c, ws);
    if (c->coarse)
        c->spread = hnsw_compact_spread(h, ws);
    hnsw_ws_free(ws);
    return ws != NULL;
}

// --------------------------------------------------------------------------------------------------------- asking

void hnsw_compact_vector(const struct compact *c, uint32_t id, float *out)
{
    struct planes row = metric_row16(c->code, &id, 0, c->dim);
    for (size_t j = 0; j < c->dim; j++)
        out[j] = c->mid[j] + c->step[j] * metric_code16(row, j);
}

bool hnsw_compact_refuses(const struct hnsw *h, const char *what, struct hnsw_err *err)
{
    return h->compact &&
           !hnsw_fail(err, HNSW_ARG, "%s: found an index in the compact layout, which is read-only; wanted a plain one",
                      what);
}
