/* If this fails, a hostile body may crash the daemon, or a request is understood differently from what the client
 * wrote. jansson is the oracle: what we read as a tree must be what it reads, and what it refuses we refuse. */
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
#include "server/wire.h"

// ---------------------------------------------------------------------------------------------- a tree, for comparing

static json_t *read_value(struct wire *w);

static json_t *read_object(struct wire *w)
{
    json_t *o = json_object();
    struct str key;
    wire_enter_object(w);
    while (wire_next_key(w, &key)) {
        char *name = malloc(key.n + 1);
        memcpy(name, key.p, key.n);
        name[key.n] = '\0';
        if (json_object_get(o, name))
            wire_fail(w, 400, "duplicate_field", "twice");
        json_t *v = read_value(w);
        if (v)
            json_object_set_new(o, name, v);
        free(name);
    }
    return o;
}

static json_t *read_number(struct wire *w)
{
    struct wire before = *w;
    struct str t;
    bool integer;
    double d;
    if (!wire_number_text(w, &t, &integer))
        return NULL;
    if (integer) {
        char *end;
        return json_integer(strtoll(t.p, &end, 10));
    }
    *w = before;
    return wire_double(w, &d) ? json_real(d) : NULL;
}

static json_t *read_value(struct wire *w)
{
    struct str s;
    bool b;
    json_t *a;
    switch (wire_peek(w)) {
    case WIRE_OBJECT:
        return read_object(w);
    case WIRE_ARRAY:
        a = json_array();
        wire_enter_array(w);
        while (wire_next_item(w)) {
            json_t *v = read_value(w);
            if (v)
                json_array_append_new(a, v);
        }
        return a;
    case WIRE_STRING:
        return wire_string(w, &s) ? json_stringn(s.p, s.n) : NULL;
    case WIRE_NUMBER:
        return read_number(w);
    case WIRE_BOOL:
        return wire_bool(w, &b) ? json_boolean(b) : NULL;
    case WIRE_NULL:
        return wire_null(w) ? json_null() : NULL;
    case WIRE_OTHER:
        wire_skip(w);
        break;
    }
    return NULL;
}

/* Exactly sized heap copies, so that the sanitizer sees a read or write beyond. */
static json_t *read_all(const char *text, size_t n, struct wire_error *e)
{
    char *body = malloc(n + 1), *scratch = malloc(n ? n : 1);
    memcpy(body, text, n);
    body[n] = '\0';
    struct wire w;
    wire_begin(&w, body, n, scratch, WIRE_DEPTH_MAX);
    json_t *v = read_value(&w);
    if (wire_ok(&w))
        wire_end(&w);
    *e = w.error;
    if (!wire_ok(&w)) {
        json_decref(v);
        v = NULL;
    }
    struct wire skip; // skipping accepts the same (but for repeated names)
    wire_begin(&skip, body, n, scratch, WIRE_DEPTH_MAX);
    bool skipped = wire_skip(&skip) && wire_end(&skip);
    if (v && !skipped)
        fail_msg("skip refuses what reading accepts: %s", skip.error.detail);
    free(body);
    free(scratch);
    return v;
}

static size_t depth_of(const char *s, size_t n)
{
    size_t d = 0, max = 0;
    bool in = false;
    for (size_t i = 0; i < n; i++) {
        if (in && s[i] == '\\')
            i++;
        else if (s[i] == '"')
            in = !in;
        else if (!in && (s[i] == '{' || s[i] == '['))
            max = ++d > max ? d : max;
        else if (!in && (s[i] == '}' || s[i] == ']'))
            d--;
    }
    return max;
}

/* Compare with the oracle. It also refuses integers beyond 64 bits and reads any depth: there the two may differ. */
static void check(const char *text, size_t n)
{
    struct wire_error e;
    json_error_t je;
    json_t *ours = read_all(text, n, &e);
    json_t *theirs = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
    if (memchr(text, '\0', n)) { // jansson 2.14 loses a NUL byte that ends a number
        assert_null(ours);
        json_decref(theirs);
        return;
    }
    bool excused =
        (!ours && theirs && depth_of(text, n) > WIRE_DEPTH_MAX) || (ours && !theirs && strstr(je.text, "integer"));
    if (!excused && (ours ? 1 : 0) != (theirs ? 1 : 0))
        fail_msg("%.*s\nwe: %s, oracle: %s", (int)n, text, ours ? "accepted" : e.detail, theirs ? "accepted" : je.text);
    if (ours && theirs && !json_equal(ours, theirs))
        fail_msg("read differently: %.*s", (int)n, text);
    if (!ours) {
        assert_true(e.status == 400 || e.status == 422);
        assert_non_null(e.code);
        assert_true(e.detail[0] != '\0');
    }
    json_decref(ours);
    json_decref(theirs);
}

