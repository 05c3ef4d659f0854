/* If this fails, one instruction set computes other towers than the rest, or reads past a row's end: p_u would depend
 * on the machine that a request meets. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "core/base/rng.h"
#include "core/dense.h"

static float *random_floats(struct rng *r, size_t n) // exactly n, so that a read past the end is seen by ASan
{
    float *p = malloc(n * sizeof(*p));
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)rng_normal(r);
    return p;
}

static void one_size(dense_fn *f, struct rng *r, size_t B, size_t n_out, size_t n_in)
{
    float *w = random_floats(r, n_out * n_in), *b = random_floats(r, n_out), *x = random_floats(r, B * n_in);
    float *y = random_floats(r, B * n_out);
    for (int relu = 0; relu < 2; relu++) {
        const struct dense l = {.w = w, .b = b, .n_out = n_out, .n_in = n_in, .relu = relu};
        f(&l, x, B, y);
        for (size_t o = 0; o < B * n_out; o++) {
            const float *wo = w + o % n_out * n_in, *xo = x + o / n_out * n_in;
            double want = (double)b[o % n_out], size = 1;
            for (size_t i = 0; i < n_in; i++) {
                want += (double)wo[i] * (double)xo[i];
                size += fabs((double)wo[i] * (double)xo[i]);
            }
            if (relu && want < 0)
                want = 0;
            if (!(fabs((double)y[o] - want) <= 1e-6 * size))
                fail_msg("%zu rows, %zu x %zu, result %zu: %g, want %g", B, n_out, n_in, o, (double)y[o], want);
        }
    }
    free(w);
    free(b);
    free(x);
    free(y);
}

static void every_kernel_at_every_size(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 7);
    for (int isa = 0; isa < DENSE_N_ISAS; isa++) {
        dense_fn *f = dense_kernel((enum dense_isa)isa);
        if (!f) {
            printf("skipping %s: not on this CPU\n", dense_isa_name((enum dense_isa)isa));
            continue;
        }
        for (size_t n_out = 1; n_out <= 35; n_out++)
            for (size_t n_in = 1; n_in <= 35; n_in++)
                for (size_t B = 1; B <= 7; B += 1 + (n_in & 1)) // all of 1, 2, 3, .. 7 with either parity
                    one_size(f, &r, B, n_out, n_in);
        for (size_t B = 0; B <= 37; B++) // past the rows that share a pass, with every remainder
            one_size(f, &r, B, 20, 18);
        one_size(f, &r, 1, 256, 288);
        one_size(f, &r, 6, 100, 1000);
    }
}

static void relu_ends_nan(void **state)
{
    (void)state;
    for (int isa = 0; isa < DENSE_N_ISAS; isa++) {
        dense_fn *f = dense_kernel((enum dense_isa)isa);
        float w[17], b[17], x[7] = {1, 1, 1, 1, 1, 1, 1}, y[7 * 17];
        const struct dense l = {.w = w, .b = b, .n_out = 17, .n_in = 1, .relu = true};
        for (int i = 0; i < 17; i++)
            w[i] = NAN, b[i] = 1;
        if (!f)
            continue;
        f(&l, x, 7, y);
        for (int i = 0; i < 7 * 17; i++)
            assert_true(y[i] == 0);
    }
}

static void best_is_one_of_them(void **state)
{
    (void)state;
    assert_non_null(dense_kernel(DENSE_PLAIN));
    int found = -1;
    for (int isa = 0; isa < DENSE_N_ISAS; isa++)
        if (dense_best() == dense_kernel((enum dense_isa)isa))
            found = isa;
    assert_true(found >= 0);
    for (int isa = found + 1; isa < DENSE_N_ISAS; isa++)
        assert_null(dense_kernel((enum dense_isa)isa));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_at_every_size),
        cmocka_unit_test(relu_ends_nan),
        cmocka_unit_test(best_is_one_of_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
