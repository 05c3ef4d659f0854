/* load_priv.h - one connection of a load (load_conn.c), as load.c drives it. */
#ifndef DUET_CLI_LOAD_PRIV_H
#define DUET_CLI_LOAD_PRIV_H

#include "cli/load.h"
#include "cli/load_tls.h"

enum load_state { LC_DOWN, LC_CONNECTING, LC_IDLE, LC_BUSY };

struct load_conn {
    int fd; // -1: none
    struct gnutls_session_int *tls; // NULL: plain
    enum load_state state;
    bool wants_out;  // epoll also waits for room to write
    const char *out; // what is left to send
    size_t out_n;
    struct buf in;
    size_t head_n, body_n; // of the answer; head_n = 0: headers not complete yet
    bool until_close, closes;
    unsigned status;
    uint32_t request;
    int mark;
    uint64_t due_ns, sent_ns, retry_ns;
};

/* What became of reading or writing. */
enum load_event { LE_NOTHING, LE_ANSWER, LE_CLOSED, LE_PROTOCOL };

bool load_conn_open(struct load_conn *c, const struct load_target *t); // begins connecting; false: refused at once
void load_conn_close(struct load_conn *c);
/* After the socket is ready while connecting: state becomes LC_IDLE, or stays while TLS goes on. False: refused. */
bool load_conn_connected(struct load_conn *c);
bool load_conn_wants_out(const struct load_conn *c); // waits for room to write
void load_conn_send(struct load_conn *c, const char *request, size_t n); // from LC_IDLE
bool load_conn_flush(struct load_conn *c);                               // false: the connection is gone
/* Read what there is. LE_ANSWER: status and body (c->in.data + head_n, body_n) are whole, until load_conn_next. */
enum load_event load_conn_read(struct load_conn *c);
void load_conn_next(struct load_conn *c); // the answer was used; LC_IDLE, or closed if the server wants that

#endif
