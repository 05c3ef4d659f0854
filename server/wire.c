#include "server/wire.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/utf8.h"

// ------------------------------------------------------------------------------------------------------- errors

/* Append one reference token, escaped as RFC 6901 says; cut where there is no room. */
static size_t put_token(char *out, size_t at, size_t cap, struct str key)
{
    if (at + 1 < cap)
        out[at++] = '/';
    for (size_t i = 0; i < key.n && at + 3 < cap; i++) {
        char c = key.p[i];
        if (c == '~' || c == '/') {
            out[at++] = '~';
            c = c == '~' ? '0' : '1';
        }
        out[at++] = c;
    }
    return at;
}

static void put_pointer(const struct wire *w, char *out, size_t cap)
{
    size_t at = 0;
    for (unsigned d = 1; d <= w->depth && d <= WIRE_DEPTH_MAX; d++) {
        const struct wire_level *l = &w->level[d];
        char index[24];
        if (l->n == 0)
            break; // entered, but no member begun
        struct str key = l->key;
        if (l->is_array)
            key = (struct str){index, (size_t)snprintf(index, sizeof(index), "%zu", l->n - 1)};
        at = put_token(out, at, cap, key);
    }
    out[at] = '\0';
    utf8_mend(out);
}

bool wire_fail(struct wire *w, unsigned status, const char *code, const char *fmt, ...)
{
    if (w->error.status)
        return false;
    w->error.status = status;
    w->error.code = code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->error.detail, sizeof(w->error.detail), fmt, ap);
    va_end(ap);
    utf8_mend(w->error.detail);
    put_pointer(w, w->error.pointer, sizeof(w->error.pointer));
    return false;
}

/* 400 at the cursor: "byte 17: found 'x', want ',' or '}'". */
static bool malformed(struct wire *w, const char *wanted)
{
    unsigned char c = (unsigned char)*w->p;
    size_t at = (size_t)(w->p - w->begin);
    if (w->p >= w->end)
        return wire_fail(w, 400, "malformed_json", "byte %zu: found the end, want %s", at, wanted);
    if (c < 0x20 || c >= 0x7f)
        return wire_fail(w, 400, "malformed_json", "byte %zu: found byte 0x%02x, want %s", at, c, wanted);
    return wire_fail(w, 400, "malformed_json", "byte %zu: found '%c', want %s", at, c, wanted);
}

const char *wire_kind_name(enum wire_kind k)
{
    static const char *const name[] = {"an object", "an array", "a string", "a number",
                                       "a boolean", "null",     "no value"};
    return name[k];
}

bool wire_wrong_type(struct wire *w, const char *wanted)
{
    enum wire_kind k = wire_peek(w);
    if (k == WIRE_OTHER)
        return malformed(w, "a value");
    return wire_fail(w, 400, "wrong_type", "found %s, want %s", wire_kind_name(k), wanted);
}

// ------------------------------------------------------------------------------------------------------- structure

void wire_begin(struct wire *w, const char *body, size_t n, char *scratch, unsigned max_depth)
{
    w->begin = w->p = body;
    w->end = body + n;
    w->scratch = scratch;
    w->depth = 0;
    w->max_depth = max_depth < WIRE_DEPTH_MAX ? max_depth : WIRE_DEPTH_MAX;
    w->error.status = 0;
    w->error.code = NULL;
    w->error.pointer[0] = w->error.detail[0] = '\0';
}

static inline void skip_space(struct wire *w)
{
    while (*w->p == ' ' || *w->p == '\n' || *w->p == '\t' || *w->p == '\r')
        w->p++; // ends at the NUL behind the body at the latest
}

bool wire_end(struct wire *w)
{
    if (!wire_ok(w))
        return false;
    skip_space(w);
    return w->p == w->end ? true : malformed(w, "the end");
}

