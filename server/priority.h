/* priority.h - what the kernel's scheduler is told of a thread that answers requests.
 * Place:  called by an event loop about itself, as it begins (http_loop.c). The loader's side is nice 10 (reload.c).
 * Threads: changes the calling thread, and what threads it starts afterwards inherit. */
#ifndef DUET_SERVER_PRIORITY_H
#define DUET_SERVER_PRIORITY_H

#include <stdint.h>

#define PRIORITY_SLICE_NS 100000u // the least that Linux takes; 3 ms is usual

/* Asks for the shortest slice. From Linux 6.12 on, a thread that wakes up with a shorter slice than the one that runs need not wait for the end of
 * the other's; its share of the processor stays the same (bench/results.md, "Reload under load"). Needs no privilege and cannot fail: older
 * kernels, sandboxes that forbid it, and threads under a policy that an operator chose (chrt) stay as they are. */
void priority_requests(void);

/* The slice of the calling thread, ns; 0 where the kernel tells of none. */
uint64_t priority_slice_ns(void);

#endif
