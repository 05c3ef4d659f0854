/* If this fails, bytes that are no text reach answers, and clients cannot parse them (or good titles are refused). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "core/base/utf8.h"

static void accepts_text(void **state)
{
    (void)state;
    static const char *const good[] = {"", "a", "Amélie", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                                       "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "twelve ascii \xe4\xb8\xad then more"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(utf8_valid(good[i], strlen(good[i])));
    assert_true(utf8_valid("a\0b", 3));
}

static void refuses_what_is_not(void **state)
{
    (void)state;
    static const char *const bad[] = {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x9f\xbf", "\xe4\xb8", "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf", "\xf0\x90\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "12345678\xe9t\xe9 Latin-1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(utf8_valid(bad[i], strlen(bad[i])));
}

/* Every code point there is, encoded by hand, must pass; cut by one byte it must not. */
static void agrees_with_the_definition(void **state)
{
    (void)state;
    for (uint32_t c = 1; c <= 0x10ffff; c++) {
        unsigned char s[4];
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (size_t i = n, rest = c; i-- > 0; rest >>= 6)
            s[i] = (unsigned char)(i == 0 ? lead[n] | rest : 0x80 | (rest & 0x3f));
        bool surrogate = c >= 0xd800 && c <= 0xdfff;
        assert_int_equal(utf8_valid((char *)s, n), !surrogate);
        if (n > 1)
            assert_false(utf8_valid((char *)s, n - 1));
    }
}

/* Else the half of a character at a message's cut makes the whole of it unfit for JSON. */
static void mends_what_is_cut_or_none(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"", ""},
                                           {"caf\xc3\xa9", "caf\xc3\xa9"},
                                           {"caf\xc3", "caf"},
                                           {"\xe4\xb8", ""},
                                           {"a\xf0\x90\x80", "a"},
                                           {"a\xf0", "a"},
                                           {"caf\xe9 au lait", "caf? au lait"},
                                           {"a\x80\xbfz", "a??z"},
                                           {"\xe0\x9f", "??"}, // begins none: overlong
                                           {"\xed\xa0\x80", "???"},
                                           {"\xc3\xc3\xa9", "?\xc3\xa9"},
                                           {"\xff\xe4\xb8\xad\xe4", "?\xe4\xb8\xad"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[32];
        strcpy(text, cases[i][0]);
        utf8_mend(text);
        assert_string_equal(text, cases[i][1]);
    }
}

/* Text of which any number of bytes was cut off has lost less than a character more. */
static void mended_text_is_valid_and_as_long_as_can_be(void **state)
{
    (void)state;
    static const char whole[] = "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80z\xf4\x8f\xbf\xbf";
    for (size_t n = 0; n < sizeof(whole); n++) {
        char text[sizeof(whole)] = "";
        memcpy(text, whole, n);
        text[n] = '\0';
        utf8_mend(text);
        size_t left = strlen(text);
        assert_true(utf8_valid(text, left) && left <= n && n - left < 4 && memcmp(text, whole, left) == 0);
        assert_true(left == n || ((unsigned char)whole[left] >= 0xc0 && ((unsigned char)whole[n] & 0xc0) == 0x80));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_text),
        cmocka_unit_test(refuses_what_is_not),
        cmocka_unit_test(agrees_with_the_definition),
        cmocka_unit_test(mends_what_is_cut_or_none),
        cmocka_unit_test(mended_text_is_valid_and_as_long_as_can_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
