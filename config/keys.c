#include "config/keys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/yaml.h"

#define AT(field) offsetof(struct config, field)
#define NUM(key, field, low, high, value, may_change, text)                                                            \
    {                                                                                                                  \
        .name = key, .kind = KEY_UINT, .offset = AT(field), .min = low, .max = high, .def = value, .live = may_change, \
        .help = text                                                                                                   \
    }
#define TEXT(key, field, value, text)                                                                                  \
    {                                                                                                                  \
        .name = key, .kind = KEY_STR, .offset = AT(field), .def = value, .help = text                                  \
    }
#define WORD(key, field, choice, value, may_change, text)                                                              \
    {                                                                                                                  \
        .name = key, .kind = KEY_WORD, .offset = AT(field), .words = choice, .def = value, .live = may_change,         \
        .help = text                                                                                                   \
    }
#define FLAG(key, field, value, text)                                                                                  \
    {                                                                                                                  \
        .name = key, .kind = KEY_BOOL, .offset = AT(field), .def = value, .help = text                                 \
    }

/* In the order of the sample file; keys of a section stand together. */
const struct key keys[] = {
    TEXT("data.address", data.address, "127.0.0.1", "numeric IPv4 or IPv6 address of the data listener"),
    NUM("data.port", data.port, 0, 65535, "8080", false, "0 takes any free port (see --ports-file)"),
    NUM("data.threads", data.threads, 0, 256, "0", false, "event loops; 0 = one per core"),
    NUM("data.max_connections", data.max_connections, 16, 200000, "4096", false,
        "above it requests get 503; well above it clients wait"),
    {.name = "data.keys_file", .kind = KEY_STR, .offset = AT(data_keys_file), .def = "", .live = true,
     .help = "file of API keys and their quotas; empty: the data listener asks for none; read again at SIGHUP"},
    TEXT("admin.address", admin.address, "127.0.0.1",
         "health, /metrics and /v1/admin; off loopback a token is required"),
    NUM("admin.port", admin.port, 0, 65535, "8081", false, "0 takes any free port"),
    NUM("admin.threads", admin.threads, 0, 16, "1", false, "event loops; 0 = one per core"),
    NUM("admin.max_connections", admin.max_connections, 16, 200000, "256", false, "as for data"),
    TEXT("admin.token_file", admin_token_file, "",
         "file with the bearer token of /v1/admin, at least 16 characters; read at start"),
    TEXT("tls.cert_file", tls.cert_file, "",
         "PEM certificate and chain: the data listener speaks TLS; this and the next two are read again at SIGHUP"),
    TEXT("tls.key_file", tls.key_file, "", "its PEM key, without a password"),
    TEXT("tls.client_ca_file", tls.client_ca_file, "",
         "PEM certificates of CAs: clients of the data listener need a certificate of one of them"),
    TEXT("admin_tls.cert_file", admin_tls.cert_file, "",
         "PEM certificate and chain: the admin listener speaks TLS, health and /metrics included; read again as those of tls"),
    TEXT("admin_tls.key_file", admin_tls.key_file, "", "its PEM key, without a password"),
    TEXT("admin_tls.client_ca_file", admin_tls.client_ca_file, "",
         "PEM certificates of CAs: clients of the admin listener need a certificate of one of them"),
    NUM("http.header_ms", http.header_ms, 100, 600000, "10000", false, "absolute deadline for a request's headers"),
    NUM("http.body_ms", http.body_ms, 100, 600000, "30000", false,
        "absolute deadline for a body to arrive, and for an answer to be read"),
    NUM("http.idle_ms", http.idle_ms, 100, 3600000, "75000", false,
        "a kept-alive connection without a request is closed after this"),
    NUM("http.deadline_ms", http.deadline_ms, 1, 600000, "1000", false,
        "a request's deadline; X-Request-Timeout-Ms may shorten it"),
    NUM("limits.body_bytes", limits.body_bytes, 1024, 67108864, "1048576", false, "request body"),
    NUM("limits.header_bytes", limits.header_bytes, 16384, 65536, "16384", false,
        "request line and headers together; each connection has so much memory, which is cleared after every request"),
    NUM("limits.json_depth", limits.json_depth, 2, 16, "16", false, "nesting of a request"),
    NUM("limits.k", limits.k, 1, 10000, "10000", false, "candidates of a request"),
    NUM("limits.ef", limits.ef, 1, 1000000, "20000", false, "candidates that a graph search keeps"),
    NUM("limits.ids", limits.ids, 0, 1000000, "10000", false, "ids of exclude_ids"),
    NUM("limits.id_bytes", limits.id_bytes, 1, 256, "256", false, "one id"),
    NUM("limits.history", limits.history, 0, 100000, "1000", false, "items of a history"),
    NUM("limits.batch", limits.batch, 1, 4096, "256", false, "requests of /v1/retrieve:batch"),
    NUM("workers.threads", workers.threads, 0, 256, "0", false,
        "threads for what would hold up an event loop; 0 = half of the cores, at least one"),
    NUM("workers.queue", workers.queue, 1, 65536, "64", false, "requests that wait for them; more are refused"),
    NUM("workers.batch", workers.batch, 0, 64, "8", false, "a batch of more requests goes to them"),
    NUM("workers.exact_items", workers.exact_items, 0, 4294967295, "100000", false,
        "an exact search of more items goes to them"),
    NUM("admission.max_lag_ms", admission.max_lag_ms, 0, 60000, "100", true,
        "mean wait above which requests are refused; 0 = never"),
    NUM("admission.retry_after_s", admission.retry_after_s, 1, 3600, "1", true, "Retry-After says once to twice this"),
    NUM("admission.ef_percent", admission.ef_percent, 10, 100, "50", true,
        "share of ef that searches keep where refusing begins, falling from 100 at half of max_lag_ms on; 100 = never lowered"),
    WORD("load.mode", load.mode, "private|shared", "private", false,
         "read bundles into own memory, or map their files"),
    NUM("load.threads", load.threads, 0, 256, "0", false,
        "threads of low priority that load a bundle; 0 = half of the cores, at least one"),
    FLAG("load.check_memory", load.check_memory, "true", "refuse a bundle that would not fit into free memory"),
    NUM("load.poll_seconds", load.poll_seconds, 0, 86400, "0", false,
        "look for newer versions of models that follow the latest; 0 = only when asked to"),
    TEXT("exposure.path", exposure.path, "", "file of the exposure log; without it and Kafka, exposures are lines of the daemon's log"),
    NUM("exposure.max_bytes", exposure.max_bytes, 4096, 1099511627776, "268435456", false,
        "above it the file is renamed and a new one begun"),
    NUM("exposure.keep", exposure.keep, 0, 1000, "8", false, "renamed files that are kept"),
    NUM("exposure.sample", exposure.sample, 1, 1000000000, "1", true, "one user in so many is logged"),
    NUM("exposure.items", exposure.items, 0, 10000, "100", false, "ids of items in a line, at most"),
    TEXT("exposure.kafka_brokers", exposure.kafka_brokers, "", "host:port, comma-separated: exposures go to Kafka too"),
    TEXT("exposure.kafka_topic", exposure.kafka_topic, "", "topic of the exposures"),
    TEXT("exposure.kafka_config", exposure.kafka_config, "",
         "file of librdkafka's properties, key=value a line: TLS, credentials"),
    TEXT("slow_log.path", slow_log.path, "", "file of slow requests for candidates, whole, user ids among it; empty: none"),
    NUM("slow_log.threshold_ms", slow_log.threshold_ms, 0, 600000, "200", true, "those that took longer; 0 = all"),
    NUM("slow_log.sample", slow_log.sample, 1, 1000000000, "1", true, "one of them in so many"),
    NUM("slow_log.max_bytes", slow_log.max_bytes, 4096, 1099511627776, "67108864", false, "as for exposure"),
    NUM("slow_log.keep", slow_log.keep, 0, 1000, "4", false, "as for exposure"),
    TEXT("record.path", record.path, "", "file of answered requests in the same form, for replay and warm-up; empty: none"),
    NUM("record.sample", record.sample, 1, 1000000000, "1000", true, "one in so many, of each event loop"),
    NUM("record.max_bytes", record.max_bytes, 4096, 1099511627776, "67108864", false, "as for exposure"),
    NUM("record.keep", record.keep, 0, 1000, "1", false, "as for exposure"),
    TEXT("warm.path", warm.path, "", "recorded requests that a newly loaded version answers before it serves; empty: its probes alone"),
    NUM("warm.requests", warm.requests, 1, 1000000, "1000", false, "the newest of them, at most"),
    NUM("warm.max_ms", warm.max_ms, 1, 600000, "2000", false, "for so long, at most"),
    TEXT("state.path", state_path, "", "file for what is changed while running; empty: such changes are refused"),
    WORD("log.level", log.level, "debug|info|warn|error", "info", true, "debug logs every request"),
    WORD("log.format", log.format, "auto|json|text", "auto", false, "auto: text on a terminal, JSON lines otherwise"),
    NUM("log.slow_ms", log.slow_ms, 0, 600000, "500", true, "slower requests are logged as warnings; 0 = none"),
    NUM("log.sample", log.sample, 0, 1000000000, "0", true, "one request in so many is logged; 0 = none"),
    NUM("drain.delay_ms", drain.delay_ms, 0, 600000, "5000", true, "after SIGTERM: serve at least so long, not ready"),
    NUM("drain.timeout_ms", drain.timeout_ms, 0, 3600000, "25000", true, "after SIGTERM: stop at the latest"),
};
const size_t n_keys = sizeof(keys) / sizeof(keys[0]);

