/* Loops of training by every kernel that this CPU has. If this fails, a model depends on the machine that trained it, or a softmax is wrong. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/rng.h"
#include "train/wide.h"

#define N_MAX 9000
#define ROWS 5

static const size_t sizes[] = {1, 2, 15, 16, 17, 31, 33, 100, 255, 4096, 4097, N_MAX};
#define N_SIZES (sizeof(sizes) / sizeof(*sizes))

struct lab {
    const struct wide *w;
    size_t n;
    float *x, *h, *row[ROWS]; // [N_MAX + 1] each, one float behind a block's start: nothing is aligned
    float weight[ROWS];
    double sum;
    float max;
};

static void lab_init(struct lab *l, const struct wide *w, size_t n)
{
    struct rng rng;
    *l = (struct lab){.w = w, .n = n};
    rng_init(&rng, n);
    float **arrays[ROWS + 2] = {&l->x, &l->h};
    for (int i = 0; i < ROWS; i++) {
        arrays[i + 2] = &l->row[i];
        l->weight[i] = (float)rng_normal(&rng);
    }
    for (int i = 0; i < ROWS + 2; i++) {
        *arrays[i] = (float *)calloc(N_MAX + 2, sizeof(float)) + 1;
        for (size_t c = 0; c < n; c++)
            (*arrays[i])[c] = (float)rng_normal(&rng);
    }
}

static void lab_fini(struct lab *l)
{
    free(l->x - 1);
    free(l->h - 1);
    for (int i = 0; i < ROWS; i++)
        free(l->row[i] - 1);
}

/* Every loop once, each on what the one before left. */
static void run_all(struct lab *l)
{
    const float *row[ROWS];
    for (int i = 0; i < ROWS; i++)
        row[i] = l->row[i];
    l->w->add_to_rows(l->x, l->row, l->weight, ROWS, l->n);
    l->w->sum_rows(row, l->weight, ROWS, l->n, l->row[0]);
    l->w->relu_back(l->h, l->n, l->row[1]);
    l->w->relu(l->h, l->n);
    l->w->scale(l->row[2], l->n, 1.7f);
    l->max = l->w->max(l->x, l->n);
    l->sum = l->w->exp_sum(l->x, l->n, l->max);
}

static void every_kernel_gives_the_same_bits(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SIZES; s++) {
        struct lab plain;
        lab_init(&plain, wide_kernel(DENSE_PLAIN), sizes[s]);
        run_all(&plain);
        for (int isa = DENSE_PLAIN + 1; isa < DENSE_N_ISAS; isa++) {
            struct lab l;
            if (!wide_kernel((enum dense_isa)isa))
                continue;
            lab_init(&l, wide_kernel((enum dense_isa)isa), sizes[s]);
            run_all(&l);
            assert_true(l.max == plain.max && l.sum == plain.sum);
            assert_memory_equal(l.x, plain.x, N_MAX * sizeof(float));
            assert_memory_equal(l.h, plain.h, N_MAX * sizeof(float));
            for (int i = 0; i < ROWS; i++)
                assert_memory_equal(l.row[i], plain.row[i], N_MAX * sizeof(float));
            lab_fini(&l);
        }
        lab_fini(&plain);
    }
}

static void sums_are_those_of_plain_loops(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SIZES; s++) {
        struct lab l, before;
        lab_init(&l, wide_best(), sizes[s]);
        lab_init(&before, wide_best(), sizes[s]);
        run_all(&l);
        for (size_t c = 0; c < l.n; c++) {
            double sum = 0;
            for (int i = 0; i < ROWS; i++) {
                double row = (double)before.row[i][c] + (double)before.weight[i] * (double)before.x[c];
                sum += (double)before.weight[i] * row;
                if (i == 1)
                    row = before.h[c] > 0 ? row : 0;
                if (i > 0)
                    assert_float_equal(l.row[i][c], (float)(i == 2 ? row * 1.7 : row), 1e-5f);
            }
            assert_float_equal(l.row[0][c], (float)sum, 1e-5f);
            assert_true(l.h[c] == (before.h[c] > 0 ? before.h[c] : 0));
        }
        assert_true(l.row[0][l.n] == 0 && l.x[l.n] == 0); // nothing is written behind the end
        lab_fini(&l);
        lab_fini(&before);
    }
}

static void exponentials_and_their_sum(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SIZES; s++) {
        struct lab l;
        lab_init(&l, wide_best(), sizes[s]);
        float max = -HUGE_VALF;
        for (size_t c = 0; c < l.n; c++) {
            l.row[0][c] = l.x[c] *= 20;
            max = l.x[c] > max ? l.x[c] : max;
        }
        assert_true(wide_best()->max(l.x, l.n) == max);
        double sum = 0, found = wide_best()->exp_sum(l.x, l.n, max);
        for (size_t c = 0; c < l.n; c++) {
            double want = exp((double)l.row[0][c] - (double)max);
            assert_true(fabs((double)l.x[c] - want) <= 1e-5 * want + 1e-37);
            sum += (double)l.x[c];
        }
        assert_true(fabs(found - sum) <= 1e-6 * sum);
        lab_fini(&l);
    }
}

/* What is masked is -inf, and ends far below everything else. */
static void masked_and_odd_values(void **state)
{
    (void)state;
    float x[20], h[3] = {NAN, -0.0f, -1}, *row[2] = {h, h}, one[2] = {1, 1};
    for (int c = 0; c < 20; c++)
        x[c] = c % 2 ? -HUGE_VALF : (float)c;
    assert_true(wide_best()->max(x, 20) == 18);
    assert_true(wide_best()->exp_sum(x, 20, 18) < 1.2);
    for (int c = 1; c < 20; c += 2)
        assert_true(x[c] >= 0 && x[c] < 1e-37f);
    wide_best()->relu(h, 3);
    assert_true(h[0] == 0 && h[1] == 0 && h[2] == 0);
    wide_best()->add_to_rows(x, row, one, 2, 3); // a row that comes up twice
    assert_true(h[0] == 2 * x[0] && h[2] == 2 * x[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_gives_the_same_bits),
        cmocka_unit_test(sums_are_those_of_plain_loops),
        cmocka_unit_test(exponentials_and_their_sum),
        cmocka_unit_test(masked_and_odd_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
