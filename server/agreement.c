#include "server/agreement.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/base/strtab.h"

struct agreement_place {
    uint32_t item, rank;
};

void agreement_scratch_fini(struct agreement_scratch *s)
{
    free(s->place);
    free(s->complete);
    *s = (struct agreement_scratch){0};
}

static bool room(struct agreement_scratch *s, size_t n_b, size_t depth)
{
    if (n_b > s->cap) {
        void *p = mem_grow(s->place, n_b, sizeof(*s->place), NULL);
        if (!p)
            return false;
        s->place = p;
        s->cap = n_b;
    }
    if (depth > s->cap_complete) {
        void *p = mem_grow(s->complete, depth, sizeof(*s->complete), NULL);
        if (!p)
            return false;
        s->complete = p;
        s->cap_complete = depth;
    }
    return true;
}

static int by_item(const void *x, const void *y)
{
    uint32_t a = ((const struct agreement_place *)x)->item, b = ((const struct agreement_place *)y)->item;
    return a < b ? -1 : a > b;
}

/* An item is among the first d of both from the greater of its ranks on: complete[d] counts those of which that is d. */
static void count_common(const struct retrieve_hit *a, size_t n_a, const struct retrieve_hit *b, size_t n_b, struct agreement_scratch *s,
                         struct agreement *out)
{
    double drift = 0;
    for (size_t i = 0; i < n_b; i++)
        s->place[i] = (struct agreement_place){b[i].item_idx, (uint32_t)i};
    if (n_b)
        qsort(s->place, n_b, sizeof(s->place[0]), by_item);
    for (size_t i = 0; i < n_a; i++) {
        struct agreement_place key = {a[i].item_idx, 0}, *at = NULL;
        if (key.item != STRTAB_NONE && n_b)
            at = bsearch(&key, s->place, n_b, sizeof(key), by_item);
        if (!at)
            continue;
        s->complete[at->rank > i ? at->rank : i]++;
        drift += fabs((double)b[at->rank].score - (double)a[i].score);
        out->n_common++;
    }
    out->drift = out->n_common ? drift / (double)out->n_common : 0;
}

bool agreement_of(const struct retrieve_hit *a, size_t n_a, const struct retrieve_hit *b, size_t n_b, struct agreement_scratch *s,
                  struct agreement *out)
{
    size_t depth = n_a > n_b ? n_a : n_b;
    *out = (struct agreement){.overlap = 1, .rbo = 1};
    if (depth == 0)
        return true;
    if (!room(s, n_b, depth))
        return false;
    memset(s->complete, 0, depth * sizeof(s->complete[0]));
    count_common(a, n_a, b, n_b, s, out);
    double weight = 1, sum = 0, common = 0; // weight = p^d
    for (size_t d = 1; d <= depth; d++) {
        common += s->complete[d - 1];
        weight *= AGREEMENT_P;
        sum += common / (double)d * weight;
    }
    out->overlap = common / (double)depth;
    out->rbo = out->overlap * weight + (1 - AGREEMENT_P) / AGREEMENT_P * sum;
    return true;
}
