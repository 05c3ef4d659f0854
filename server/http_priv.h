/* http_priv.h - shared by http.c (listeners), http_loop.c (event loops, deadlines), http_conn.c (one request's life) and http_guard.c.
 * Threads: a loop, its connections and their requests belong to the loop's thread. Exceptions are marked _Atomic. */
#ifndef DUET_SERVER_HTTP_PRIV_H
#define DUET_SERVER_HTTP_PRIV_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "server/http.h"
#include "server/http_tls.h"

#define HTTP_CONN_MEMORY 16384  // where http_params say nothing of conn_memory
#define HTTP_HEADERS_MAX 64     // 431 above
#define HTTP_URI_MAX 8192       // 414 above
#define HTTP_HOLD_MAX 8         // answers that are sent together: bench/results.md, "Answers sent together"
#define HTTP_HOLD_SHARE 8       // of those that wait a turn holds at least one in so many
#define HTTP_HOLD_US 1000       // where http_params say nothing of hold_us
#define HTTP_SPARE_MAX 512      // answers, and body buffers, that a loop keeps for reuse: about as many as one turn may touch
#define HTTP_SPARE_BYTES (8u << 20) // capacity of them all together; what would pass it is given back

/* Where a connection is, which also says what its deadline means. */
enum http_phase {
    CONN_IDLE,      // waiting for a request line: idle_ms (header_ms before the first)
    CONN_HEAD,      // request line seen: header_ms
    CONN_BODY,      // headers fine, body arriving: body_ms
    CONN_READY,     // complete, the handler is to be called in a later run: none
    CONN_HANDLER,   // inside the handler: none
    CONN_SUSPENDED, // waiting for http_complete: none
    CONN_HELD,      // answered, waiting for the other answers of this turn: none
    CONN_ANSWERING  // the answer is being written: body_ms
};

/* A response with its buffer: from the loop's spares to the handler, to libmicrohttpd, and back. */
struct http_answer {
    struct http_answer *next;
    struct http_loop *loop;
    struct http_response resp;
};

struct http_conn {
    struct http_loop *loop;
    struct http_conn *prev, *next; // in loop->conns
    struct http_conn *next_completed;
    struct MHD_Connection *mhd;
    int fd;
    enum http_phase phase;
    uint64_t deadline_ns;        // 0 = none
    uint64_t ready_ns;           // the loop's when the request was complete
    bool in_flight;              // counted in loop->in_flight
    bool reaped;
    bool idle_checked;           // once per idle period: has the peer left?
    struct http_request req;
    const char *after_uri;       // in libmicrohttpd's memory: where the version stands unless a NUL cut the target
    struct buf uri;              // raw request target; the query's '?' is replaced by NUL
    struct buf body;             // from the loop's spares
    uint64_t body_seen;          // bytes received, also those that were too many
    struct http_answer *answer;  // SUSPENDED: what http_complete fills; HELD: what is to be sent
    struct http_cert *cert;      // held; NULL without TLS
};

/* http_complete's way into a connection: http_pending is the connection. */
struct http_pending {
    struct http_conn conn;
};

struct http_loop {
    struct http *h;
    struct MHD_Daemon *mhd;
    pthread_t thread;
    bool thread_started;
    int listen_fd, epoll_fd, wake_fd;
    void *thread_state;
    struct http_conn *conns;
    uint64_t turn_ns;   // when the present turn began
    uint64_t ready_ns;  // when what this turn works on became readable, at the latest: turn_ns if the loop had slept, else the turn before
    uint64_t reap_ns;   // next look at the deadlines
    unsigned n_answered, n_held; // by handlers in this turn; those that wait to be sent
    uint64_t held_ns;            // since when the first of them does
    unsigned n_waiting;          // requests that were complete when no handler could be called any more, in the last run
    unsigned hold_max;           // n_held of this turn, at most
    bool crowd;                  // several were answered in the last turn that answered any
    bool flushing;               // libmicrohttpd is asking for what was held
    uint64_t id_state;  // of request ids
    struct http_answer *spare_answer;
    struct buf spare_body[HTTP_SPARE_MAX];
    unsigned n_spare_answers, n_spare_bodies;
    size_t spare_bytes;
    _Atomic uint64_t turned_ns; // turn_ns for others
    _Atomic unsigned in_flight, n_conns;
    _Atomic(struct http_conn *) completed; // stack of completed suspended requests, newest first
    _Atomic unsigned completers;           // threads inside http_complete: http_stop waits for them
};

struct http {
    struct http_params p;
    char address[64];
    uint16_t port;
    _Atomic bool draining, stopping;
    bool halted;                 // by the one thread that stops the listener
    unsigned n_loops;
    struct http_loop loop[]; // [n_loops]
};

uint64_t http_now_ns(void);

// http_loop.c
bool http_loop_open(struct http_loop *l, struct err *err);  // daemon, epoll, thread state; listen_fd is set
bool http_loop_start(struct http_loop *l, struct err *err); // thread
void http_loop_wake(struct http_loop *l);
void http_loop_close(struct http_loop *l);                  // after the thread has ended; zeroed and half-opened are fine
struct http_answer *http_answer_take(struct http_loop *l);  // reset; NULL if out of memory
void http_answer_put(void *answer);

// http_conn.c: libmicrohttpd's callbacks
void *http_on_uri(void *cls, const char *uri, struct MHD_Connection *mc);
enum MHD_Result http_on_request(void *cls, struct MHD_Connection *mc, const char *url, const char *method, const char *version,
                                const char *upload, size_t *upload_size, void **req_cls);
void http_on_completed(void *cls, struct MHD_Connection *mc, void **req_cls, enum MHD_RequestTerminationCode code);
void http_on_connection(void *cls, struct MHD_Connection *mc, void **socket_context, enum MHD_ConnectionNotificationCode code);

// http_guard.c
struct http_refusal {
    unsigned status; // 0 = none
    const char *code, *detail;
};
/* Called once per request, when the headers are complete: refuses what libmicrohttpd lets through and we do not, and what is declared
 * too long; sets the request's id and deadline. */
struct http_refusal http_guard(struct http_conn *c, const char *version);
enum http_method http_method_parse(const char *method);

#endif
