#include "core/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/utf8.h"

_Bool err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    if (!e || e->code != ERR_OK)
        return 0;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    utf8_mend(e->msg);
    e->code = code;
    return 0;
}

_Bool err_errno(struct err *e, const char *fmt, ...)
{
    int no = errno;
    if (!e || e->code != ERR_OK)
        return 0;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    if (n < 0)
        n = 0;
    if ((size_t)n < sizeof(e->msg)) {
        char text[128];
        snprintf(e->msg + n, sizeof(e->msg) - (size_t)n, ": %s", strerror_r(no, text, sizeof(text)));
    }
    utf8_mend(e->msg);
    e->code = no == ENOENT ? ERR_NOT_FOUND : no == ENOMEM ? ERR_NOMEM : ERR_IO;
    return 0;
}

_Bool err_prefix(struct err *e, const char *fmt, ...)
{
    if (!e || e->code == ERR_OK)
        return 0;
    char where[200 + 1], old[sizeof(e->msg)];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(where, sizeof(where), fmt, ap);
    va_end(ap);
    utf8_mend(where);
    memcpy(old, e->msg, sizeof(old));
    snprintf(e->msg, sizeof(e->msg), "%s: %.300s", where, old);
    utf8_mend(e->msg);
    return 0;
}

const char *err_name(enum err_code code)
{
    static const char *const names[] = {"ok",        "nomem",    "io",    "format", "argument",
                                        "not_found", "mismatch", "limit", "state"};
    return (size_t)code < sizeof(names) / sizeof(names[0]) ? names[code] : "unknown";
}