enum wire_kind wire_peek(struct wire *w)
{
    skip_space(w);
    switch (*w->p) {
    case '{':
        return WIRE_OBJECT;
    case '[':
        return WIRE_ARRAY;
    case '"':
        return WIRE_STRING;
    case 't':
    case 'f':
        return WIRE_BOOL;
    case 'n':
        return WIRE_NULL;
    case '-':
        return WIRE_NUMBER;
    default:
        return *w->p >= '0' && *w->p <= '9' ? WIRE_NUMBER : WIRE_OTHER;
    }
}

static bool enter(struct wire *w, enum wire_kind kind)
{
    if (!wire_ok(w))
        return false;
    if (wire_peek(w) != kind)
        return wire_wrong_type(w, wire_kind_name(kind));
    if (w->depth >= w->max_depth)
        return wire_fail(w, 400, "too_deep", "nested deeper than %u levels (limits.json_depth)", w->max_depth);
    w->p++;
    w->level[++w->depth] = (struct wire_level){.is_array = kind == WIRE_ARRAY};
    return true;
}

bool wire_enter_object(struct wire *w)
{
    return enter(w, WIRE_OBJECT);
}

bool wire_enter_array(struct wire *w)
{
    return enter(w, WIRE_ARRAY);
}

/* To the next member: over the comma, or out at `close`. */
static bool advance(struct wire *w, char close)
{
    if (!wire_ok(w))
        return false;
    struct wire_level *l = &w->level[w->depth];
    skip_space(w);
    if (*w->p == close) {
        w->p++;
        w->depth--;
        return false;
    }
    if (l->n > 0) {
        if (*w->p != ',')
            return malformed(w, close == '}' ? "',' or '}'" : "',' or ']'");
        w->p++;
        skip_space(w);
    }
    return true;
}

bool wire_next_item(struct wire *w)
{
    if (!advance(w, ']'))
        return false;
    w->level[w->depth].n++;
    if (wire_peek(w) == WIRE_OTHER)
        return malformed(w, "a value");
    return true;
}

static bool read_string(struct wire *w, struct str *out);

bool wire_next_key(struct wire *w, struct str *key)
{
    if (!advance(w, '}'))
        return false;
    if (*w->p != '"')
        return malformed(w, "a field's name in quotes");
    if (!read_string(w, key))
        return false;
    struct wire_level *l = &w->level[w->depth];
    l->key = *key;
    l->n++;
    skip_space(w);
    if (*w->p != ':')
        return malformed(w, "':'");
    w->p++;
    if (wire_peek(w) == WIRE_OTHER)
        return malformed(w, "a value");
    return true;
}

// ------------------------------------------------------------------------------------------------------- strings

/* Does any of eight bytes end a run: a quote, a backslash, a control character? Exact for the lowest byte that does. */
static inline uint64_t ends_run(uint64_t v)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    return ((v - ones * 0x20) | ((v ^ (ones * '"')) - ones) | ((v ^ (ones * '\\')) - ones)) & ~v & high;
}

/* First byte from p on that is a quote, a backslash or below 0x20 (the NUL at the end at the latest); *high collects
 * the top bits. */
static const char *run_end(const struct wire *w, const char *p, uint64_t *high)
{
    uint64_t v;
    while (w->end - p >= 8 && (memcpy(&v, p, 8), ends_run(v) == 0)) {
        *high |= v;
        p += 8;
    }
    while ((unsigned char)*p >= 0x20 && *p != '"' && *p != '\\')
        *high |= (unsigned char)*p++;
    return p;
}

static bool hex4(struct wire *w, unsigned *out)
{
    unsigned v = 0;
    for (int i = 0; i < 4; i++, w->p++) {
        char c = *w->p;
        unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                     : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                     : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                            : 16;
        if (d == 16)
            return malformed(w, "four hex digits after \\u");
        v = v << 4 | d;
    }
    *out = v;
    return true;
}

static char *put_utf8(char *q, unsigned c)
{
    if (c < 0x80) {
        *q++ = (char)c;
    } else if (c < 0x800) {
        *q++ = (char)(0xc0 | c >> 6);
        *q++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *q++ = (char)(0xe0 | c >> 12);
        *q++ = (char)(0x80 | (c >> 6 & 63));
        *q++ = (char)(0x80 | (c & 63));
    } else {
        *q++ = (char)(0xf0 | c >> 18);
        *q++ = (char)(0x80 | (c >> 12 & 63));
        *q++ = (char)(0x80 | (c >> 6 & 63));
        *q++ = (char)(0x80 | (c & 63));
    }
    return q;
}

