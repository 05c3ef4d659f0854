#include "server/outcome.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/base/mem.h"

#define COPIES 12
#define OCTAVES 28 // of microseconds: up to four minutes
#define BUCKETS (8u * OCTAVES)

enum { N, ERRORS, EMPTY, FIRST_BUCKET, COUNTS = FIRST_BUCKET + BUCKETS };

struct outcomes {
    size_t n_variants;
    _Atomic uint64_t *count;    // [n_variants][COUNTS]
    pthread_mutex_t lock;       // guards all below
    uint64_t *copy;             // [COPIES][n_variants][COUNTS], a ring
    uint64_t copied_ns[COPIES]; // 0 = never
    size_t next;
};

struct outcomes *outcomes_new(size_t n_variants, struct err *err)
{
    struct outcomes *o = mem_array(1, sizeof(*o), err);
    if (!o)
        return NULL;
    o->n_variants = n_variants;
    pthread_mutex_init(&o->lock, NULL);
    if ((o->count = mem_array(n_variants * COUNTS, sizeof(*o->count), err)) &&
        (o->copy = mem_array(COPIES * n_variants * COUNTS, sizeof(*o->copy), err)))
        return o;
    outcomes_free(o);
    return NULL;
}

void outcomes_free(struct outcomes *o)
{
    if (!o)
        return;
    pthread_mutex_destroy(&o->lock);
    free(o->count);
    free(o->copy);
    free(o);
}

// ------------------------------------------------------------------------------------------------------- latency

/* Eight buckets an octave: below 8 us one each, then by the three bits behind the first. */
static unsigned bucket_of(uint64_t us)
{
    if (us < 8)
        return (unsigned)us;
    unsigned e = 63u - (unsigned)__builtin_clzll(us), b = (e - 2) * 8 + (unsigned)((us >> (e - 3)) & 7);
    return b < BUCKETS ? b : BUCKETS - 1;
}

static double bucket_begin_us(unsigned b)
{
    return b < 8 ? b : (double)((uint64_t)(8 + b % 8) << (b / 8 - 1));
}

/* Between the ends of its bucket by straight lines. */
static double quantile_us(const uint64_t *bucket, uint64_t n, double q)
{
    double rank = q * (double)n, below = 0;
    for (unsigned b = 0; b < BUCKETS; b++) {
        double in = (double)bucket[b];
        if (in > 0 && below + in >= rank)
            return bucket_begin_us(b) + (bucket_begin_us(b + 1) - bucket_begin_us(b)) * (rank - below) / in;
        below += in;
    }
    return 0;
}

// ------------------------------------------------------------------------------------------------------- counts

static void add(_Atomic uint64_t *c)
{
    atomic_fetch_add_explicit(c, 1, memory_order_relaxed);
}

void outcome_add(struct outcomes *o, size_t variant, bool error, bool empty, uint64_t ns)
{
    _Atomic uint64_t *c = o->count + variant * COUNTS;
    add(&c[N]);
    if (error)
        add(&c[ERRORS]);
    if (empty)
        add(&c[EMPTY]);
    add(&c[FIRST_BUCKET + bucket_of(ns / 1000)]);
}

void outcome_turn(struct outcomes *o, uint64_t now_ns, uint64_t window_ns)
{
    pthread_mutex_lock(&o->lock);
    uint64_t last = o->copied_ns[(o->next + COPIES - 1) % COPIES];
    if (last == 0 || now_ns - last >= window_ns / COPIES) {
        uint64_t *copy = o->copy + o->next * o->n_variants * COUNTS;
        for (size_t i = 0; last && i < o->n_variants * COUNTS; i++) // the first one stays zero: the window begins at the beginning
            copy[i] = atomic_load_explicit(&o->count[i], memory_order_relaxed);
        o->copied_ns[o->next] = now_ns;
        o->next = (o->next + 1) % COPIES;
    }
    pthread_mutex_unlock(&o->lock);
}

/* With the lock. The oldest copy, NULL if there is none: then all that ever came is in the window. */
static const uint64_t *oldest(const struct outcomes *o)
{
    for (size_t i = 0; i < COPIES; i++) {
        size_t at = (o->next + i) % COPIES;
        if (o->copied_ns[at])
            return o->copy + at * o->n_variants * COUNTS;
    }
    return NULL;
}

void outcome_window(struct outcomes *o, size_t variant, struct outcome_window *w)
{
    uint64_t in[COUNTS], sum = 0;
    pthread_mutex_lock(&o->lock);
    const uint64_t *old = oldest(o);
    for (size_t i = 0; i < COUNTS; i++)
        in[i] = atomic_load_explicit(&o->count[variant * COUNTS + i], memory_order_relaxed) -
                (old ? old[variant * COUNTS + i] : 0);
    pthread_mutex_unlock(&o->lock);
    for (size_t b = 0; b < BUCKETS; b++)
        sum += in[FIRST_BUCKET + b]; // not in[N]: others may have added between
    *w = (struct outcome_window){.n = in[N], .errors = in[ERRORS], .empty = in[EMPTY],
                                 .p99_ms = quantile_us(in + FIRST_BUCKET, sum, 0.99) / 1000};
}
