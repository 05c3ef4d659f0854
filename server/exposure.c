/* exposure.c - rings of bytes, one a loop, and the thread that empties them.
 *
 *     loop 1  [....lines....]  \
 *     loop 2  [..lines......]   >  writer, ten times a second: batch of whole lines -> file, Kafka
 *     loop n  [.............]  /
 *
 * A ring's head is its loop's, its tail is the writer's; each only reads the other's. Both only grow. */
#include "server/exposure.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "server/exposure_file.h"
#include "server/ticker.h"

#define TICK_MS 100

struct ring {
    _Alignas(64) _Atomic uint64_t head; // bytes ever put
    _Alignas(64) _Atomic uint64_t tail; // bytes ever taken
    char *data;                         // [EXPOSURE_RING]
};

struct exposure {
    const struct exposure_names *names;
    struct metrics *metrics;
    struct log *log;
    unsigned n_rings;
    struct ring *ring;   // [n_rings]
    char *batch;         // [EXPOSURE_RING] the writer's
    bool has_file;
    struct exposure_kafka *kafka; // the writer's; NULL = none
    bool failing;        // the writer's: the last write failed
    struct exposure_file file; // the writer's
    _Atomic uint64_t sample;
    _Atomic bool reopen;
    metric_id written, no_room, lost;
    struct ticker *writer;
};

// ------------------------------------------------------------------------------------------------------- loops

void exposure_tune(struct exposure *e, uint64_t sample)
{
    if (e)
        atomic_store_explicit(&e->sample, sample, memory_order_relaxed);
}

bool exposure_wants(const struct exposure *e, uint64_t unit_hash)
{
    return unit_hash % atomic_load_explicit(&e->sample, memory_order_relaxed) == 0;
}

bool exposure_put(struct exposure *e, unsigned ring, const char *line, size_t n)
{
    struct ring *r = &e->ring[ring];
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed),
             tail = atomic_load_explicit(&r->tail, memory_order_acquire);
    if (EXPOSURE_RING - (head - tail) < n) {
        metrics_add(e->metrics, ring, e->no_room, 1);
        return false;
    }
    size_t at = (size_t)(head % EXPOSURE_RING), first = n < EXPOSURE_RING - at ? n : EXPOSURE_RING - at;
    memcpy(r->data + at, line, first);
    memcpy(r->data, line + first, n - first);
    atomic_store_explicit(&r->head, head + n, memory_order_release);
    return true;
}

void exposure_reopen(struct exposure *e)
{
    if (e)
        atomic_store(&e->reopen, true);
}

// ------------------------------------------------------------------------------------------------------- writer

static uint64_t count_lines(const char *p, size_t n)
{
    uint64_t lines = 0;
    for (const char *end = p + n; p < end && (p = memchr(p, '\n', (size_t)(end - p))) != NULL; p++)
        lines++;
    return lines;
}

/* One line in the log when it begins to fail, one when it works again. */
static void tell(struct exposure *e, bool ok, const struct err *err)
{
    if (!ok && !e->failing)
        log_event(e->log, LOG_ERROR, e->names->failed, LOG_STR("error", err->msg),
                  LOG_STR("note", "lines are dropped and counted until it works again"));
    if (ok && e->failing)
        log_event(e->log, LOG_INFO, e->names->works, LOG_STR("path", e->file.path));
    e->failing = !ok;
}

static void write_file(struct exposure *e, size_t n)
{
    struct err err = {0};
    size_t written;
    bool ok = exposure_file_write(&e->file, e->batch, n, &written, &err);
    tell(e, ok, &err);
    metrics_add(e->metrics, 0, e->written, count_lines(e->batch, written));
    if (!ok)
        metrics_add(e->metrics, 0, e->lost, count_lines(e->batch + written, n - written));
}

