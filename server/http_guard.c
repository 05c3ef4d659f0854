/* http_guard.c - what libmicrohttpd 0.9.75 lets through and a server in front of nothing else must not.
 *
 * Measured on that version, with and without its strict mode: it accepts Content-Length beside Transfer-Encoding, two
 * differing lengths, `Content-Length : 3` (the body then becomes the next request), two Hosts, and hangs on an unknown
 * Transfer-Encoding. All of these let two parties disagree about where a request ends, so all of them are 400 and the
 * connection closes. It also cuts strings at NUL; the request line is caught by comparing where the version starts with
 * where the target ends, header lines by their lengths. Bare LF line ends cannot be seen from here: they are harmless
 * alone, since our own framing stays consistent. */
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
    } known[] = {
        {"POST", HTTP_POST}, {"GET", HTTP_GET}, {"HEAD", HTTP_HEAD}, {"PUT", HTTP_PUT}, {"DELETE", HTTP_DELETE}};
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

/* One walk over the fields gathers everything that is wanted of them: libmicrohttpd keeps a list, so each lookup would
 * be another. */
struct seen {
    unsigned n, host, length, encoding, traces;
    bool bad_name, bad_value, bad_length, not_chunked, bad_expect;
    uint64_t content_length;
    const char *id, *timeout, *trace;
};

