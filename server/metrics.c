/* metrics.c - a registry whose series are ranges of slots, and one array of slots per shard.
 *
 *     metric_id = first slot of the series
 *     counter   [count]
 *     gauge     [bits of a double]                in shard 0 alone
 *     histogram [<= b0] [<= b1] ... [> last] [sum]  each bucket counts only its own; they are summed up when written
 *
 * A shard is calloc'ed whole, so slots that nobody touches cost address space only. */
#include "server/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 32768u // 256 KiB of address space a shard; routes x codes of histograms take about 6,000
#define FAMILIES_MAX 256
#define FIRST_SLOT 32u // METRIC_NONE: updates of series that found no room land below

enum kind { COUNTER, GAUGE, SECONDS, SIZES };

/* From a null request (tens of microseconds) to the longest deadline anybody sets. */
static const uint64_t bounds_ns[] = {50000,     100000,     250000,     500000,     1000000,    2500000,
                                     5000000,   10000000,   25000000,   50000000,   100000000,  250000000,
                                     500000000, 1000000000, 2500000000, 5000000000, 10000000000};
static const uint64_t bounds_n[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
#define N_NS (sizeof(bounds_ns) / sizeof(bounds_ns[0]))
#define N_N (sizeof(bounds_n) / sizeof(bounds_n[0]))

struct series {
    char *labels;
    uint32_t slot;
    bool hidden;
    double (*read)(void *ctx); // NULL: the value is in the slots
    void *ctx;
};

struct family {
    const char *name, *help;
    enum kind kind;
    struct series *series;
    size_t n, cap;
};

struct metrics {
    pthread_mutex_t lock; // guards families, n_families, their series, n_slots
    struct family family[FAMILIES_MAX];
    size_t n_families;
    uint32_t n_slots;
    unsigned n_shards;
    _Atomic uint64_t *shard[]; // [n_shards][SLOTS]
};

struct metrics *metrics_new(unsigned n_shards, struct err *err)
{
    struct metrics *m = mem_array(1, sizeof(*m) + n_shards * sizeof(m->shard[0]), err);
    if (!m)
        return NULL;
    pthread_mutex_init(&m->lock, NULL);
    m->n_slots = FIRST_SLOT;
    m->n_shards = n_shards;
    for (unsigned i = 0; i < n_shards; i++)
        if (!(m->shard[i] = mem_array(SLOTS, sizeof(uint64_t), err))) {
            metrics_free(m);
            return NULL;
        }
    return m;
}

void metrics_free(struct metrics *m)
{
    if (!m)
        return;
    for (unsigned i = 0; i < m->n_shards; i++)
        free(m->shard[i]);
    for (size_t i = 0; i < m->n_families; i++) {
        for (size_t j = 0; j < m->family[i].n; j++)
            free(m->family[i].series[j].labels);
        free(m->family[i].series);
    }
    pthread_mutex_destroy(&m->lock);
    free(m);
}

// --------------------------------------------------------------------------------------------------- registration

static uint32_t slots_of(enum kind kind)
{
    return kind == SECONDS ? (uint32_t)N_NS + 2 : kind == SIZES ? (uint32_t)N_N + 2 : 1;
}

/* With the lock. The family of that name, made if there is none; NULL if there is no room or it is of another kind. */
static struct family *family_of(struct metrics *m, const char *name, const char *help, enum kind kind)
{
    for (size_t i = 0; i < m->n_families; i++)
        if (strcmp(m->family[i].name, name) == 0)
            return m->family[i].kind == kind ? &m->family[i] : NULL;
    if (m->n_families == FAMILIES_MAX)
        return NULL;
    struct family *f = &m->family[m->n_families++];
    *f = (struct family){.name = name, .help = help, .kind = kind};
    return f;
}

/* With the lock. */
static struct series *series_add(struct metrics *m, struct family *f, const char *labels)
{
    if (m->n_slots + slots_of(f->kind) > SLOTS)
        return NULL;
    if (f->n == f->cap) {
        size_t cap = f->cap ? 2 * f->cap : 4;
        struct series *p = mem_grow(f->series, cap, sizeof(*p), NULL);
        if (!p)
            return NULL;
        f->series = p;
        f->cap = cap;
    }
    char *copy = mem_dup(labels, strlen(labels), NULL);
    if (!copy)
        return NULL;
    struct series *s = &f->series[f->n++];
    *s = (struct series){.labels = copy, .slot = m->n_slots};
    m->n_slots += slots_of(f->kind);
    return s;
}

static metric_id add(struct metrics *m, const char *name, const char *help, const char *labels, enum kind kind,
                     double (*read)(void *), void *ctx)
{
    struct series *s = NULL;
    if (!labels)
        labels = "";
    pthread_mutex_lock(&m->lock);
    struct family *f = family_of(m, name, help, kind);
    for (size_t i = 0; f && !s && i < f->n; i++)
        if (strcmp(f->series[i].labels, labels) == 0)
            s = &f->series[i];
    if (f && !s)
        s = series_add(m, f, labels);
    if (s) {
        s->hidden = false;
        s->read = read;
        s->ctx = ctx;
    }
    metric_id id = s ? s->slot : METRIC_NONE;
    pthread_mutex_unlock(&m->lock);
    return id;
}

metric_id metrics_counter(struct metrics *m, const char *name, const char *help, const char *labels)
{
    return add(m, name, help, labels, COUNTER, NULL, NULL);
}

metric_id metrics_gauge(struct metrics *m, const char *name, const char *help, const char *labels)
{
    return add(m, name, help, labels, GAUGE, NULL, NULL);
}

metric_id metrics_seconds(struct metrics *m, const char *name, const char *help, const char *labels)
{
    return add(m, name, help, labels, SECONDS, NULL, NULL);
}

metric_id metrics_sizes(struct metrics *m, const char *name, const char *help, const char *labels)
{
    return add(m, name, help, labels, SIZES, NULL, NULL);
}

metric_id metrics_gauge_fn(struct metrics *m, const char *name, const char *help, const char *labels,
                           double (*read)(void *), void *ctx)
{
    return add(m, name, help, labels, GAUGE, read, ctx);
}

metric_id metrics_counter_fn(struct metrics *m, const char *name, const char *help, const char *labels,
                             double (*read)(void *), void *ctx)
{
    return add(m, name, help, labels, COUNTER, read, ctx);
}

void metrics_hide(struct metrics *m, metric_id id)
{
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n_families; i++)
        for (size_t j = 0; j < m->family[i].n; j++)
            if (m->family[i].series[j].slot == id)
                m->family[i].series[j].hidden = true;
    pthread_mutex_unlock(&m->lock);
}

