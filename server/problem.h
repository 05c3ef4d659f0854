/* problem.h - error answers: RFC 9457 application/problem+json with a stable `code`, where the fault is, and the
 * request's id.
 *     {"type":"about:blank","title":"Bad Request","status":400,"code":"unknown_field","detail":"..",
 *      "errors":[{"pointer":"/kk","detail":".."}],"request_id":".."}
 * The codes are listed in docs/api.md. Details of our own faults go to the log, not to the client. */
#ifndef DUET_SERVER_PROBLEM_H
#define DUET_SERVER_PROBLEM_H

#include "core/base/err.h"
#include "server/http.h"

/* Reason phrase of a status: "Bad Request". */
const char *problem_title(unsigned status);

/* Fills resp->status, content type and body (what was in it is dropped). `pointer`: JSON pointer into the request's
 * body, or NULL: then there is no `errors`. Returns true, so that a handler can end with it. */
bool problem_write(struct http_response *resp, const struct http_request *r, unsigned status, const char *code,
                   const char *pointer, const char *fmt, ...) __attribute__((format(printf, 6, 7)));

/* An err as an answer, by its code: ARG 422, NOT_FOUND 404, MISMATCH and STATE 409, LIMIT 422, NOMEM 503, IO and FORMAT
 * 500 (whose message is withheld). `code` NULL: err_name. */
bool problem_from_err(struct http_response *resp, const struct http_request *r, const struct err *err,
                      const char *code);

/* The same without a request at hand (suspended ones): only its id. */
bool problem_write_id(struct http_response *resp, const char *request_id, unsigned status, const char *code,
                      const char *pointer, const char *detail);

/* A query parameter that may be left out: *given says whether it was, and out has it. False: answered, 400 naming it; one that is there
 * and cannot be read is never as if it were not. */
bool problem_query_param(struct http_response *resp, const struct http_request *r, const char *name, char *out, size_t cap,
                         bool *given);

#endif
