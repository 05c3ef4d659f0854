/* hnsw_graph.c - storage of the graph: blocks, labels, levels, and what can be asked about it.
 * After hnswlib's hnswalg.h (Apache-2.0); own text. Differences: lists without counts, so that a block of d = 32, m =
 * 16 is four cache lines; links above level 0 in one array; levels drawn by place, so that they do not depend on
 * threads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "index/hnsw_priv.h"

#define DEFAULT_M 16 // the paper's range for most data; hnswlib's default
#define DEFAULT_EF_CONSTRUCTION 200

// ------------------------------------------------------------------------------------------------- making, growing

static bool params_ok(const struct hnsw_params *p, struct hnsw_err *err)
{
    if ((unsigned)p->metric > HNSW_L2)
        return hnsw_fail(err, HNSW_ARG, "metric is %d, wanted 0 (ip), 1 (cosine) or 2 (l2)", (int)p->metric);
    if (p->dim < 1 || p->dim > HNSW_DIM_MAX)
        return hnsw_fail(err, HNSW_ARG, "dim is %zu, wanted 1 to %d", p->dim, HNSW_DIM_MAX);
    if (p->m == 1 || p->m > HNSW_M_MAX)
        return hnsw_fail(err, HNSW_ARG, "m is %u, wanted 2 to %d", p->m, HNSW_M_MAX);
    if (p->capacity > ID_MAX)
        return hnsw_fail(err, HNSW_ARG, "capacity is %zu, wanted at most %u", p->capacity, ID_MAX);
    return true;
}

/* Large blocks start on a cache line; small ones would waste too much of it. */
size_t hnsw_graph_stride(size_t dim, size_t m)
{
    size_t bytes = dim * sizeof(float) + 2 * m * sizeof(uint32_t);
    size_t align = bytes >= 4 * HNSW_ALIGN ? HNSW_ALIGN : bytes >= HNSW_ALIGN ? 16 : sizeof(float);
    return (bytes + align - 1) / align * align;
}

static void set_shape(struct hnsw *h, const struct hnsw_params *p)
{
    h->metric = p->metric;
    h->dim = p->dim;
    h->m = p->m ? p->m : DEFAULT_M;
    h->m0 = 2 * h->m;
    h->ef_construction = p->ef_construction ? p->ef_construction : DEFAULT_EF_CONSTRUCTION;
    h->seed = p->seed;
    h->stride = hnsw_graph_stride(h->dim, h->m);
    h->entry = NO_ID;
    h->max_level = -1;
}

/* Arrays by element for `capacity` of them; what is there is kept. On failure the arrays are at least as large as
 * before. */
static bool fit_arrays(struct hnsw *h, size_t capacity)
{
    void *p;
#define GROW(field)                                                                                                    \
    if (!(p = hnsw_mem_grow(h->field, capacity, sizeof(*h->field))))                                                   \
        return false;                                                                                                  \
    h->field = p
    GROW(label);
    GROW(level);
    GROW(removed);
    GROW(upper_at);
#undef GROW
    return true;
}

struct hnsw *hnsw_graph_plain(const struct hnsw_params *p, size_t stride, bool mapped, struct hnsw_err *err)
{
    if (!params_ok(p, err))
        return NULL;
    struct hnsw *h = hnsw_mem_new(1, sizeof(*h));
    if (!h)
        goto nomem;
    set_shape(h, p);
    h->capacity = p->capacity;
    if (stride)
        h->stride = stride;
    if (!mapped && !(h->block = hnsw_mem_block(p->capacity, h->stride)))
        goto nomem;
    if (!fit_arrays(h, p->capacity))
        goto nomem;
    return h;
nomem:
    hnsw_fail(err, HNSW_NOMEM, "no memory for %zu elements of %zu dimensions", p->capacity, p->dim);
    hnsw_free(h);
    return NULL;
}

struct hnsw *hnsw_new(const struct hnsw_params *p, struct hnsw_err *err)
{
    return hnsw_graph_plain(p, 0, false, err);
}

struct hnsw *hnsw_graph_new(const struct hnsw_params *p, struct hnsw_err *err)
{
    struct hnsw *h = hnsw_graph_plain(p, 0, false, err);
    if (!h || hnsw_label_map_hash(&h->map, NULL, 0, p->capacity))
        return h;
    hnsw_fail(err, HNSW_NOMEM, "no memory for %zu labels", p->capacity);
    hnsw_free(h);
    return NULL;
}

