/* http_guard.c - what libmicrohttpd 0.9.75 lets through and a server in front of nothing else must not.
 *
 * Measured on that version, with and without its strict mode: it accepts Content-Length beside Transfer-Encoding, two differing
 * lengths, `Content-Length : 3` (the body then becomes the next request), two Hosts, and hangs on an unknown Transfer-Encoding. All
 * of these let two parties disagree about where a request ends, so all of them are 400 and the connection closes. It also cuts
 * strings at NUL; the request line is caught by comparing where the version starts with where the target ends, header lines by
 * their lengths. Bare LF line ends cannot be seen from here: they are harmless alone, since our own framing stays consistent. */
#include <string.h>
#include <strings.h>

#include "server/http_priv.h"

static const struct http_refusal fine = {0};

static struct http_refusal bad(const char *detail)
{
    return (struct http_refusal){400, "bad_request", detail};
}

enum http_method http_method_parse(const char *method)
{
    static const struct {
        const char *name;
        enum http_method method;
    } known[] = {{"POST", HTTP_POST}, {"GET", HTTP_GET}, {"HEAD", HTTP_HEAD}, {"PUT", HTTP_PUT}, {"DELETE", HTTP_DELETE}};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(method, known[i].name) == 0)
            return known[i].method;
    return HTTP_OTHER;
}

// -------------------------------------------------------------------------------------------------- request line

static struct http_refusal guard_target(const struct http_conn *c, const char *version)
{
    if (c->uri.len > HTTP_URI_MAX)
        return (struct http_refusal){414, "uri_too_long", "the request target is longer than 8192 bytes"};
    if (c->uri.failed)
        return (struct http_refusal){503, "out_of_memory", "no memory for the request"};
    if (version != c->after_uri)
        return bad("the request line holds a NUL byte or stray spaces");
    if (c->req.path[0] != '/')
        return bad("the request target must start with '/'");
    for (size_t i = 0; i < c->uri.len; i++) {
        unsigned char b = (unsigned char)c->uri.data[i];
        bool query_mark = b == '\0' && c->uri.data + i + 1 == c->req.query;
        if ((b <= 0x20 || b >= 0x7f || b == '#') && !query_mark)
            return bad("the request target holds bytes that must be percent-encoded");
    }
    return fine;
}

// ------------------------------------------------------------------------------------------------------- headers

struct seen {
    unsigned n, host, length, encoding, expect;
    bool bad_name, bad_value, bad_length, not_chunked, bad_expect;
};

static bool is_token(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char b = (unsigned char)s[i];
        if (b <= 0x20 || b >= 0x7f || strchr("\"(),/:;<=>?@[\\]{}", b))
            return false;
    }
    return n > 0;
}

static bool is_digits(const char *s)
{
    size_t n = strspn(s, "0123456789");
    return n > 0 && n < 20 && s[n] == '\0';
}

static enum MHD_Result look(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_n, const char *value, size_t value_n)
{
    struct seen *s = cls;
    (void)kind;
    s->n++;
    if (!value)
        value = "", value_n = 0;
    if (strlen(name) != name_n || !is_token(name, name_n))
        s->bad_name = true;
    for (size_t i = 0; i < value_n; i++)
        if (((unsigned char)value[i] < 0x20 && value[i] != '\t') || value[i] == 0x7f)
            s->bad_value = true;
    if (strcasecmp(name, "Host") == 0) {
        s->host++;
    } else if (strcasecmp(name, "Content-Length") == 0) {
        s->length++;
        s->bad_length |= !is_digits(value);
    } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
        s->encoding++;
        s->not_chunked |= strcasecmp(value, "chunked") != 0;
    } else if (strcasecmp(name, "Expect") == 0) {
        s->expect++;
        s->bad_expect |= strcasecmp(value, "100-continue") != 0;
    }
    return MHD_YES;
}

static struct http_refusal guard_headers(const struct http_conn *c, bool http_1_0)
{
    struct seen s = {0};
    MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, look, &s);
    if (s.n > HTTP_HEADERS_MAX)
        return (struct http_refusal){431, "too_many_headers", "more than 64 header fields"};
    if (s.bad_name)
        return bad("a header field's name is no token (is there a space before the colon?)");
    if (s.bad_value)
        return bad("a header field's value holds control characters");
    if (s.host > 1 || (s.host == 0 && !http_1_0))
        return bad("exactly one Host is wanted");
    if (s.length > 1 || s.bad_length)
        return bad("one Content-Length of decimal digits is wanted");
    if (s.encoding && s.length)
        return bad("Content-Length and Transfer-Encoding exclude each other");
    if (s.encoding > 1 || s.not_chunked)
        return bad("the one Transfer-Encoding known here is chunked");
    if (s.encoding && http_1_0)
        return bad("HTTP/1.0 knows no Transfer-Encoding");
    if (s.bad_expect)
        return (struct http_refusal){417, "expectation_failed", "the one expectation known here is 100-continue"};
    return fine;
}

struct http_refusal http_guard(const struct http_conn *c, const char *version)
{
    bool http_1_0 = strcmp(version, "HTTP/1.0") == 0;
    if (!http_1_0 && strcmp(version, "HTTP/1.1") != 0)
        return (struct http_refusal){505, "version_not_supported", "HTTP/1.1 and HTTP/1.0 are spoken here"};
    struct http_refusal no = guard_target(c, version);
    return no.status ? no : guard_headers(c, http_1_0);
}

// -------------------------------------------------------------------------------------------------- id, deadline

static bool sane_id(const char *s)
{
    size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
    return n > 0 && n <= HTTP_REQUEST_ID_MAX && s[n] == '\0';
}

/* 16 hex digits of splitmix64 over the loop's random start: unique enough for a log, not a secret. */
static void make_id(struct http_loop *l, char *out)
{
    uint64_t z = l->id_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    for (int i = 0; i < 16; i++, z <<= 4)
        out[i] = "0123456789abcdef"[z >> 60];
    out[16] = '\0';
}

struct http_refusal http_guard_limits(struct http_conn *c)
{
    struct http_request *r = &c->req;
    const struct http_params *p = &c->loop->h->p;
    const char *id = http_header(r, "X-Request-Id"), *timeout = http_header(r, "X-Request-Timeout-Ms");
    if (id && sane_id(id))
        memcpy(r->id, id, strlen(id) + 1);
    else
        make_id(c->loop, r->id);
    uint64_t ms = p->deadline_ms;
    if (timeout) {
        uint64_t want = 0;
        size_t n = strspn(timeout, "0123456789");
        for (size_t i = 0; i < n && want < 1000000000; i++)
            want = want * 10 + (uint64_t)(timeout[i] - '0');
        if (n == 0 || timeout[n] || want == 0)
            return bad("X-Request-Timeout-Ms must be a whole number from 1");
        if (want < ms)
            ms = want;
    }
    r->deadline_ns = r->start_ns + ms * 1000000;
    return fine;
}
