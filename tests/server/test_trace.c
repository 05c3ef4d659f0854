/* If this fails, a caller's trace is lost, or what is no trace goes into logs and answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/trace.h"

#define T "0af7651916cd43dd8448eb211c80319c"
#define P "b7ad6b7169203331"

static void valid_ones_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *value, *flags;
    } valid[] = {
        {"00-" T "-" P "-01", "01"},       {"00-" T "-" P "-00", "00"},
        {"00-" T "-" P "-ff", "03"}, // of flags the two that are known
        {"00-" T "-" P "-0a", "02"},       {"01-" T "-" P "-01", "01"}, // a later version, of the same length
        {"cc-" T "-" P "-01-what-comes-then", "01"}, {"fe-" T "-" P "-01-", "01"},    {"00-" T "-" P "-01 \t", "01"},
    };
    for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++) {
        struct trace t = {0};
        char out[TRACE_PARENT_LEN + 1], want[TRACE_PARENT_LEN + 1] = "00-" T "-00000000deadbeef-";
        strcat(want, valid[i].flags);
        if (!trace_read(valid[i].value, 0xdeadbeef, &t))
            fail_msg("%s is refused", valid[i].value);
        assert_string_equal(t.trace_id, T);
        assert_string_equal(t.parent_id, P);
        assert_string_equal(t.span_id, "00000000deadbeef");
        trace_write(&t, out);
        assert_string_equal(out, want);
    }
}

static void others_are_none(void **state)
{
    (void)state;
    static const char *const invalid[] = {
        "",
        "00",
        "00-" T "-" P,
        "00-" T "-" P "-",
        "00-" T "-" P "-0",
        "00-" T "-" P "-0 ",
        "00-" T "-" P "-01-",
        "00-" T "-" P "-011",
        "00-" T "-" P "-01-more",
        "01-" T "-" P "-01more", // no dash behind what is known
        "ff-" T "-" P "-01",     // the version that never will be
        "FE-" T "-" P "-01",
        "0-" T "-" P "-01-",
        "0g-" T "-" P "-01",
        "00-0AF7651916CD43DD8448EB211C80319C-" P "-01",
        "00-" T "-B7AD6B7169203331-01",
        "00-" T "-" P "-0A",
        "00-" T "-" P "-0x",
        "00-00000000000000000000000000000000-" P "-01",
        "00-" T "-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319-0" P "-01",
        "00-0af7651916cd43dd8448eb211c80319\"-" P "-01",
        "00_" T "-" P "-01",
        "00-" T "_" P "-01",
        "00-" T "-" P "_01",
        " 00-" T "-" P "-1",
    };
    for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++) {
        struct trace t = {0}, none = {0};
        if (trace_read(invalid[i], 1, &t))
            fail_msg("'%s' is taken", invalid[i]);
        assert_memory_equal(&t, &none, sizeof(t));
    }
}

static void span_ids_are_never_zero(void **state)
{
    (void)state;
    struct trace t = {0};
    assert_true(trace_read("00-" T "-" P "-01", 0, &t));
    assert_string_equal(t.span_id, "0000000000000001");
    assert_true(trace_read("00-" T "-" P "-01", UINT64_MAX, &t));
    assert_string_equal(t.span_id, "ffffffffffffffff");
}

static void members_are_written(void **state)
{
    (void)state;
    struct trace t = {0};
    struct buf b = {0};
    trace_put(&b, &t);
    assert_int_equal(b.len, 0);
    assert_true(trace_read("00-" T "-" P "-01", 7, &t));
    trace_put(&b, &t);
    assert_string_equal(b.data, "\"trace_id\":\"" T "\",\"span_id\":\"0000000000000007\",\"parent_span_id\":\"" P "\",");
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(valid_ones_are_read), cmocka_unit_test(others_are_none),
                                       cmocka_unit_test(span_ids_are_never_zero), cmocka_unit_test(members_are_written)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