/* RFC 9110, tchar: bytes that a field's name may hold. */
static const bool token_byte[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1,         ['&'] = 1,         ['\''] = 1,
    ['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1,         ['^'] = 1,         ['_'] = 1,
    ['`'] = 1, ['|'] = 1, ['~'] = 1, ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
};

static bool is_token(const char *s, size_t n)
{
    bool ok = n > 0;
    for (size_t i = 0; i < n; i++)
        ok &= token_byte[(unsigned char)s[i]];
    return ok;
}

static bool holds_controls(const char *s, size_t n)
{
    bool found = false;
    for (size_t i = 0; i < n; i++)
        found |= ((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f;
    return found;
}

static bool read_length(const char *s, uint64_t *out)
{
    size_t n = strspn(s, "0123456789");
    *out = 0;
    for (size_t i = 0; i < n && n < 20; i++)
        *out = *out * 10 + (uint64_t)(s[i] - '0');
    return n > 0 && n < 20 && s[n] == '\0';
}

static bool is(const char *name, const char *known)
{
    return strcasecmp(name, known) == 0;
}

/* Fields that matter, told apart by the length of their names first. */
static void note_field(struct seen *s, const char *name, size_t name_n, const char *value)
{
    switch (name_n) {
    case sizeof("Host") - 1:
        s->host += is(name, "Host");
        break;
    case sizeof("Expect") - 1:
        s->bad_expect |= is(name, "Expect") && !is(value, "100-continue");
        break;
    case sizeof("traceparent") - 1:
        if (!is(name, "traceparent"))
            break;
        s->traces++;
        s->trace = value;
        break;
    case sizeof("X-Request-Id") - 1:
        if (!s->id && is(name, "X-Request-Id"))
            s->id = value;
        break;
    case sizeof("Content-Length") - 1:
        if (!is(name, "Content-Length"))
            break;
        s->length++;
        s->bad_length |= !read_length(value, &s->content_length);
        break;
    case sizeof("Transfer-Encoding") - 1:
        if (!is(name, "Transfer-Encoding"))
            break;
        s->encoding++;
        s->not_chunked |= !is(value, "chunked");
        break;
    case sizeof("X-Request-Timeout-Ms") - 1:
        if (!s->timeout && is(name, "X-Request-Timeout-Ms"))
            s->timeout = value;
        break;
    }
}

static enum MHD_Result look(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_n, const char *value,
                            size_t value_n)
{
    struct seen *s = cls;
    (void)kind;
    if (!value) {
        value = "";
        value_n = 0;
    }
    s->n++;
    s->bad_name |= !is_token(name, name_n); // a NUL is no token byte either
    s->bad_value |= holds_controls(value, value_n);
    note_field(s, name, name_n, value);
    return MHD_YES;
}

static struct http_refusal guard_headers(const struct seen *s, bool http_1_0)
{
    if (s->n > HTTP_HEADERS_MAX)
        return (struct http_refusal){431, "too_many_headers", "more than 64 header fields"};
    if (s->bad_name)
        return bad("a header field's name is no token (is there a space before the colon?)");
    if (s->bad_value)
        return bad("a header field's value holds control characters");
    if (s->host > 1 || (s->host == 0 && !http_1_0))
        return bad("exactly one Host is wanted");
    if (s->length > 1 || s->bad_length)
        return bad("one Content-Length of decimal digits is wanted");
    if (s->encoding && s->length)
        return bad("Content-Length and Transfer-Encoding exclude each other");
    if (s->encoding > 1 || s->not_chunked)
        return bad("the one Transfer-Encoding known here is chunked");
    if (s->encoding && http_1_0)
        return bad("HTTP/1.0 knows no Transfer-Encoding");
    if (s->bad_expect)
        return (struct http_refusal){417, "expectation_failed", "the one expectation known here is 100-continue"};
    return fine;
}

// -------------------------------------------------------------------------------------------------- id, deadline

static bool sane_id(const char *s)
{
    size_t n = 0;
    while (token_byte[(unsigned char)s[n]] && !strchr("!#$%&'*+^`|~", s[n]) && n <= HTTP_REQUEST_ID_MAX)
        n++;
    return n > 0 && n <= HTTP_REQUEST_ID_MAX && s[n] == '\0';
}

/* splitmix64 over the loop's random start: unique enough for a log, not a secret. */
static uint64_t next_id(struct http_loop *l)
{
    uint64_t z = l->id_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 16 hex digits. */
static void make_id(struct http_loop *l, char *out)
{
    uint64_t z = next_id(l);
    for (int i = 0; i < 16; i++, z <<= 4)
        out[i] = "0123456789abcdef"[z >> 60];
    out[16] = '\0';
}

/* The request's deadline, at most the configured one. */
static struct http_refusal read_timeout(const char *text, uint64_t *ms)
{
    uint64_t want = 0;
    size_t n = strspn(text, "0123456789");
    for (size_t i = 0; i < n && want < 1000000000; i++)
        want = want * 10 + (uint64_t)(text[i] - '0');
    if (n == 0 || text[n] || want == 0)
        return bad("X-Request-Timeout-Ms must be a whole number from 1");
    if (want < *ms)
        *ms = want;
    return fine;
}

struct http_refusal http_guard(struct http_conn *c, const char *version)
{
    struct http_request *r = &c->req;
    const struct http_params *p = &c->loop->h->p;
    bool http_1_0 = strcmp(version, "HTTP/1.0") == 0;
    struct seen s = {0};
    uint64_t ms = p->deadline_ms;
    MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, look, &s);
    if (s.id && sane_id(s.id)) // first, so that refusals carry it too
        memcpy(r->id, s.id, strlen(s.id) + 1);
    else
        make_id(c->loop, r->id);
    if (s.traces == 1) // of two nobody knows which is meant
        trace_read(s.trace, next_id(c->loop), &r->trace);
    if (!http_1_0 && strcmp(version, "HTTP/1.1") != 0)
        return (struct http_refusal){505, "version_not_supported", "HTTP/1.1 and HTTP/1.0 are spoken here"};
    struct http_refusal no = guard_target(c, version);
    if (!no.status)
        no = guard_headers(&s, http_1_0);
    if (!no.status && s.timeout)
        no = read_timeout(s.timeout, &ms);
    if (!no.status && s.content_length > p->max_body)
        no = (struct http_refusal){413, "body_too_large", "the body is larger than limits.body_bytes"};
    r->deadline_ns = r->start_ns + ms * 1000000;
    return no;
}
