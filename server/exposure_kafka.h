/* exposure_kafka.h - lines of the exposure log to a Kafka topic, through librdkafka.
 * Place:   exposure.c's writer thread. A daemon that was built without librdkafka has exposure_kafka_check say so.
 * Messages: one a line, without its '\n'; the key is the unit's hash, so that a unit's lines stay in order in one partition.
 * Never waits: librdkafka keeps up to 64 MiB of messages while brokers are away; what it refuses or gives up is counted
 *          (duet_exposure_dropped_total, reason="kafka").
 * Threads: one user; librdkafka has its own threads, its callbacks run in exposure_kafka_poll. */
#ifndef DUET_SERVER_EXPOSURE_KAFKA_H
#define DUET_SERVER_EXPOSURE_KAFKA_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "server/metrics.h"

struct exposure_kafka_params {
    const char *brokers; // "" = none: host:port, comma-separated
    const char *topic;
    const char *config; // "" or a file of librdkafka's properties, one `key=value` a line, # begins a comment
};

struct exposure_kafka;

/* What can be said without connecting: brokers need a topic, and a daemon that was built with librdkafka. */
bool exposure_kafka_check(const struct exposure_kafka_params *p, struct err *err);

/* Connects later and by itself: brokers that are away are no error. ERR_ARG for a property that there is not. */
struct exposure_kafka *exposure_kafka_new(const struct exposure_kafka_params *p, struct metrics *m, struct log *log,
                                          struct err *err);
void exposure_kafka_put(struct exposure_kafka *k, const char *lines, size_t n); // n bytes of whole lines
void exposure_kafka_poll(struct exposure_kafka *k);                             // NULL is fine
/* Waits for what is under way, at most five seconds; NULL is fine. */
void exposure_kafka_free(struct exposure_kafka *k);

#endif
