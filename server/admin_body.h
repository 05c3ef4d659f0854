/* admin_body.h - what handlers of the admin API have in common: bodies, If-Match, refused changes. */
#ifndef DUET_SERVER_ADMIN_BODY_H
#define DUET_SERVER_ADMIN_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/json.h"
#include "server/http.h"
#include "server/state.h"

/* The body as an object with no members but those of `known`. NULL: answered. An empty body is {} where `may_be_empty`. */
json_t *admin_read_object(const struct http_request *r, const char *const *known, size_t n, bool may_be_empty,
                          struct http_response *resp);

/* If-Match: "N" or N or absent (STATE_ANY_REVISION). False: answered. */
bool admin_read_if_match(const struct http_request *r, uint64_t *revision, struct http_response *resp);

/* Does a change outlive the process? False: answered. */
bool admin_state_kept(const struct state *s, const struct http_request *r, struct http_response *resp);

/* Answer for a change that was refused: 412, 409, or 422 with `code` at `pointer` for what is wrong in itself. Always true. */
bool admin_change_failed(const struct http_request *r, const struct err *err, const char *code, const char *pointer,
                         struct http_response *resp);

#endif
