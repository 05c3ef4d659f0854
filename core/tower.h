/* tower.h - one tower: encoded features and an augmented vector -> unit vector.
 * Source:  DAT (Yu et al. 2021) eq. (1): z = [e_1 || .. || e_m || a], h_l = ReLU(W_l h_{l-1} + b_l), p = h_L / |h_L|.
 *          With skip_aug (ours) the augmented vector, or the id's embedding in a tower without, also goes round the layers:
 *          p = (h_L + a) / |h_L + a|.
 * Place:   used by model, trainer, publish and retrieve; knows no files, no HTTP, no index.
 * Threads: forward reads the weights only; any number of callers, each with its own scratch. */
#ifndef DUET_TOWER_H
#define DUET_TOWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/dense.h"
#include "core/schema.h"

#define TOWER_LAYERS_MAX 8

struct tower_field {
    uint32_t slot, n_slots; // in x
    uint32_t n_rows;        // of this field's table
    size_t first_row;       // of this field in `emb`
    char name[SCHEMA_NAME_MAX + 1];
};

struct tower_shape {
    struct tower_field *field; // [n_fields], owned
    uint32_t n_fields;
    uint32_t n_slots;
    uint32_t k;                       // columns of every embedding table
    uint32_t d_aug;                   // width of the augmented input; 0 = plain two-tower
    uint32_t n_segments;              // rows of aug_segment
    size_t n_rows;                    // of `emb`, all fields together
    uint32_t n_ids;                   // rows of `aug` = rows of the id field's table; 0 if there is none
    uint32_t n_layers;
    uint32_t width[TOWER_LAYERS_MAX]; // outputs of each layer; the last is d
    bool relu_out;                    // ReLU after the last layer too (eq. 1 to the letter); false = linear last layer
    bool skip_aug;                    // a (d_aug = 0: the id's embedding, k = d) is added to the last, linear layer's outputs
};

/* All parameters are views into one block, in the order below, each beginning on a 64-byte line: floats between two views are
 * padding and stay zero. */
struct tower {
    struct tower_shape shape;
    uint32_t z_dim;                  // n_fields * k + d_aug
    uint32_t d;                      // = width[n_layers - 1]
    uint32_t skip_at;                // column of z from which d are added to h_L, with skip_aug
    float *emb;                      // [n_rows][k] the fields' tables one after the other
    float *aug;                      // [n_ids][d_aug] augmented vectors by id row; row 0 = OOV; NULL where stored elsewhere (bundles)
    float *aug_segment;              // [n_segments][d_aug] mean augmented vector of each segment; NULL if d_aug = 0
    float *w[TOWER_LAYERS_MAX];      // [out][in], as PyTorch's Linear
    float *b[TOWER_LAYERS_MAX];      // [out]
    float *block;                    // owns all of the above
    size_t block_floats;
};

struct tower_params {
    uint32_t k, d_aug, n_layers, width[TOWER_LAYERS_MAX];
    bool relu_out, skip_aug;
    bool with_aug; // allocate `aug`
    bool shape_only; // no parameters: every view is NULL
};

/* Zeroed tower for one side of a schema. Fini accepts a zeroed struct. */
bool tower_init(struct tower *t, const struct schema_side *side, const struct tower_params *p, struct err *err);
void tower_fini(struct tower *t);

/* Scratch for batches of up to max_batch rows; grows never, allocates nothing in forward. */
struct tower_ws;
struct tower_ws *tower_ws_new(const struct tower *t, size_t max_batch, struct err *err);
void tower_ws_free(struct tower_ws *ws);
bool tower_ws_use(struct tower_ws *ws, enum dense_isa isa); // another kernel than the best; false if this CPU lacks it

/* Embed B <= max_batch rows (eq. 1).
 *   x   [B][n_slots]  rows in range (schema_encode_* and schema_check_x guarantee it)
 *   a   [B][d_aug]    augmented inputs; ignored and may be NULL if d_aug = 0
 *   out [B][d]        unit length, so inner product = cosine; an all-zero h yields p = 0, never NaN
 * Few rows run a SIMD matrix-vector kernel, more go through sgemm; both agree within 1e-5. Cannot fail, allocates nothing. */
void tower_forward(const struct tower *t, const uint32_t *x, const float *a, size_t B, struct tower_ws *ws, float *out);

/* The same with a_i = tower_aug_of(x_i). Needs `aug` if d_aug > 0 and there is an id field. */
void tower_forward_own(const struct tower *t, const struct schema_side *side, const uint32_t *x, size_t B, struct tower_ws *ws, float *out);

/* The augmented vector of one entity: aug[id row of x], or the mean of x's segment for id row 0 or no id field. d_aug > 0. */
const float *tower_aug_of(const struct tower *t, const struct schema_side *side, const uint32_t *x);

/* The first half of tower_forward: z [B][z_dim] = [e_1 .. e_m | a]. a = NULL leaves the last d_aug of each row as they are. */
void tower_gather(const struct tower *t, const uint32_t *x, const float *a, size_t B, float *z);

#endif
