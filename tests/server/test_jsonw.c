/* If this fails, scores in answers are wrong in their last digit, or answers are no JSON. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/json.h"
#include "core/base/rng.h"
#include "server/jsonw.h"

static void check_float(float v)
{
    char got[JSONW_NUMBER_MAX + 1], want[64];
    *jsonw_put_float7(got, v) = '\0';
    snprintf(want, sizeof(want), "%.7g", (double)v);
    if (strcmp(want, "0") == 0 || strcmp(got, want) == 0)
        return;
    fail_msg("%a: got %s, want %s", (double)v, got, want);
}

static float of_bits(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

/* The text equals snprintf's for every kind of float. */
static void floats_equal_snprintf(void **state)
{
    (void)state;
#ifdef DUET_SANITIZED
    enum { N = 100000 };
#else
    enum { N = 700000 };
#endif
    struct rng r;
    rng_init(&r, 20);
    for (int i = 0; i < N; i++) {
        float any = of_bits((uint32_t)rng_u64(&r));
        if (isfinite(any))
            check_float(any);
        check_float((float)(rng_unit(&r) * 2 - 1));                                                      // cosines
        check_float((float)((double)rng_below(&r, 20000000) / 2 * pow(10, (int)rng_below(&r, 14) - 9))); // near ties
    }
    for (int e = -12; e < 12; e++)
        for (int d = -300; d <= 300; d++) { // around each power of ten
            float v = (float)pow(10, e);
            uint32_t bits;
            memcpy(&bits, &v, 4);
            check_float(of_bits(bits + (uint32_t)d));
        }
}

static void special_floats(void **state)
{
    (void)state;
    static const struct {
        float v;
        const char *text;
    } c[] = {{0.0f, "0"},
             {-0.0f, "-0"},
             {1.0f, "1"},
             {-1.0f, "-1"},
             {0.5f, "0.5"},
             {100.0f, "100"},
             {0.8123456f, "0.8123456"},
             {1234567.0f, "1234567"},
             {1e7f, "1e+07"},
             {1e-5f, "1e-05"},
             {NAN, "null"},
             {INFINITY, "null"},
             {0.001f, "0.001"}};
    for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        char got[JSONW_NUMBER_MAX + 1];
        *jsonw_put_float7(got, c[i].v) = '\0';
        assert_string_equal(got, c[i].text);
    }
}

static void nine_digits_give_the_same_float(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 21);
    for (int i = 0; i < 50000; i++) {
        float v = of_bits((uint32_t)rng_u64(&r));
        if (!isfinite(v))
            continue;
        struct buf b = {0};
        jsonw_float9(&b, v);
        assert_true(strtof(b.data, NULL) == v);
        buf_fini(&b);
    }
}

static void integers(void **state)
{
    (void)state;
    const uint64_t v[] = {
        0, 9, 10, 99, 100, 101, 999, 1000, 123456789, 4294967295u, 4294967296u, 9999999999999999999u, UINT64_MAX};
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
        char got[JSONW_NUMBER_MAX + 1], want[32];
        *jsonw_put_uint(got, v[i]) = '\0';
        snprintf(want, sizeof(want), "%llu", (unsigned long long)v[i]);
        assert_string_equal(got, want);
    }
}

/* Whatever bytes go in, jansson reads the same ones out. */
static void strings_come_back(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 22);
    for (int i = 0; i < 20000; i++) {
        char s[64];
        size_t n = rng_below(&r, 40), len = 0;
        while (len < n) {
            uint32_t kind = rng_below(&r, 10);
            if (kind == 0)
                memcpy(s + len, "\xf0\x9f\x8e\xac", 4), len += 4;
            else if (kind == 1)
                memcpy(s + len, "\xc3\xa9", 2), len += 2;
            else if (kind == 2)
                s[len++] = "\"\\/\b\f\n\r\t"[rng_below(&r, 8)];
            else if (kind == 3)
                s[len++] = (char)(1 + rng_below(&r, 31));
            else
                s[len++] = (char)(32 + rng_below(&r, 96));
        }
        struct buf b = {0};
        jsonw_string(&b, s, len);
        assert_true(b.len <= jsonw_string_room(len));
        json_error_t e;
        json_t *v = json_loadb(b.data, b.len, JSON_DECODE_ANY, &e);
        if (!v)
            fail_msg("%s: %s", e.text, b.data);
        assert_int_equal(json_string_length(v), len);
        assert_memory_equal(json_string_value(v), s, len);
        json_decref(v);
        buf_fini(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_equal_snprintf),
        cmocka_unit_test(special_floats),
        cmocka_unit_test(nine_digits_give_the_same_float),
        cmocka_unit_test(integers),
        cmocka_unit_test(strings_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