const char *metrics_label(const char *value, char *out, size_t cap)
{
    size_t o = 0;
    for (; *value && o + 2 < cap; value++) {
        if (*value == '\\' || *value == '"' || *value == '\n')
            out[o++] = '\\';
        out[o++] = *value == '\n' ? 'n' : *value;
    }
    out[o] = '\0';
    return out;
}

// -------------------------------------------------------------------------------------------------------- updates

static void bump(struct metrics *m, unsigned shard, uint32_t slot, uint64_t n)
{
    atomic_fetch_add_explicit(&m->shard[shard < m->n_shards ? shard : 0][slot], n, memory_order_relaxed);
}

static void observe(struct metrics *m, unsigned shard, metric_id id, const uint64_t *bound, size_t n_bounds,
                    uint64_t value)
{
    size_t i = 0;
    while (i < n_bounds && value > bound[i])
        i++;
    bump(m, shard, id + (uint32_t)i, 1);
    bump(m, shard, id + (uint32_t)n_bounds + 1, value);
}

void metrics_add(struct metrics *m, unsigned shard, metric_id counter, uint64_t n)
{
    bump(m, shard, counter, n);
}

void metrics_set(struct metrics *m, metric_id gauge, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    atomic_store_explicit(&m->shard[0][gauge], bits, memory_order_relaxed);
}