void hnsw_graph_drop_block(struct hnsw *h)
{
    if (h->mapping)
        munmap(h->mapping, h->mapping_size);
    else
        hnsw_mem_block_free(h->block, h->capacity * h->stride);
    h->mapping = NULL;
    h->block = NULL;
}

void hnsw_graph_drop_parts(struct hnsw *h)
{
    hnsw_graph_drop_block(h);
    free(h->label);
    free(h->level);
    free(h->removed);
    free(h->upper_at);
    free(h->upper);
    free(h->ways);
    hnsw_label_map_fini(&h->map);
    hnsw_builder_free(h->builder);
    hnsw_fast_free(h->fast);
    h->label = NULL;
    h->level = h->removed = NULL;
    h->upper_at = h->upper = NULL;
    h->builder = NULL;
    h->fast = NULL;
    h->ways = NULL;
    h->ways_cap = 0;
}

void hnsw_free(struct hnsw *h)
{
    if (!h)
        return;
    hnsw_graph_drop_parts(h);
    hnsw_compact_free(h->compact);
    free(h);
}

bool hnsw_resize(struct hnsw *h, size_t capacity, struct hnsw_err *err)
{
    if (hnsw_compact_refuses(h, "resize", err))
        return false;
    if (capacity < h->n)
        return hnsw_fail(err, HNSW_ARG, "capacity is %zu, but the index holds %zu elements", capacity, h->n);
    if (capacity > ID_MAX)
        return hnsw_fail(err, HNSW_ARG, "capacity is %zu, wanted at most %u", capacity, ID_MAX);
    unsigned char *block = hnsw_mem_block(capacity, h->stride);
    if (!block || (h->map.slot && !hnsw_label_map_hash(&h->map, h->label, h->n, capacity))) {
        free(block);
        return hnsw_fail(err, HNSW_NOMEM, "no memory for %zu elements", capacity);
    }
    memcpy(block, h->block, h->n * h->stride);
    hnsw_graph_drop_block(h);
    h->block = block;
    if (!fit_arrays(h, capacity)) { // harmless: a larger map and block
        h->capacity = capacity < h->capacity ? capacity : h->capacity;
        return hnsw_fail(err, HNSW_NOMEM, "no memory for %zu elements", capacity);
    }
    h->capacity = capacity;
    return true;
}

bool hnsw_graph_own(struct hnsw *h, struct hnsw_err *err)
{
    return !h->mapping || hnsw_resize(h, h->capacity, err);
}

// ------------------------------------------------------------------------------------------------------- elements

bool hnsw_graph_reserve_upper(struct hnsw *h, size_t n_lists)
{
    size_t want = h->upper_n + n_lists;
    if (want <= h->upper_cap)
        return true;
    if (want > UINT32_MAX)
        return false;
    if (want < h->upper_cap + h->upper_cap / 2) // one by one: grow in proportion
        want = h->upper_cap + h->upper_cap / 2;
    uint32_t *p = hnsw_mem_grow(h->upper, want, h->m * sizeof(*p));
    if (!p)
        return false;
    h->upper = p;
    h->upper_cap = want;
    return true;
}

static uint64_t mix64(uint64_t x) // splitmix64's finish: every bit of x reaches every bit
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* HNSW alg. 1 line 4: floor(-ln(u) / ln(m)), u uniform in (0, 1]. */
int hnsw_graph_draw_level(const struct hnsw *h, size_t place)
{
    uint64_t bits = mix64(h->seed + ((uint64_t)place + 1) * 0x9e3779b97f4a7c15u);
    double u = ((double)(bits >> 11) + 1) * 0x1p-53;
    int level = (int)(-log(u) / log(h->m));
    return level < LEVEL_MAX ? level : LEVEL_MAX;
}

void hnsw_graph_place(struct hnsw *h, uint32_t id, uint64_t label, int level)
{
    h->label[id] = label;
    h->level[id] = (uint8_t)level;
    h->removed[id] = 0;
    h->upper_at[id] = level > 0 ? (uint32_t)h->upper_n : 0;
    memset(node_links(h, id, 0), 0xff, h->m0 * sizeof(uint32_t));
    if (level > 0)
        memset(h->upper + h->upper_n * h->m, 0xff, (size_t)level * h->m * sizeof(uint32_t));
    h->upper_n += (size_t)level;
}

