/* The first layer, a value at a time, against the product of whole rows in double. If this fails, towers are trained on other features than
 * they are served with. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/rng.h"
#include "train/by_value.h"

#define N 90      // rows of a batch
#define ROWS 200  // of the id's table
#define KINDS 7   // words of the categorical field
#define WORDS 30  // of the multi-valued ones
#define SLOTS 16
#define FIELDS 5  // kind, iid, words, more, empty
#define K 40      // columns: enough for rows to name 8 words on average
#define W 21      // outputs

struct lab {
    struct schema *schema;
    struct tower t;
    struct by_value v;
    uint32_t *x; // [N][slots]
};

static struct schema_field *add_field(struct schema_side *s, const char *name, enum field_kind kind, int n_words)
{
    struct schema_field *f = &s->field[s->n_fields++];
    snprintf(f->name, sizeof(f->name), "%s", name);
    f->kind = kind;
    for (int i = 0; i < n_words; i++) {
        char word[16];
        int n = snprintf(word, sizeof(word), "w%d", i);
        assert_true(strtab_add(&f->vocab, word, (size_t)n, NULL, NULL));
    }
    return f;
}

static struct schema *make_schema(void)
{
    struct schema *s = calloc(1, sizeof(*s));
    struct err err = {0};
    s->user.field = calloc(1, sizeof(*s->user.field));
    s->item.field = calloc(FIELDS, sizeof(*s->item.field));
    add_field(&s->user, "uid", FIELD_ID, 0)->n_rows = 3;
    add_field(&s->item, "kind", FIELD_CATEGORICAL, KINDS);
    add_field(&s->item, "iid", FIELD_ID, 0)->n_rows = ROWS;
    for (int i = 0; i < 2; i++) {
        struct schema_field *words = add_field(&s->item, i ? "more" : "words", FIELD_MULTI, WORDS);
        words->sep = '|';
        words->n_slots = SLOTS;
    }
    add_field(&s->item, "empty", FIELD_CATEGORICAL, 5);
    s->user.segment_field = s->item.segment_field = -1;
    if (!schema_seal(s, &err))
        fail_msg("%s", err.msg);
    return s;
}

/* Row i: a kind, an id, i % 17 words of which some come twice, as many more, and nothing of the last field. */
static void lab_init(struct lab *l, uint32_t d_aug, uint32_t k)
{
    struct err err = {0};
    struct rng rng;
    const struct tower_params p = {.k = k, .d_aug = d_aug, .n_layers = 1, .width = {W}};
    *l = (struct lab){.schema = make_schema()};
    const struct schema_side *s = &l->schema->item;
    assert_true(tower_init(&l->t, s, &p, &err));
    rng_init(&rng, 5);
    for (size_t i = 0; i < l->t.block_floats; i++)
        l->t.block[i] = (float)rng_normal(&rng);
    l->x = calloc(N * s->n_slots, sizeof(*l->x));
    for (uint32_t i = 0; i < N; i++) {
        uint32_t *x = l->x + i * s->n_slots;
        x[s->field[0].slot] = rng_below(&rng, KINDS + 1);
        x[s->field[1].slot] = i;
        for (uint32_t q = 0; q < 2 * SLOTS; q++)
            x[s->field[2].slot + q] = q % SLOTS < i % (SLOTS + 1) ? rng_below(&rng, WORDS + 1) : SLOT_EMPTY;
        x[s->field[4].slot] = SLOT_EMPTY;
    }
    assert_true(by_value_init(&l->v, &l->t, N, 3, &err));
}

static void lab_fini(struct lab *l)
{
    by_value_fini(&l->v);
    tower_fini(&l->t);
    schema_free(l->schema);
    free(l->x);
}

static const uint32_t *row(const struct lab *l, size_t i)
{
    return l->x + i * l->t.shape.n_slots;
}

static uint32_t names(const struct tower_field *f, const uint32_t *x)
{
    uint32_t n = 0;
    while (n < f->n_slots && x[f->slot + n] != SLOT_EMPTY)
        n++;
    return n;
}

/* Column c of field f's embedding in one row. */
static double mean_of(const struct lab *l, uint32_t f, const uint32_t *x, size_t c)
{
    const struct tower_field *of = &l->t.shape.field[f];
    uint32_t n = names(of, x);
    double s = 0;
    for (uint32_t q = 0; q < n; q++)
        s += (double)l->t.emb[(of->first_row + x[of->slot + q]) * l->t.shape.k + c] / n;
    return s;
}

static void assert_on(const struct lab *l, const char *want)
{
    for (int f = 0; f < FIELDS; f++)
        if (l->v.on[f] != (want[f] == '1'))
            fail_msg("field %d goes by value: %d", f, l->v.on[f]);
}

static void assert_column(const struct lab *l, uint32_t i, uint32_t at, uint32_t n)
{
    assert_true(i < l->v.n_columns);
    assert_int_equal(l->v.column[i].at, at);
    assert_int_equal(l->v.column[i].n, n);
}

