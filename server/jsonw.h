/* jsonw.h - JSON written straight into a buffer: strings, integers, scores. The hot path's half of what jansson does
 * elsewhere.
 * Place:   problem.c, handle_retrieve.c and every other answer that is written per request.
 * Rules:   structure (braces, commas, keys) is the caller's, as literals. Numbers are correctly rounded: the text
 *          equals what snprintf("%.7g") gives. NaN and infinities, which JSON cannot say, become null; nothing of ours
 *          should hold any.
 * Speed:   bench/wire.c. Allocates only when the buffer grows; check buf.failed once at the end. */
#ifndef DUET_SERVER_JSONW_H
#define DUET_SERVER_JSONW_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/base/mem.h"

#define JSONW_NUMBER_MAX 24 // bytes that one number may take

/* Write at p, return the end. No NUL is written; the room needed is JSONW_NUMBER_MAX. */
char *jsonw_put_uint(char *p, uint64_t v);
char *jsonw_put_float7(char *p, float v); // 7 significant digits

/* Does any of the eight bytes need an escape: below 0x20, a quote or a backslash? (The classic has-zero and has-less tricks.) */
static inline uint64_t jsonw_needs_escape(uint64_t w)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t q = w ^ (ones * '"'), b = w ^ (ones * '\\');
    return ((w - ones * 0x20) | (q - ones) | (b - ones)) & ~w & high;
}

/* Quoted and escaped. Needs 6 n + 2 bytes of room. `s` is UTF-8 (everything that reaches an answer was checked when it was read). */
char *jsonw_put_escaped(char *p, const char *s, size_t n);

/* The same; what most ids are - 4 to 16 bytes, nothing to escape - goes as two words that overlap in the middle. */
static inline char *jsonw_put_string(char *p, const char *s, size_t n)
{
    uint64_t a = 0, b = 0;
    if (n >= 8 && n <= 16) {
        memcpy(&a, s, 8);
        memcpy(&b, s + n - 8, 8);
        if (jsonw_needs_escape(a) | jsonw_needs_escape(b))
            return jsonw_put_escaped(p, s, n);
        memcpy(p + 1, &a, 8);
        memcpy(p + 1 + n - 8, &b, 8);
    } else if (n >= 4 && n < 8) {
        uint32_t c, d;
        memcpy(&c, s, 4);
        memcpy(&d, s + n - 4, 4);
        if (jsonw_needs_escape((uint64_t)d << 32 | c))
            return jsonw_put_escaped(p, s, n);
        memcpy(p + 1, &c, 4);
        memcpy(p + 1 + n - 4, &d, 4);
    } else {
        return jsonw_put_escaped(p, s, n);
    }
    p[0] = p[n + 1] = '"';
    return p + n + 2;
}
static inline size_t jsonw_string_room(size_t n)
{
    return 6 * n + 2;
}

/* The same, appended. */
void jsonw_uint(struct buf *b, uint64_t v);
void jsonw_float7(struct buf *b, float v);
void jsonw_float9(struct buf *b, float v); // 9 significant digits: enough to get the same float back
void jsonw_string(struct buf *b, const char *s, size_t n);
void jsonw_text(struct buf *b, const char *s); // NUL-terminated, or NULL for null

#define JSONW_LIT(b, literal) buf_put((b), "" literal, sizeof(literal) - 1)

#endif
