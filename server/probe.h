/* probe.h - `duetd --probe livez`: ask a running daemon's admin listener, for health checks where there is no curl. */
#ifndef DUET_SERVER_PROBE_H
#define DUET_SERVER_PROBE_H

#include "config/config.h"

/* PEM files; NULL = the admin listener's own pair, which will do where its extended key usage allows clients. */
struct probe_cert {
    const char *cert, *key;
};

/* GET /<what> on the configured admin listener; an address that stands for all of them is asked on loopback. 200 is
 * true; `err` has the status or why nobody answered. 3 s for each step. With admin_tls by TLS, by the certificate `mine` where
 * the listener wants one. */
bool probe_ask(const struct config *c, const char *what, const struct probe_cert *mine, struct err *err);

#endif
