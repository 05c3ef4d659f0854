/* step_ref.h - the loss of one training step once more: plain loops in double precision, straight from the equations, over the
 * rows that a step gathered. Slow and obvious: what gradients are checked against by finite differences. */
#ifndef DUET_TEST_STEP_REF_H
#define DUET_TEST_STEP_REF_H

#include "train/step.h"

struct ref {
    const struct step *s;      // after step_gradients
    double *user, *item;       // parameters: copies of both towers' blocks
    double scale, theta[HISTORY_STEPS]; // log of the history's weights
    double *pu0, *pv0;         // outputs at the start: constants of the mimic losses
    double *major0;            // [d][d] covariance of the major category at the start: constant with detach_major
    double *pu, *pv;           // outputs of the last ref_loss
    bool started;              // the constants are set
};

void ref_init(struct ref *r, const struct step *s);
void ref_fini(struct ref *r);
double ref_loss(struct ref *r); // eq. (5) with the parameters as they are now

#endif
