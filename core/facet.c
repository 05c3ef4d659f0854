#include "core/facet.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/hash.h"
#include "core/base/mem.h"
#include "core/base/pace.h"
#include "core/schema.h"

/* One value of one item. */
struct entry {
    uint32_t value, item; // value: of groups.v
};

/* A distinct value. The first eight bytes as a number decide an order nearly always, without a look at the text. */
struct distinct {
    uint64_t key;
    struct str text;
    uint32_t hash, n, last; // items that have it, the last of them
    uint32_t place;         // in the order of the texts
};

/* Values are told apart by a hash and only the distinct ones sorted: the items of each come in ascending order by
 * themselves. Sorting all of a million items' values took a sixth of a bundle's loading. */
struct groups {
    struct distinct *v;
    size_t n_v, cap_v;
    uint32_t *slot; // [n_slots], a power of two, of v or NO_VALUE: found by hash; [values->n], found by row where `of`
                    // is given
    size_t n_slots;
    struct entry *e; // by item
    size_t n, cap;
};

#define NO_VALUE UINT32_MAX

size_t facet_words(uint32_t n_items)
{
    return (size_t)n_items / 64 + 1;
}

static uint64_t key_of(struct str s)
{
    uint64_t key = 0;
    for (size_t i = 0; i < 8; i++)
        key = key << 8 | (i < s.n ? (unsigned char)s.p[i] : 0);
    return key;
}

static int by_text(const char *a, size_t n, const char *b, size_t m)
{
    int c = memcmp(a, b, n < m ? n : m);
    return c ? c : n < m ? -1 : n > m;
}

static int by_value(const void *a, const void *b)
{
    const struct distinct *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->text.n <= 8 && y->text.n <= 8)
        return x->text.n < y->text.n ? -1 : x->text.n > y->text.n;
    return by_text(x->text.p, x->text.n, y->text.p, y->text.n);
}

static bool room(void **p, size_t *cap, size_t n, size_t size, struct err *err)
{
    if (n < *cap)
        return true;
    size_t more = *cap + *cap / 2 + 64;
    void *grown = mem_grow(*p, more, size, err);
    if (!grown)
        return false;
    *p = grown;
    *cap = more;
    return true;
}

static bool set_slots(struct groups *g, size_t n, struct err *err)
{
    free(g->slot);
    if (!(g->slot = mem_array(n, sizeof(*g->slot), err)))
        return false;
    memset(g->slot, 0xff, n * sizeof(*g->slot));
    g->n_slots = n;
    return true;
}

static size_t free_slot(const struct groups *g, uint32_t hash)
{
    size_t at = hash & (g->n_slots - 1);
    while (g->slot[at] != NO_VALUE)
        at = (at + 1) & (g->n_slots - 1);
    return at;
}

static bool add_value(struct groups *g, struct str s, uint32_t hash, struct err *err)
{
    if (!room((void **)&g->v, &g->cap_v, g->n_v, sizeof(*g->v), err))
        return false;
    g->v[g->n_v++] = (struct distinct){.key = key_of(s), .text = s, .hash = hash, .last = NO_VALUE};
    return true;
}

/* The slot of a text: its value, a new one if need be. */
static bool find_value(struct groups *g, struct str s, uint32_t *value, struct err *err)
{
    uint32_t hash = (uint32_t)hash64(s.p, s.n);
    if (2 * g->n_v >= g->n_slots) {
        if (!set_slots(g, g->n_slots ? 2 * g->n_slots : 1024, err))
            return false;
        for (size_t i = 0; i < g->n_v; i++)
            g->slot[free_slot(g, g->v[i].hash)] = (uint32_t)i;
    }
    size_t at = hash & (g->n_slots - 1);
    for (; g->slot[at] != NO_VALUE; at = (at + 1) & (g->n_slots - 1)) {
        const struct distinct *d = &g->v[g->slot[at]];
        if (d->hash == hash && d->text.n == s.n && memcmp(d->text.p, s.p, s.n) == 0) {
            *value = g->slot[at];
            return true;
        }
    }
    *value = g->slot[at] = (uint32_t)g->n_v;
    return add_value(g, s, hash, err);
}

/* An item that says a value twice has it once. */
static bool add_entry(struct groups *g, uint32_t value, uint32_t item, struct err *err)
{
    struct distinct *d = &g->v[value];
    if (d->last == item)
        return true;
    if (!room((void **)&g->e, &g->cap, g->n, sizeof(*g->e), err))
        return false;
    d->last = item;
    d->n++;
    g->e[g->n++] = (struct entry){value, item};
    return true;
}

static bool add(struct groups *g, struct str s, uint32_t item, struct err *err)
{
    uint32_t value;
    return find_value(g, s, &value, err) && add_entry(g, value, item, err);
}