/* After "\u". */
static bool unicode_escape(struct wire *w, char **q)
{
    const char *at = w->p - 2;
    unsigned c = 0, low = 0;
    if (!hex4(w, &c))
        return false;
    if (c >= 0xd800 && c < 0xdc00 && w->p[0] == '\\' && w->p[1] == 'u') {
        w->p += 2;
        if (!hex4(w, &low))
            return false;
        if (low >= 0xdc00 && low < 0xe000) {
            *q = put_utf8(*q, 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00));
            return true;
        }
    }
    if (c == 0 || (c >= 0xd800 && c < 0xe000)) {
        return wire_fail(w, 400, "malformed_json", "byte %zu: found %s, want a character", (size_t)(at - w->begin),
                         c ? "half of a surrogate pair" : "\\u0000");
    }
    *q = put_utf8(*q, c);
    return true;
}

static bool escape(struct wire *w, char **q)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = *++w->p; // over the backslash
    if (c == 'u') {
        w->p++;
        return unicode_escape(w, q);
    }
    const char *f = c ? strchr(from, c) : NULL;
    if (!f)
        return malformed(w, "an escape: one of \" \\ / b f n r t u");
    *(*q)++ = to[f - from];
    w->p++;
    return true;
}

/* A string with escapes: decoded into the scratch, never longer than its source. w->p is at the first backslash. */
static bool decode(struct wire *w, const char *s, uint64_t *high, struct str *out)
{
    char *q = w->scratch;
    for (;;) {
        size_t n = (size_t)(w->p - s);
        memcpy(q, s, n);
        q += n;
        if (*w->p != '\\')
            break;
        if (!escape(w, &q))
            return false;
        s = w->p;
        w->p = run_end(w, s, high);
    }
    *out = (struct str){w->scratch, (size_t)(q - w->scratch)};
    w->scratch = q;
    return true;
}

static bool read_string(struct wire *w, struct str *out)
{
    const char *s = w->p + 1;
    uint64_t high = 0;
    w->p = run_end(w, s, &high);
    *out = (struct str){s, (size_t)(w->p - s)};
    if (*w->p == '\\' && !decode(w, s, &high, out))
        return false;
    if (*w->p != '"')
        return malformed(w, w->p >= w->end ? "the string's closing quote" : "an escape: control characters need one");
    w->p++;
    if ((high & 0x8080808080808080u) && !utf8_valid(out->p, out->n))
        return wire_fail(w, 400, "malformed_json", "byte %zu: the string that ends here is not UTF-8",
                         (size_t)(w->p - w->begin));
    return true;
}

bool wire_string(struct wire *w, struct str *out)
{
    if (!wire_ok(w))
        return false;
    return wire_peek(w) == WIRE_STRING ? read_string(w, out) : wire_wrong_type(w, "a string");
}

// ------------------------------------------------------------------------------------------------------- words and
// numbers

static bool word(struct wire *w, const char *text, size_t n)
{
    if ((size_t)(w->end - w->p) < n || memcmp(w->p, text, n) != 0)
        return malformed(w, "true, false or null");
    w->p += n;
    return true;
}

bool wire_bool(struct wire *w, bool *out)
{
    if (!wire_ok(w))
        return false;
    if (wire_peek(w) != WIRE_BOOL)
        return wire_wrong_type(w, "true or false");
    *out = *w->p == 't';
    return *out ? word(w, "true", 4) : word(w, "false", 5);
}

bool wire_null(struct wire *w)
{
    if (!wire_ok(w))
        return false;
    return wire_peek(w) == WIRE_NULL ? word(w, "null", 4) : wire_wrong_type(w, "null");
}

static inline bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool digits(struct wire *w)
{
    if (!is_digit(*w->p))
        return malformed(w, "a digit");
    while (is_digit(*w->p))
        w->p++;
    return true;
}

