/* load.h - many requests at a daemon over kept-alive connections, from one thread: what `duet bench` measures with.
 * Open loop:   rate > 0: request i is due at i / rate, whether or not earlier ones were answered. Latency counts from
 * when it was due, so a server that stalls is charged for everything that had to wait meanwhile (coordinated omission).
 * Closed loop: rate = 0: each connection sends its next request when it has its answer. Says what a server can do, not
 * how long users wait. Speaks:      HTTP/1.1, by TLS too; answers with Content-Length or until close. */
#ifndef DUET_CLI_LOAD_H
#define DUET_CLI_LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "cli/client.h"
#include "cli/histogram.h"
#include "core/base/err.h"
#include "core/base/mem.h"

struct load_tls;
struct load_target {
    struct sockaddr_storage address;
    socklen_t n;
    char host[280];   // for the Host header
    char prefix[256]; // of paths: what the URL had behind the port
    struct load_tls *tls; // NULL: http://
};
bool load_resolve(const char *url, const struct client_tls *tls, struct load_target *out, struct err *err); // *out: for load_target_fini, on failure too
void load_target_fini(struct load_target *t); // zeroed is fine

/* Whole requests, ready to be sent; zeroed is empty. */
struct load_requests {
    struct buf bytes;
    size_t *end; // [n]: request i ends there
    uint32_t n, cap;
};
/* body NULL: GET; else POST of JSON. */
bool load_requests_add(struct load_requests *r, const struct load_target *t, const char *path, const char *body,
                       size_t n, struct err *err);
void load_requests_fini(struct load_requests *r);

enum load_error { LOAD_CONNECT, LOAD_CLOSED, LOAD_TIMEOUT, LOAD_PROTOCOL, LOAD_ERRORS };
extern const char *const load_error_names[LOAD_ERRORS];

struct load_result {
    struct histogram latency; // of 2xx answers, and of timeouts with the time that was waited; open loop: since due
    struct histogram service; // the same since sent
    uint64_t answered, bytes; // answers of any status; bytes of bodies
    uint64_t status[600];
    uint64_t error[LOAD_ERRORS];
    uint64_t unsent; // open loop: due within the time and never sent, since no connection was free
    double seconds;  // that it took
};
uint64_t load_failures(const struct load_result *r); // errors, and answers that are not 2xx

struct load_answer {
    uint32_t request;
    unsigned status;
    const char *body;
    size_t body_n;
    uint64_t latency_ns; // as in load_result.latency
    int mark;            // *params.mark when it was sent
};

struct load_params {
    const struct load_target *target;
    const struct load_requests *requests;
    unsigned connections;
    double rate, seconds;
    uint64_t timeout_ms; // of one request
    uint64_t seed;       // of the order of requests
    /* All on the thread of load_run; NULL: not wanted. on_second also gets what has been measured so far. */
    void (*on_answer)(void *ctx, const struct load_answer *a);
    void (*on_second)(void *ctx, double elapsed, const struct load_result *so_far);
    void *ctx;
    const _Atomic int *mark;
    const atomic_bool *stop; // end early
};

/* False: nobody listens there, or no resources. What went wrong later is in the result. Zeroed *r. */
bool load_run(const struct load_params *p, struct load_result *r, struct err *err);

#endif
