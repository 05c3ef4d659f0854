/* golden.h - tensors of the safetensors files in tests/golden, made by PyTorch. What is missing, of another size or too far fails the test. */
#ifndef DUET_TEST_GOLDEN_H
#define DUET_TEST_GOLDEN_H

#include "core/safetensors.h"
#include "core/tower.h"

#define GOLDEN_TOLERANCE 1e-5

struct safetensors *golden_open(const char *name); // a file of tests/golden
const void *golden_tensor(const struct safetensors *f, const char *name, enum st_dtype dtype, size_t n);

/* Tensor <prefix><name>: copied to p, or compared with it. */
void golden_take(const struct safetensors *f, const char *prefix, const char *name, float *p, size_t n);
void golden_compare(const struct safetensors *f, const char *prefix, const char *name, const float *p, size_t n);

/* The same with every tensor of a tower under its name in docs/formats.md, side "user" or "item". */
void golden_take_tower(const struct safetensors *f, const char *prefix, const char *side, struct tower *t);
void golden_compare_tower(const struct safetensors *f, const char *prefix, const char *side, const struct tower *t);

/* Pairs (row, value) sorted by row -> off [n_rows + 1] and value []; how many. The tensor has at most `most` pairs. */
size_t golden_rows(const struct safetensors *f, const char *name, size_t n_rows, size_t most, uint32_t *off, uint32_t *value);

#endif