void metrics_observe_ns(struct metrics *m, unsigned shard, metric_id seconds, uint64_t ns)
{
    observe(m, shard, seconds, bounds_ns, N_NS, ns);
}

void metrics_observe_size(struct metrics *m, unsigned shard, metric_id sizes, uint64_t n)
{
    observe(m, shard, sizes, bounds_n, N_N, n);
}

uint64_t metrics_value(struct metrics *m, metric_id id)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < m->n_shards; i++)
        sum += atomic_load_explicit(&m->shard[i][id], memory_order_relaxed);
    return sum;
}

// ----------------------------------------------------------------------------------------------------------- text

static void put_double(struct buf *out, double v)
{
    if (isnan(v))
        buf_puts(out, "NaN\n");
    else if (isinf(v))
        buf_puts(out, v > 0 ? "+Inf\n" : "-Inf\n");
    else
        buf_printf(out, "%.15g\n", v);
}

static void put_name(struct buf *out, const char *name, const char *suffix, const char *labels, const char *le)
{
    buf_printf(out, "%s%s", name, suffix);
    if (labels[0] || le)
        buf_printf(out, "{%s%s%s%s%s}", labels, labels[0] && le ? "," : "", le ? "le=\"" : "", le ? le : "",
                   le ? "\"" : "");
    buf_puts(out, " ");
}

static void put_histogram(struct metrics *m, struct buf *out, const struct family *f, const struct series *s)
{
    bool seconds = f->kind == SECONDS;
    size_t n = seconds ? N_NS : N_N;
    uint64_t count = 0;
    for (size_t i = 0; i <= n; i++) {
        char le[32] = "+Inf";
        if (i < n && seconds)
            snprintf(le, sizeof(le), "%g", (double)bounds_ns[i] / 1e9);
        else if (i < n)
            snprintf(le, sizeof(le), "%llu", (unsigned long long)bounds_n[i]);
        count += metrics_value(m, s->slot + (uint32_t)i);
        put_name(out, f->name, "_bucket", s->labels, le);
        buf_printf(out, "%llu\n", (unsigned long long)count);
    }
    double sum = (double)metrics_value(m, s->slot + (uint32_t)n + 1);
    put_name(out, f->name, "_sum", s->labels, NULL);
    put_double(out, seconds ? sum / 1e9 : sum);
    put_name(out, f->name, "_count", s->labels, NULL);
    buf_printf(out, "%llu\n", (unsigned long long)count);
}

static void put_series(struct metrics *m, struct buf *out, const struct family *f, const struct series *s)
{
    if (f->kind == SECONDS || f->kind == SIZES) {
        put_histogram(m, out, f, s);
        return;
    }
    put_name(out, f->name, "", s->labels, NULL);
    uint64_t bits = metrics_value(m, s->slot);
    double v;
    if (s->read) {
        put_double(out, s->read(s->ctx));
    } else if (f->kind == COUNTER) {
        buf_printf(out, "%llu\n", (unsigned long long)bits);
    } else {
        memcpy(&v, &bits, sizeof(v));
        put_double(out, v);
    }
}

void metrics_write(struct metrics *m, struct buf *out)
{
    static const char *const types[] = {"counter", "gauge", "histogram", "histogram"};
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n_families; i++) {
        const struct family *f = &m->family[i];
        bool headed = false;
        for (size_t j = 0; j < f->n; j++) {
            if (f->series[j].hidden)
                continue;
            if (!headed)
                buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name, types[f->kind]);
            headed = true;
            put_series(m, out, f, &f->series[j]);
        }
    }
    pthread_mutex_unlock(&m->lock);
}
