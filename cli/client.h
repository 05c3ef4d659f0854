/* client.h - the one user of libcurl: JSON over HTTP to a duetd, one request at a time.
 * Place:   query, replay and bench swap ask through it; bench load has a faster client of its own (load.h).
 * Threads: one thread a client; client_setup before there are others. */
#ifndef DUET_CLI_CLIENT_H
#define DUET_CLI_CLIENT_H

#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/mem.h"

struct client;

/* PEM files for https://, borrowed; all NULL: the system's CAs and no certificate of ours. */
struct client_tls {
    const char *ca;   // trusted instead of the system's
    const char *cert; // ours, with its chain
    const char *key;  // NULL: in `cert`
};
/* Rows for a command's table of options. */
#define CLIENT_TLS_OPTIONS(tls)                                                                                        \
    {"ca", OPT_STR, &(tls)->ca, "FILE", "https: PEM certificates to trust instead of the system's", 0, 0},             \
        {"cert", OPT_STR, &(tls)->cert, "FILE", "https: PEM certificate to show to the server", 0, 0},                 \
        {"key", OPT_STR, &(tls)->key, "FILE", "https: its PEM key, if it is not in --cert", 0, 0}

/* The files can be read, and no key is without its certificate; the message names option and file. Asked by client_new too, before anybody
 * is connected to: who is not there would be named otherwise. */
bool client_tls_check(const struct client_tls *tls, struct err *err);

/* http:// or https:// in front? */
bool client_is_url(const char *text);

bool client_setup(struct err *err);                          // once a process
/* "http://host:port" or https; a path in front of ours is kept. The strings of `tls` must stay. */
struct client *client_new(const char *url, const struct client_tls *tls, struct err *err);
void client_free(struct client *c);                          // NULL is fine
/* Bearer token of /v1/admin for all requests from now on: the first line of a file. */
bool client_read_token(struct client *c, const char *path, struct err *err);

struct client_reply {
    unsigned status;
    struct buf body;
    char server_timing[160]; // "" if there was none
};
void client_reply_fini(struct client_reply *r);

/* body NULL: none. False: no answer came (refused, timed out, TLS); any status is true. Zeroed or used *r is fine. */
bool client_call(struct client *c, const char *method, const char *path, const char *body, struct client_reply *r,
                 struct err *err);

/* The answer's JSON if the status is 2xx; otherwise NULL and the problem's own words. `r` may be NULL. */
json_t *client_json(struct client *c, const char *method, const char *path, const json_t *body, struct client_reply *r,
                    struct err *err);

/* "X-Api-Key: $DUET_API_KEY", appended to `out`, for the data listener's data.keys_file; nothing where the variable is unset or empty. False: the variable
 * holds what no header can. */
bool client_put_api_key(struct buf *out, struct err *err);

/* Percent-encode for a query parameter or a path segment, appended to `out`. */
void client_escape(struct buf *out, const char *text);

#endif
