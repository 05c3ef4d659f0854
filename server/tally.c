#include "server/tally.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/base/mem.h"
#include "server/chi2.h"

#define SLOTS (2u * TALLY_UNITS) // open addressing at most half full
#define VARIANT_MASK ((uint64_t)(TALLY_VARIANTS_MAX - 1))

struct tally {
    _Atomic unsigned refs;
    size_t n;
    uint32_t share[TALLY_VARIANTS_MAX];
    _Atomic uint64_t threshold; // hashes above are not kept
    pthread_mutex_t lock;       // guards changes of the slots, and these two
    size_t used;
    uint64_t count[TALLY_VARIANTS_MAX];
    struct outcomes *outcomes;
    pthread_mutex_t shadow_lock; // guards shadow, n_drift
    struct tally_shadow shadow[TALLY_VARIANTS_MAX];
    uint64_t n_drift[TALLY_VARIANTS_MAX];
    _Atomic uint64_t *slot; // [SLOTS] hash, its low bits replaced by the variant; 0 = free
};

struct tally *tally_new(const uint32_t *share, size_t n, struct err *err)
{
    struct tally *t = mem_array(1, sizeof(*t), err);
    if (!t)
        return NULL;
    atomic_init(&t->refs, 1);
    atomic_init(&t->threshold, UINT64_MAX);
    pthread_mutex_init(&t->lock, NULL);
    pthread_mutex_init(&t->shadow_lock, NULL);
    t->n = n;
    for (size_t v = 0; v < n; v++)
        t->share[v] = share[v];
    if (!(t->outcomes = outcomes_new(n, err)) || !(t->slot = mem_array(SLOTS, sizeof(*t->slot), err))) {
        tally_unref(t);
        return NULL;
    }
    return t;
}

struct tally *tally_ref(struct tally *t)
{
    if (t)
        atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void tally_unref(struct tally *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    pthread_mutex_destroy(&t->lock);
    pthread_mutex_destroy(&t->shadow_lock);
    outcomes_free(t->outcomes);
    free(t->slot);
    free(t);
}

struct outcomes *tally_outcomes(struct tally *t)
{
    return t->outcomes;
}

// ------------------------------------------------------------------------------------------------------- units

/* Where the key is, or where it would go. After a halving the high bits of all hashes are zero, so the low ones choose. */
static size_t place_of(const struct tally *t, uint64_t key)
{
    size_t i = (size_t)(key / TALLY_VARIANTS_MAX) % SLOTS;
    for (;;) {
        uint64_t at = atomic_load_explicit(&t->slot[i], memory_order_relaxed);
        if (at == key || at == 0)
            return i;
        i = (i + 1) % SLOTS;
    }
}

static bool seen(const struct tally *t, uint64_t key)
{
    return atomic_load_explicit(&t->slot[place_of(t, key)], memory_order_relaxed) == key;
}

/* With the lock. */
static void keep(struct tally *t, uint64_t key)
{
    atomic_store_explicit(&t->slot[place_of(t, key)], key, memory_order_relaxed);
    t->count[key & VARIANT_MASK]++;
    t->used++;
}

/* With the lock: half the threshold, and what is above it goes. Free slots are met meanwhile by loops that look: they try the lock, and
 * give up. */
static void halve(struct tally *t)
{
    uint64_t *kept = mem_array(t->used, sizeof(*kept), NULL), threshold = atomic_load(&t->threshold) / 2;
    size_t n = 0;
    if (!kept)
        return; // full: new units are let go until there is memory
    atomic_store(&t->threshold, threshold);
    for (size_t i = 0; i < SLOTS; i++) {
        uint64_t key = atomic_exchange_explicit(&t->slot[i], 0, memory_order_relaxed);
        if (key && (key | VARIANT_MASK) <= threshold)
            kept[n++] = key;
    }
    t->used = 0;
    for (size_t v = 0; v < t->n; v++)
        t->count[v] = 0;
    for (size_t i = 0; i < n; i++)
        keep(t, kept[i]);
    free(kept);
}

void tally_unit(struct tally *t, uint64_t hash, unsigned variant)
{
    uint64_t key = (hash & ~VARIANT_MASK) | variant;
    if ((hash | VARIANT_MASK) > atomic_load_explicit(&t->threshold, memory_order_relaxed) || key == 0 || seen(t, key))
        return;
    if (pthread_mutex_trylock(&t->lock) != 0)
        return;
    if (t->used == TALLY_UNITS)
        halve(t);
    if (t->used < TALLY_UNITS && (hash | VARIANT_MASK) <= atomic_load(&t->threshold) && !seen(t, key))
        keep(t, key);
    pthread_mutex_unlock(&t->lock);
}

void tally_units(struct tally *t, struct tally_units *out)
{
    *out = (struct tally_units){.p = 1};
    pthread_mutex_lock(&t->lock);
    for (size_t v = 0; v < t->n; v++)
        out->count[v] = t->count[v];
    out->sampled = ((double)atomic_load(&t->threshold) + 1) / 18446744073709551616.0;
    pthread_mutex_unlock(&t->lock);
    out->p = chi2_of_shares(out->count, t->share, t->n);
}

// ------------------------------------------------------------------------------------------------------- shadows

#define MEAN_OF 1000

static void move_mean(double *mean, double value, uint64_t n)
{
    *mean += (value - *mean) / (double)(n < MEAN_OF ? n : MEAN_OF);
}

void tally_shadow_add(struct tally *t, size_t variant, const struct agreement *g, struct tally_shadow *now)
{
    struct tally_shadow *s = &t->shadow[variant];
    pthread_mutex_lock(&t->shadow_lock);
    s->n++;
    move_mean(&s->overlap, g->overlap, s->n);
    move_mean(&s->rbo, g->rbo, s->n);
    if (g->n_common)
        move_mean(&s->drift, g->drift, ++t->n_drift[variant]);
    *now = *s;
    pthread_mutex_unlock(&t->shadow_lock);
}

void tally_shadow(struct tally *t, size_t variant, struct tally_shadow *now)
{
    pthread_mutex_lock(&t->shadow_lock);
    *now = t->shadow[variant];
    pthread_mutex_unlock(&t->shadow_lock);
}
