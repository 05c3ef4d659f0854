#include "server/trace.h"

#include <string.h>

#include "server/jsonw.h"

#define TRACE_AT 3 // in the text: the version and a dash
#define PARENT_AT 36
#define FLAGS_AT 53
#define FLAGS_KNOWN 3 // sampled, random trace-id (Level 2); others are zero in what we send

static const char digits[] = "0123456789abcdef";

/* n lower-case hex digits. */
static bool is_hex(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] == '\0' || !strchr(digits, s[i]))
            return false;
    return true;
}

static bool is_zero(const char *s, size_t n)
{
    return strspn(s, "0") >= n;
}

/* Version 00 is 55 characters. A later one may go on behind a dash, and is read as far as 00 goes. */
static bool has_form(const char *s, size_t n)
{
    if (n < TRACE_PARENT_LEN || !is_hex(s, 2) || memcmp(s, "ff", 2) == 0)
        return false;
    if (n > TRACE_PARENT_LEN && (memcmp(s, "00", 2) == 0 || s[TRACE_PARENT_LEN] != '-'))
        return false;
    return s[TRACE_AT - 1] == '-' && s[PARENT_AT - 1] == '-' && s[FLAGS_AT - 1] == '-';
}

static void take(char *out, const char *s, size_t n)
{
    memcpy(out, s, n);
    out[n] = '\0';
}

static unsigned low_bits(char hex)
{
    return (unsigned)(hex >= 'a' ? hex - 'a' + 10 : hex - '0') & FLAGS_KNOWN;
}

bool trace_read(const char *s, uint64_t span, struct trace *t)
{
    size_t n = strlen(s);
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t')) // HTTP's, and libmicrohttpd leaves it
        n--;
    if (!has_form(s, n) || !is_hex(s + TRACE_AT, 32) || !is_hex(s + PARENT_AT, 16) || !is_hex(s + FLAGS_AT, 2) ||
        is_zero(s + TRACE_AT, 32) || is_zero(s + PARENT_AT, 16))
        return false;
    take(t->trace_id, s + TRACE_AT, 32);
    take(t->parent_id, s + PARENT_AT, 16);
    t->flags[0] = '0';
    t->flags[1] = digits[low_bits(s[FLAGS_AT + 1])];
    t->flags[2] = '\0';
    span = span ? span : 1;
    for (int i = 0; i < 16; i++, span <<= 4)
        t->span_id[i] = digits[span >> 60];
    t->span_id[16] = '\0';
    return true;
}

void trace_write(const struct trace *t, char out[TRACE_PARENT_LEN + 1])
{
    memcpy(out, "00-", TRACE_AT);
    memcpy(out + TRACE_AT, t->trace_id, 32);
    out[PARENT_AT - 1] = '-';
    memcpy(out + PARENT_AT, t->span_id, 16);
    out[FLAGS_AT - 1] = '-';
    memcpy(out + FLAGS_AT, t->flags, sizeof(t->flags));
}

void trace_put(struct buf *b, const struct trace *t)
{
    if (!t->trace_id[0])
        return;
    JSONW_LIT(b, "\"trace_id\":");
    jsonw_text(b, t->trace_id);
    JSONW_LIT(b, ",\"span_id\":");
    jsonw_text(b, t->span_id);
    JSONW_LIT(b, ",\"parent_span_id\":");
    jsonw_text(b, t->parent_id);
    JSONW_LIT(b, ",");
}
