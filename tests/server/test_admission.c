/* Breaks when overload is not refused, when one slow moment is, or when nothing gets through any more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/admission.h"
#include "server/app.h"

#define MS 1000000u

static struct metrics *metrics;
static struct admission *admission;

static int start(void **state)
{
    (void)state;
    struct err err = {0};
    struct admission_params p = {.n_shards = 3, .max_lag_ms = 100, .retry_after_s = 4, .ef_percent = 60};
    metrics = metrics_new(3, &err);
    admission = admission_new(&p, metrics, &err);
    return !metrics || !admission;
}

static int stop(void **state)
{
    (void)state;
    admission_free(admission);
    metrics_free(metrics);
    return 0;
}

static struct http_request request(uint64_t lag_ns)
{
    uint64_t now = app_now_ns();
    return (struct http_request){
        .id = "r", .start_ns = now, .deadline_ns = now + 1000 * (uint64_t)MS, .lag_ns = lag_ns};
}

/* How many of n requests with that lag get through; the last refusal's status. */
static unsigned offer(unsigned n, uint64_t lag_ns, unsigned *status)
{
    unsigned passed = 0;
    struct http_response resp = {0};
    for (unsigned i = 0; i < n; i++) {
        struct http_request r = request(lag_ns);
        buf_reset(&resp.body);
        resp.n_extra = 0;
        if (admission_admit(admission, 1, &r, &resp))
            passed++;
        else
            *status = resp.status;
    }
    buf_fini(&resp.body);
    return passed;
}

static void calm_loops_refuse_nothing(void **state)
{
    (void)state;
    unsigned status = 0;
    assert_int_equal(offer(1000, 90 * MS, &status), 1000);
}

static void one_slow_moment_refuses_nothing(void **state)
{
    (void)state;
    unsigned status = 0;
    assert_int_equal(offer(1000, 1 * MS, &status), 1000);
    assert_int_equal(offer(10, 200 * MS, &status), 10);
    assert_int_equal(offer(1000, 1 * MS, &status), 1000);
}

static void lasting_overload_is_shed_in_part(void **state)
{
    (void)state;
    unsigned status = 0, passed;
    offer(500, 150 * MS, &status); // mean settles at 1.5 times the limit
    passed = offer(4000, 150 * MS, &status);
    assert_in_range(passed, 1700, 2300); // half of them
    assert_int_equal(status, 503);
    offer(500, 900 * MS, &status);
    passed = offer(4000, 900 * MS, &status); // far beyond: still one in twenty
    assert_in_range(passed, 100, 350);
    assert_true(metrics_value(metrics, metrics_counter(metrics, "duet_requests_refused_total", "",
                                                       "reason=\"overload\"")) > 5000);
}

static void recovery_is_immediate(void **state)
{
    (void)state;
    unsigned status = 0;
    offer(500, 900 * MS, &status);
    assert_int_equal(offer(100, 2 * MS, &status), 100); // these have not waited, whatever the mean says
}

/* From half of the limit on, step by step, down to what is configured before the first is refused. */
static void searches_go_less_far_before_anything_is_refused(void **state)
{
    (void)state;
    unsigned status = 0;
    float before = 1;
    for (unsigned ms = 10; ms <= 100; ms += 5) {
        assert_int_equal(offer(400, ms * MS, &status), 400); // the mean settles
        float share = admission_ef_share(admission, 1, ms * MS);
        float want = ms <= 50 ? 1 : 1 - (float)(ms - 50) / 50 * 0.4f;
        if (share < want - 0.01f || share > want + 0.01f || share > before)
            fail_msg("at %u ms: %g, want %g", ms, (double)share, (double)want);
        before = share;
    }
    assert_int_equal(status, 0);
    assert_true(admission_ef_share(admission, 1, 25 * MS) == 1); // has hardly waited
    assert_true(admission_ef_share(admission, 2, 100 * MS) == 1); // another loop
    offer(400, 900 * MS, &status);
    assert_int_equal(status, 503);
    float least = admission_ef_share(admission, 1, 900 * MS);
    assert_true(least > 0.599f && least < 0.601f);
}

static void limit_can_be_lifted(void **state)
{
    (void)state;
    unsigned status = 0;
    admission_tune(admission, 0, 1, 60);
    assert_int_equal(offer(1000, 900 * MS, &status), 1000);
    assert_true(admission_ef_share(admission, 1, 900 * MS) == 1);
    admission_tune(admission, 100, 4, 100);
    assert_true(admission_ef_share(admission, 1, 900 * MS) == 1);
    admission_tune(admission, 100, 4, 60);
}

static void refusals_say_when_to_come_back(void **state)
{
    (void)state;
    struct http_response resp = {0};
    struct http_request r = request(0);
    unsigned seen[9] = {0};
    r.crowded = true;
    for (int i = 0; i < 200; i++) {
        resp.n_extra = 0;
        assert_false(admission_admit(admission, 2, &r, &resp));
        assert_int_equal(resp.status, 503);
        assert_true(resp.close);
        assert_string_equal(resp.extra[0].name, "Retry-After");
        unsigned s = (unsigned)strtoul(resp.extra[0].value, NULL, 10);
        assert_in_range(s, 4, 8);
        seen[s]++;
    }
    assert_non_null(strstr(resp.body.data, "too_many_connections"));
    for (int s = 4; s <= 8; s++)
        assert_true(seen[s] > 0); // jitter: not all at once
    resp.n_extra = 0;
    r = request(0);
    r.deadline_ns = r.start_ns - 1;
    assert_false(admission_admit(admission, 2, &r, &resp));
    assert_int_equal(resp.status, 504);
    resp.n_extra = 0;
    admission_refuse(admission, &r, &resp, "pool_full", "no worker is free");
    assert_int_equal(resp.status, 503);
    assert_non_null(strstr(resp.body.data, "pool_full"));
    buf_fini(&resp.body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(calm_loops_refuse_nothing, start, stop),
        cmocka_unit_test_setup_teardown(one_slow_moment_refuses_nothing, start, stop),
        cmocka_unit_test_setup_teardown(lasting_overload_is_shed_in_part, start, stop),
        cmocka_unit_test_setup_teardown(recovery_is_immediate, start, stop),
        cmocka_unit_test_setup_teardown(searches_go_less_far_before_anything_is_refused, start, stop),
        cmocka_unit_test_setup_teardown(limit_can_be_lifted, start, stop),
        cmocka_unit_test_setup_teardown(refusals_say_when_to_come_back, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
