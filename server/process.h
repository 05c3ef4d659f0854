/* process.h - the process itself as metrics, under the names that Prometheus's own client libraries use. */
#ifndef DUET_SERVER_PROCESS_H
#define DUET_SERVER_PROCESS_H

#include "server/metrics.h"

void process_metrics(struct metrics *m); // cpu seconds, resident bytes, open and maximum descriptors, start time, threads, build

#endif
