/* live_priv.h - what the files of struct hnsw_live share.
 *
 *   hnsw_live --gen--> generation: main (const graph) | delta: slots 0 .. n, appended | table: label -> what became of
 * it
 *
 * A generation's time is the number of its changes; `head` holds time and number of slots in one word, and storing it
 * is what publishes a change. Who reads `head` once has a view: the index as it was then.
 *
 *   put(7) at time t:   slot n gets vector and label; the slot (or the element of main) that held 7 gets "dead at t";
 * head = (t, n + 1) view (T, n):        slot i lives if i < n and T < its time of death; an element of main lives if T
 * < its label's in the table
 *
 * Nothing that a view shows is written again: so searches need no lock, see whole vectors, and see an update either
 * wholly or not. A tombstone bitmap by element would do for removals alone; with times, and by label, a replaced vector
 * has no moment in which it is found twice or not at all, and a hit of the graph is looked up in a small table instead
 * of in one entry an element.
 *
 * Lives as long: a generation, and tables that its table outgrew, end when the next generation is in place and
 * live_epoch_wait has seen every reader out that may have known it. */
#ifndef LIVE_PRIV_H
#define LIVE_PRIV_H

#include <pthread.h>

#include "index/hnsw_live.h"
#include "index/hnsw_priv.h"

#define LIVE_ALIVE UINT32_MAX // a time of death that never comes
#define LIVE_NO_SLOT UINT32_MAX

// live_epoch.c ------------------------------------------------------------------------------------ who is reading

#define LIVE_SHARDS 64

/* Readers count themselves in and out of the side that `turn` shows, each on the cache line of its thread. */
struct live_epoch {
    atomic_uint turn;
    struct {
        _Alignas(HNSW_ALIGN) atomic_size_t inside[2];
    } shard[LIVE_SHARDS];
};

struct live_epoch *live_epoch_new(void); // NULL: out of memory; ends with free
atomic_size_t *live_epoch_enter(struct live_epoch *e);
void live_epoch_leave(atomic_size_t *inside);
void live_epoch_wait(struct live_epoch *e); // all who entered before are out; one caller at a time

// live_table.c ------------------------------------------------------------------------------- what became of labels

/* of a label: time of death in main (0: lives there, or was never there) << 32 | newest slot + 1 (0: none). 0: a free
 * place. */
struct live_entry {
    _Atomic uint64_t label, word;
};

/* One writer, any number of readers; entries are never taken out. */
struct live_table {
    struct live_table *outgrown; // the one before: readers may still be in it
    size_t mask, n;
    uint64_t key[2];
    struct live_entry entry[];
};

static inline uint32_t live_word_death(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

static inline uint32_t live_word_slot(uint64_t word)
{
    return (uint32_t)word - 1; // 0 becomes LIVE_NO_SLOT
}

static inline uint64_t live_word(uint32_t death, uint32_t slot)
{
    return ((uint64_t)death << 32) | (slot + 1);
}

struct live_table *live_table_new(size_t capacity);        // NULL: out of memory
struct live_table *live_table_grown(struct live_table *t); // twice the size, the same entries; NULL: out of memory
void live_table_free(struct live_table *t);                // and those it outgrew
size_t live_table_bytes(const struct live_table *t);
uint64_t live_table_find(const struct live_table *t, uint64_t label);     // its word, or 0
void live_table_set(struct live_table *t, uint64_t label, uint64_t word); // there is room

static inline bool live_table_full(const struct live_table *t) // no room for one more
{
    return 3 * (t->n + 1) > 2 * (t->mask + 1);
}

// live_gen.c ---------------------------------------------------------------------------------------- a generation

struct live_gen {
    struct hnsw *main; // owned; const for all but live_gen_free
    size_t cap;

    float *vec;                // [cap][dim] normalised for COSINE
    uint64_t *label;           // [cap]
    uint32_t *before;          // [cap] the slot that held the label before, or LIVE_NO_SLOT
    _Atomic uint32_t *dead_at; // [cap] time, or LIVE_ALIVE

    _Atomic(struct live_table *) table;
    _Atomic uint64_t head;          // time << 32 | slots in use
    _Atomic size_t n_dead, n_alive; // dead elements of main; labels alive: for those who ask, not for views
};

/* The generation as it was at one moment. */
struct live_view {
    const struct live_gen *gen;
    const struct live_table *table;
    uint32_t time, n;
};

struct live_gen *live_gen_new(struct hnsw *main, size_t cap, struct hnsw_err *err); // takes main unless it fails
void live_gen_free(struct live_gen *g);                                             // NULL is fine
size_t live_gen_bytes(const struct live_gen *g);
bool live_gen_put(struct live_gen *g, uint64_t label, const float *vec, struct hnsw_err *err); // there is a free slot
bool live_gen_remove(struct live_gen *g, uint64_t label, struct hnsw_err *err);
struct live_view live_gen_view(const struct live_gen *g);
const float *live_view_vector(const struct live_view *v, uint64_t label); // NULL if it does not live

static inline uint32_t live_head_time(uint64_t head)
{
    return (uint32_t)(head >> 32);
}

static inline uint32_t live_head_n(uint64_t head)
{
    return (uint32_t)head;
}

static inline bool live_view_slot(const struct live_view *v, uint32_t slot) // lives; slot < v->n
{
    return atomic_load_explicit(&v->gen->dead_at[slot], memory_order_relaxed) > v->time;
}

static inline bool live_view_main(const struct live_view *v, uint64_t label) // of a label of main: lives there
{
    uint32_t death = v->time ? live_word_death(live_table_find(v->table, label)) : 0;
    return death == 0 || death > v->time;
}

// live_compact.c, live_merge.c -------------------------------------------------------------------------------- merging

/* A graph of what lives in the view, or NULL. */
struct hnsw *live_compact(const struct live_view *v, bool optimize, unsigned threads, struct hnsw_err *err);

struct hnsw_live {
    struct hnsw_live_params params;
    enum hnsw_metric metric;
    size_t dim;
    struct live_epoch *epoch;
    _Atomic(struct live_gen *) gen;

    pthread_mutex_t merge_lock; // held by who merges or saves, for as long; before write_lock
    pthread_mutex_t write_lock; // changes of `gen`, and all below
    pthread_cond_t wake;        // for the merging thread: a merge is wanted, or `stop`
    pthread_cond_t merged;      // for puts: a merge has ended
    pthread_t merger;
    bool has_merger, stop, merging;
    size_t n_waiting;    // puts that wait for room
    uint32_t not_before; // after a failure: no merge unasked for before this time
    size_t n_merges, n_failed;
    double last_merge_s;
    struct hnsw_err failure; // of the last merge that failed
};

size_t live_delta_max(const struct hnsw_live *l, const struct hnsw *main);
bool live_merge_locked(struct hnsw_live *l, unsigned threads, struct hnsw_err *err); // merge_lock is held

#endif
