/* history.h - a_u of a history in closed form: what users with a stored history and strangers with a given one get alike.
 *
 *     a_u = N^-alpha * sum of w_i p_i      w_i = weight[history_step(newer)], newer = how many of the history are newer than item i
 *                                          N = sum of w_i^2
 *
 * With all weights 1, N is the number of items n: alpha = 1 is their mean, alpha = 1/2 lets a_u grow with sqrt(n).
 * Source:  ours (docs/model.md, "a_u in closed form").
 * Threads: pure. */
#ifndef DUET_HISTORY_H
#define DUET_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HISTORY_STEPS 32

struct history_form {
    float alpha;                 // 0 to 1
    float weight[HISTORY_STEPS]; // positive
};

void history_form_plain(struct history_form *f, float alpha); // every weight 1
bool history_form_is_plain(const struct history_form *f);

/* Which weight an item has: 0 to 3 newer items have one each, then two an octave (4-5, 6-7, 8-11, 12-15, ..), the last all the rest. */
uint32_t history_step(size_t newer);

/* out [d] := a_u of items idx[n], oldest first, rows of p [.][d]; 0 for n = 0. Returns N^-alpha, 0 for n = 0. */
float history_sum(const struct history_form *f, const float *p, const uint32_t *idx, size_t n, size_t d, float *out);

#endif