static bool add_item(struct groups *g, const struct facet_source *s, uint32_t item, struct err *err)
{
    struct str all = strtab_get(s->values, item), one;
    size_t before = g->n;
    if (!s->sep)
        return add(g, all, item, err);
    while (schema_multi_next(s->sep, &all.p, &all.n, &one))
        if (!add(g, one, item, err))
            return false;
    return g->n > before || add(g, (struct str){"", 0}, item, err);
}

/* Where items name rows of a table of distinct values, no text need be looked at. */
static bool add_row(struct groups *g, const struct facet_source *s, uint32_t item, struct err *err)
{
    uint32_t row = s->of[item];
    if (g->slot[row] == NO_VALUE) {
        g->slot[row] = (uint32_t)g->n_v;
        if (!add_value(g, strtab_get(s->values, row), 0, err))
            return false;
    }
    return add_entry(g, g->slot[row], item, err);
}

/* The values in the order of their texts, each with its items. */
static void group(struct facet *f, const struct groups *g, const struct distinct *sorted)
{
    size_t first = 0;
    for (size_t i = 0; i < g->n_v; i++) {
        const struct distinct *d = &sorted[i];
        f->value[i] = (struct facet_value){.text = d->text, .first = (uint32_t)first, .bits = FACET_NO_BITS};
        first += d->n;
    }
    f->n_values = (uint32_t)g->n_v;
    for (size_t i = 0; i < g->n; i++) {
        struct facet_value *v = &f->value[g->v[g->e[i].value].place];
        f->item[v->first + v->n++] = g->e[i].item;
    }
}

static bool make_bits(struct facet *f, uint32_t n_items, struct err *err)
{
    size_t words = facet_words(n_items);
    for (uint32_t v = 0; v < f->n_values; v++)
        if (f->value[v].n > n_items / FACET_DENSE)
            f->value[v].bits = f->n_bits++;
    if (!(f->bits = mem_array(f->n_bits * words, sizeof(*f->bits), err)))
        return false;
    for (uint32_t v = 0; v < f->n_values; v++) {
        const struct facet_value *x = &f->value[v];
        for (uint32_t i = 0; x->bits != FACET_NO_BITS && i < x->n; i++) {
            uint32_t item = f->item[x->first + i];
            f->bits[x->bits * words + (item >> 6)] |= (uint64_t)1 << (item & 63);
        }
    }
    return true;
}

// -------------------------------------------------------------------------------------------------------- numbers

struct number {
    double v;
    uint32_t value; // of facet.value
};

