#include "server/problem.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/base/utf8.h"
#include "server/jsonw.h"

const char *problem_title(unsigned status)
{
    static const struct {
        unsigned status;
        const char *title;
    } known[] = {
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {428, "Precondition Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (known[i].status == status)
            return known[i].title;
    return status < 500 ? "Client Error" : "Server Error";
}

/* A detail may repeat a header or a query, which need not be UTF-8. */
static void put_detail(struct buf *b, const char *detail)
{
    char text[640];
    snprintf(text, sizeof(text), "%s", detail);
    utf8_mend(text);
    jsonw_text(b, text);
}

bool problem_write_id(struct http_response *resp, const char *request_id, unsigned status, const char *code,
                      const char *pointer, const char *detail)
{
    struct buf *b = &resp->body;
    buf_reset(b);
    resp->status = status;
    resp->content_type = "application/problem+json";
    JSONW_LIT(b, "{\"type\":\"about:blank\",\"title\":");
    jsonw_text(b, problem_title(status));
    JSONW_LIT(b, ",\"status\":");
    jsonw_uint(b, status);
    JSONW_LIT(b, ",\"code\":");
    jsonw_text(b, code);
    JSONW_LIT(b, ",\"detail\":");
    put_detail(b, detail);
    if (pointer) {
        JSONW_LIT(b, ",\"errors\":[{\"pointer\":");
        jsonw_text(b, pointer);
        JSONW_LIT(b, ",\"detail\":");
        put_detail(b, detail);
        JSONW_LIT(b, "}]");
    }
    JSONW_LIT(b, ",\"request_id\":");
    jsonw_text(b, request_id);
    JSONW_LIT(b, "}\n");
    return true;
}

bool problem_write(struct http_response *resp, const struct http_request *r, unsigned status, const char *code,
                   const char *pointer, const char *fmt, ...)
{
    char detail[640];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof(detail), fmt, ap);
    va_end(ap);
    return problem_write_id(resp, r->id, status, code, pointer, detail);
}

bool problem_from_err(struct http_response *resp, const struct http_request *r, const struct err *err, const char *code)
{
    unsigned status = 500;
    switch (err->code) {
    case ERR_ARG:
    case ERR_LIMIT:
        status = 422;
        break;
    case ERR_NOT_FOUND:
        status = 404;
        break;
    case ERR_MISMATCH:
    case ERR_STATE:
        status = 409;
        break;
    case ERR_NOMEM:
        status = 503;
        break;
    case ERR_OK:
    case ERR_IO:
    case ERR_FORMAT:
        break;
    }
    const char *detail = status == 500 ? "internal error; the log has the request's id and the cause" : err->msg;
    return problem_write_id(resp, r->id, status, code ? code : err_name(err->code), NULL, detail);
}

bool problem_query_param(struct http_response *resp, const struct http_request *r, const char *name, char *out, size_t cap,
                         bool *given)
{
    enum http_param p = http_query_param(r, name, out, cap);
    *given = p == HTTP_PARAM_FOUND;
    switch (p) {
    case HTTP_PARAM_NONE:
    case HTTP_PARAM_FOUND:
        return true;
    case HTTP_PARAM_REPEATED:
        return !problem_write(resp, r, 400, "invalid_value", NULL, "%s: given more than once", name);
    case HTTP_PARAM_MALFORMED:
        return !problem_write(resp, r, 400, "invalid_value", NULL, "%s: found a bad escape or a control character", name);
    case HTTP_PARAM_LONG:
        break;
    }
    return !problem_write(resp, r, 400, "invalid_value", NULL, "%s: longer than %zu bytes", name, cap - 1);
}
