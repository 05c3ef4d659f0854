/* source.h - where answers come from: a bundle that is read here, or a running daemon. One form of request
 * (docs/api.md, POST /v1/retrieve, or with a `vector` POST /v1/search) and one of answer, so that `query` and `replay` need not know which it is. Threads:
 * one thread a source. */
#ifndef DUET_CLI_SOURCE_H
#define DUET_CLI_SOURCE_H

#include "cli/client.h"
#include "core/base/err.h"
#include "core/base/json.h"

struct bundle;
struct source;

/* where: a URL (http:// or https://) of a data listener, else the folder of a bundle or of its versions. tls: for https://; its strings
 * must stay. */
struct source *source_open(const char *where, const struct client_tls *tls, struct err *err);
void source_free(struct source *s);                         // NULL is fine
const struct bundle *source_bundle(const struct source *s); // NULL for a daemon

/* Ask for every attribute there is: sets the request's `fields`. */
bool source_want_attributes(struct source *s, json_t *request, struct err *err);

/* New reference: {model, version, fallback, unknown_features [..], k, ef (null if the daemon does not tell), exact,
 * returned, items [{id, score, attributes}]}. us: what embedding and searching took, without transport (NULL: not
 * wanted). Ids and categories that a bundle does not have are ignored, as the daemon does. */
json_t *source_ask(struct source *s, const json_t *request, double *us, struct err *err);
/* {model, version, fallback, unknown_features, p_u, a_u}; the request may have user_id, features and history. */
json_t *source_embed(struct source *s, const json_t *request, struct err *err);

#endif
