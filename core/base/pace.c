#include "core/base/pace.h"

#include <stdbool.h>
#include <time.h>

/* A thread's account. `owed_ns` is below zero after a rest that was longer than it had to be. */
static _Thread_local struct {
    struct pace *pace;
    uint64_t slice_ns; // when the slice began; it is over no sooner than PACE_SLICE_NS later
    uint64_t cpu_ns;   // used until then
    int64_t owed_ns;
} mine;

// -------------------------------------------------------------------------------------------------- the system's clock

static uint64_t read_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t system_now(void *ctx)
{
    (void)ctx;
    return read_clock(CLOCK_MONOTONIC);
}

static uint64_t system_cpu(void *ctx)
{
    (void)ctx;
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

static void system_rest(void *ctx, uint64_t ns)
{
    (void)ctx;
    nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
}

static const struct pace_clock system_clock = {system_now, system_cpu, system_rest, NULL};

static const struct pace_clock *clock_of(const struct pace *p)
{
    return p->clock ? p->clock : &system_clock;
}

// --------------------------------------------------------------------------------------------------------------- pace

void pace_set(struct pace *p)
{
    mine.pace = p;
    mine.owed_ns = 0;
    if (p) {
        mine.slice_ns = clock_of(p)->now(clock_of(p)->ctx);
        mine.cpu_ns = clock_of(p)->cpu(clock_of(p)->ctx);
    }
}

struct pace *pace_mine(void)
{
    return mine.pace;
}

static void rest(struct pace *p, const struct pace_clock *c, uint64_t now)
{
    if (mine.owed_ns > PACE_REST_MAX_NS)
        mine.owed_ns = PACE_REST_MAX_NS; // what one rest cannot hold is forgotten
    c->rest(c->ctx, (uint64_t)mine.owed_ns);
    uint64_t woke = c->now(c->ctx);
    mine.owed_ns -= (int64_t)(woke - now);
    mine.slice_ns = woke;
    atomic_fetch_add_explicit(&p->rests, 1, memory_order_relaxed);
}

/* Time on the clock is cheap to ask for and never less than what was used of the processor, which is what counts. */
void pace_point(void)
{
    struct pace *p = mine.pace;
    if (!p || atomic_load_explicit(&p->hurry, memory_order_relaxed))
        return;
    const struct pace_clock *c = clock_of(p);
    uint64_t now = c->now(c->ctx);
    if (now - mine.slice_ns < PACE_SLICE_NS)
        return;
    uint64_t cpu = c->cpu(c->ctx), used = cpu - mine.cpu_ns;
    if (used < PACE_SLICE_NS) {
        mine.slice_ns = now - used;
        return;
    }
    mine.cpu_ns = cpu;
    mine.slice_ns = now;
    mine.owed_ns += (int64_t)(used * PACE_REST_PERCENT / 100);
    if (mine.owed_ns > 0)
        rest(p, c, now);
}

void pace_point_of(void *p)
{
    if (mine.pace != p)
        pace_set(p);
    pace_point();
}