static int by_number(const void *a, const void *b)
{
    const struct number *x = a, *y = b;
    return x->v < y->v ? -1 : x->v > y->v;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The values that are numbers, sorted; none where a value is no number and need not be one. */
static uint32_t read_numbers(const struct facet *f, bool numeric, struct number *out)
{
    uint32_t n = 0;
    for (uint32_t v = 0; v < f->n_values; v++) {
        struct str t = f->value[v].text;
        if (t.n == 0)
            continue;
        if (schema_parse_number(t.p, t.n, &out[n].v))
            out[n++].value = v;
        else if (!numeric)
            return 0;
    }
    qsort(out, n, sizeof(*out), by_number);
    return n;
}

/* The items of each number, ascending; one number may have several texts. */
static void put_numbers(struct facet *f, const struct number *all, uint32_t n)
{
    uint32_t at = 0;
    for (uint32_t i = 0, end; i < n; i = end) {
        uint32_t from = at;
        for (end = i; end < n && !(all[end].v > all[i].v); end++) {
            const struct facet_value *x = &f->value[all[end].value];
            memcpy(f->number_item + at, f->item + x->first, x->n * sizeof(*f->number_item));
            at += x->n;
        }
        if (end - i > 1)
            qsort(f->number_item + from, at - from, sizeof(*f->number_item), ascending);
        for (; from < at; from++)
            f->number[from] = all[i].v;
    }
}

static bool make_lowest(struct facet *f, uint32_t n_items, struct err *err)
{
    size_t words = facet_words(n_items);
    f->step = f->n_numbers / FACET_STEPS + 1;
    if (!(f->lowest = mem_array(FACET_STEPS * words, sizeof(*f->lowest), err)))
        return false;
    for (uint32_t s = 1; s < FACET_STEPS; s++) {
        uint64_t *bits = f->lowest + s * words;
        memcpy(bits, bits - words, words * sizeof(*bits));
        for (uint32_t i = (s - 1) * f->step; i < s * f->step && i < f->n_numbers; i++)
            bits[f->number_item[i] >> 6] |= (uint64_t)1 << (f->number_item[i] & 63);
    }
    return true;
}

static bool make_numbers(struct facet *f, const struct facet_source *s, struct err *err)
{
    struct number *all = mem_array(f->n_values, sizeof(*all), err);
    if (!all)
        return false;
    uint32_t n = read_numbers(f, s->numeric, all);
    for (uint32_t i = 0; i < n; i++)
        f->n_numbers += f->value[all[i].value].n;
    bool ok = true;
    if (f->n_numbers) {
        f->number = mem_array(f->n_numbers, sizeof(*f->number), err);
        f->number_item = mem_array(f->n_numbers, sizeof(*f->number_item), err);
        ok = f->number && f->number_item;
    }
    if (ok)
        put_numbers(f, all, n);
    free(all);
    return ok && (f->n_numbers == 0 || make_lowest(f, s->n_items, err));
}

// ------------------------------------------------------------------------------------------------------- the whole

static bool make_values(struct facet *f, struct groups *g, uint32_t n_items, struct err *err)
{
    struct distinct *sorted = mem_array(g->n_v, sizeof(*sorted), err);
    if (!sorted)
        return false;
    for (size_t i = 0; i < g->n_v; i++) {
        sorted[i] = g->v[i];
        sorted[i].place = (uint32_t)i;
    }
    qsort(sorted, g->n_v, sizeof(*sorted), by_value);
    for (size_t i = 0; i < g->n_v; i++)
        g->v[sorted[i].place].place = (uint32_t)i;
    f->n_entries = g->n;
    f->item = mem_array(g->n, sizeof(*f->item), err);
    f->value = mem_array(g->n_v, sizeof(*f->value), err);
    bool ok = f->item && f->value;
    if (ok)
        group(f, g, sorted);
    free(sorted);
    return ok && make_bits(f, n_items, err);
}

bool facet_init(struct facet *f, const struct facet_source *s, struct err *err)
{
    struct groups g = {.cap = s->n_items};
    g.e = mem_array(g.cap, sizeof(*g.e), err);
    bool ok = g.e && (!s->of || set_slots(&g, s->values->n, err));
    for (uint32_t i = 0; ok && i < s->n_items; i++) {
        ok = (s->of ? add_row : add_item)(&g, s, i, err);
        pace_step(i);
        if (g.n >= UINT32_MAX)
            ok = err_set(err, ERR_LIMIT, "%zu values, fewer than 2^32 are allowed", g.n);
    }
    ok = ok && make_values(f, &g, s->n_items, err);
    free(g.v);
    free(g.slot);
    free(g.e);
    return ok && (s->sep || make_numbers(f, s, err));
}

void facet_fini(struct facet *f)
{
    free(f->value);
    free(f->item);
    free(f->bits);
    free(f->number);
    free(f->number_item);
    free(f->lowest);
    memset(f, 0, sizeof(*f));
}

size_t facet_memory(const struct facet *f, uint32_t n_items)
{
    return f->n_values * sizeof(*f->value) + f->n_entries * sizeof(*f->item) +
           f->n_bits * facet_words(n_items) * sizeof(*f->bits) +
           f->n_numbers * (sizeof(*f->number) + sizeof(*f->number_item)) +
           (f->lowest ? FACET_STEPS * facet_words(n_items) * sizeof(*f->lowest) : 0);
}

const struct facet_value *facet_find(const struct facet *f, struct str text)
{
    const struct distinct want = {.key = key_of(text), .text = text};
    size_t lo = 0, hi = f->n_values;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const struct distinct at = {.key = key_of(f->value[mid].text), .text = f->value[mid].text};
        int c = by_value(&at, &want);
        if (c == 0)
            return &f->value[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* How many numbers are below v (or not above it). */
static uint32_t below(const struct facet *f, double v, bool or_equal)
{
    uint32_t lo = 0, hi = f->n_numbers;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (f->number[mid] < v || (or_equal && f->number[mid] == v))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

uint32_t facet_range(const struct facet *f, double lo, bool lo_open, double hi, bool hi_open, uint32_t *n)
{
    uint32_t first = below(f, lo, lo_open), end = below(f, hi, !hi_open);
    *n = end > first ? end - first : 0;
    return first;
}

/* Those of the first n numbers. */
static void flip_lowest(const struct facet *f, uint32_t n, size_t words, uint64_t *out)
{
    uint32_t s = n / f->step;
    const uint64_t *bits = f->lowest + s * words;
    for (size_t w = 0; s && w < words; w++)
        out[w] ^= bits[w];
    for (uint32_t i = s * f->step; i < n; i++)
        out[f->number_item[i] >> 6] ^= (uint64_t)1 << (f->number_item[i] & 63);
}

void facet_flip_range(const struct facet *f, uint32_t first, uint32_t n, uint32_t n_items, uint64_t *out)
{
    if (n < f->step) {
        for (uint32_t i = first; i < first + n; i++)
            out[f->number_item[i] >> 6] ^= (uint64_t)1 << (f->number_item[i] & 63);
        return;
    }
    flip_lowest(f, first, facet_words(n_items), out);
    flip_lowest(f, first + n, facet_words(n_items), out);
}