bool hnsw_remove(struct hnsw *h, uint64_t label, struct hnsw_err *err)
{
    if (hnsw_compact_refuses(h, "remove", err))
        return false;
    uint32_t id = hnsw_label_map_find(&h->map, h->label, label);
    if (id == NO_ID || h->removed[id])
        return hnsw_fail(err, HNSW_NOT_FOUND, "label %llu is not in the index", (unsigned long long)label);
    h->removed[id] = 1;
    h->n_removed++;
    if (id < h->removed_low)
        h->removed_low = id;
    return true;
}

// --------------------------------------------------------------------------------------------------------- asking

enum hnsw_metric hnsw_get_metric(const struct hnsw *h)
{
    return h->metric;
}

size_t hnsw_dim(const struct hnsw *h)
{
    return h->dim;
}

size_t hnsw_count(const struct hnsw *h)
{
    return h->n - h->n_removed;
}

size_t hnsw_capacity(const struct hnsw *h)
{
    return h->capacity;
}

uint32_t hnsw_place_of(const struct hnsw *h, uint64_t label)
{
    return h->compact ? hnsw_compact_find(h->compact, label) : hnsw_label_map_find(&h->map, h->label, label);
}

const float *hnsw_vector(const struct hnsw *h, uint64_t label)
{
    uint32_t id = hnsw_place_of(h, label);
    return h->compact || id == NO_ID || h->removed[id] ? NULL : node_vec(h, id);
}

bool hnsw_get_vector(const struct hnsw *h, uint64_t label, float *out)
{
    uint32_t id = hnsw_place_of(h, label);
    if (id == NO_ID || is_removed(h, id))
        return false;
    if (h->compact)
        hnsw_compact_vector(h->compact, id, out);
    else
        memcpy(out, node_vec(h, id), h->dim * sizeof(*out));
    return true;
}

void hnsw_labels(const struct hnsw *h, uint64_t *label)
{
    for (uint32_t i = 0; i < h->n; i++)
        if (!is_removed(h, i))
            *label++ = label_of(h, i);
}

enum hnsw_layout hnsw_get_layout(const struct hnsw *h)
{
    return h->compact ? HNSW_COMPACT : h->fast ? HNSW_FAST : HNSW_PLAIN;
}

const char *hnsw_layout_name(enum hnsw_layout layout)
{
    static const char *const names[] = {[HNSW_PLAIN] = "plain", [HNSW_FAST] = "fast", [HNSW_COMPACT] = "compact"};
    return names[layout];
}

size_t hnsw_bytes(const struct hnsw *h)
{
    if (h->compact)
        return sizeof(*h) + hnsw_compact_bytes(h->compact) + (h->n_removed ? h->n : 0);
    size_t by_element = h->stride + sizeof(*h->label) + sizeof(*h->level) + sizeof(*h->removed) + sizeof(*h->upper_at);
    size_t mapped = h->mapping ? h->capacity * h->stride : 0;
    return sizeof(*h) + h->capacity * by_element - mapped + h->upper_cap * h->m * sizeof(uint32_t) +
           hnsw_label_map_bytes(&h->map) + h->ways_cap * sizeof(*h->ways) + hnsw_fast_bytes(h->fast);
}

void hnsw_get_stats(const struct hnsw *h, struct hnsw_stats *s)
{
    uint32_t link[ROW_MAX];
    size_t links = 0;
    *s = (struct hnsw_stats){.n = h->n, .n_removed = h->n_removed, .capacity = h->capacity, .bytes = hnsw_bytes(h)};
    s->m = h->m;
    s->ef_construction = h->ef_construction;
    s->max_level = h->max_level < 0 ? 0 : (unsigned)h->max_level;
    s->seed = h->seed;
    s->kernel = hnsw_kernel();
    for (uint32_t i = 0; i < h->n; i++) {
        unsigned c = links0(h, i, link);
        links += c;
        s->n_links0_zero += c == 0;
    }
    s->mean_degree0 = h->n ? (double)links / (double)h->n : 0;
}
