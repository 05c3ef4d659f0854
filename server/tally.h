/* tally.h - what is counted of one experiment as it stands: which units it had, and (guardrails) how its variants' answers were.
 * Place:   hangs in a published experiment table; a table that leaves an experiment as it was goes on with its tally.
 * Units:   distinct ones, because the test of a split needs them: answers come in lots, a busy user's all in one variant, so counts of
 *          answers differ from the weights where nothing is wrong. Memory is bounded by adaptive sampling (Wegman; Flajolet 1990): all
 *          units whose hash is at most a threshold are kept, which is halved when TALLY_UNITS of them are there. What a unit's hash is
 *          does not depend on its variant (that comes from the salted hash), so the sample has the shares of the whole, exactly
 *          multinomial, where a sketch of counts (HyperLogLog) would add errors larger than what the test looks for.
 * Threads: any number of loops; a unit that was seen takes no lock, a new one tries it and gives up where it is held: it will be
 *          counted with its next answer. */
#ifndef DUET_SERVER_TALLY_H
#define DUET_SERVER_TALLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "server/agreement.h"
#include "server/outcome.h"

#define TALLY_VARIANTS_MAX 16
#define TALLY_UNITS 65536 // kept at most: a split of 51 to 49 gives p = 3e-7

struct tally;

/* share[n]: buckets that each variant owns. Count 1. */
struct tally *tally_new(const uint32_t *share, size_t n, struct err *err);
struct tally *tally_ref(struct tally *t); // NULL is fine
void tally_unref(struct tally *t);        // NULL is fine

/* A unit was assigned to a variant: hash_xxh64 of its id. */
void tally_unit(struct tally *t, uint64_t hash, unsigned variant);

/* How the answers of its variants were. */
struct outcomes *tally_outcomes(struct tally *t);

/* Comparisons with a shadow variant, and their means: of all up to a thousand, then with a thousandth for each new one. */
struct tally_shadow {
    uint64_t n;
    double overlap, rbo, drift; // drift: of comparisons that had common items
};
void tally_shadow_add(struct tally *t, size_t variant, const struct agreement *g, struct tally_shadow *now);
void tally_shadow(struct tally *t, size_t variant, struct tally_shadow *now);

struct tally_units {
    uint64_t count[TALLY_VARIANTS_MAX]; // distinct units, of those whose hash is sampled
    double sampled;                     // share of the units that is: 1, 0.5, 0.25, ..
    double p;                           // of count under the weights, chi2_of_shares
};
void tally_units(struct tally *t, struct tally_units *out);

#endif
