/* param.h - one array of parameters with its gradient and Adam's moments, stepped as a whole (dense AdamW).
 * Source:  Kingma, Ba 2015; Loshchilov, Hutter 2019 for the decoupled decay. Tables of which a step touches few rows: adam.h.
 * Threads: steps are split over the pool, with the same result for any number of threads. */
#ifndef DUET_TRAIN_PARAM_H
#define DUET_TRAIN_PARAM_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/rng.h"
#include "train/adam.h"
#include "train/resume.h"

struct param {
    float *w, *grad, *m, *v; // [n] views of one block
    size_t n;
};

bool param_init(struct param *p, size_t n, struct err *err);
void param_fini(struct param *p); // accepts zeroed

void param_draw(struct param *p, double std, struct rng *rng); // N(0, std)

/* Step number `step`, from 1 on; the gradient is zero afterwards. */
void param_step(struct param *p, const struct adam_params *a, uint32_t step, struct pool *pool);

/* Adds w, m and v to a state under names[3]. */
void param_state(const struct param *p, const char *const names[3], struct resume_list *out);

#endif
