/* golden_baselines.h - tests/golden/baselines.json as a dataset and arrays. */
#ifndef DUET_TEST_GOLDEN_BASELINES_H
#define DUET_TEST_GOLDEN_BASELINES_H

#include "core/base/json.h"
#include "train/dataset.h"

struct golden_baselines {
    json_t *json;
    struct dataset d; // train alone
    uint64_t off[65];
    uint32_t item[512];
};

void golden_baselines_open(struct golden_baselines *g);
void golden_baselines_close(struct golden_baselines *g);
double golden_baselines_at(const struct golden_baselines *g, const char *matrix, size_t row, size_t col);

#endif