bool wire_number_text(struct wire *w, struct str *out, bool *is_integer)
{
    if (!wire_ok(w))
        return false;
    if (wire_peek(w) != WIRE_NUMBER)
        return wire_wrong_type(w, "a number");
    const char *s = w->p;
    *is_integer = true;
    if (*w->p == '-')
        w->p++;
    if (*w->p == '0') {
        w->p++;
        if (is_digit(*w->p))
            return malformed(w, "no digit after a leading 0");
    } else if (!digits(w)) {
        return false;
    }
    if (*w->p == '.') {
        *is_integer = false;
        w->p++;
        if (!digits(w))
            return false;
    }
    if (*w->p == 'e' || *w->p == 'E') {
        *is_integer = false;
        w->p++;
        if (*w->p == '+' || *w->p == '-')
            w->p++;
        if (!digits(w))
            return false;
    }
    *out = (struct str){s, (size_t)(w->p - s)};
    return true;
}

static int shown(size_t n)
{
    return n < 40 ? (int)n : 40;
}

bool wire_uint(struct wire *w, uint64_t *out)
{
    struct str t;
    bool integer;
    if (wire_ok(w) && wire_peek(w) != WIRE_NUMBER)
        return wire_wrong_type(w, "an integer");
    if (!wire_number_text(w, &t, &integer))
        return false;
    uint64_t v = 0;
    bool zero = t.n == 2 && memcmp(t.p, "-0", 2) == 0, fits = integer && (zero || t.p[0] != '-');
    for (size_t i = zero; i < t.n && fits; i++)
        fits = !__builtin_mul_overflow(v, 10u, &v) && !__builtin_add_overflow(v, (uint64_t)(t.p[i] - '0'), &v);
    if (!fits)
        return wire_fail(w, 400, "wrong_type", "found %.*s, want an integer from 0 on", shown(t.n), t.p);
    *out = v;
    return true;
}

/* strtod is locale-dependent and slow, but right: it gets what the short way cannot do exactly. A number of at most 15
 * digits times or by a power of ten up to 10^22 has one rounding, that of the last operation (Clinger 1990). */
static double to_double(struct str t)
{
    static const double ten[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    uint64_t m = 0;
    size_t i = t.p[0] == '-', n_digits = 0, n_frac = 0;
    bool point = false;
    for (; i < t.n; i++) {
        if (t.p[i] == '.') {
            point = true;
            continue;
        }
        if (!is_digit(t.p[i]) || ++n_digits > 15)
            return strtod(t.p, NULL);
        m = m * 10 + (uint64_t)(t.p[i] - '0');
        n_frac += point;
    }
    double v = (double)m / ten[n_frac];
    return t.p[0] == '-' ? -v : v;
}

bool wire_double(struct wire *w, double *out)
{
    struct str t;
    bool integer;
    if (!wire_number_text(w, &t, &integer))
        return false;
    *out = to_double(t);
    return isfinite(*out) ||
           wire_fail(w, 400, "wrong_type", "found %.*s, want a number that a double can hold", shown(t.n), t.p);
}

// ------------------------------------------------------------------------------------------------------- skipping

/* Recursion is bounded by max_depth. */
bool wire_skip(struct wire *w)
{
    struct str s;
    bool b;
    if (!wire_ok(w))
        return false;
    switch (wire_peek(w)) {
    case WIRE_OBJECT:
        wire_enter_object(w);
        while (wire_next_key(w, &s) && wire_skip(w))
            ;
        return wire_ok(w);
    case WIRE_ARRAY:
        wire_enter_array(w);
        while (wire_next_item(w) && wire_skip(w))
            ;
        return wire_ok(w);
    case WIRE_STRING:
        return wire_string(w, &s);
    case WIRE_NUMBER:
        return wire_number_text(w, &s, &b);
    case WIRE_BOOL:
        return wire_bool(w, &b);
    case WIRE_NULL:
        return wire_null(w);
    case WIRE_OTHER:
        break;
    }
    return malformed(w, "a value");
}
