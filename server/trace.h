/* trace.h - W3C Trace Context: the caller's `traceparent`, and our own span in its trace.
 * What:    a valid one gives every line about the request its trace-id and a parent-id made here, and the answer a `traceparent` of both.
 *          An invalid one is as none: no trace is begun here. `tracestate` is for whom we call, and we call nobody.
 * Place:   http_guard.c reads, http_conn.c answers, logs write. */
#ifndef DUET_SERVER_TRACE_H
#define DUET_SERVER_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/log.h"
#include "core/base/mem.h"

#define TRACE_PARENT_LEN 55 // 00-<32>-<16>-<2>

struct trace {
    char trace_id[33]; // "" = the request belongs to no trace we were told of
    char parent_id[17]; // the caller's span
    char span_id[17]; // ours
    char flags[3]; // the caller's, of those that are known: sampled, random trace-id
};

/* A field's value. False: it is not valid, and *t is as it was. span: of our span's id; 0 becomes 1. */
bool trace_read(const char *value, uint64_t span, struct trace *t);
/* The answer's header; t->trace_id is not "". */
void trace_write(const struct trace *t, char out[TRACE_PARENT_LEN + 1]);

/* The same ids as members of a JSON object, each with a comma behind it; nothing without a trace. */
void trace_put(struct buf *b, const struct trace *t);

/* The last fields of a log_event: without a trace the list ends before them. */
#define TRACE_LOG(t)                                                                                                   \
    LOG_STR((t)->trace_id[0] ? "trace_id" : NULL, (t)->trace_id), LOG_STR("span_id", (t)->span_id),                    \
        LOG_STR("parent_span_id", (t)->parent_id)

#endif
