#include "core/facet.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/schema.h"

/* One value of one item, while sorting. The first eight bytes as a number decide nearly always, without a look at the
 * text. */
struct entry {
    uint64_t key;
    const char *p;
    uint32_t n, item;
};

struct entries {
    struct entry *e;
    size_t n, cap;
};

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

static int same_value(const struct entry *a, const struct entry *b)
{
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    if (a->n <= 8 && b->n <= 8)
        return a->n < b->n ? -1 : a->n > b->n;
    return by_text(a->p, a->n, b->p, b->n);
}

static int by_value(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int c = same_value(x, y);
    return c ? c : x->item < y->item ? -1 : x->item > y->item;
}

static bool add(struct entries *l, struct str s, uint32_t item, struct err *err)
{
    if (l->n == l->cap) {
        size_t cap = l->cap + l->cap / 2 + 64;
        struct entry *grown = mem_grow(l->e, cap, sizeof(*grown), err);
        if (!grown)
            return false;
        l->e = grown;
        l->cap = cap;
    }
    l->e[l->n++] = (struct entry){key_of(s), s.p, (uint32_t)s.n, item};
    return true;
}

static struct str text_of(const struct facet_source *s, uint32_t item)
{
    return strtab_get(s->values, s->of ? s->of[item] : item);
}

static bool add_item(struct entries *l, const struct facet_source *s, uint32_t item, struct err *err)
{
    struct str all = text_of(s, item), one;
    size_t before = l->n;
    if (!s->sep)
        return add(l, all, item, err);
    while (schema_multi_next(s->sep, &all.p, &all.n, &one))
        if (!add(l, one, item, err))
            return false;
    return l->n > before || add(l, (struct str){"", 0}, item, err);
}

/* An item that says a value twice has it once. */
static void drop_repeats(struct entries *l)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        if (n == 0 || by_value(&l->e[n - 1], &l->e[i]) != 0)
            l->e[n++] = l->e[i];
    l->n = n;
}

static size_t count_values(const struct entries *l)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        n += i == 0 || same_value(&l->e[i - 1], &l->e[i]) != 0;
    return n;
}

static void group(struct facet *f, const struct entries *l)
{
    for (size_t i = 0; i < l->n; i++) {
        f->item[i] = l->e[i].item;
        if (i == 0 || same_value(&l->e[i - 1], &l->e[i]) != 0)
            f->value[f->n_values++] =
                (struct facet_value){.text = {l->e[i].p, l->e[i].n}, .first = (uint32_t)i, .bits = FACET_NO_BITS};
        f->value[f->n_values - 1].n++;
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
    uint32_t item;
};

static int by_number(const void *a, const void *b)
{
    const struct number *x = a, *y = b;
    return x->v != y->v ? (x->v < y->v ? -1 : 1) : x->item < y->item ? -1 : x->item > y->item;
}

/* False with *n = 0 too where a value is no number and need not be one. */
static void read_numbers(const struct facet_source *s, struct number *out, uint32_t *n)
{
    *n = 0;
    for (uint32_t i = 0; i < s->n_items; i++) {
        struct str t = text_of(s, i);
        if (t.n == 0)
            continue;
        if (schema_parse_number(t.p, t.n, &out[*n].v)) {
            out[(*n)++].item = i;
        } else if (!s->numeric) {
            *n = 0;
            return;
        }
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
    struct number *all = mem_array(s->n_items, sizeof(*all), err);
    if (!all)
        return false;
    read_numbers(s, all, &f->n_numbers);
    qsort(all, f->n_numbers, sizeof(*all), by_number);
    if (f->n_numbers) {
        f->number = mem_array(f->n_numbers, sizeof(*f->number), err);
        f->number_item = mem_array(f->n_numbers, sizeof(*f->number_item), err);
    }
    bool ok = f->n_numbers == 0 || (f->number && f->number_item);
    for (uint32_t i = 0; ok && i < f->n_numbers; i++) {
        f->number[i] = all[i].v;
        f->number_item[i] = all[i].item;
    }
    free(all);
    return ok && (f->n_numbers == 0 || make_lowest(f, s->n_items, err));
}

// ------------------------------------------------------------------------------------------------------- the whole

static bool make_values(struct facet *f, struct entries *l, uint32_t n_items, struct err *err)
{
    qsort(l->e, l->n, sizeof(*l->e), by_value);
    drop_repeats(l);
    if (l->n >= UINT32_MAX)
        return err_set(err, ERR_LIMIT, "%zu values, fewer than 2^32 are allowed", l->n);
    f->n_entries = l->n;
    f->item = mem_array(l->n, sizeof(*f->item), err);
    f->value = mem_array(count_values(l), sizeof(*f->value), err);
    if (!f->item || !f->value)
        return false;
    group(f, l);
    return make_bits(f, n_items, err);
}

bool facet_init(struct facet *f, const struct facet_source *s, struct err *err)
{
    struct entries l = {.cap = s->n_items};
    l.e = mem_array(l.cap, sizeof(*l.e), err);
    bool ok = l.e != NULL;
    for (uint32_t i = 0; ok && i < s->n_items; i++)
        ok = add_item(&l, s, i, err);
    ok = ok && make_values(f, &l, s->n_items, err);
    free(l.e);
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
    struct entry want = {key_of(text), text.p, (uint32_t)text.n, 0};
    size_t lo = 0, hi = f->n_values;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const struct str t = f->value[mid].text;
        struct entry at = {key_of(t), t.p, (uint32_t)t.n, 0};
        int c = same_value(&at, &want);
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