static uint64_t *as_uint(const struct config *c, const struct key *k)
{
    return (uint64_t *)(uintptr_t)((const char *)c + k->offset);
}

static bool *as_bool(const struct config *c, const struct key *k)
{
    return (bool *)(uintptr_t)((const char *)c + k->offset);
}

static char **as_text(const struct config *c, const struct key *k)
{
    return (char **)(uintptr_t)((const char *)c + k->offset);
}

// -------------------------------------------------------------------------------------------------------- finding

const struct key *key_find(const char *name)
{
    for (size_t i = 0; i < n_keys; i++)
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

const char *key_nearest(const char *name)
{
    const char *known[sizeof(keys) / sizeof(keys[0])];
    for (size_t i = 0; i < n_keys; i++)
        known[i] = keys[i].name;
    return ynode_nearest(name, known, n_keys);
}

// -------------------------------------------------------------------------------------------------------- setting

static bool is_word(const char *words, const char *text)
{
    size_t n = strlen(text);
    for (const char *w = words; n > 0 && *w; w += strcspn(w, "|"), w += *w == '|')
        if (strcspn(w, "|") == n && memcmp(w, text, n) == 0)
            return true;
    return false;
}

static bool wrong(const struct key *k, const char *text, struct err *err)
{
    struct buf want = {0};
    key_range(k, &want);
    const char *kind = k->kind == KEY_UINT ? "a whole number from " : k->kind == KEY_STR ? "" : "one of ";
    err_set(err, ERR_ARG, "found \"%.60s\", want %s%s", text, kind, want.data ? want.data : "another value");
    buf_fini(&want);
    return false;
}

static bool set_uint(struct config *c, const struct key *k, const char *text, struct err *err)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || v < k->min || v > k->max)
        return wrong(k, text, err);
    *as_uint(c, k) = v;
    return true;
}

