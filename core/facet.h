/* facet.h - where each value of an item attribute occurs: what filters are answered from. Built once at load.
 * Values:  an attribute that the schema has as multi-valued is cut at its separator, any other value stands for itself; "" stands for
 *          items without a value. An attribute whose values are all numbers (or that the schema has as numeric) has them as numbers too.
 * Form:    the items of a value are a list, ascending; of values that more than one item in FACET_DENSE has, also a bit set. That is
 *          what roaring bitmaps do within a chunk, decided once for the whole.
 * Place:   items.c builds them, filter.c reads them.
 * Threads: const once built. */
#ifndef DUET_FACET_H
#define DUET_FACET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/strtab.h"

#define FACET_DENSE 64
#define FACET_NO_BITS UINT32_MAX
#define FACET_STEPS 16

struct facet_value {
    struct str text;      // points into the items' own tables
    uint32_t first, n;    // in facet.item
    uint32_t bits;        // row of facet.bits, or FACET_NO_BITS
};

struct facet {
    struct facet_value *value; // [n_values] by text (memcmp, shorter first)
    uint32_t n_values;
    uint32_t *item;            // [n_entries] item_idx
    size_t n_entries;
    uint64_t *bits;            // [n_bits][facet_words]
    uint32_t n_bits;
    double *number;            // [n_numbers] ascending; NULL unless numeric
    uint32_t *number_item;     // [n_numbers] whose number it is
    uint32_t n_numbers;
    uint64_t *lowest;          // [FACET_STEPS][facet_words] the items of the first i * step numbers
    uint32_t step;             // of FACET_STEPS that n_numbers are cut into
};

struct facet_source {
    const struct strtab *values;
    const uint32_t *of;     // [n_items] row of `values` by item; NULL: the item's own row
    uint32_t n_items;
    char sep;               // multi-valued; 0 = not
    bool numeric;           // numbers even if some values are none
};

size_t facet_words(uint32_t n_items); // 64-bit words of a bit set over the items
/* A zeroed *f. Fini accepts zeroed and half-built. */
bool facet_init(struct facet *f, const struct facet_source *s, struct err *err);
void facet_fini(struct facet *f);
size_t facet_memory(const struct facet *f, uint32_t n_items);

const struct facet_value *facet_find(const struct facet *f, struct str text); // NULL if there is none
/* The numbers from lo to hi: the first of them and how many. */
uint32_t facet_range(const struct facet *f, double lo, bool lo_open, double hi, bool hi_open, uint32_t *n);
/* Flips in out[facet_words(n_items)] the bits of whose numbers they are: two bit sets and at most two steps, however many. */
void facet_flip_range(const struct facet *f, uint32_t first, uint32_t n, uint32_t n_items, uint64_t *out);

#endif
