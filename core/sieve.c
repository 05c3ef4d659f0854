#include "core/sieve.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/retrieve.h"

bool sieve_init(struct sieve *s, const struct items *it, struct err *err)
{
    size_t words = facet_words(it->n);
    *s = (struct sieve){.dropped = mem_array(words, sizeof(*s->dropped), err),
                        .allowed = mem_array(words, sizeof(*s->allowed), err)};
    return s->dropped && s->allowed;
}

void sieve_fini(struct sieve *s)
{
    free(s->dropped);
    free(s->allowed);
    filter_scratch_fini(&s->filter);
    *s = (struct sieve){0};
}

static void mark(uint64_t *bits, const uint32_t *idx, size_t n, bool on)
{
    for (size_t i = 0; i < n; i++)
        if (on)
            bits[idx[i] >> 6] |= (uint64_t)1 << (idx[i] & 63);
        else
            bits[idx[i] >> 6] = 0;
}

/* What the stored user has seen: [*n], NULL if nothing is known. */
static const uint32_t *seen_items(const struct bundle *b, const struct retrieve_query *q, size_t *n)
{
    const struct users *u = b->users;
    uint32_t row =
        q->exclude_seen && u->seen_off && q->user_id.p ? users_find(u, q->user_id.p, q->user_id.n) : STRTAB_NONE;
    *n = row == STRTAB_NONE ? 0 : (size_t)(u->seen_off[row + 1] - u->seen_off[row]);
    return row == STRTAB_NONE ? NULL : u->seen + u->seen_off[row];
}

static void mark_dropped(struct sieve *s, const struct bundle *b, const struct retrieve_query *q, bool on)
{
    size_t n;
    const uint32_t *seen = seen_items(b, q, &n);
    mark(s->dropped, seen, n, on);
    mark(s->dropped, q->exclude, q->n_exclude, on);
    s->n_dropped = on ? n + q->n_exclude : 0;
}

static void allow_categories(struct sieve *s, const struct items *it, const struct retrieve_query *q)
{
    memset(s->allowed, 0, facet_words(it->n) * sizeof(*s->allowed));
    for (size_t i = 0; i < q->n_category; i++) {
        uint32_t c = q->category[i], from = it->category_off[c];
        mark(s->allowed, it->category_item + from, it->category_off[c + 1] - from, true);
    }
    s->filters = true;
}

/* Of what was allowed so far, or of all items. */
static void forbid_categories(struct sieve *s, const struct items *it, const struct retrieve_query *q)
{
    size_t words = facet_words(it->n);
    if (!s->filters) {
        memset(s->allowed, 0xff, words * sizeof(*s->allowed));
        s->allowed[words - 1] = ((uint64_t)1 << it->n % 64) - 1;
    }
    for (size_t i = 0; i < q->n_not_category; i++)
        for (uint32_t c = q->not_category[i], at = it->category_off[c]; at < it->category_off[c + 1]; at++)
            s->allowed[it->category_item[at] >> 6] &= ~((uint64_t)1 << (it->category_item[at] & 63));
    s->filters = true;
}

/* What was allowed so far and is in `bits` too. */
static void allow_only(struct sieve *s, size_t words, const uint64_t *bits)
{
    for (size_t w = 0; w < words; w++)
        s->allowed[w] = s->filters ? s->allowed[w] & bits[w] : bits[w];
    s->filters = true;
}

static bool allow(struct sieve *s, const struct items *it, const struct retrieve_query *q, struct err *err)
{
    size_t words = facet_words(it->n);
    if (q->n_category)
        allow_categories(s, it, q);
    if (q->has_include) { // by way of `dropped`, which is empty now
        mark(s->dropped, q->include, q->n_include, true);
        allow_only(s, words, s->dropped);
        mark(s->dropped, q->include, q->n_include, false);
    }
    if (q->filter) {
        const uint64_t *own = filter_eval(q->filter, it, &s->filter, err);
        if (!own)
            return false;
        allow_only(s, words, own);
    }
    if (q->n_not_category)
        forbid_categories(s, it, q);
    s->n_allowed = s->filters ? 0 : it->n;
    for (size_t w = 0; s->filters && w < words; w++)
        s->n_allowed += (size_t)__builtin_popcountll(s->allowed[w]);
    return true;
}

bool sieve_set(struct sieve *s, const struct bundle *b, const struct retrieve_query *q, struct err *err)
{
    s->filters = false;
    if (!allow(s, b->items, q, err))
        return false;
    mark_dropped(s, b, q, true);
    return true;
}

void sieve_clear(struct sieve *s, const struct bundle *b, const struct retrieve_query *q)
{
    mark_dropped(s, b, q, false);
}

/* Whole words: `max` leaves room for one. */
size_t sieve_next(const struct sieve *s, size_t words, size_t *word, size_t max, uint32_t *idx)
{
    size_t n = 0;
    for (; *word < words && n + 64 <= max; (*word)++)
        for (uint64_t w = s->allowed[*word] & ~s->dropped[*word]; w; w &= w - 1)
            idx[n++] = (uint32_t)(*word * 64) + (uint32_t)__builtin_ctzll(w);
    return n;
}