static void fields_with_few_values_are_taken(void **state)
{
    (void)state;
    struct lab l;
    lab_init(&l, 12, K);
    by_value_begin(&l.v, &l.t, l.x, N);
    assert_on(&l, "10101"); // for the second field of words there is no room any more
    assert_int_equal(l.v.first[1], KINDS + 1);
    assert_int_equal(l.v.first[FIELDS], KINDS + 1 + WORDS + 1);
    assert_int_equal(l.v.n_columns, 3);
    assert_column(&l, 0, K, K); // the id's
    assert_column(&l, 1, 3 * K, K);
    assert_column(&l, 2, FIELDS * K, 12); // a, behind all fields
    by_value_begin(&l.v, &l.t, l.x, 10); // eight kinds in ten rows, and more words
    assert_on(&l, "00001");
    assert_column(&l, 0, 0, 4 * K);
    assert_column(&l, 1, FIELDS * K, 12);
    lab_fini(&l);
    lab_init(&l, 0, 16); // 8 words a row for 16 columns: more additions than they save
    by_value_begin(&l.v, &l.t, l.x, N);
    assert_on(&l, "10001");
    lab_fini(&l);
}

static void what_goes_past_the_layers_stays_in_z(void **state)
{
    (void)state;
    struct lab l;
    lab_init(&l, 0, W);
    l.t.shape.skip_aug = true;
    l.t.skip_at = 0; // as if the kind were the id
    by_value_begin(&l.v, &l.t, l.x, N);
    assert_on(&l, "00001");
    lab_fini(&l);
}

static void outputs_are_those_of_whole_rows(void **state)
{
    (void)state;
    struct lab l;
    lab_init(&l, 0, K);
    for (int batch = 0; batch < 2; batch++) { // the second time with other weights: nothing is kept
        by_value_begin(&l.v, &l.t, l.x, N);
        for (size_t i = 0; i < N; i++) {
            float out[W];
            by_value_forward(&l.v, &l.t, row(&l, i), out);
            for (size_t o = 0; o < W; o++) {
                double want = (double)l.t.b[0][o];
                for (uint32_t f = 0; f < FIELDS; f++)
                    for (size_t c = 0; l.v.on[f] && c < K; c++)
                        want += (double)l.t.w[0][o * l.t.z_dim + f * K + c] * mean_of(&l, f, row(&l, i), c);
                assert_float_equal(out[o], (float)want, 2e-4f);
            }
        }
        for (size_t i = 0; i < l.t.block_floats; i++)
            l.t.block[i] *= -0.5f;
    }
    lab_fini(&l);
}

/* dh of row i is i-th of a fixed sequence; parts take rows in turns. */
static void gradients_are_those_of_whole_rows(void **state)
{
    (void)state;
    struct lab l;
    lab_init(&l, 0, K);
    size_t z = l.t.z_dim, n_rows = l.t.shape.n_rows;
    float *dh = malloc(N * W * sizeof(float));
    struct rng rng;
    rng_init(&rng, 9);
    for (size_t i = 0; i < N * W; i++)
        dh[i] = (float)rng_normal(&rng);
    for (unsigned parts = 1; parts <= 3; parts++) {
        float *dw = calloc(W * z, sizeof(float)), *db = calloc(W, sizeof(float)), *emb = calloc(n_rows * K, sizeof(float));
        double *want = calloc(n_rows * K, sizeof(double));
        by_value_begin(&l.v, &l.t, l.x, N);
        for (unsigned p = 0; p < parts; p++)
            by_value_clear(&l.v, p);
        for (size_t i = 0; i < N; i++)
            by_value_backward(&l.v, &l.t, (unsigned)i % parts, row(&l, i), dh + i * W, db);
        for (unsigned p = 0; p < parts; p++)
            by_value_weights(&l.v, &l.t, p, dw);
        for (uint32_t f = 0; f < FIELDS; f++)
            if (l.v.on[f])
                by_value_scatter(&l.v, &l.t, f, parts, emb);
        for (size_t o = 0; o < W; o++) {
            double b = 0;
            for (size_t i = 0; i < N; i++)
                b += (double)dh[i * W + o];
            assert_float_equal(db[o], (float)b, 1e-4f);
            for (size_t c = 0; c < z; c++) {
                double w = 0;
                for (size_t i = 0; l.v.on[c / K] && i < N; i++)
                    w += (double)dh[i * W + o] * mean_of(&l, (uint32_t)(c / K), row(&l, i), c % K);
                assert_float_equal(dw[o * z + c], (float)w, 1e-4f);
            }
        }
        for (size_t i = 0; i < N; i++)
            for (uint32_t f = 0; f < FIELDS; f++) {
                const struct tower_field *of = &l.t.shape.field[f];
                uint32_t n = names(of, row(&l, i));
                for (size_t c = 0; l.v.on[f] && n && c < K; c++) {
                    double dz = 0;
                    for (size_t o = 0; o < W; o++)
                        dz += (double)dh[i * W + o] * (double)l.t.w[0][o * z + f * K + c];
                    for (uint32_t q = 0; q < n; q++)
                        want[(of->first_row + row(&l, i)[of->slot + q]) * K + c] += dz / n;
                }
            }
        for (size_t i = 0; i < n_rows * K; i++)
            assert_float_equal(emb[i], (float)want[i], 1e-3f);
        free(dw);
        free(db);
        free(emb);
        free(want);
    }
    free(dh);
    lab_fini(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_with_few_values_are_taken),
        cmocka_unit_test(what_goes_past_the_layers_stays_in_z),
        cmocka_unit_test(outputs_are_those_of_whole_rows),
        cmocka_unit_test(gradients_are_those_of_whole_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