static void empty_ring(struct exposure *e, struct ring *r)
{
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    size_t n = (size_t)(atomic_load_explicit(&r->head, memory_order_acquire) - tail);
    if (n == 0)
        return;
    size_t at = (size_t)(tail % EXPOSURE_RING), first = n < EXPOSURE_RING - at ? n : EXPOSURE_RING - at;
    memcpy(e->batch, r->data + at, first);
    memcpy(e->batch + first, r->data, n - first);
    atomic_store_explicit(&r->tail, tail + n, memory_order_release); // room again, before the disk is waited for
    if (e->has_file)
        write_file(e, n);
    if (e->kafka)
        exposure_kafka_put(e->kafka, e->batch, n);
}

static void turn(void *ctx)
{
    struct exposure *e = ctx;
    struct err err = {0};
    if (atomic_exchange(&e->reopen, false) && e->has_file)
        tell(e, exposure_file_reopen(&e->file, &err), &err);
    for (unsigned i = 0; i < e->n_rings; i++)
        empty_ring(e, &e->ring[i]);
    exposure_kafka_poll(e->kafka);
}

// ------------------------------------------------------------------------------------------------------- life

static const struct exposure_names exposure_log_names = {
    .path_key = "exposure.path",
    .failed = "exposure_log_failed",
    .works = "exposure_log_works",
    .lines = "duet_exposure_lines_total",
    .lines_help = "Lines of the exposure log that were written.",
    .dropped = "duet_exposure_dropped_total",
    .dropped_help = "Lines of the exposure log that were lost, by reason.",
    .labels = "",
    .thread = "the exposure log",
};

static metric_id counter(const struct exposure *e, const char *name, const char *help, const char *label)
{
    char labels[64];
    snprintf(labels, sizeof(labels), "%s%s", e->names->labels, label);
    return metrics_counter(e->metrics, name, help, labels);
}

static void register_metrics(struct exposure *e)
{
    const struct exposure_names *n = e->names;
    e->written = counter(e, n->lines, n->lines_help, "sink=\"file\"");
    e->no_room = counter(e, n->dropped, n->dropped_help, "reason=\"no_room\"");
    e->lost = counter(e, n->dropped, n->dropped_help, "reason=\"file\"");
}

static bool make_rings(struct exposure *e, unsigned n, struct err *err)
{
    if (!(e->ring = mem_block(n * sizeof(*e->ring), err)))
        return false;
    for (e->n_rings = 0; e->n_rings < n; e->n_rings++)
        if (!(e->ring[e->n_rings].data = mem_block(EXPOSURE_RING, err)))
            return false;
    return (e->batch = mem_block(EXPOSURE_RING, err)) != NULL;
}

struct exposure *exposure_new(const struct exposure_params *p, struct err *err)
{
    struct exposure *e = mem_array(1, sizeof(*e), err);
    if (!e)
        return NULL;
    e->names = p->names ? p->names : &exposure_log_names;
    e->metrics = p->metrics;
    e->log = p->log;
    e->file.fd = -1;
    atomic_init(&e->sample, p->sample);
    register_metrics(e);
    e->has_file = p->path[0] != '\0';
    if (!make_rings(e, p->n_rings, err) ||
        (e->has_file && !exposure_file_open(&e->file, p->path, p->max_bytes, p->keep, err) &&
         !err_prefix(err, "%s", e->names->path_key)) ||
        (p->kafka.brokers[0] && !(e->kafka = exposure_kafka_new(&p->kafka, e->metrics, e->log, err))) ||
        !(e->writer = ticker_new(TICK_MS, turn, e, e->names->thread, err))) {
        exposure_free(e);
        return NULL;
    }
    return e;
}

void exposure_free(struct exposure *e)
{
    if (!e)
        return;
    if (e->writer) {
        ticker_free(e->writer);
        turn(e); // what the loops put before they ended
    }
    exposure_kafka_free(e->kafka);
    exposure_file_close(&e->file);
    for (unsigned i = 0; i < e->n_rings; i++)
        mem_block_free(e->ring[i].data, EXPOSURE_RING);
    mem_block_free(e->ring, e->n_rings * sizeof(*e->ring));
    mem_block_free(e->batch, EXPOSURE_RING);
    free(e);
}
