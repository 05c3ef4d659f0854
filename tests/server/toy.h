/* toy.h - an in-process listener with a handler that tests steer by path:
 *   /echo   the body     /who   id, method, path, query as text     /sleep?ms=N   blocks the loop     /later?ms=N   suspends, completes
 *   /big?n=N   N bytes   /never   false without suspending          /empty   forgets the status       /crowded   "1" or "0"         */
#ifndef DUET_TESTS_SERVER_TOY_H
#define DUET_TESTS_SERVER_TOY_H

#include <stdatomic.h>

#include "server/http.h"

struct toy {
    struct http *http;
    uint16_t port;
    _Atomic unsigned n_done, n_states, n_later;
};

struct http_params toy_params(struct toy *t);               // short deadlines, 2 loops, port 0
void toy_start(struct toy *t, const struct http_params *p); // asserts
void toy_stop(struct toy *t);                               // also checks that every thread state was freed

#endif