// ------------------------------------------------------------------------------------------------------------ cases

static const char *const fixed[] = {
    "{}",
    "[]",
    "",
    " ",
    "{",
    "}",
    "[",
    "]",
    "{\"a\":1}",
    "{\"a\":1,}",
    "{,}",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1 \"b\":2}",
    "{a:1}",
    "{'a':1}",
    "[1,2,3]",
    "[1,]",
    "[,1]",
    "[1 2]",
    "[1]]",
    "{}x",
    "null",
    "nul",
    "true",
    "truE",
    "falsey",
    "fals",
    "\"a\"",
    "\"a",
    "\"",
    "\"\\",
    "\"\\u",
    "\"\\u12",
    "\"\\u0041\"",
    "\"\\u0000\"",
    "\"\\uD83C\\uDFAC\"",
    "\"\\uD83C\"",
    "\"\\uDFAC\"",
    "\"\\uD83C\\u0041\"",
    "\"\\uD83C\\\"",
    "\"\\x\"",
    "\"\\/\\b\\f\\n\\r\\t\\\\\\\"\"",
    "\"\xc3\xa9\"",
    "\"\xc3\"",
    "\"\xff\"",
    "\"\xed\xa0\x80\"",
    "\"\xc0\x80\"",
    "\"\xf4\x90\x80\x80\"",
    "\"\t\"",
    "\"\n\"",
    "\"\x7f\"",
    "0",
    "-0",
    "00",
    "01",
    "-",
    "+1",
    "1.",
    ".5",
    "1.5",
    "1e5",
    "1e",
    "1e+",
    "1E-3",
    "-1.25e+2",
    "1.7976931348623157e308",
    "1e309",
    "-1e309",
    "1e-400",
    "0.1",
    "0.30000000000000004",
    "123456789012345678",
    "9223372036854775807",
    "3.141592653589793238462643",
    "1e22",
    "1e23",
    "0x10",
    "NaN",
    "Infinity",
    "{\"a\":{\"b\":[1,{\"c\":null}]}}",
    "{\"a\":1,\"a\":2}",
    "[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]",
    "[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]",
    "\xef\xbb\xbf{}",
    " \t\r\n{ \"a\" : [ 1 , 2 ] } \n",
    "{\"a\":\"0123456789abcdef\\n0123456789abcdef\"}",
    "{\"\":\"\"}",
    "[1,2",
    "{\"a\":[}",
    "{\"a\":1]",
    "//c\n{}",
    "1 2",
    "{\"user_id\":\"253\",\"features\":{\"city\":\"SH\"},\"k\":100,\"ef\":200,\"exact\":false,\"min_score\":0.1}",
};

static void fixed_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        check(fixed[i], strlen(fixed[i]));
    check("{\"a\0b\":1}", 9);
    check("{}\0", 3);
    check("\"a\0\"", 4);
}

static size_t put_random(struct rng *r, char *out, size_t at, size_t cap, int depth)
{
    static const char *const scalars[] = {
        "1",    "-7",       "0.25", "1e3", "true", "false", "null", "\"x\"", "\"caf\xc3\xa9\"", "\"\\u00e9\\n\"",
        "\"\"", "123456.75"};
    uint32_t kind = rng_below(r, depth > 0 ? 4 : 2);
    if (kind < 2 || at + 64 > cap)
        return at + (size_t)snprintf(out + at, cap - at, "%s", scalars[rng_below(r, 12)]);
    bool array = kind == 2;
    out[at++] = array ? '[' : '{';
    uint32_t n = rng_below(r, 4);
    for (uint32_t i = 0; i < n && at + 64 < cap; i++) {
        if (i)
            out[at++] = ',';
        if (!array)
            at += (size_t)snprintf(out + at, cap - at, "\"k%u\" : ", i);
        at = put_random(r, out, at, cap, depth - 1);
    }
    if (at + 1 < cap)
        out[at++] = array ? ']' : '}';
    return at;
}

/* Random documents, each then damaged many times: flipped, dropped, doubled and swapped bytes. */
static void random_and_damaged_texts(void **state)
{
    (void)state;
    struct rng r;
    char text[1024];
    const uint64_t seed = 31;
    rng_init(&r, seed);
#ifdef DUET_SANITIZED
    enum { N = 3000 };
#else
    enum { N = 15000 };
#endif
    for (int i = 0; i < N; i++) {
        size_t n = i % 3 ? put_random(&r, text, 0, sizeof(text) - 128, 6)
                         : strlen(strcpy(text, fixed[rng_below(&r, sizeof(fixed) / sizeof(fixed[0]))]));
        check(text, n);
        for (int m = 0; m < 8 && n > 0; m++) {
            char bad[1026];
            size_t at = rng_below(&r, (uint32_t)n), len = n;
            memcpy(bad, text, n);
            switch (rng_below(&r, 5)) {
            case 0:
                bad[at] = (char)rng_u64(&r);
                break;
            case 1:
                bad[at] = "{}[]\",:\\u0-eE.tfn \t\x01\xc3"[rng_below(&r, 22)];
                break;
            case 2:
                memmove(bad + at, bad + at + 1, --len - at);
                break;
            case 3:
                memmove(bad + at + 1, bad + at, len++ - at);
                break;
            default:
                len = at;
                break;
            }
            check(bad, len);
        }
    }
}

