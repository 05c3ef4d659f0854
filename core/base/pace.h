/* pace.h - long work that gives way: in slices, with a rest after each, so that who wakes up meanwhile finds a processor idle.
 * Why:     a thread that never sleeps keeps a processor from being idle, and whatever else wakes up then lands beside the event loops, however
 *          low that thread's priority is (bench/results.md, "Reload under load").
 * Place:   reload.c paces the loader's thread; loops of core that may take more than some 0.1 ms have a pace_point in them, and so do the index's, by
 *          its option `pace`. In a thread without a pace (start-up, the command line, tests) a point is a look at a variable and nothing more.
 * Bound:   a thread's rests add up to at most PACE_REST_PERCENT of the processor time that it has used, but for the last one: one that came to be
 *          longer than was asked for, because others had the processor, is made up for by those that follow.
 * Threads: a pace may be that of several threads; which pace a thread has, and what it owes, is the thread's own (like its priority). */
#ifndef DUET_BASE_PACE_H
#define DUET_BASE_PACE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define PACE_SLICE_NS 300000 // of processor time; 1 ms is felt more, see bench/results.md
#define PACE_REST_PERCENT 70  // of the work: a bundle of a million items, 1.1 s of work, is loaded within 2 s
#define PACE_REST_MAX_NS 1000000 // of one rest, however long the work before it had no point in it

/* What the time is; tests have their own. */
struct pace_clock {
    uint64_t (*now)(void *ctx); // ns, of any beginning
    uint64_t (*cpu)(void *ctx); // ns that the calling thread has used
    void (*rest)(void *ctx, uint64_t ns);
    void *ctx;
};

struct pace {
    const struct pace_clock *clock; // NULL: the system's
    atomic_bool hurry;              // no rests from now on: somebody waits for the end
    atomic_uint_fast64_t rests;     // there have been
};

void pace_set(struct pace *p); // of the calling thread, which begins anew; NULL: none. The thread keeps the pointer
struct pace *pace_mine(void);  // the calling thread's, for helpers that it starts; NULL: none

void pace_point(void);         // rests if a slice is over
void pace_point_of(void *p);   // the same as one of p's threads, which the caller is from now on; p: a struct pace, or NULL

/* In a loop whose steps take some 0.1 us: a point after every 1,024. */
static inline void pace_step(size_t i)
{
    if (i % 1024 == 1023)
        pace_point();
}

#endif
