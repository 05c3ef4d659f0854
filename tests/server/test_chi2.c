/* If this fails, the p-values of experiments are wrong: faulty splits go unseen, or sound ones raise alarms. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "server/chi2.h"

static void close_to(double found, double want)
{
    if (!(fabs(found - want) <= 1e-11 * want))
        fail_msg("found %.17g, want %.17g", found, want);
}

/* R 4.2: pchisq(x, df, lower.tail = FALSE). */
static void tails_equal_those_of_r(void **state)
{
    (void)state;
    static const struct {
        unsigned df;
        double x, p;
    } golden[] = {
        {1, 0.01, 0.92034432544594202},
        {1, 0.5, 0.47950012218695348},
        {1, 1, 0.31731050786291415},
        {1, 5, 0.025347318677468304},
        {1, 20, 7.7442164310440858e-06},
        {1, 100, 1.5239706048321054e-23},
        {1, 400, 5.5072482372124689e-89},
        {2, 0.01, 0.99501247919268221},
        {2, 0.5, 0.77880078307140488},
        {2, 1, 0.60653065971263342},
        {2, 5, 0.0820849986238988},
        {2, 20, 4.5399929762484854e-05},
        {2, 100, 1.9287498479639178e-22},
        {2, 400, 1.3838965267367376e-87},
        {3, 0.01, 0.99973483494134441},
        {3, 0.5, 0.91889141165467592},
        {3, 1, 0.80125195690120077},
        {3, 5, 0.17179714429673321},
        {3, 20, 0.00016974243555282649},
        {3, 100, 1.5541594313896051e-21},
        {3, 400, 2.213886593101118e-86},
        {7, 0.01, 0.99999999924305893},
        {7, 0.5, 0.99944648139042513},
        {7, 1, 0.99482853651651559},
        {7, 5, 0.65996322969428278},
        {7, 20, 0.0055696830729455712},
        {7, 100, 1.0787979671702883e-18},
        {7, 400, 2.3852710811123277e-82},
        {15, 0.01, 1},
        {15, 0.5, 0.9999999982553599},
        {15, 1, 0.99999974643556899},
        {15, 5, 0.99212641134451895},
        {15, 20, 0.17193268937660092},
        {15, 100, 1.3047043436251444e-14},
        {15, 400, 6.9173573191123455e-76},
    };
    for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++)
        close_to(chi2_tail(golden[i].x, golden[i].df), golden[i].p);
}

/* R: e <- sum(o) * w / sum(w); pchisq(sum((o - e)^2 / e), length(o) - 1, lower.tail = FALSE). */
static void shares_are_tested(void **state)
{
    (void)state;
    close_to(chi2_of_shares((uint64_t[]){5000, 5000}, (uint32_t[]){1, 1}, 2), 1);
    close_to(chi2_of_shares((uint64_t[]){4900, 5100}, (uint32_t[]){5000, 5000}, 2), 0.045500263896358473);
    close_to(chi2_of_shares((uint64_t[]){3300, 3400, 3290}, (uint32_t[]){3300, 3300, 3400}, 3), 0.037147599140880214);
    close_to(chi2_of_shares((uint64_t[]){52000, 48000}, (uint32_t[]){1, 1}, 2), 1.1314837902432984e-36);
    close_to(chi2_of_shares((uint64_t[]){120, 90, 80, 110, 100}, (uint32_t[]){1, 1, 1, 1, 1}, 5), 0.040427681994512805);
    close_to(chi2_of_shares((uint64_t[]){995, 7, 5}, (uint32_t[]){99, 0, 1}, 3), 0.11203684368556401); // nothing is meant for the second
    close_to(chi2_of_shares((uint64_t[]){10, 7}, (uint32_t[]){100, 0}, 2), 1);
    close_to(chi2_of_shares((uint64_t[]){0, 0}, (uint32_t[]){1, 1}, 2), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tails_equal_those_of_r),
        cmocka_unit_test(shares_are_tested),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
