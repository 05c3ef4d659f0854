/* If this fails, files and experiment buckets written on one machine are refused or different on another. The values
 * are those of xxHash 0.8 with seed 0 for the empty input and for "abc". */
#include "tests/core/support.h"

#include "core/base/hash.h"

static void known_values(void **state)
{
    (void)state;
    char hex[33];
    assert_int_equal(hash64("", 0), 0x2d06800538d394c2u);
    assert_int_equal(hash_xxh64("", 0), 0xef46db3751d8e999u);
    hash128_hex(hash128("", 0), hex);
    assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
    assert_int_equal(hash_xxh64("abc", 3), 0x44bc2cf5ad770999u);
    hash128_hex(hash128("abc", 3), hex);
    assert_string_equal(hex, "06b05ab6733a618578af5f94892f3950");
}

static void streams_as_at_once(void **state)
{
    (void)state;
    static unsigned char data[100000];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char)(i * 2654435761u >> 13);
    struct hash_state *h = hash_new();
    for (size_t at = 0, step = 1; at < sizeof(data); at += step, step = step * 3 + 1)
        hash_update(h, data + at, at + step < sizeof(data) ? step : sizeof(data) - at);
    struct hash128 a = hash_digest(h), b = hash128(data, sizeof(data));
    hash_free(h);
    hash_free(NULL);
    assert_int_equal(a.hi, b.hi);
    assert_int_equal(a.lo, b.lo);
}

static void hex_both_ways(void **state)
{
    (void)state;
    struct hash128 h = {.hi = 0x0123456789abcdefu, .lo = 0xfedcba9876543210u}, back;
    char hex[33];
    hash128_hex(h, hex);
    assert_string_equal(hex, "0123456789abcdeffedcba9876543210");
    assert_true(hash128_parse(hex, &back));
    assert_int_equal(back.hi, h.hi);
    assert_int_equal(back.lo, h.lo);
    assert_false(hash128_parse("0123456789abcdeffedcba987654321", &back));
    assert_false(hash128_parse("0123456789abcdeffedcba98765432100", &back));
    assert_false(hash128_parse("0123456789ABCDEFfedcba9876543210", &back));
    assert_false(hash128_parse("0123456789abcdef fedcba987654321", &back));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(streams_as_at_once),
        cmocka_unit_test(hex_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
