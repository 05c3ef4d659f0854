/* ticker.h - a thread that calls one function again and again until it is told to end.
 * Threads: the function runs on the ticker's thread alone. */
#ifndef DUET_SERVER_TICKER_H
#define DUET_SERVER_TICKER_H

#include "core/base/err.h"

struct ticker;

/* turn(ctx) every `ms` milliseconds, the first after as many. `what` stands in the message if the thread cannot start. */
struct ticker *ticker_new(unsigned ms, void (*turn)(void *ctx), void *ctx, const char *what, struct err *err);
void ticker_free(struct ticker *t); // when it returns no turn runs, and none will; NULL is fine

#endif
