/* dist_open of a build without MPI. */
#include "train/dist.h"

bool dist_open(struct dist *d, struct err *err)
{
    *d = dist_alone;
    return !dist_launched() ||
           err_set(err, ERR_ARG,
                   "started as one of several processes, but this duet was built without MPI: each would train the "
                   "whole model; install libopenmpi-dev and build with -DDUET_MPI=ON");
}

void dist_close(struct dist *d)
{
    *d = dist_alone;
}
