/* One pass over bytes with three states per field: plain, inside quotes, and just behind a quote that closes or is
 * doubled.
 *
 *     a,"b ""c"", d"\r\n        fields: a | b "c", d
 *       ^in quotes ^behind a quote */
#include "train/csv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/utf8.h"

bool csv_error(const struct csv *c, struct err *err, const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return err_set(err, ERR_FORMAT, "%s:%llu: %s", c->in.path, (unsigned long long)c->line, text);
}

// -------------------------------------------------------------------------------------------------------- records

/* A record that cannot be taken: drop the rest of its line, so that the next call starts on a fresh one. */
static int bad_record(struct csv *c, int byte, struct err *err, const char *what)
{
    csv_error(c, err, "field %u: %s", c->n + 1, what);
    while (byte >= 0 && byte != '\n')
        byte = textin_byte(&c->in, NULL);
    return -1;
}

static bool end_field(struct csv *c)
{
    if (c->n == CSV_FIELDS_MAX)
        return false;
    c->end[c->n++] = (uint32_t)c->text.len;
    return true;
}

/* Up to the closing quote; *byte is what follows it. 1, or -1 after an error. */
static int read_quoted(struct csv *c, int *byte, struct err *err)
{
    for (;;) {
        int b = textin_byte(&c->in, err);
        if (b == '"' && (b = textin_byte(&c->in, err)) != '"') {
            *byte = b;
            return b == -2 ? -1 : 1;
        }
        if (b == -2)
            return -1;
        if (b == -1)
            return bad_record(c, b, err, "a quoted field that does not end before the file does");
        if (c->text.len == TEXT_LINE_MAX)
            return bad_record(c, b, err, "the record is longer than 1 MiB; is a closing quote missing?");
        buf_put(&c->text, &(char){(char)b}, 1);
    }
}

/* Fields of one record. 1, 0 at the end of the file, -1 after an error. */
static int read_record(struct csv *c, struct err *err)
{
    buf_reset(&c->text);
    c->n = 0;
    c->line = c->in.line;
    int b = textin_byte(&c->in, err);
    if (b < 0)
        return b == -1 ? 0 : -1;
    for (;;) {
        bool quoted = b == '"';
        if (quoted && read_quoted(c, &b, err) < 0)
            return -1;
        for (; b >= 0 && b != c->sep && b != '\n' && b != '\r'; b = textin_byte(&c->in, err)) {
            if (b == '"')
                return bad_record(
                    c, b, err,
                    "a quote inside a field; a field with quotes must begin with one and double those inside");
            if (quoted)
                return bad_record(c, b, err, "text after the closing quote");
            if (c->text.len == TEXT_LINE_MAX)
                return bad_record(c, b, err, "the record is longer than 1 MiB");
            buf_put(&c->text, &(char){(char)b}, 1);
        }
        if (b == -2)
            return -1;
        if (b == '\r' && (b = textin_byte(&c->in, err)) != '\n' && b != -1)
            return bad_record(c, b, err, "a carriage return that no line feed follows");
        if (!end_field(c))
            return bad_record(c, b, err, "more than 1024 fields");
        if (b != c->sep)
            return 1;
        b = textin_byte(&c->in, err);
    }
}

static int read_text_record(struct csv *c, struct err *err)
{
    int got;
    do {
        got = read_record(c, err);
    } while (got == 1 && c->n == 1 && c->end[0] == 0); // a blank line
    if (got <= 0)
        return got;
    if (c->text.failed) {
        err_set(err, ERR_NOMEM, "%s: out of memory", c->in.path);
        return -1;
    }
    if (!c->text.data)
        buf_puts(&c->text, "");
    if (utf8_valid(c->text.data, c->text.len))
        return 1;
    csv_error(c, err, "not UTF-8 text; convert the file, e.g. with iconv -f latin1 -t utf-8");
    return -1;
}

int csv_next(struct csv *c, struct err *err)
{
    int got = read_text_record(c, err);
    if (got == 1 && c->n != c->n_cols) {
        csv_error(c, err, "found %u fields, want %u as in the header", c->n, c->n_cols);
        return -1;
    }
    return got;
}

// --------------------------------------------------------------------------------------------------------- header

static bool check_name(const struct csv *c, uint32_t i, struct err *err)
{
    if (c->name[i][0] == '\0')
        return csv_error(c, err, "column %u has no name", i + 1);
    for (uint32_t j = 0; j < i; j++)
        if (strcmp(c->name[i], c->name[j]) == 0)
            return csv_error(c, err, "columns %u and %u are both named \"%s\"", j + 1, i + 1, c->name[i]);
    return true;
}

static bool read_header(struct csv *c, struct err *err)
{
    int got = read_text_record(c, err);
    if (got < 0)
        return false;
    if (got == 0)
        return err_set(err, ERR_FORMAT, "%s:1: empty file, want a header with the columns' names", c->in.path);
    if (!(c->name = mem_array(c->n, sizeof(*c->name), err)))
        return false;
    c->n_cols = c->n;
    for (uint32_t i = 0; i < c->n_cols; i++) {
        struct str s = csv_field(c, i);
        if (!(c->name[i] = mem_dup(s.p, s.n, err)) || !check_name(c, i, err))
            return false;
    }
    return true;
}

bool csv_open(struct csv *c, const char *path, char sep, struct err *err)
{
    *c = (struct csv){.sep = sep};
    if (textin_open(&c->in, path, err) && (c->end = mem_array(CSV_FIELDS_MAX, sizeof(*c->end), err)) &&
        read_header(c, err))
        return true;
    csv_close(c);
    return false;
}

void csv_close(struct csv *c)
{
    for (uint32_t i = 0; c->name && i < c->n_cols; i++)
        free(c->name[i]);
    free(c->name);
    free(c->end);
    buf_fini(&c->text);
    textin_close(&c->in);
    *c = (struct csv){0};
}

int csv_column(const struct csv *c, const char *name)
{
    for (uint32_t i = 0; i < c->n_cols; i++)
        if (strcmp(c->name[i], name) == 0)
            return (int)i;
    return -1;
}

bool csv_need(const struct csv *c, const char *name, int *col, struct err *err)
{
    struct buf has = {0};
    if ((*col = csv_column(c, name)) >= 0)
        return true;
    for (uint32_t i = 0; i < c->n_cols && i < 20; i++)
        buf_printf(&has, "%s%s", i ? "," : "", c->name[i]);
    err_set(err, ERR_FORMAT, "%s:1: no column \"%s\"; the header has %s", c->in.path, name,
            has.data ? has.data : "none");
    buf_fini(&has);
    return false;
}
