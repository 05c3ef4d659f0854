#include "train/by_value.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/blas.h"

/* A field goes by value if its values are at most a half of the batch's rows, a row names at most one of them for 4 columns of the
 * tables, and the values of all such fields have room. Beyond that the additions cost more than the products that they save. */
#define ROWS_A_VALUE 2
#define COLUMNS_A_NAME 4
#define ROOM_MIN 16
#define AT_ONCE 16 // values of a row that are added together

// ------------------------------------------------------------------------------------------------------- memory

bool by_value_init(struct by_value *v, const struct tower *t, size_t max_rows, unsigned threads, struct err *err)
{
    const struct tower_shape *s = &t->shape;
    *v = (struct by_value){.wide = wide_best(), .w = s->width[0], .max = max_rows / ROWS_A_VALUE + ROOM_MIN};
    v->on = mem_array(s->n_fields, sizeof(*v->on), err);
    v->first = mem_array(s->n_fields + 1, sizeof(*v->first), err);
    v->column = mem_array(s->n_fields + 1, sizeof(*v->column), err);
    v->row = mem_array(v->max, sizeof(*v->row), err);
    v->at = mem_array(s->n_rows + 1, sizeof(*v->at), err);
    v->e = mem_array(v->max * s->k, sizeof(*v->e), err);
    v->product = mem_array(v->max * v->w, sizeof(*v->product), err);
    bool ok = v->on && v->first && v->column && v->row && v->at && v->e && v->product;
    for (unsigned i = 0; ok && i < threads; i++)
        ok = (v->sum[i] = mem_array(v->max * v->w, sizeof(*v->sum[i]), err)) != NULL;
    return ok;
}

void by_value_fini(struct by_value *v)
{
    void *const arrays[] = {v->on, v->first, v->column, v->row, v->at, v->e, v->product};
    for (size_t i = 0; i < sizeof(arrays) / sizeof(*arrays); i++)
        free(arrays[i]);
    for (unsigned i = 0; i < POOL_THREADS_MAX; i++)
        free(v->sum[i]);
    *v = (struct by_value){0};
}

// -------------------------------------------------------------------------------------------------------- values

/* Values of one field in the order in which they come up; false, and none of them kept, if there are too many. */
static bool find_values(struct by_value *v, const struct tower *t, const struct tower_field *f, const uint32_t *x,
                        size_t n)
{
    size_t start = v->n, most = start + n / ROWS_A_VALUE, named = 0;
    most = most < v->max ? most : v->max;
    for (size_t i = 0; i < n; i++, x += t->shape.n_slots)
        for (uint32_t q = f->slot; q < f->slot + f->n_slots && x[q] != SLOT_EMPTY; q++, named++) {
            size_t row = f->first_row + x[q];
            if (v->at[row] < v->n && v->row[v->at[row]] == row)
                continue;
            if (v->n == most) {
                v->n = start;
                return false;
            }
            v->at[row] = (uint32_t)v->n;
            v->row[v->n++] = (uint32_t)row;
        }
    if (named * COLUMNS_A_NAME <= n * t->shape.k)
        return true;
    v->n = start;
    return false;
}

/* What goes past the layers is read from its columns of z. */
static bool is_skipped(const struct tower *t, uint32_t f)
{
    return t->shape.skip_aug && t->shape.d_aug == 0 && t->skip_at == f * t->shape.k;
}

static void add_columns(struct by_value *v, uint32_t at, uint32_t n)
{
    struct stretch *last = v->n_columns ? &v->column[v->n_columns - 1] : NULL;
    if (last && last->at + last->n == at)
        last->n += n;
    else if (n)
        v->column[v->n_columns++] = (struct stretch){at, n};
}

static void multiply(struct by_value *v, const struct tower *t, uint32_t f)
{
    size_t k = t->shape.k, lo = v->first[f], n = v->first[f + 1] - lo;
    for (size_t i = lo; i < lo + n; i++)
        memcpy(v->e + i * k, t->emb + v->row[i] * k, k * sizeof(*v->e));
    blas_sgemm(false, true, n, v->w, k, 1.0f, v->e + lo * k, k, t->w[0] + f * k, t->z_dim, 0, v->product + lo * v->w,
               v->w);
}

void by_value_begin(struct by_value *v, const struct tower *t, const uint32_t *x, size_t n)
{
    const struct tower_shape *s = &t->shape;
    v->n = v->n_columns = 0;
    for (uint32_t f = 0; f < s->n_fields; f++) {
        v->first[f] = v->n;
        v->on[f] = !is_skipped(t, f) && find_values(v, t, &s->field[f], x, n);
        v->first[f + 1] = v->n;
        if (v->on[f])
            multiply(v, t, f);
        else
            add_columns(v, f * s->k, s->k);
    }
    add_columns(v, s->n_fields * s->k, s->d_aug);
}

