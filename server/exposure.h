/* exposure.h - the exposure log: which unit was shown what by which variant, one JSON line an exposure (docs/operations.md, "Exposures").
 * Place:   handle_retrieve.c writes lines through exposure_log.c (and through record.c, to logs of other names, docs/operations.md,
 *          "Recorded requests"); a thread of this module's own carries them to a file, to Kafka, or to both.
 * Never blocks: each event loop has a ring of EXPOSURE_RING bytes, which only that loop fills and only the writer empties. A line that
 *          finds no room is dropped and counted (duet_exposure_dropped_total).
 * Threads: exposure_put for ring i from one thread only; exposure_reopen and exposure_tune from any. */
#ifndef DUET_SERVER_EXPOSURE_H
#define DUET_SERVER_EXPOSURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "server/exposure_kafka.h"
#include "server/metrics.h"

#define EXPOSURE_RING (4u << 20) // bytes of a loop's ring, a power of two: a second of 20,000 lines of 200 bytes

/* What a log of lines is called where people meet it. */
struct exposure_names {
    const char *path_key;                                      // of the configuration
    const char *failed, *works;                                // events of the daemon's log
    const char *lines, *lines_help, *dropped, *dropped_help;   // metrics
    const char *labels;                                        // of both, before their own: "" or `log="slow",`
    const char *thread;
};

struct exposure_params {
    const struct exposure_names *names; // static; NULL = the exposure log's
    const char *path; // "" = no file
    uint64_t max_bytes;
    unsigned keep;    // rotated files beside it
    struct exposure_kafka_params kafka;
    unsigned n_rings; // one per shard of the metrics: ring i is loop i's
    uint64_t sample;  // one unit in so many
    struct metrics *metrics;
    struct log *log;
};

struct exposure;

/* Opens the file and starts the writer. ERR_IO where that cannot be. */
struct exposure *exposure_new(const struct exposure_params *p, struct err *err);
/* Writes what is left, ends the writer. After the loops have stopped; NULL is fine. */
void exposure_free(struct exposure *e);

void exposure_tune(struct exposure *e, uint64_t sample);
/* Are lines of the unit of this hash wanted? A unit's are all there, or none is. */
bool exposure_wants(const struct exposure *e, uint64_t unit_hash);

/* One line, its '\n' included. False: there was no room, and it is counted. */
bool exposure_put(struct exposure *e, unsigned ring, const char *line, size_t n);

/* Open the file anew, before the next lines are written: something outside has renamed it. */
void exposure_reopen(struct exposure *e);

#endif
