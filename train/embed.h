/* embed.h - all users or items of a dataset through their tower, with the forward pass that serving uses.
 * Threads: rows are split over the pool. */
#ifndef DUET_TRAIN_EMBED_H
#define DUET_TRAIN_EMBED_H

#include "core/model.h"
#include "train/pool.h"

/* What stands in for an entity's id and augmented vector. */
enum embed_as {
    EMBED_OWN,     // its own id and vector (the segment's mean where the id row is 0)
    EMBED_UNKNOWN, // id row 0, mean of the segment
    EMBED_GIVEN    // id row 0, augmented vectors given
};

/* out [n][d] of the entities with encoded rows x[row[i]] (row = NULL: 0 .. n - 1).
 *   a [n][d_aug] for EMBED_GIVEN, else NULL; ignored if the tower has no augmented input */
bool embed_rows(const struct tower *t, const struct schema_side *side, const uint32_t *x, const uint32_t *row, size_t n,
                enum embed_as as, const float *a, struct pool *pool, float *out, struct err *err);

#endif