/* Numbers as a correct strtod reads them. */
static void doubles_are_correctly_rounded(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 32);
    for (int i = 0; i < 200000; i++) {
        char text[64];
        switch (rng_below(&r, 3)) {
        case 0:
            snprintf(text, sizeof(text), "%.*f", (int)rng_below(&r, 12),
                     (rng_unit(&r) - 0.5) * pow(10, rng_below(&r, 8)));
            break;
        case 1:
            snprintf(text, sizeof(text), "%.*g", 1 + (int)rng_below(&r, 17), rng_normal(&r));
            break;
        default:
            snprintf(text, sizeof(text), "%u.%ue%d", rng_below(&r, 1000), rng_below(&r, 1000000),
                     (int)rng_below(&r, 40) - 20);
        }
        struct wire w;
        double got;
        wire_begin(&w, text, strlen(text), NULL, 1);
        assert_true(wire_double(&w, &got));
        if (got != strtod(text, NULL))
            fail_msg("%s read as %.17g", text, got);
    }
}

static struct wire_error error_of(const char *text, bool (*read)(struct wire *))
{
    static char scratch[1024];
    struct wire w;
    wire_begin(&w, text, strlen(text), scratch, WIRE_DEPTH_MAX);
    assert_false(read(&w));
    return w.error;
}

static bool read_ks(struct wire *w)
{
    struct str key;
    uint64_t k;
    if (!wire_enter_object(w))
        return false;
    while (wire_next_key(w, &key)) {
        if (key.n == 1 && key.p[0] == 'l') {
            wire_enter_array(w);
            while (wire_next_item(w) && wire_uint(w, &k))
                ;
        } else {
            wire_uint(w, &k);
        }
    }
    return wire_ok(w) && wire_end(w);
}

static void errors_say_where_and_what(void **state)
{
    (void)state;
    static const struct {
        const char *text, *code, *pointer, *says;
    } c[] = {
        {"{\"k\":\"1\"}", "wrong_type", "/k", "found a string, want an integer"},
        {"{\"k\":1.5}", "wrong_type", "/k", "found 1.5"},
        {"{\"k\":-1}", "wrong_type", "/k", "found -1"},
        {"{\"k\":18446744073709551616}", "wrong_type", "/k", "18446744073709551616"},
        {"{\"l\":[1,2,null]}", "wrong_type", "/l/2", "found null"},
        {"{\"a/b~c\":true}", "wrong_type", "/a~1b~0c", "boolean"},
        {"{\"k\":1", "malformed_json", "/k", "byte 6: found the end"},
        {"[]", "wrong_type", "", "found an array, want an object"},
        {"{\"k\":1}}", "malformed_json", "", "byte 7: found '}', want the end"},
        {"{\"k\":tru}", "wrong_type", "/k", "boolean"},
        {"", "malformed_json", "", "found the end"},
    };
    for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        struct wire_error e = error_of(c[i].text, read_ks);
        assert_string_equal(e.code, c[i].code);
        assert_string_equal(e.pointer, c[i].pointer);
        if (!strstr(e.detail, c[i].says))
            fail_msg("%s: '%s' does not say '%s'", c[i].text, e.detail, c[i].says);
    }
}

/* A name of a thousand bytes must not overrun the pointer or split a character in it. */
static void long_names_are_cut(void **state)
{
    (void)state;
    static char text[2100], scratch[2100];
    size_t at = (size_t)sprintf(text, "{\"");
    while (at < 2000) {
        memcpy(text + at, "\xc3\xa9", 2);
        at += 2;
    }
    sprintf(text + at, "\":true}");
    struct wire w;
    wire_begin(&w, text, strlen(text), scratch, WIRE_DEPTH_MAX);
    assert_false(read_ks(&w));
    json_t *v = json_string(w.error.pointer); // checks UTF-8
    assert_non_null(v);
    assert_true(strlen(w.error.pointer) > 200);
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixed_texts),
        cmocka_unit_test(random_and_damaged_texts),
        cmocka_unit_test(doubles_are_correctly_rounded),
        cmocka_unit_test(errors_say_where_and_what),
        cmocka_unit_test(long_names_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
