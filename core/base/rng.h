/* rng.h - small seeded generator: the same seed gives the same numbers on every machine. Not for secrets.
 * Source: xoshiro256** 1.0 (Blackman, Vigna 2018), seeded by splitmix64. One object per thread. */
#ifndef DUET_BASE_RNG_H
#define DUET_BASE_RNG_H

#include <stdint.h>

struct rng {
    uint64_t s[4];
};

void rng_init(struct rng *r, uint64_t seed);
uint64_t rng_u64(struct rng *r);
uint32_t rng_below(struct rng *r, uint32_t n); // uniform in [0, n), unbiased; n >= 1
double rng_unit(struct rng *r);                // uniform in [0, 1)
double rng_normal(struct rng *r);              // mean 0, variance 1

#endif
