#include "server/jsonw.h"

#include <math.h>
#include <stdio.h>

// ------------------------------------------------------------------------------------------------------- numbers

static const char digit_pairs[201] =
    "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748"
    "4950515253545556575859606162636465666768697071727374757677787980818283848586878889909192939495969798"
    "99";

/* The eight digits of v < 10^8 as bytes 0 .. 9, first digit lowest: split in two by 10^4, both halves in two by 100, all four in two
 * by 10, each step for all lanes at once. In a register, for a load of what several short stores wrote must wait for them. */
static inline uint64_t digits8(uint32_t v)
{
    uint64_t x = v / 10000 | (uint64_t)(v % 10000) << 32;
    uint64_t q = (x * 10486 >> 20) & 0x0000007f0000007fu; // x / 100 for x < 10^4
    x = q | (x - q * 100) << 16;
    uint64_t t = (x * 103 >> 10) & 0x000f000f000f000fu; // x / 10 for x < 100
    return t | (x - t * 10) << 8;
}

static inline void put8(char *p, uint64_t v)
{
    memcpy(p, &v, 8);
}

char *jsonw_put_uint(char *p, uint64_t v)
{
    char tmp[20];
    int at = 20;
    while (v >= 100) {
        at -= 2;
        memcpy(tmp + at, digit_pairs + v % 100 * 2, 2);
        v /= 100;
    }
    if (v >= 10) {
        at -= 2;
        memcpy(tmp + at, digit_pairs + v * 2, 2);
    } else {
        tmp[--at] = (char)('0' + v);
    }
    memcpy(p, tmp + at, (size_t)(20 - at));
    return p + (20 - at);
}

static char *put_snprintf(char *p, double v, int digits)
{
    if (!isfinite(v)) {
        memcpy(p, "null", 4);
        return p + 4;
    }
    return p + snprintf(p, JSONW_NUMBER_MAX, "%.*g", digits, v);
}

/* 7 digits of a float in [1e-4, 1e7), where "%.7g" uses no exponent. With e = floor(log10 |v|) the digits are round(v *
 * 10^(6-e)). That product is exact in a double: v has 24 bits, 10^(6-e) <= 10^10 is 5^10 (24 bits) times a power of
 * two, and 24 + 24 < 53. So rint() rounds the true value, half to even, as snprintf does; no table of powers with error
 * terms is needed. */
char *jsonw_put_float7(char *p, float v)
{
    static const double scale[12] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11};
    double a = fabs((double)v);
    if (!(a >= 1e-4 && a < 9999999.0)) {
        if (a == 0 && !signbit(v)) {
            *p = '0';
            return p + 1;
        }
        return put_snprintf(p, (double)v, 7);
    }
    if (signbit(v))
        *p++ = '-';
    int shift = 6; // = 6 - e
    if (a < 1) {
        shift = a >= 0.1 ? 7 : a >= 0.01 ? 8 : a >= 0.001 ? 9 : 10;
    } else {
        for (double top = 10; a >= top; top *= 10)
            shift--;
    }
    uint32_t m = (uint32_t)lrint(a * scale[shift]);
    if (m == 10000000) { // rounded up to the next power of ten
        m = 1000000;
        shift--;
    }
    uint64_t d = digits8(m) >> 8;                            // seven digits; the top byte is 0
    int n = 8 - __builtin_clzll(d) / 8, n_whole = 7 - shift; // digits without trailing zeros; those before the point
    d |= 0x3030303030303030u;
    if (n_whole <= 0) { // 0.000ddd
        memcpy(p, "0.0000", 6);
        p += 2 - n_whole;
        put8(p, d);
        return p + n;
    }
    put8(p, d);
    if (n <= n_whole)
        return p + n_whole;
    p[n_whole] = '.';
    put8(p + n_whole + 1, d >> 8 * n_whole); // n_whole <= 7
    return p + n + 1;
}

// ------------------------------------------------------------------------------------------------------- strings

static char *put_escape(char *p, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    char short_form = c == '"'    ? '"'
                      : c == '\\' ? '\\'
                      : c == '\n' ? 'n'
                      : c == '\r' ? 'r'
                      : c == '\t' ? 't'
                      : c == '\b' ? 'b'
                      : c == '\f' ? 'f'
                                  : '\0';
    *p++ = '\\';
    if (short_form) {
        *p++ = short_form;
        return p;
    }
    memcpy(p, "u00", 3);
    p[3] = hex[c >> 4];
    p[4] = hex[c & 15];
    return p + 5;
}

/* Eight bytes at a time; only words with a byte to escape are looked at byte by byte. */
char *jsonw_put_escaped(char *p, const char *s, size_t n)
{
    *p++ = '"';
    size_t i = 0;
    while (i < n) {
        uint64_t w;
        if (n - i >= 8 && (memcpy(&w, s + i, 8), jsonw_needs_escape(w) == 0)) {
            memcpy(p, &w, 8);
            p += 8;
            i += 8;
            continue;
        }
        size_t end = n - i >= 8 ? i + 8 : n;
        for (; i < end; i++) {
            unsigned char c = (unsigned char)s[i];
            if (c < 0x20 || c == '"' || c == '\\')
                p = put_escape(p, c);
            else
                *p++ = (char)c;
        }
    }
    *p++ = '"';
    return p;
}

// ------------------------------------------------------------------------------------------------------- appended

static void end_at(struct buf *b, const char *end)
{
    b->len = (size_t)(end - b->data);
    b->data[b->len] = '\0';
}

void jsonw_uint(struct buf *b, uint64_t v)
{
    if (buf_reserve(b, JSONW_NUMBER_MAX))
        end_at(b, jsonw_put_uint(b->data + b->len, v));
}

void jsonw_float7(struct buf *b, float v)
{
    if (buf_reserve(b, JSONW_NUMBER_MAX))
        end_at(b, jsonw_put_float7(b->data + b->len, v));
}

void jsonw_float9(struct buf *b, float v)
{
    if (buf_reserve(b, JSONW_NUMBER_MAX))
        end_at(b, put_snprintf(b->data + b->len, (double)v, 9));
}

void jsonw_string(struct buf *b, const char *s, size_t n)
{
    if (n < SIZE_MAX / 8 && buf_reserve(b, jsonw_string_room(n)))
        end_at(b, jsonw_put_string(b->data + b->len, s, n));
}

void jsonw_text(struct buf *b, const char *s)
{
    if (s)
        jsonw_string(b, s, strlen(s));
    else
        JSONW_LIT(b, "null");
}
