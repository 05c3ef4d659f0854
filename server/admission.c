#include "server/admission.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "server/app.h"
#include "server/problem.h"

#define MEAN_SHIFT 5   // moving mean over about 32 requests
#define SHED_MOST 0.95 // some always get through: they show when it is over

/* One loop's view, on a cache line of its own. */
struct gate {
    _Alignas(64) _Atomic uint64_t mean_lag_ns; // written by its loop
    _Atomic uint64_t random;                   // weyl sequence, for probabilities and jitter
};

struct admission {
    struct metrics *metrics;
    metric_id shed_lag, shed_connections, late;
    _Atomic uint64_t max_lag_ns, retry_after_s, ef_percent;
    unsigned n_gates;
    struct gate *gate;
};

static double worst_lag(void *ctx)
{
    const struct admission *a = ctx;
    uint64_t most = 0;
    for (unsigned i = 0; i < a->n_gates; i++) {
        uint64_t v = atomic_load_explicit(&a->gate[i].mean_lag_ns, memory_order_relaxed);
        most = v > most ? v : most;
    }
    return (double)most / 1e9;
}

struct admission *admission_new(const struct admission_params *p, struct metrics *m, struct err *err)
{
    static const char name[] = "duet_requests_refused_total",
                      help[] = "Requests refused before any work was done, by reason.";
    struct admission *a = mem_array(1, sizeof(*a), err);
    if (!a)
        return NULL;
    a->n_gates = p->n_shards ? p->n_shards : 1;
    if (!(a->gate = mem_block(a->n_gates * sizeof(a->gate[0]), err))) {
        free(a);
        return NULL;
    }
    a->metrics = m;
    a->shed_lag = metrics_counter(m, name, help, "reason=\"overload\"");
    a->shed_connections = metrics_counter(m, name, help, "reason=\"connections\"");
    a->late = metrics_counter(m, name, help, "reason=\"deadline\"");
    metrics_gauge_fn(m, "duet_loop_lag_mean_seconds",
                     "Moving mean of the time from readable to handler, of the slowest event loop.", "", worst_lag, a);
    admission_tune(a, p->max_lag_ms, p->retry_after_s, p->ef_percent);
    return a;
}

void admission_free(struct admission *a)
{
    if (!a)
        return;
    mem_block_free(a->gate, a->n_gates * sizeof(a->gate[0]));
    free(a);
}

void admission_tune(struct admission *a, uint64_t max_lag_ms, uint64_t retry_after_s, uint64_t ef_percent)
{
    atomic_store(&a->max_lag_ns, max_lag_ms * 1000000);
    atomic_store(&a->retry_after_s, retry_after_s ? retry_after_s : 1);
    atomic_store(&a->ef_percent, ef_percent > 0 && ef_percent < 100 ? ef_percent : 100);
}

/* Uniform in [0, 1): a Weyl sequence through a multiplication; good enough to spread clients. */
static double chance(struct gate *g)
{
    uint64_t x = atomic_fetch_add_explicit(&g->random, 0x9e3779b97f4a7c15u, memory_order_relaxed) * 0xbf58476d1ce4e5b9u;
    return (double)((x ^ x >> 31) >> 11) / (double)(UINT64_C(1) << 53);
}

static void refuse(struct admission *a, struct gate *g, const struct http_request *r, struct http_response *resp,
                   const char *code, const char *detail)
{
    uint64_t s = atomic_load_explicit(&a->retry_after_s, memory_order_relaxed);
    problem_write(resp, r, 503, code, NULL, "%s", detail);
    http_add_header(resp, "Retry-After", "%llu", (unsigned long long)(s + (uint64_t)(chance(g) * (double)(s + 1))));
}

void admission_refuse(struct admission *a, const struct http_request *r, struct http_response *resp, const char *code,
                      const char *detail)
{
    refuse(a, &a->gate[0], r, resp, code, detail);
}

/* Updates the loop's mean; should this one be refused? */
static bool too_slow(struct admission *a, struct gate *g, uint64_t lag_ns)
{
    uint64_t mean = atomic_load_explicit(&g->mean_lag_ns, memory_order_relaxed);
    mean = mean - (mean >> MEAN_SHIFT) + (lag_ns >> MEAN_SHIFT);
    atomic_store_explicit(&g->mean_lag_ns, mean, memory_order_relaxed);
    uint64_t most = atomic_load_explicit(&a->max_lag_ns, memory_order_relaxed);
    if (most == 0 || mean <= most || lag_ns <= most / 2)
        return false;
    double p = (double)(mean - most) / (double)most;
    return chance(g) < (p < SHED_MOST ? p : SHED_MOST);
}

bool admission_admit(struct admission *a, unsigned shard, const struct http_request *r, struct http_response *resp)
{
    struct gate *g = &a->gate[shard < a->n_gates ? shard : 0];
    bool slow = too_slow(a, g, r->lag_ns);
    if (r->crowded) {
        metrics_add(a->metrics, shard, a->shed_connections, 1);
        refuse(a, g, r, resp, "too_many_connections", "more connections are open than data.max_connections");
        resp->close = true;
        return false;
    }
    if (app_now_ns() > r->deadline_ns) {
        metrics_add(a->metrics, shard, a->late, 1);
        return !problem_write(resp, r, 504, "deadline_exceeded", NULL,
                              "the deadline passed before work on the request could begin");
    }
    if (slow) {
        metrics_add(a->metrics, shard, a->shed_lag, 1);
        refuse(a, g, r, resp, "overloaded", "requests wait too long here at the moment");
        return false;
    }
    return true;
}

/* A request that has itself waited for a quarter of the limit or less is searched in full, whatever the mean says. */
float admission_ef_share(const struct admission *a, unsigned shard, uint64_t lag_ns)
{
    const struct gate *g = &a->gate[shard < a->n_gates ? shard : 0];
    uint64_t mean = atomic_load_explicit(&g->mean_lag_ns, memory_order_relaxed);
    uint64_t most = atomic_load_explicit(&a->max_lag_ns, memory_order_relaxed), from = most / 2;
    uint64_t wait = mean < 2 * lag_ns ? mean : 2 * lag_ns;
    if (most == 0 || wait <= from)
        return 1;
    float over = wait < most ? (float)(wait - from) / (float)(most - from) : 1;
    float least = (float)atomic_load_explicit(&a->ef_percent, memory_order_relaxed) / 100;
    return 1 - over * (1 - least);
}
