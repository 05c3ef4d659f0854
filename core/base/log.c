#include "core/base/log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 8192
#define VALUE_MAX_BYTES 1024

struct line {
    char text[LINE_MAX_BYTES];
    size_t n;
};

static void put(struct line *l, const char *s)
{
    size_t n = strlen(s), room = sizeof(l->text) - 2 - l->n; // 2: the closing brace and the newline
    if (n > room)
        n = room;
    memcpy(l->text + l->n, s, n);
    l->n += n;
}

/* Quoted, with control bytes, quotes and bytes above ASCII escaped: nobody injects a line or breaks the encoding. */
static void put_quoted(struct line *l, const char *s)
{
    put(l, "\"");
    for (size_t i = 0; s[i] && i < VALUE_MAX_BYTES && l->n + 16 < sizeof(l->text); i++) {
        unsigned char c = (unsigned char)s[i];
        char e[8];
        if (c == '"' || c == '\\')
            snprintf(e, sizeof(e), "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            snprintf(e, sizeof(e), "\\u%04x", c);
        else
            snprintf(e, sizeof(e), "%c", c);
        put(l, e);
    }
    put(l, "\"");
}

static void put_value(struct line *l, const struct log_field *f)
{
    char text[40];
    switch (f->type) {
    case LOG_F_STR:
        put_quoted(l, f->s ? f->s : "");
        return;
    case LOG_F_INT:
        snprintf(text, sizeof(text), "%lld", (long long)f->i);
        break;
    case LOG_F_NUM:
        if (f->d - f->d != 0.0) // JSON has no NaN and no infinity
            snprintf(text, sizeof(text), "null");
        else
            snprintf(text, sizeof(text), "%.6g", f->d);
        break;
    case LOG_F_BOOL:
        snprintf(text, sizeof(text), "%s", f->i ? "true" : "false");
        break;
    }
    put(l, text);
}

void log_write(struct log *log, enum log_level level, const char *event, const struct log_field *fields)
{
    if ((int)level < log->level)
        return;
    struct line l = {.n = 0};
    struct timespec ts;
    struct tm tm;
    char stamp[64], head[128];
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(head, sizeof(head), log->json ? "{\"ts\":\"%s.%03ldZ\",\"level\":\"%s\",\"event\":\"%s\"" : "ts=%s.%03ldZ level=%s event=%s",
             stamp, ts.tv_nsec / 1000000, log_level_name(level), event);
    put(&l, head);
    for (const struct log_field *f = fields; f->key; f++) {
        put(&l, log->json ? ",\"" : " ");
        put(&l, f->key);
        put(&l, log->json ? "\":" : "=");
        put_value(&l, f);
    }
    if (log->json)
        l.text[l.n++] = '}';
    l.text[l.n++] = '\n';
    ssize_t done = write(log->fd, l.text, l.n);
    (void)done; // a full disk or a closed pipe must not stop the service
}

static const char *const names[] = {"debug", "info", "warn", "error"};

bool log_level_parse(const char *name, enum log_level *out)
{
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    return false;
}

const char *log_level_name(enum log_level level)
{
    return (unsigned)level < 4 ? names[level] : "?";
}
