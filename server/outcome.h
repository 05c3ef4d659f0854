/* outcome.h - how the answers of an experiment's variants were: errors, empty ones, latency, over a window of time.
 * Place:   a tally (tally.h) has one; guardrail.c looks at it.
 * How:     loops add to counts that only grow; outcome_turn keeps copies of them, twelve a window, and a window is the difference to
 *          the oldest copy within it. So a window is cut to a twelfth of its length, and adding costs a few relaxed additions.
 * Threads: outcome_add from any loop, without a lock; outcome_turn and outcome_window from anywhere else, by the lock inside. */
#ifndef DUET_SERVER_OUTCOME_H
#define DUET_SERVER_OUTCOME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"

struct outcomes;

struct outcomes *outcomes_new(size_t n_variants, struct err *err);
void outcomes_free(struct outcomes *o); // NULL is fine

void outcome_add(struct outcomes *o, size_t variant, bool error, bool empty, uint64_t ns);

/* Keep a copy, if the last one is a twelfth of the window old. */
void outcome_turn(struct outcomes *o, uint64_t now_ns, uint64_t window_ns);

struct outcome_window {
    uint64_t n, errors, empty; // errors and empty ones are among n
    double p99_ms;             // of all n, to an eighth of an octave; 0 without any
};
void outcome_window(struct outcomes *o, size_t variant, struct outcome_window *w);

#endif
