/* by_value.h - the first layer of a tower, a value at a time: W_1 z is a sum over the fields, W_1 [e_1 .. e_m] = sum of W_f e_f, and a batch has
 * thousands of rows but a few dozen genres or years. So W_f e_f is computed once for each value that the batch names, and a row adds up
 * its values' products; backward, rows with one value add up their gradients of the layer's outputs, and that sum meets W_f and e_f once.
 *
 *     rows x (fields k) x w multiplications  ->  values x k x w, and rows x values of a row x w additions
 *
 * Fields whose values are too many for that, and the augmented vector, stay columns of z.
 * Threads: begin by one caller; then rows by any number, each with its own `part`. */
#ifndef DUET_TRAIN_BY_VALUE_H
#define DUET_TRAIN_BY_VALUE_H

#include "core/tower.h"
#include "train/pool.h"
#include "train/wide.h"

struct by_value {
    const struct wide *wide;
    uint32_t w;                   // outputs of the first layer
    size_t max, n;                // values: room, and of the batch
    bool *on;                     // [n_fields] this field goes by value
    size_t *first;                // [n_fields + 1] its values are first[f] .. first[f + 1]
    uint32_t *row;                // [max] row of the tables that a value is
    uint32_t *at;                 // [n_rows] value of a row, where row[at] is that row
    float *e, *product;           // [max][k] embeddings, [max][w] W_f e
    float *sum[POOL_THREADS_MAX]; // [max][w] gradients of the first layer's outputs, by value
    struct stretch {
        uint32_t at, n;
    } *column;                    // [n_columns] runs of columns of z that are none of these fields'
    uint32_t n_columns;
};

/* For batches of up to max_rows rows. False without memory. */
bool by_value_init(struct by_value *v, const struct tower *t, size_t max_rows, unsigned threads, struct err *err);
void by_value_fini(struct by_value *v); // accepts zeroed

/* Looks at a batch: which fields go by value, their values, and the products with the tower as it is now.
 *   x [n][n_slots]; n <= max_rows */
void by_value_begin(struct by_value *v, const struct tower *t, const uint32_t *x, size_t n);

/* out [w] = bias and the products of one row's values. */
void by_value_forward(const struct by_value *v, const struct tower *t, const uint32_t *x, float *out);

void by_value_clear(struct by_value *v, unsigned part); // the part's sums, before its first row
/* The gradient dh [w] of one row's outputs to its values, and to db [w]. */
void by_value_backward(struct by_value *v, const struct tower *t, unsigned part, const uint32_t *x, const float *dh, float *db);
/* dw [w][z_dim] += what the part's rows say of these fields' columns. */
void by_value_weights(const struct by_value *v, const struct tower *t, unsigned part, float *dw);
/* Gradients of the rows of one such field's table, from the sums of all parts, added to emb. */
void by_value_scatter(struct by_value *v, const struct tower *t, uint32_t field, unsigned parts, float *emb);

#endif
