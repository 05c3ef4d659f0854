/* api_keys_file.h - the table of API keys in memory: for api_keys.c and api_keys_file.c alone. */
#ifndef DUET_SERVER_API_KEYS_FILE_H
#define DUET_SERVER_API_KEYS_FILE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "server/api_keys.h"

struct digest {
    uint64_t word[4]; // SHA-256, as it lies in memory
};

struct api_key {
    char *name; // [A-Za-z0-9._-]{1,64}
    struct digest sha256;
    uint64_t step_ns;     // a request's share of the quota: 1e9 / requests_per_s; 0 = no quota
    uint64_t slack_ns;    // (burst - 1) steps: how far ahead of its time a request may come
    _Atomic uint64_t due; // CLOCK_MONOTONIC at which the bucket is full again
    metric_id admitted, over_quota;
};

struct api_key_table {
    struct api_key *key; // [n]
    size_t n;
};

/* Place of `name`, or t->n. */
size_t api_key_find(const struct api_key_table *t, const char *name);

#endif