static bool set_text(struct config *c, const struct key *k, const char *text, struct err *err)
{
    char *copy = mem_dup(text, strlen(text), err);
    if (!copy)
        return false;
    free(*as_text(c, k));
    *as_text(c, k) = copy;
    return true;
}

bool key_set(struct config *c, const struct key *k, const char *text, struct err *err)
{
    switch (k->kind) {
    case KEY_UINT:
        return set_uint(c, k, text, err);
    case KEY_BOOL:
        if (!is_word("true|false", text))
            return wrong(k, text, err);
        *as_bool(c, k) = strcmp(text, "true") == 0;
        return true;
    case KEY_WORD:
        return is_word(k->words, text) ? set_text(c, k, text, err) : wrong(k, text, err);
    case KEY_STR:
        return set_text(c, k, text, err);
    }
    return false;
}

void key_free(struct config *c, const struct key *k)
{
    if (k->kind == KEY_STR || k->kind == KEY_WORD)
        free(*as_text(c, k));
}

// -------------------------------------------------------------------------------------------------------- reading

void key_quote(struct buf *out, const char *s)
{
    buf_puts(out, "\"");
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            buf_printf(out, "\\%c", *s);
        else if ((unsigned char)*s < 0x20 || *s == 0x7f)
            buf_printf(out, "\\x%02x", (unsigned char)*s);
        else
            buf_put(out, s, 1);
    }
    buf_puts(out, "\"");
}

void key_text(const struct config *c, const struct key *k, struct buf *out)
{
    switch (k->kind) {
    case KEY_UINT:
        buf_printf(out, "%llu", (unsigned long long)*as_uint(c, k));
        break;
    case KEY_BOOL:
        buf_puts(out, *as_bool(c, k) ? "true" : "false");
        break;
    case KEY_WORD:
        buf_puts(out, *as_text(c, k));
        break;
    case KEY_STR:
        key_quote(out, *as_text(c, k));
        break;
    }
}

bool key_equal(const struct config *a, const struct config *b, const struct key *k)
{
    switch (k->kind) {
    case KEY_UINT:
        return *as_uint(a, k) == *as_uint(b, k);
    case KEY_BOOL:
        return *as_bool(a, k) == *as_bool(b, k);
    case KEY_WORD:
    case KEY_STR:
        return strcmp(*as_text(a, k), *as_text(b, k)) == 0;
    }
    return false;
}

void key_range(const struct key *k, struct buf *out)
{
    switch (k->kind) {
    case KEY_UINT:
        buf_printf(out, "%llu to %llu", (unsigned long long)k->min, (unsigned long long)k->max);
        break;
    case KEY_BOOL:
        buf_puts(out, "true, false");
        break;
    case KEY_WORD:
        for (const char *w = k->words; *w; w++)
            buf_puts(out, *w == '|' ? ", " : (char[]){*w, '\0'});
        break;
    case KEY_STR:
        buf_puts(out, "text");
        break;
    }
}
