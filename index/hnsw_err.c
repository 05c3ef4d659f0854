/* hnsw_err.c - the library's own small errors. */
#include <stdarg.h>
#include <stdio.h>

#include "index/hnsw_priv.h"

bool hnsw_fail(struct hnsw_err *err, enum hnsw_err_code code, const char *fmt, ...)
{
    if (!err || err->code != HNSW_OK) // the first cause wins
        return false;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    err->code = code;
    return false;
}

const char *hnsw_metric_name(enum hnsw_metric m)
{
    static const char *const name[] = {"ip", "cosine", "l2"};
    return (unsigned)m < 3 ? name[m] : "unknown";
}
