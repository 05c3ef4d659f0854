/* bench.h - what the measurements of `duet bench` share: which requests, and how figures are shown. */
#ifndef DUET_CLI_BENCH_H
#define DUET_CLI_BENCH_H

#include "cli/load.h"
#include "core/base/json.h"

struct bench_input {
    const char *url;
    struct client_tls tls;
    const char *users, *data,
        *requests;    // lines of ids; a dataset; lines of JSON bodies: at most one of them, none = no user
    const char *path; // of POST; NULL = /v1/retrieve
    const char *get;  // GET this instead
    const char *model;
    uint64_t k, ef;
    uint64_t most; // requests to take, evenly spread; 0 = BENCH_REQUESTS_MAX
};

#define BENCH_REQUESTS_MAX 100000

/* Target and requests. Zeroed *q. */
bool bench_read(const struct bench_input *in, struct load_target *t, struct load_requests *q, struct err *err);

/* "1.23 ms" into out, for people. */
const char *bench_ms(uint64_t ns, char out[32]);
void bench_print_latency(const char *name, const struct histogram *h); // one line
json_t *bench_latency_json(const struct histogram *h);                 // milliseconds
void bench_print_failures(const struct load_result *r);
json_t *bench_failures_json(const struct load_result *r); // {"connect": 0, .., "status": {"200": 5}}

int bench_load(int argc, char **argv);
int bench_swap(int argc, char **argv);

#endif
