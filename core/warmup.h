/* warmup.h - recorded requests inside a bundle, warmup.jsonl: docs/formats.md, "warmup.jsonl".
 * Place:   publish.c checks and stores them, bundle.c reads them, the daemon answers them before the version takes traffic (server/warm.h). */
#ifndef DUET_WARMUP_H
#define DUET_WARMUP_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/err.h"

#define WARMUP_BYTES_MAX ((size_t)16 << 20)
#define WARMUP_LINE_MAX ((size_t)1088 << 10) // a body of 1 MiB and what is recorded beside it

/* Is each line a recorded request (an object whose "body" is one, or null where it was too large) or a bare one (an object)? At least one, and
 * none empty. ERR_FORMAT names the line. */
bool warmup_check(const char *text, size_t n, struct err *err);

#endif