// ---------------------------------------------------------------------------------------------------------- rows

/* One row's values, AT_ONCE at a time, with their weights: where a field names several, their embedding is the mean. */
struct names {
    const struct tower *t;
    const uint32_t *x;
    uint32_t f, q, n_of; // next: the q-th of n_of that field f names
    size_t n;
    uint32_t value[AT_ONCE];
    float weight[AT_ONCE];
};

static uint32_t count_names(const struct tower_field *f, const uint32_t *x)
{
    uint32_t n = 0;
    while (n < f->n_slots && x[f->slot + n] != SLOT_EMPTY)
        n++;
    return n;
}

static bool next_names(const struct by_value *v, struct names *o, size_t room)
{
    const struct tower_shape *s = &o->t->shape;
    for (o->n = 0; o->f < s->n_fields; o->f++, o->q = 0) {
        const struct tower_field *f = &s->field[o->f];
        if (!v->on[o->f])
            continue;
        if (o->q == 0)
            o->n_of = count_names(f, o->x);
        for (; o->q < o->n_of; o->q++) {
            if (o->n == room)
                return true;
            o->value[o->n] = v->at[f->first_row + o->x[f->slot + o->q]];
            o->weight[o->n++] = 1.0f / (float)o->n_of;
        }
    }
    return o->n > 0;
}

void by_value_forward(const struct by_value *v, const struct tower *t, const uint32_t *x, float *out)
{
    struct names o = {.t = t, .x = x};
    const float *row[AT_ONCE + 1] = {t->b[0]};
    float weight[AT_ONCE + 1] = {1};
    bool some;
    do {
        some = next_names(v, &o, AT_ONCE);
        for (size_t i = 0; i < o.n; i++) {
            row[i + 1] = v->product + (size_t)o.value[i] * v->w;
            weight[i + 1] = o.weight[i];
        }
        if (some || row[0] != out)
            v->wide->sum_rows(row, weight, o.n + 1, v->w, out);
        row[0] = out;
    } while (some);
}

void by_value_clear(struct by_value *v, unsigned part)
{
    memset(v->sum[part], 0, v->n * v->w * sizeof(float));
}

void by_value_backward(struct by_value *v, const struct tower *t, unsigned part, const uint32_t *x, const float *dh,
                       float *db)
{
    struct names o = {.t = t, .x = x};
    float *row[AT_ONCE + 1] = {db}, weight[AT_ONCE + 1] = {1};
    size_t n = 1;
    while (next_names(v, &o, AT_ONCE) || n) {
        for (size_t i = 0; i < o.n; i++, n++) {
            row[n] = v->sum[part] + (size_t)o.value[i] * v->w;
            weight[n] = o.weight[i];
        }
        v->wide->add_to_rows(dh, row, weight, n, v->w);
        n = 0;
    }
}

// ---------------------------------------------------------------------------------------------------- after the rows

void by_value_weights(const struct by_value *v, const struct tower *t, unsigned part, float *dw)
{
    size_t k = t->shape.k;
    for (uint32_t f = 0; f < t->shape.n_fields; f++) {
        size_t lo = v->first[f], n = v->first[f + 1] - lo;
        if (n)
            blas_sgemm(true, false, v->w, k, n, 1.0f, v->sum[part] + lo * v->w, v->w, v->e + lo * k, k, 1.0f,
                       dw + f * k, t->z_dim);
    }
}

/* The sums of all parts come together in the first's; the products are needed no more, and their place is. */
void by_value_scatter(struct by_value *v, const struct tower *t, uint32_t field, unsigned parts, float *emb)
{
    size_t k = t->shape.k, lo = v->first[field], n = v->first[field + 1] - lo, size = n * v->w;
    float *sum = v->sum[0] + lo * v->w;
    for (unsigned p = 1; p < parts; p++)
        for (size_t i = 0; i < size; i++)
            sum[i] += v->sum[p][lo * v->w + i];
    if (n)
        blas_sgemm(false, false, n, k, v->w, 1.0f, sum, v->w, t->w[0] + field * k, t->z_dim, 0, v->e + lo * k, k);
    for (size_t i = lo; i < lo + n; i++)
        for (size_t c = 0; c < k; c++)
            emb[v->row[i] * k + c] += v->e[i * k + c];
}
