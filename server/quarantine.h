/* quarantine.h - versions that were refused for what is in them, as a model's record has them and as the state file keeps them.
 * Place:   reload_versions.c decides, state.c keeps, so that a restart does not try them once more.
 * Threads: none of its own; the loader's thread writes a model's record, under the reload's lock. */
#ifndef DUET_SERVER_QUARANTINE_H
#define DUET_SERVER_QUARANTINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/json.h"

/* A version that cannot be served whatever the weather: not tried again unless its folder changes or it is asked for by number. */
struct quarantined {
    uint64_t version, folder; // folder: what told one state of it from another when it was refused
    int64_t since;            // seconds since 1970
    char reason[256];
};

#define QUARANTINED_MAX 16 // of one model; the oldest gives way

/* A list of {"version", "folder", "since", "duetd", "reason"}: docs/formats.md, "State". New reference. */
json_t *quarantine_to_json(const struct quarantined *q, size_t n);
/* Into q[QUARANTINED_MAX], *n of them: those that this version of duetd has refused. ERR_FORMAT says which member is wrong. */
bool quarantine_from_json(const json_t *list, struct quarantined *q, size_t *n, struct err *err);

#endif
