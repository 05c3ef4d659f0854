/* api_keys.h - who may use the data listener, and how much: keys by their SHA-256, each with a quota if wanted.
 *
 * The file of data.keys_file is YAML:
 *     keys:
 *       - {name: web, sha256: "<64 hex digits>", requests_per_s: 200, burst: 400}
 *       - {name: batch, sha256: "<64 hex digits>"}
 * `sha256` is that of the key's text (printf %s "$KEY" | sha256sum). A quota is a token bucket of `burst` requests (default: those of one
 * second, at least 1) that fills with `requests_per_s`. Keys are random text, not passwords: that is why one round of SHA-256 is enough.
 * Quotas are this process's own: with n loaded replicas a client gets n times as much.
 * Threads: api_keys_admit from any loop, with that loop's shard; api_keys_replace from one thread at a time. */
#ifndef DUET_SERVER_API_KEYS_H
#define DUET_SERVER_API_KEYS_H

#include <stdbool.h>

#include "core/base/err.h"
#include "server/http.h"
#include "server/metrics.h"

#define API_KEYS_MAX 1024 // each request is compared with all of them, so that its time does not tell which one fits
#define API_KEY_TEXT_MAX 512

struct api_keys;      // the keys in force
struct api_key_table; // a file, read and checked

/* "" gives a table without keys: the listener is open. NULL: what is wrong, with file and line. */
struct api_key_table *api_key_table_read(const char *path, struct err *err);
void api_key_table_free(struct api_key_table *t); // NULL is fine

/* Takes `t`, on failure too. */
struct api_keys *api_keys_new(struct api_key_table *t, unsigned n_shards, struct metrics *m, struct err *err);
void api_keys_free(struct api_keys *k); // NULL is fine
/* Takes `t`. Buckets of keys that keep their name are as full as they were; returns when nobody uses the old table any more. */
void api_keys_replace(struct api_keys *k, struct api_key_table *t);

/* True: go on. False: *resp holds the 401, or the 429 with Retry-After. now_ns: CLOCK_MONOTONIC. */
bool api_keys_admit(struct api_keys *k, unsigned shard, const struct http_request *r, uint64_t now_ns, struct http_response *resp);

#endif
