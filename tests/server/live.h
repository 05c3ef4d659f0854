/* live.h - the whole serving side in this process, over a bundle of a made-up world: real listeners on free ports, real handlers.
 * With alloc_watch.c linked in (its --wrap options: LIVE_WRAP in CMakeLists.txt) the allocations of the data listener's loop are seen. */
#ifndef DUET_TESTS_SERVER_LIVE_H
#define DUET_TESTS_SERVER_LIVE_H

#include "server/app.h"
#include "tests/server/tcp.h"

extern struct app live_app;

/* Publishes model `dat` into dir, once for all starts. */
void live_publish(const char *dir);
/* One data loop, model `dat`, and these lines of YAML beside. Ready when it returns; a configuration that does not start fails the test. */
void live_start(const char *dir, const char *yaml);
void live_stop(void);

/* One request on a connection of its own choice; "" = no body: GET. `headers`: lines that end in CRLF, may be "". */
void live_call(int fd, const char *path, const char *headers, const char *body, struct reply *r);
int live_connect(void);

/* Of the threads that run handlers for the data listener; all since alloc_watch_reset. */
void alloc_watch_reset(void);
size_t alloc_watch_seen(void);
void alloc_watch_fail_at(size_t n); // the n-th from now fails, 0 = none
bool alloc_watch_failed(void);

#endif
