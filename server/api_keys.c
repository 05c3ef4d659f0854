/* api_keys.c - the check of each request.
 * A loop uses the table under its shard's lock, which nobody else wants but api_keys_replace: that one puts the new table in place and then
 * takes every lock once, after which the old table has no reader. */
#include "server/api_keys.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "server/api_keys_file.h"
#include "server/problem.h"

struct gate {
    _Alignas(64) pthread_mutex_t lock; // held while its loop uses the table
};

struct api_keys {
    _Atomic(struct api_key_table *) table;
    struct metrics *metrics;
    metric_id missing, unknown;
    unsigned n_gates;
    struct gate *gate;
};

// ---------------------------------------------------------------------------------------------------------- table

static void register_metrics(struct metrics *m, struct api_key_table *t)
{
    static const char name[] = "duet_api_key_requests_total", help[] = "Requests with a known API key, by what became of them.";
    char labels[128];
    for (size_t i = 0; i < t->n; i++) {
        struct api_key *k = &t->key[i];
        snprintf(labels, sizeof(labels), "key=\"%s\",outcome=\"admitted\"", k->name);
        k->admitted = metrics_counter(m, name, help, labels);
        snprintf(labels, sizeof(labels), "key=\"%s\",outcome=\"over_quota\"", k->name);
        k->over_quota = metrics_counter(m, name, help, labels);
    }
}

struct api_keys *api_keys_new(struct api_key_table *t, unsigned n_shards, struct metrics *m, struct err *err)
{
    static const char name[] = "duet_api_key_refused_total", help[] = "Requests without an API key that is known.";
    struct api_keys *k = mem_array(1, sizeof(*k), err);
    if (!k || !(k->gate = mem_block(n_shards * sizeof(k->gate[0]), err))) {
        free(k);
        api_key_table_free(t);
        return NULL;
    }
    k->n_gates = n_shards;
    for (unsigned i = 0; i < n_shards; i++)
        pthread_mutex_init(&k->gate[i].lock, NULL);
    k->metrics = m;
    k->missing = metrics_counter(m, name, help, "reason=\"missing\"");
    k->unknown = metrics_counter(m, name, help, "reason=\"unknown\"");
    register_metrics(m, t);
    atomic_store(&k->table, t);
    return k;
}

void api_keys_free(struct api_keys *k)
{
    if (!k)
        return;
    for (unsigned i = 0; i < k->n_gates; i++)
        pthread_mutex_destroy(&k->gate[i].lock);
    mem_block_free(k->gate, k->n_gates * sizeof(k->gate[0]));
    api_key_table_free(atomic_load(&k->table));
    free(k);
}

void api_keys_replace(struct api_keys *k, struct api_key_table *t)
{
    const struct api_key_table *now = atomic_load(&k->table);
    register_metrics(k->metrics, t);
    for (size_t i = 0; i < t->n; i++) {
        size_t j = api_key_find(now, t->key[i].name);
        if (j < now->n)
            atomic_store(&t->key[i].due, atomic_load(&now->key[j].due));
    }
    struct api_key_table *old = atomic_exchange(&k->table, t);
    for (unsigned i = 0; i < k->n_gates; i++) {
        pthread_mutex_lock(&k->gate[i].lock);
        pthread_mutex_unlock(&k->gate[i].lock);
    }
    for (size_t i = 0; i < old->n; i++)
        if (api_key_find(t, old->key[i].name) == t->n) {
            metrics_hide(k->metrics, old->key[i].admitted);
            metrics_hide(k->metrics, old->key[i].over_quota);
        }
    api_key_table_free(old);
}

// ---------------------------------------------------------------------------------------------------------- check

static const char *given_key(const struct http_request *r)
{
    const char *bearer = http_header(r, "Authorization");
    if (bearer && strncasecmp(bearer, "Bearer ", 7) == 0)
        return bearer + 7;
    return http_header(r, "X-Api-Key");
}

/* Every key is looked at, and all of it: the time depends on how many there are, not on which one is near. */
static struct api_key *find(const struct api_key_table *t, const char *text)
{
    struct digest d;
    size_t n = strlen(text), found = t->n;
    if (n > API_KEY_TEXT_MAX || gnutls_hash_fast(GNUTLS_DIG_SHA256, text, n, &d) != 0)
        return NULL;
    for (size_t i = 0; i < t->n; i++) {
        const uint64_t *w = t->key[i].sha256.word;
        uint64_t differ = (w[0] ^ d.word[0]) | (w[1] ^ d.word[1]) | (w[2] ^ d.word[2]) | (w[3] ^ d.word[3]);
        uint64_t differs = (differ | (0 - differ)) >> 63; // 1 or 0 without a branch
        found = (size_t)((found & (0 - differs)) | (i & (differs - 1)));
    }
    return found < t->n ? &t->key[found] : NULL;
}

/* The bucket, kept as the time at which it will be full. 0, or how long until it has a token. */
static uint64_t take(struct api_key *k, uint64_t now_ns)
{
    if (k->step_ns == 0)
        return 0;
    uint64_t due = atomic_load_explicit(&k->due, memory_order_relaxed), from;
    do {
        from = due > now_ns ? due : now_ns;
        if (from - now_ns > k->slack_ns)
            return from - now_ns - k->slack_ns;
    } while (!atomic_compare_exchange_weak_explicit(&k->due, &due, from + k->step_ns, memory_order_relaxed, memory_order_relaxed));
    return 0;
}

static void no_key(const struct http_request *r, struct http_response *resp, bool given)
{
    problem_write(resp, r, 401, "unauthorized", NULL, "%s", given ? "this API key is not known"
                                                                  : "want an API key, as Authorization: Bearer or X-Api-Key");
    http_add_header(resp, "WWW-Authenticate", "Bearer realm=\"duet\"");
}

static void over_quota(const struct http_request *r, struct http_response *resp, const char *name, uint64_t wait_ns)
{
    problem_write(resp, r, 429, "quota_exceeded", NULL, "the quota of the API key \"%s\" is used up", name);
    http_add_header(resp, "Retry-After", "%llu", (unsigned long long)((wait_ns + 999999999) / 1000000000));
}

bool api_keys_admit(struct api_keys *k, unsigned shard, const struct http_request *r, uint64_t now_ns, struct http_response *resp)
{
    struct gate *g = &k->gate[shard < k->n_gates ? shard : 0];
    pthread_mutex_lock(&g->lock);
    const struct api_key_table *t = atomic_load(&k->table);
    const char *text = t->n ? given_key(r) : NULL;
    struct api_key *key = text ? find(t, text) : NULL;
    uint64_t wait_ns = key ? take(key, now_ns) : 0;
    bool ok = t->n == 0 || (key && !wait_ns);
    if (!ok && !key)
        no_key(r, resp, text != NULL);
    else if (!ok)
        over_quota(r, resp, key->name, wait_ns);
    if (t->n)
        metrics_add(k->metrics, shard, !key ? (text ? k->unknown : k->missing) : ok ? key->admitted : key->over_quota, 1);
    pthread_mutex_unlock(&g->lock);
    return ok;
}
