/* http.h - the one user of libmicrohttpd: listeners, event loops, request guards, deadlines and drain.
 * Place:   turns bytes into struct http_request, calls one handler, writes struct http_response. Knows no routes, no models.
 * Threads: `threads` event loops per listener, each an MHD daemon of its own on a SO_REUSEPORT socket with external epoll (internal
 *          epoll stalls above ~120 busy keep-alive connections, docs/threads.md). A handler runs to completion on its loop's thread, or
 *          suspends its request and completes it later from any thread. */
#ifndef DUET_SERVER_HTTP_H
#define DUET_SERVER_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/mem.h"
#include "server/trace.h"

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_PUT, HTTP_DELETE, HTTP_OTHER };

#define HTTP_REQUEST_ID_MAX 64

struct http_request {
    enum http_method method;
    const char *path;           // raw path without the query: printable ASCII, not decoded
    const char *query;          // raw, after '?'; "" if none
    const char *body;           // NUL-terminated
    size_t body_len;
    char id[HTTP_REQUEST_ID_MAX + 1]; // X-Request-Id if sane ([A-Za-z0-9._-]{1,64}), else made here; echoed in the answer
    struct trace trace;         // of the caller's traceparent; echoed with our span
    uint64_t start_ns;          // CLOCK_MONOTONIC when the request's first byte was seen by the loop
    uint64_t deadline_ns;       // start + X-Request-Timeout-Ms, at most the configured one
    bool is_admin;              // arrived on the admin listener
    bool crowded;               // more than max_connections are open: answer 503, unless this is health or administration
    uint64_t lag_ns;            // from readable to handler
    float ef_share;             // what its searches may take of their ef, set by route.c; 0 = all
    const char *note;           // static text that the handler may set for `done` (the route's name); NULL before
    void *thread_state;         // made by thread_state_new for this loop; not for use after http_suspend
    struct http_conn *conn;     // opaque
};

const char *http_header(const struct http_request *r, const char *name); // NULL if absent
enum http_param { HTTP_PARAM_NONE, HTTP_PARAM_FOUND, HTTP_PARAM_REPEATED, HTTP_PARAM_MALFORMED, HTTP_PARAM_LONG };
/* Percent-decoded query parameter into out (NUL-terminated). MALFORMED: a bad escape or a control character; LONG: more than cap - 1
 * bytes. *out is only of use where it is FOUND. */
enum http_param http_query_param(const struct http_request *r, const char *name, char *out, size_t cap);
/* Percent-decode one path segment; false on malformed escapes, NUL, control characters, '/' or lack of room. */
bool http_decode_segment(const char *p, size_t n, char *out, size_t cap);

#define HTTP_EXTRA_MAX 8

/* Zeroed and reset by http.c before each handler; `body` keeps its capacity from request to request on a loop. */
struct http_response {
    unsigned status;              // 0 = the handler forgot: answered as 500
    const char *content_type;     // static text; NULL = application/json
    struct buf body;
    struct {
        const char *name;         // static text
        char value[160];
    } extra[HTTP_EXTRA_MAX];
    unsigned n_extra;
    bool close;                   // send Connection: close
};
void http_add_header(struct http_response *resp, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void http_add_text_header(struct http_response *resp, const char *name, const char *value); // the same without printf, for the hot path

/* The handler fills *resp and returns true; or it has called http_suspend and returns false: whoever holds the pending answer must
 * call http_complete exactly once (also at shutdown). */
typedef bool (*http_handler)(void *ctx, struct http_request *r, struct http_response *resp);

struct http_pending;
struct http_pending *http_suspend(struct http_request *r);              // NULL if out of memory; use *r no more, but the one below
struct http_request *http_pending_request(struct http_pending *p);      // body, headers, id, deadline: valid until http_complete
void http_complete(struct http_pending *p, struct http_response *resp); // takes resp->body; any thread

struct http_tls; // http_tls.h

struct http_params {
    const char *address;        // numeric IPv4 or IPv6
    uint16_t port;              // 0 = any free one
    int passed_fd;              // a listening, non-blocking TCP socket to take instead of both; borrowed. Below 1: bind
    unsigned threads;           // event loops
    bool is_admin;
    unsigned max_connections;   // per listener: above it requests are marked `crowded`; a quarter above that, clients wait
    size_t max_body;            // 413 above
    size_t conn_memory;         // of each connection: request line and headers above it are 414 / 431. It is cleared after every
                                // request. 0 = 16 KiB
    unsigned header_ms, body_ms, idle_ms; // absolute deadlines: headers, whole request, idle keep-alive
    unsigned deadline_ms;       // default and largest request deadline
    unsigned hold_us;           // how long an answer may wait for those of the same turn behind it, so that they are sent together. 0 = 1000
    struct http_tls *tls;       // borrowed until http_stop; NULL: plain HTTP
    http_handler handler;
    void *ctx;
    void *(*thread_state_new)(void *ctx);            // may be NULL
    void (*thread_state_free)(void *ctx, void *state);
    /* Called on the loop after each answer has been queued, or dropped, for its client had left; for logs and metrics. May be NULL. lag_ns: from readable to handler. */
    void (*done)(void *ctx, const struct http_request *r, unsigned status, size_t bytes, uint64_t total_ns, uint64_t lag_ns);
};

struct http;
struct http *http_start(const struct http_params *p, struct err *err); // listening when it returns; ignores SIGPIPE
uint16_t http_port(const struct http *h);
void http_passed_address(int fd, char *out, size_t cap); // numeric, of a bound socket; "" if it has none
unsigned http_in_flight(const struct http *h);   // requests begun and not yet answered
unsigned http_connections(const struct http *h);
uint64_t http_loop_age_ms(const struct http *h); // since the slowest loop last turned: liveness
void http_drain(struct http *h);                 // from now on every answer says Connection: close; goes on accepting
/* Stops accepting, finishes what has begun (suspended requests must be completed by their holders; other answers get 2 s), closes
 * connections, joins, frees; NULL is fine. */
void http_halt(struct http *h);                  // stops accepting, closes connections, joins; may still be asked. NULL is fine
void http_stop(struct http *h);                  // http_halt, and frees; NULL is fine

#endif
