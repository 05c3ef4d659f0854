/* hnsw_sum.c - the checksum of index files: 64 bits, made for speed (a file is read as fast as memory allows), against
 * accidents.
 *
 * Eight lanes take turns with 64-bit little-endian words w:  lane = rotl(lane ^ w, 27) * P.  Each step is a bijection
 * of the lane for a given word and of the word for a given lane, and the lanes are folded by bijections too: so any
 * change within one word, and any single flipped bit above all, always changes the sum. docs/formats.md has the
 * definition that other programs need. */
#include <string.h>

#include "index/hnsw_priv.h"

#define P0 0x9e3779b97f4a7c15u // odd; 2^64 / golden ratio
#define P1 0xc2b2ae3d27d4eb4fu // odd
#define STRIPE sizeof(((struct hnsw_sum *)0)->part)

static inline uint64_t rotl(uint64_t x, int r)
{
    return (x << r) | (x >> (64 - r));
}

void hnsw_sum_init(struct hnsw_sum *s)
{
    memset(s, 0, sizeof(*s));
    for (unsigned i = 0; i < 8; i++)
        s->lane[i] = (i + 1) * P1;
}

static void stripes(uint64_t lane[8], const unsigned char *p, size_t n)
{
    uint64_t l[8], w[8];
    memcpy(l, lane, sizeof(l));
    for (; n > 0; n--, p += STRIPE) {
        memcpy(w, p, STRIPE);
        for (unsigned i = 0; i < 8; i++)
            l[i] = rotl(l[i] ^ w[i], 27) * P0;
    }
    memcpy(lane, l, sizeof(l));
}

void hnsw_sum_add(struct hnsw_sum *s, const void *data, size_t n)
{
    const unsigned char *p = data;
    size_t held = s->total % STRIPE;
    if (n == 0)
        return;
    s->total += n;
    if (held + n < STRIPE) {
        memcpy(s->part + held, p, n);
        return;
    }
    if (held > 0) {
        memcpy(s->part + held, p, STRIPE - held);
        stripes(s->lane, s->part, 1);
        p += STRIPE - held;
        n -= STRIPE - held;
    }
    stripes(s->lane, p, n / STRIPE);
    memcpy(s->part, p + n / STRIPE * STRIPE, n % STRIPE);
}

uint64_t hnsw_sum_end(const struct hnsw_sum *s)
{
    struct hnsw_sum t = *s;
    size_t held = t.total % STRIPE;
    memset(t.part + held, 0, STRIPE - held); // the length below tells padding from data
    stripes(t.lane, t.part, 1);
    uint64_t h = t.total * P1;
    for (unsigned i = 0; i < 8; i++) {
        h = rotl(h ^ t.lane[i], 29) * P0;
        h ^= h >> 32;
    }
    return h;
}

uint64_t hnsw_sum_of(const void *data, size_t n)
{
    struct hnsw_sum s;
    hnsw_sum_init(&s);
    hnsw_sum_add(&s, data, n);
    return hnsw_sum_end(&s);
}
