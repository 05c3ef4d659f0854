/* wire.h - a strict JSON reader that pulls values out of a request's body without building a tree: the hot path's parser.
 * Place:   query.c reads /v1/retrieve and /v1/users:embed with it; cold paths use jansson (core/base/json.h).
 * Strict:  RFC 8259, UTF-8 only, no NUL (escaped neither), no lone surrogates, nothing behind the value, depth <= max_depth.
 * Memory:  strings without escapes are views into the body; others are decoded into the caller's scratch, which needs as many
 *          bytes as the body has. Allocates nothing.
 * Errors:  the first one is kept, with its place as a JSON pointer; everything afterwards returns false.
 *
 *     struct str key;                          wire_next_key is false at the end of the object and after an error,
 *     if (!wire_enter_object(w)) return false; so wire_ok tells which
 *     while (wire_next_key(w, &key))
 *         if (!read_member(w, key)) return false;
 *     return wire_ok(w); */
#ifndef DUET_SERVER_WIRE_H
#define DUET_SERVER_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/strtab.h"

#define WIRE_DEPTH_MAX 16

enum wire_kind { WIRE_OBJECT, WIRE_ARRAY, WIRE_STRING, WIRE_NUMBER, WIRE_BOOL, WIRE_NULL, WIRE_OTHER };

struct wire_error {
    unsigned status;   // 0 = none; 400 or 422
    const char *code;  // static: "malformed_json", "wrong_type", ...
    char pointer[256]; // into the body; "" = the whole
    char detail[400];
};

struct wire_level {
    struct str key; // of an object's current member, as decoded
    size_t n;       // members or items begun
    bool is_array;
};

struct wire {
    const char *begin, *p, *end; // *end is NUL
    char *scratch;               // next free byte for decoded strings
    unsigned depth, max_depth;
    struct wire_level level[WIRE_DEPTH_MAX + 1]; // [depth] is the innermost open one
    struct wire_error error;
};

/* body[n] is followed by a NUL (http_request.body is); scratch has room for n bytes. max_depth <= WIRE_DEPTH_MAX. */
void wire_begin(struct wire *w, const char *body, size_t n, char *scratch, unsigned max_depth);
static inline bool wire_ok(const struct wire *w)
{
    return w->error.status == 0;
}
/* Nothing but white space behind the value? */
bool wire_end(struct wire *w);

/* Kind of the value that comes next; WIRE_OTHER at the end or where no value begins. */
enum wire_kind wire_peek(struct wire *w);
const char *wire_kind_name(enum wire_kind k); // "an object", "a string", ...

bool wire_enter_object(struct wire *w);
bool wire_next_key(struct wire *w, struct str *key);
bool wire_enter_array(struct wire *w);
bool wire_next_item(struct wire *w);

/* Scalars. A value of another kind is 400 `wrong_type`, naming what was found and wanted. */
bool wire_string(struct wire *w, struct str *out);
bool wire_bool(struct wire *w, bool *out);
bool wire_null(struct wire *w);
bool wire_uint(struct wire *w, uint64_t *out); // no fraction, no exponent, no sign but that of -0; above 2^64 - 1: `wrong_type`
bool wire_double(struct wire *w, double *out); // correctly rounded; not finite: `wrong_type`
/* A number's own text, and whether it has neither fraction nor exponent. */
bool wire_number_text(struct wire *w, struct str *out, bool *is_integer);
bool wire_skip(struct wire *w); // any value, checked like all others

/* Record an error about the value that is being read (or the whole, at depth 0). Returns false. */
bool wire_fail(struct wire *w, unsigned status, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* 400 wrong_type for what comes next: "found a string, want <wanted>". */
bool wire_wrong_type(struct wire *w, const char *wanted);

#endif
