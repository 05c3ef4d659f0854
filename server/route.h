/* route.h - from method and path to one handler.
 * Patterns: literal segments and {name} segments, which may carry a literal tail: "/v1/admin/models/{m}:reload". A {name} is one
 *           non-empty segment, percent-decoded. HEAD is answered by the GET route. The first match in the table wins; a path that only
 *           matches under other methods is 405 + Allow; a route of the other listener is 404, as if it were not there.
 * Threads:  tables are const. */
#ifndef DUET_SERVER_ROUTE_H
#define DUET_SERVER_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "server/http.h"

struct app;

#define ROUTE_PARAMS_MAX 3
#define ROUTE_VALUE_MAX 1024 // an id of 256 bytes percent-encoded is 768

enum route_on { ROUTE_DATA = 1, ROUTE_ADMIN = 2, ROUTE_BOTH = 3 };

struct route_match {
    const struct route *route;
    unsigned n;
    char value[ROUTE_PARAMS_MAX][ROUTE_VALUE_MAX + 1]; // decoded, in the order of the pattern; [n] are set
};

/* As http_handler, with the route's parameters. `m` is not valid after the call: copy what a suspended request needs. */
typedef bool (*route_handler)(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp);

struct route {
    enum http_method method;
    const char *pattern;
    enum route_on on;
    const char *name;    // label of metrics and logs: "retrieve"
    bool needs_token;    // /v1/admin/*
    bool open;           // needs no API key on the data listener (health)
    bool sheds;          // computes: may be refused with 503 under overload (admission.h)
    bool while_starting; // answers before service.start has returned (health)
    route_handler handler; // NULL ends a table
};

enum route_found { ROUTE_FOUND, ROUTE_NO_PATH, ROUTE_NO_METHOD };

/* Search `tables` (n of them, in order). ROUTE_NO_METHOD: `allow` (cap bytes) gets the list for the Allow header. */
enum route_found route_find(const struct route *const *tables, size_t n, const struct http_request *r, struct route_match *m, char *allow,
                            size_t cap);

/* The http_handler of both listeners; ctx is the struct app. Checks token or API key, and admission, then calls the route's handler. */
bool route_dispatch(void *ctx, struct http_request *r, struct http_response *resp);

#endif
