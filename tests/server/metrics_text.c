#include "tests/server/metrics_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct checker {
    const char *text;
    char family[128], type[304];
    char series[512]; // last bucket's series without le
    double bucket;    // its value
    char *message;
    size_t cap;
};

static bool bad(struct checker *c, const char *what, const char *line)
{
    snprintf(c->message, c->cap, "%s: %.*s", what, (int)strcspn(line, "\n") > 120 ? 120 : (int)strcspn(line, "\n"),
             line);
    return false;
}

static size_t name_length(const char *s)
{
    return s[0] >= '0' && s[0] <= '9' ? 0
                                      : strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_:");
}

static bool check_comment(struct checker *c, const char *line)
{
    char kind[8], name[128], rest[300];
    if (sscanf(line, "# %7s %127s %299[^\n]", kind, name, rest) != 3)
        return bad(c, "comment is neither HELP nor TYPE", line);
    if (strcmp(kind, "HELP") == 0)
        return true;
    size_t n = strlen(name);
    if (strcmp(kind, "TYPE") != 0 || name_length(name) != n)
        return bad(c, "bad TYPE", line);
    if (strcmp(rest, "counter") == 0 && (n < 6 || strcmp(name + n - 6, "_total") != 0))
        return bad(c, "a counter's name must end in _total", line);
    snprintf(c->family, sizeof(c->family), "%s", name);
    snprintf(c->type, sizeof(c->type), "%s", rest);
    return true;
}

/* Length of {a="b",...}, 0 if malformed. */
static size_t labels_length(const char *s)
{
    const char *p = s;
    do {
        p++;
        size_t n = name_length(p);
        if (n == 0 || p[n] != '=' || p[n + 1] != '"')
            return 0;
        for (p += n + 2; *p != '"'; p++)
            if (*p == '\n' || *p == '\0' || (*p == '\\' && !*++p))
                return 0;
        p++;
    } while (*p == ',');
    return *p == '}' ? (size_t)(p + 1 - s) : 0;
}

/* Buckets of one series come in one run and never fall. */
static bool check_bucket(struct checker *c, const char *line, size_t series_n, double value)
{
    char series[512];
    snprintf(series, sizeof(series), "%.*s", (int)series_n, line);
    char *le = strstr(series, "le=\"");
    if (!le)
        return bad(c, "bucket without le", line);
    *le = '\0';
    if (strcmp(series, c->series) == 0 && value < c->bucket)
        return bad(c, "buckets fall", line);
    snprintf(c->series, sizeof(c->series), "%s", series);
    c->bucket = value;
    return true;
}

static bool check_sample(struct checker *c, const char *line)
{
    size_t name_n = name_length(line), family_n = strlen(c->family), labels_n = 0;
    if (family_n == 0 || name_n < family_n || strncmp(line, c->family, family_n) != 0)
        return bad(c, "sample outside its family", line);
    bool histogram = strcmp(c->type, "histogram") == 0;
    size_t suffix_n = name_n - family_n;
    const char *suffix = line + family_n;
    bool bucket = suffix_n == 7 && memcmp(suffix, "_bucket", 7) == 0;
    bool sum = (suffix_n == 4 && memcmp(suffix, "_sum", 4) == 0) || (suffix_n == 6 && memcmp(suffix, "_count", 6) == 0);
    if (histogram ? !(bucket || sum) : suffix_n > 0)
        return bad(c, "name does not fit the type", line);
    if (line[name_n] == '{' && (labels_n = labels_length(line + name_n)) == 0)
        return bad(c, "bad labels", line);
    size_t n = name_n + labels_n;
    char *end;
    double value = strtod(line + n + 1, &end);
    if (line[n] != ' ' || end == line + n + 1 || *end != '\n')
        return bad(c, "bad value", line);
    char series[512];
    snprintf(series, sizeof(series), "\n%.*s ", (int)n, line);
    const char *first = strstr(c->text, series);
    if (first && first + 1 < line)
        return bad(c, "series stands twice", line);
    return !bucket || check_bucket(c, line, n, value);
}

bool metrics_text_is_valid(const char *text, char *message, size_t cap)
{
    struct checker c = {.text = text, .message = message, .cap = cap};
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        if (!strchr(line, '\n'))
            return bad(&c, "no newline at the end", line);
        if (line[0] == '#' ? !check_comment(&c, line) : !check_sample(&c, line))
            return false;
    }
    return true;
}
