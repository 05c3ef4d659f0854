/* live_gen.c - a generation: its delta, what has died in its graph, and views of it. Changes are made under write_lock.
 */
#include <stdlib.h>
#include <string.h>

#include "index/live_priv.h"

struct live_gen *live_gen_new(struct hnsw *main, size_t cap, struct hnsw_err *err)
{
    struct live_gen *g = hnsw_mem_new(1, sizeof(*g));
    struct live_table *t = live_table_new(64);
    if (g) {
        g->cap = cap;
        g->vec = hnsw_mem_block(cap, main->dim * sizeof(float));
        g->label = hnsw_mem_new(cap, sizeof(*g->label));
        g->before = hnsw_mem_new(cap, sizeof(*g->before));
        g->dead_at = hnsw_mem_new(cap, sizeof(*g->dead_at));
    }
    if (!g || !t || !g->vec || !g->label || !g->before || !g->dead_at) {
        live_table_free(t);
        live_gen_free(g);
        hnsw_fail(err, HNSW_NOMEM, "no memory for a delta of %zu elements", cap);
        return NULL;
    }
    g->main = main;
    atomic_init(&g->table, t);
    atomic_init(&g->n_alive, hnsw_count(main));
    return g;
}

void live_gen_free(struct live_gen *g)
{
    if (!g)
        return;
    hnsw_free(g->main);
    live_table_free(atomic_load(&g->table));
    free(g->vec);
    free(g->label);
    free(g->before);
    free(g->dead_at);
    free(g);
}

size_t live_gen_bytes(const struct live_gen *g)
{
    size_t slot = g->main->dim * sizeof(float) + sizeof(*g->label) + sizeof(*g->before) + sizeof(*g->dead_at);
    return sizeof(*g) + hnsw_bytes(g->main) + g->cap * slot + live_table_bytes(atomic_load(&g->table));
}

// -------------------------------------------------------------------------------------------------------- changing

/* The table with room for one more label. */
static struct live_table *roomy_table(struct live_gen *g, struct hnsw_err *err)
{
    struct live_table *t = atomic_load_explicit(&g->table, memory_order_relaxed);
    if (!live_table_full(t))
        return t;
    if (!(t = live_table_grown(t)))
        hnsw_fail(err, HNSW_NOMEM, "no memory to note one more change");
    else
        atomic_store_explicit(&g->table, t, memory_order_release);
    return t;
}

static void publish(struct live_gen *g, uint32_t time, uint32_t n)
{
    atomic_store_explicit(&g->head, (uint64_t)time << 32 | n, memory_order_release);
}

/* The label's slot, or element of main, is dead from `time` on. Returns its time of death in main, 0 for none, and
 * whether it lived. */
static uint32_t kill(struct live_gen *g, uint64_t label, uint64_t word, uint32_t time, bool *lived)
{
    uint32_t slot = live_word_slot(word), death = live_word_death(word);
    *lived = true;
    if (slot != LIVE_NO_SLOT && atomic_load_explicit(&g->dead_at[slot], memory_order_relaxed) == LIVE_ALIVE)
        atomic_store_explicit(&g->dead_at[slot], time, memory_order_relaxed);
    else if (death == 0 && hnsw_vector(g->main, label)) {
        death = time;
        atomic_fetch_add_explicit(&g->n_dead, 1, memory_order_relaxed);
    } else
        *lived = false;
    return death;
}

/* Time cannot run out: each change takes a slot or ends an element's life, and there are less than 2^31 of either. */
bool live_gen_put(struct live_gen *g, uint64_t label, const float *vec, struct hnsw_err *err)
{
    struct live_table *t = roomy_table(g, err);
    if (!t)
        return false;
    uint64_t head = atomic_load_explicit(&g->head, memory_order_relaxed), word = live_table_find(t, label);
    uint32_t time = live_head_time(head) + 1, n = live_head_n(head);
    bool lived;
    if (g->main->metric == HNSW_COSINE)
        hnsw_metric_normalize(vec, g->main->dim, g->vec + (size_t)n * g->main->dim);
    else
        memcpy(g->vec + (size_t)n * g->main->dim, vec, g->main->dim * sizeof(*vec));
    g->label[n] = label;
    g->before[n] = live_word_slot(word);
    atomic_store_explicit(&g->dead_at[n], LIVE_ALIVE, memory_order_relaxed);
    uint32_t death = kill(g, label, word, time, &lived);
    live_table_set(t, label, live_word(death, n));
    if (!lived)
        atomic_fetch_add_explicit(&g->n_alive, 1, memory_order_relaxed);
    publish(g, time, n + 1);
    return true;
}

bool live_gen_remove(struct live_gen *g, uint64_t label, struct hnsw_err *err)
{
    struct live_table *t = roomy_table(g, err);
    if (!t)
        return false;
    uint64_t head = atomic_load_explicit(&g->head, memory_order_relaxed), word = live_table_find(t, label);
    uint32_t time = live_head_time(head) + 1;
    bool lived;
    uint32_t death = kill(g, label, word, time, &lived);
    if (!lived)
        return hnsw_fail(err, HNSW_NOT_FOUND, "label %llu is not in the index", (unsigned long long)label);
    live_table_set(t, label, live_word(death, live_word_slot(word)));
    atomic_fetch_sub_explicit(&g->n_alive, 1, memory_order_relaxed);
    publish(g, time, live_head_n(head));
    return true;
}

// ----------------------------------------------------------------------------------------------------------- views

struct live_view live_gen_view(const struct live_gen *g)
{
    uint64_t head = atomic_load_explicit(&g->head, memory_order_acquire);
    return (struct live_view){.gen = g,
                              .table = atomic_load_explicit(&g->table, memory_order_acquire),
                              .time = live_head_time(head),
                              .n = live_head_n(head)};
}

const float *live_view_vector(const struct live_view *v, uint64_t label)
{
    uint64_t word = v->time ? live_table_find(v->table, label) : 0;
    uint32_t slot = live_word_slot(word), death = live_word_death(word);
    while (slot != LIVE_NO_SLOT && slot >= v->n) // put after the view was taken
        slot = v->gen->before[slot];
    if (slot != LIVE_NO_SLOT && live_view_slot(v, slot))
        return v->gen->vec + (size_t)slot * v->gen->main->dim;
    return death == 0 || death > v->time ? hnsw_vector(v->gen->main, label) : NULL;
}
