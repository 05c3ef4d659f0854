/* live_epoch.c - knowing when nobody reads what was taken out of use.
 *
 * A reader adds one to a counter, reads the pointer to the generation, and takes the one away when done. Who has
 * replaced the pointer waits until each counter has been seen at 0 once: a reader that is counted later reads the new
 * pointer. That would never end under steady readers, so there are two counters a shard and `turn` says which one to
 * use: first the idle side is waited for (a few may have read `turn` long ago), then `turn` changes and the other side
 * runs dry. This is the scheme of the Linux kernel's SRCU.
 *
 * The addition and the reading of the pointer, and the replacing and the reading of counters, are sequentially
 * consistent: each side writes one thing and then reads the other's, so weaker orders would let both miss each other.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "index/live_priv.h"

struct live_epoch *live_epoch_new(void)
{
    struct live_epoch *e = hnsw_mem_block(1, sizeof(*e));
    if (e)
        memset(e, 0, sizeof(*e));
    return e;
}

/* Threads are told apart by the address of something that each has of its own. */
static size_t shard_of_thread(void)
{
    static _Thread_local char mine;
    uint64_t x = (uint64_t)(uintptr_t)&mine * 0x9e3779b97f4a7c15u;
    return (size_t)(x >> 58) % LIVE_SHARDS;
}

atomic_size_t *live_epoch_enter(struct live_epoch *e)
{
    atomic_size_t *inside = &e->shard[shard_of_thread()].inside[atomic_load(&e->turn) & 1];
    atomic_fetch_add(inside, 1);
    return inside;
}

void live_epoch_leave(atomic_size_t *inside)
{
    atomic_fetch_sub_explicit(inside, 1, memory_order_release);
}

static void wait_side(struct live_epoch *e, unsigned side)
{
    const struct timespec pause = {.tv_nsec = 20000}; // a part of a search
    for (size_t i = 0; i < LIVE_SHARDS; i++)
        while (atomic_load(&e->shard[i].inside[side]) > 0)
            nanosleep(&pause, NULL);
}

void live_epoch_wait(struct live_epoch *e)
{
    unsigned turn = atomic_load(&e->turn);
    wait_side(e, (turn + 1) & 1);
    atomic_store(&e->turn, turn + 1);
    wait_side(e, turn & 1);
}
