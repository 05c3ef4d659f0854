#include "core/warmup.h"

#include <string.h>

#include "core/base/json.h"

static bool check_line(const char *line, size_t n, struct err *err)
{
    if (n > WARMUP_LINE_MAX)
        return err_set(err, ERR_LIMIT, "%zu bytes, at most %zu allowed", n, WARMUP_LINE_MAX);
    json_t *v = json_parse(line, n, err);
    if (!v)
        return false;
    const json_t *body = json_object_get(v, "body");
    bool ok = json_is_object(v) ? !body || json_is_object(body) || json_is_null(body) : false;
    if (!ok)
        err_set(err, ERR_FORMAT, body ? "its \"body\" is no object" : "found no object; want a request, or a recorded one");
    json_decref(v);
    return ok;
}

bool warmup_check(const char *text, size_t n, struct err *err)
{
    size_t line = 0;
    if (n > WARMUP_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "%zu bytes, at most %zu allowed", n, WARMUP_BYTES_MAX);
    for (const char *at = text, *end = text + n; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((stop ? stop : end) - at);
        line++;
        if (!check_line(at, length, err))
            return err_prefix(err, "line %zu", line);
        at += length + 1;
    }
    return line > 0 || err_set(err, ERR_FORMAT, "no request in it");
}
