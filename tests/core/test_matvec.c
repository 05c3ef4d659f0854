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
#include "core/matvec.h"

static float *random_floats(struct rng *r, size_t n) // exactly n, so that a read past the end is seen by ASan
{
    float *p = malloc(n * sizeof(*p));
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)rng_normal(r);
    return p;
}

static void one_size(matvec_fn *f, struct rng *r, size_t n_out, size_t n_in)
{
    float *w = random_floats(r, n_out * n_in), *b = random_floats(r, n_out), *x = random_floats(r, n_in);
    float *y = random_floats(r, n_out);
    for (int relu = 0; relu < 2; relu++) {
        f(w, b, x, n_out, n_in, relu, y);
        for (size_t o = 0; o < n_out; o++) {
            double want = (double)b[o], size = 1;
            for (size_t i = 0; i < n_in; i++) {
                want += (double)w[o * n_in + i] * (double)x[i];
                size += fabs((double)w[o * n_in + i] * (double)x[i]);
            }
            if (relu && want < 0)
                want = 0;
            if (!(fabs((double)y[o] - want) <= 1e-6 * size))
                fail_msg("%zu x %zu, row %zu: %g, want %g", n_out, n_in, o, (double)y[o], want);
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
    for (int isa = 0; isa < MATVEC_N_ISAS; isa++) {
        matvec_fn *f = matvec_kernel((enum matvec_isa)isa);
        if (!f) {
            printf("skipping %s: not on this CPU\n", matvec_isa_name((enum matvec_isa)isa));
            continue;
        }
        for (size_t n_out = 1; n_out <= 35; n_out++)
            for (size_t n_in = 1; n_in <= 35; n_in++)
                one_size(f, &r, n_out, n_in);
        one_size(f, &r, 256, 288);
        one_size(f, &r, 100, 1000);
    }
}

static void relu_ends_nan(void **state)
{
    (void)state;
    for (int isa = 0; isa < MATVEC_N_ISAS; isa++) {
        matvec_fn *f = matvec_kernel((enum matvec_isa)isa);
        float w[17], b[17], x[1] = {1}, y[17];
        for (int i = 0; i < 17; i++)
            w[i] = NAN, b[i] = 1;
        if (!f)
            continue;
        f(w, b, x, 17, 1, true, y);
        for (int i = 0; i < 17; i++)
            assert_true(y[i] == 0);
    }
}

static void best_is_one_of_them(void **state)
{
    (void)state;
    assert_non_null(matvec_kernel(MATVEC_PLAIN));
    int found = -1;
    for (int isa = 0; isa < MATVEC_N_ISAS; isa++)
        if (matvec_best() == matvec_kernel((enum matvec_isa)isa))
            found = isa;
    assert_true(found >= 0);
    for (int isa = found + 1; isa < MATVEC_N_ISAS; isa++)
        assert_null(matvec_kernel((enum matvec_isa)isa));
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
