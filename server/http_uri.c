/* http_uri.c - percent-decoding of path segments and query parameters. Strict: what is not plainly fine is refused. */
#include <string.h>

#include "server/http.h"

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* n bytes of p into out, NUL-terminated. `plus`: '+' is a space, as in queries. */
static enum http_param decode(const char *p, size_t n, bool plus, bool slash, char *out, size_t cap)
{
    size_t o = 0;
    for (size_t i = 0; i < n; i++) {
        int c = (unsigned char)p[i];
        if (c == '%') {
            if (n - i < 3 || hex(p[i + 1]) < 0 || hex(p[i + 2]) < 0)
                return HTTP_PARAM_MALFORMED;
            c = hex(p[i + 1]) * 16 + hex(p[i + 2]);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (c < 0x20 || c == 0x7f || (c == '/' && !slash))
            return HTTP_PARAM_MALFORMED;
        if (o + 1 >= cap)
            return HTTP_PARAM_LONG;
        out[o++] = (char)c;
    }
    out[o] = '\0';
    return HTTP_PARAM_FOUND;
}

bool http_decode_segment(const char *p, size_t n, char *out, size_t cap)
{
    return cap > 0 && decode(p, n, false, false, out, cap) == HTTP_PARAM_FOUND;
}

enum http_param http_query_param(const struct http_request *r, const char *name, char *out, size_t cap)
{
    const char *value = NULL;
    size_t name_n = strlen(name), value_n = 0;
    for (const char *p = r->query; *p;) {
        size_t n = strcspn(p, "&");
        const char *eq = memchr(p, '=', n);
        size_t key_n = eq ? (size_t)(eq - p) : n;
        if (key_n == name_n && memcmp(p, name, name_n) == 0) {
            if (value)
                return HTTP_PARAM_REPEATED; // which one was meant?
            value = eq ? eq + 1 : p + n;
            value_n = eq ? n - key_n - 1 : 0;
        }
        p += n + (p[n] == '&');
    }
    return value ? decode(value, value_n, true, true, out, cap) : HTTP_PARAM_NONE;
}
