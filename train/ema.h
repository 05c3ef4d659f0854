/* ema.h - exponential average of a tower's parameters along training; what is validated and kept instead of the last ones.
 * average <- decay * average + (1 - decay) * parameters; the first call copies. Tables' rows that no batch named lately enter as
 * they stand (adam.h).
 * Threads: one caller at a time. */
#ifndef DUET_TRAIN_EMA_H
#define DUET_TRAIN_EMA_H

#include "core/tower.h"

struct ema {
    struct tower *tower; // borrowed
    float *block;        // [tower->block_floats]; meaningful where parameters are learned
    bool with_aug;       // `aug` is learned; aug_segment never is
    bool started;
    size_t emb_lo, emb_hi, aug_lo, aug_hi; // rows that take part: all, or a rank's own (part.h)
};

bool ema_init(struct ema *e, struct tower *t, bool with_aug, struct err *err);
void ema_fini(struct ema *e); // accepts zeroed

void ema_take(struct ema *e, double decay);
/* Parameters and average change places; nothing before the first ema_take. */
void ema_swap(struct ema *e);

/* The same of one array. */
struct ema_array {
    float *w;      // [n] borrowed
    float *average;
    size_t n;
    bool started;
};

bool ema_array_init(struct ema_array *e, float *w, size_t n, struct err *err);
void ema_array_fini(struct ema_array *e); // accepts zeroed
void ema_array_take(struct ema_array *e, double decay);
void ema_array_swap(struct ema_array *e);

#endif
