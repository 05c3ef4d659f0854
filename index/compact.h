/* compact.h - the compact layout of a finished graph: less than half the memory of the plain one, for reading only.
 * Place: made by hnsw_optimize (compact.c) or read from a file (compact_file.c), walked by compact_search.c; the other files of the
 * library ask through the functions below and hnsw_priv.h. It takes the place of the plain graph, which is freed.
 *
 *   code:  int16 [n][dim]        value j of a vector is mid[j] + step[j] * code[j]: 65,535 steps over what dimension j holds
 *   link:  [n][row] bytes        2 m numbers of `bits` bits, the lowest bit first: the links on level 0; all ones after their end
 *
 * An element goes by its number (order.c): neighbours lie near each other. The levels above 0 are gone: a walk begins at the best of
 * at most 1,024 elements spread evenly over the numbers, number 0, the graph's entry point, among them; their codes are there a
 * second time, one after the other. What these choices cost and bring: bench/results.md. */
#ifndef HNSW_COMPACT_H
#define HNSW_COMPACT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "index/hnsw.h"

struct compact {
    size_t n, dim, row;
    unsigned width, bits;   // links of an element; bits of a link
    float *mid, *step;      // [dim]
    int16_t *code;          // [n][dim]
    unsigned char *link;    // [n][row], and 8 bytes to read past the end
    int16_t *seed;          // [n_seed][dim] codes of the elements 0, seed_step, 2 seed_step, ...
    size_t n_seed, seed_step;
    uint32_t *label32;      // [n] of a number; NULL if a label needs more
    uint64_t *label64;      // [n] then
    uint32_t *by_label;     // [n] numbers in the order of their labels: of labels 0 .. n - 1 the number of each
};

// compact.c
struct compact *hnsw_compact_new(size_t n, size_t dim, unsigned width, bool wide_labels); // zeroed but for its shape; NULL: no memory
void hnsw_compact_free(struct compact *c);
size_t hnsw_compact_bytes(const struct compact *c);
size_t hnsw_compact_row(size_t n, unsigned width); // bytes of an element's links
void hnsw_compact_place(struct hnsw *h, struct compact *c, uint8_t *removed); // takes both in the place of the plain graph
void hnsw_compact_fill_seeds(struct compact *c);
enum hnsw_err_code hnsw_compact_sort_labels(struct compact *c, uint32_t *twice); // HNSW_FORMAT: number *twice has another's label
bool hnsw_compact_make(struct hnsw *h, unsigned threads, struct hnsw_err *err);
uint32_t hnsw_compact_find(const struct compact *c, uint64_t label); // NO_ID if unknown
void hnsw_compact_vector(const struct compact *c, uint32_t id, float *out);
bool hnsw_compact_refuses(const struct hnsw *h, const char *what, struct hnsw_err *err); // true and `err` set if h is compact

// compact_search.c
void hnsw_compact_query(const struct hnsw *h, const float *q, float *out); // [dim + 1]; q may be out
uint32_t hnsw_compact_start(const struct hnsw *h, const float *q, struct hnsw_ws *ws);
void hnsw_compact_walk(const struct hnsw *h, const float *q, uint32_t from, size_t ef, struct hnsw_ws *ws);

// compact_file.c
bool hnsw_compact_save(const struct hnsw *h, const char *path, struct hnsw_err *err);
bool hnsw_compact_check(const struct hnsw *h, struct hnsw_err *err); // all but entry, marks and reachability

static inline uint64_t compact_label(const struct compact *c, uint32_t id)
{
    return c->label32 ? c->label32[id] : c->label64[id];
}

static inline uint32_t compact_none(const struct compact *c)
{
    return (uint32_t)(((uint64_t)1 << c->bits) - 1);
}

/* All links of an element, compact_none() after the end, into out [width]; how many there are. */
static inline unsigned compact_links(const struct compact *c, uint32_t id, uint32_t *out)
{
    const unsigned char *row = c->link + (size_t)id * c->row;
    uint32_t none = compact_none(c);
    unsigned n = 0;
    for (unsigned i = 0; i < c->width; i++) {
        size_t bit = (size_t)i * c->bits;
        uint64_t word;
        memcpy(&word, row + bit / 8, sizeof(word));
        out[i] = (uint32_t)(word >> bit % 8) & none;
        n += out[i] != none;
    }
    return n;
}

#endif
