/* reload_run.c - what one operation does: which version, is there room, load, verify, warm, pin, swap. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/fio.h"
#include "core/base/utf8.h"
#include "server/reload_priv.h"
#include "server/sysmem.h"

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool done(struct operation *op, const char *code)
{
    op->status = 200;
    op->code = code;
    return true;
}

static bool failed(struct operation *op, unsigned status, const char *code, const char *detail)
{
    op->status = status;
    op->code = code;
    snprintf(op->detail, sizeof(op->detail), "%s", detail);
    utf8_mend(op->detail);
    return false;
}

/* A load's error as an outcome. The version's folder was there, so whatever was not found is missing from the bundle.
 */
static bool load_failed(struct operation *op, const struct err *err)
{
    op->broken = err->code != ERR_NOMEM && err->code != ERR_IO;
    switch (err->code) {
    case ERR_NOMEM:
        return failed(op, 507, "insufficient_memory", err->msg);
    case ERR_MISMATCH:
        return failed(op, 409, "fingerprint_mismatch", err->msg);
    default:
        return failed(op, 422, "bundle_invalid", err->msg);
    }
}

// ------------------------------------------------------------------------------------------------------- loading

static bool version_dir(const struct rmodel *m, uint64_t version, char dir[PATH_MAX], struct err *err)
{
    char name[24];
    snprintf(name, sizeof(name), "%" PRIu64, version);
    return fio_join(dir, m->path, name, err);
}

/* Is there room, and for which layout? `auto` takes the fastest that fits: making the compact one needs more for a while than reading the
 * plain one does. The layout `fast` is for those who ask for it: more memory, slower walks, faster exact searches. */
static bool enough_memory(struct reloads *rl, const struct rmodel *m, const char *dir, struct operation *op,
                          uint64_t given_back, enum hnsw_layout *layout)
{
    static const enum hnsw_layout by_speed[] = {HNSW_COMPACT, HNSW_PLAIN};
    struct err err = {0};
    enum hnsw_layout named;
    uint64_t need = 0, have = rl->p.memory_available ? rl->p.memory_available() : sysmem_available(NULL);
    have = have > UINT64_MAX - given_back ? UINT64_MAX : have + given_back;
    bool is_named = bundle_layout_parse(m->index_layout, &named);
    for (size_t i = 0; i < sizeof(by_speed) / sizeof(by_speed[0]); i++) {
        *layout = is_named ? named : by_speed[i];
        if (!bundle_estimate(dir, *layout, &need, &err))
            return load_failed(op, &err);
        if (is_named || need <= have)
            break;
    }
    if (!rl->p.check_memory || need <= have)
        return true;
    snprintf(op->detail, sizeof(op->detail),
             "version %" PRIu64 " needs up to %" PRIu64 " MiB beside what is loaded, %" PRIu64 " MiB are free: "
             "give the daemon more memory, or set load.check_memory: false to try all the same",
             op->version, need >> 20, have >> 20);
    op->status = 507;
    op->code = "insufficient_memory";
    return false;
}

/* What is wrong with the bundle itself, not with this moment. */
static void bar_if_broken(struct reloads *rl, struct rmodel *m, const char *dir, const struct operation *op)
{
    if (op->kind != OPERATION_VERIFY && op->broken)
        reload_quarantine(rl, m, op->version, dir, op->detail);
}

static void register_metrics(struct reloads *rl, const struct rmodel *m, struct loaded *l)
{
    static const char *const rung[4] = {"none", "features", "history", "popular"};
    char name[128], labels[192];
    if (!rl->p.metrics)
        return;
    metrics_label(m->name, name, sizeof(name));
    for (int i = 0; i < 4; i++) {
        snprintf(labels, sizeof(labels), "model=\"%s\",fallback=\"%s\"", name, rung[i]);
        l->metric.answers[i] = metrics_counter(rl->p.metrics, "duet_retrieve_answers_total",
                                               "Answers to /v1/retrieve, by the rung of the fallback ladder.", labels);
    }
    snprintf(labels, sizeof(labels), "model=\"%s\"", name);
    l->metric.embed_s =
        metrics_seconds(rl->p.metrics, "duet_retrieve_embed_seconds", "Time to compute the query vector.", labels);
    l->metric.search_s =
        metrics_seconds(rl->p.metrics, "duet_retrieve_search_seconds", "Time to search the index.", labels);
    l->metric.returned =
        metrics_sizes(rl->p.metrics, "duet_retrieve_returned_items", "Candidates in an answer.", labels);
    l->metric.unknown_values = metrics_counter(rl->p.metrics, "duet_retrieve_unknown_values_total",
                                               "Feature values that the model's vocabularies lack.", labels);
    l->metric.ef_lowered = metrics_counter(rl->p.metrics, "duet_retrieve_ef_lowered_total",
                                           "Searches with less than their ef, for requests waited.", labels);
}

static void drop_previous(struct reloads *rl, struct rmodel *m)
{
    pthread_mutex_lock(&rl->lock);
    struct loaded *drop = m->prev;
    m->prev = NULL;
    pthread_mutex_unlock(&rl->lock);
    loaded_unref(drop);
}

static void show_progress(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    struct reloads *rl = ctx;
    pthread_mutex_lock(&rl->lock);
    rl->progress = (struct reload_progress){phase, done, total};
    pthread_mutex_unlock(&rl->lock);
}

/* Load op->version aside, verified and warm. NULL: the outcome says why. `replaces`: the version before the current one, kept for a
 * rollback, makes room for it once the folder is there and fits: three bundles of one model are never in memory. */
static struct loaded *load_version(struct reloads *rl, struct rmodel *m, bool replaces, struct operation *op)
{
    char dir[PATH_MAX];
    struct err err = {0};
    uint64_t begin = now_ms();
    if (!version_dir(m, op->version, dir, &err) || !fio_is_dir(dir)) {
        snprintf(err.msg, sizeof(err.msg), "model '%s' has no version %" PRIu64, m->name, op->version);
        failed(op, 404, "unknown_version", err.msg);
        return NULL;
    }
    struct bundle_load_params lp = {
        .mode = rl->p.mode, .threads = rl->p.load_threads, .progress = show_progress, .progress_ctx = rl, .all_files = op->kind == OPERATION_VERIFY};
    if (!enough_memory(rl, m, dir, op, replaces && m->prev ? m->prev->bytes : 0, &lp.layout)) {
        bar_if_broken(rl, m, dir, op);
        return NULL;
    }
    if (replaces)
        drop_previous(rl, m);
    struct bundle *b = bundle_load(dir, &lp, &err);
    struct loaded *l = b ? loaded_new(b, rl->p.workspaces, &err) : NULL;
    if (!l) {
        load_failed(op, &err);
        bar_if_broken(rl, m, dir, op);
        return NULL;
    }
    reload_release(rl, m, op->version);
    show_progress(rl, "warm", l->bytes, l->bytes);
    bundle_warm(b);
    l->load_ms = now_ms() - begin;
    l->target_recall = m->target_recall;
    register_metrics(rl, m, l);
    if (rl->p.warm && replaces)
        rl->p.warm(rl->p.warm_ctx, m->name, l);
    bundle_drop_warmup(b);
    l->bytes = bundle_memory(b);
    return l;
}

// ------------------------------------------------------------------------------------------------------- swapping

/* The old version stays in memory for a rollback if as much again is still free. Only the loader's thread touches cur
 * and prev's counts, but readers of the list look at them: hence the lock for the pointers. */
static void keep_previous(struct reloads *rl, struct rmodel *m, struct loaded *l, uint64_t prev_version)
{
    struct loaded *old = m->cur, *drop = m->prev, *keep = NULL;
    if (old && prev_version) {
        uint64_t have = rl->p.memory_available ? rl->p.memory_available() : sysmem_available(NULL);
        if (have >= old->bytes)
            keep = old;
    }
    pthread_mutex_lock(&rl->lock);
    m->cur = l;
    m->prev = keep;
    m->prev_version = prev_version;
    pthread_mutex_unlock(&rl->lock);
    if (old && !keep)
        loaded_unref(old);
    if (drop != l)
        loaded_unref(drop);
}

static void show_metrics(struct reloads *rl, const struct rmodel *m, const struct loaded *l, bool degraded)
{
    if (!rl->p.metrics)
        return;
    metrics_set(rl->p.metrics, m->version_metric, l ? (double)l->bundle->manifest.version : 0);
    metrics_set(rl->p.metrics, m->degraded_metric, degraded);
    metrics_set(rl->p.metrics, m->since_metric, l ? (double)l->loaded_at : 0);
}

/* Make `l` (a count of the caller's, taken) what serves. prev_version: what a later rollback goes to, 0 = nothing is
 * kept. */
static bool swap(struct reloads *rl, struct rmodel *m, struct loaded *l, const char *degraded, uint64_t prev_version,
                 struct operation *op)
{
    struct err err = {0};
    if (!generation_swap_model(rl->p.generations, m->name, loaded_ref(l), degraded, &err)) {
        loaded_unref(l);
        if (m->prev != l)
            loaded_unref(l);
        return failed(op, err.code == ERR_NOT_FOUND ? 404 : 507,
                      err.code == ERR_NOT_FOUND ? "unknown_model" : "insufficient_memory", err.msg);
    }
    keep_previous(rl, m, l, prev_version);
    show_metrics(rl, m, l, degraded && degraded[0]);
    return done(op, "swapped");
}

/* Note what was asked for before it takes effect; 0 = follow the configuration. Without a state file it holds until the
 * restart. */
static bool pin(struct reloads *rl, const struct rmodel *m, uint64_t version, struct operation *op)
{
    struct err err = {0};
    if (version == state_pin(rl->p.state, m->name) ||
        state_set_pin(rl->p.state, m->name, version, STATE_ANY_REVISION, NULL, &err)) {
        op->pinned = version != 0;
        op->persisted = state_persistent(rl->p.state);
        return true;
    }
    return failed(op, 409, "state_read_only", err.msg);
}

/* Serve op->version from now on. A rollback takes what was kept in memory; a reload means what is on disk. */
static bool replace(struct reloads *rl, struct rmodel *m, uint64_t pin_to, uint64_t prev_version, struct operation *op)
{
    struct loaded *l;
    if (m->cur && m->cur->bundle->manifest.version == op->version)
        return pin(rl, m, pin_to, op) && done(op, "unchanged");
    if (op->kind == OPERATION_ROLLBACK && m->prev && m->prev->bundle->manifest.version == op->version) {
        l = m->prev; // O(1): its count moves from prev to cur
    } else {
        if (!(l = load_version(rl, m, true, op)))
            return false;
    }
    if (!pin(rl, m, pin_to, op)) {
        if (l != m->prev)
            loaded_unref(l);
        return false;
    }
    return swap(rl, m, l, NULL, prev_version, op);
}

// ------------------------------------------------------------------------------------------------------- which version

/* Not what is in quarantine, which `detail` then names. */
static uint64_t newest_below(struct reloads *rl, struct rmodel *m, uint64_t below, struct operation *op)
{
    struct err err = {0};
    uint64_t skipped, found = reload_newest(rl, m, m->path, m->index_layout, below, &skipped, &err);
    if (err.code)
        failed(op, 422, "repository_unreadable", err.msg);
    else if (skipped)
        snprintf(op->detail, sizeof(op->detail), "version %" PRIu64 " is in quarantine until its folder changes or it is asked for: %.250s",
                 skipped, reload_quarantine_reason(m, skipped));
    utf8_mend(op->detail);
    return found;
}

static bool none_found(const struct rmodel *m, struct operation *op, const char *code, const char *what)
{
    char detail[sizeof(op->detail)], path[100 + 1];
    if (op->status)
        return false; // newest_below has said it
    snprintf(path, sizeof(path), "%s", m->path);
    utf8_mend(path);
    int n = snprintf(detail, sizeof(detail), "model '%s' has no %s version under %s%s", m->name, what, path,
                     op->detail[0] ? " that may be tried: " : "");
    if (op->detail[0])
        snprintf(detail + n, sizeof(detail) - (size_t)n, "%.250s", op->detail);
    return failed(op, 404, code, detail);
}

static bool choose(struct reloads *rl, struct rmodel *m, struct operation *op)
{
    op->version = op->wanted ? op->wanted : m->config_version ? m->config_version : newest_below(rl, m, UINT64_MAX, op);
    return op->version ? true : none_found(m, op, "unknown_version", "published");
}

static bool run_reload(struct reloads *rl, struct rmodel *m, struct operation *op)
{
    return choose(rl, m, op) && replace(rl, m, op->wanted, op->from, op);
}

static bool run_verify(struct reloads *rl, struct rmodel *m, struct operation *op)
{
    if (!choose(rl, m, op))
        return false;
    struct loaded *l = load_version(rl, m, false, op);
    loaded_unref(l);
    return l ? done(op, "valid") : false;
}

/* After it, nothing is left to roll back to but older versions: the one that was left is not wanted. */
static bool run_rollback(struct reloads *rl, struct rmodel *m, struct operation *op)
{
    op->version = m->prev_version && m->prev_version != op->from ? m->prev_version : newest_below(rl, m, op->from, op);
    if (!op->version)
        return none_found(m, op, "no_previous_version", "older");
    return replace(rl, m, op->version, 0, op);
}

/* The first load: what is wanted, else the newest older one that verifies, so that one bad file does not keep a daemon
 * down. */
static bool run_load(struct reloads *rl, struct rmodel *m, struct operation *op)
{
    char degraded[400] = "";
    op->wanted = state_pin(rl->p.state, m->name);
    op->pinned = op->wanted != 0;
    op->persisted = op->pinned && state_persistent(rl->p.state);
    if (!choose(rl, m, op))
        return false;
    snprintf(degraded, sizeof(degraded), "%.390s", op->detail); // passed by, and still so after another load
    utf8_mend(degraded);
    for (;;) {
        struct loaded *l = load_version(rl, m, true, op);
        if (l) {
            snprintf(op->detail, sizeof(op->detail), "%s", degraded);
            return swap(rl, m, l, degraded, 0, op);
        }
        log_event(rl->p.log, LOG_ERROR, "bundle_refused", LOG_STR("model", m->name), LOG_INT("version", op->version),
                  LOG_STR("code", op->code), LOG_STR("cause", op->detail));
        if (!degraded[0])
            snprintf(degraded, sizeof(degraded), "version %" PRIu64 ": %.340s", op->version, op->detail);
        utf8_mend(degraded);
        uint64_t older = newest_below(rl, m, op->version, op);
        if (!older)
            break;
        op->version = older;
    }
    snprintf(op->detail, sizeof(op->detail), "%s", degraded);
    struct err err = {0};
    if (!m->cur)
        generation_swap_model(rl->p.generations, m->name, NULL, degraded,
                              &err); // so that answers can say why there is none
    return false;
}

// ------------------------------------------------------------------------------------------------------- one operation

static const char *const kind_event[] = {"load", "reload", "rollback", "verify"};

static void tell(struct reloads *rl, const struct rmodel *m, const struct operation *op, bool ok)
{
    char name[128], labels[256];
    log_event(rl->p.log, ok ? LOG_INFO : LOG_ERROR, kind_event[op->kind], LOG_STR("model", m->name),
              LOG_INT("version", op->version), LOG_INT("from", op->from), LOG_STR("outcome", op->code),
              LOG_STR("detail", op->detail), LOG_INT("duration_ms", op->duration_ms),
              LOG_BOOL("persisted", op->persisted), LOG_STR("request_id", op->request_id));
    if (!rl->p.metrics)
        return;
    snprintf(labels, sizeof(labels), "model=\"%s\",kind=\"%s\",outcome=\"%s\"",
             metrics_label(m->name, name, sizeof(name)), kind_event[op->kind], op->code);
    metrics_add(rl->p.metrics, 0,
                metrics_counter(rl->p.metrics, "duet_operations_total",
                                "Loads, reloads, rollbacks and verifications by outcome.", labels),
                1);
    metrics_observe_ns(rl->p.metrics, 0, m->seconds_metric, op->duration_ms * 1000000);
}

void reload_run(struct reloads *rl, struct rmodel *m, struct operation *op)
{
    static bool (*const run[])(struct reloads *, struct rmodel *, struct operation *) = {run_load, run_reload,
                                                                                         run_rollback, run_verify};
    uint64_t begin = now_ms();
    op->from = m->cur ? m->cur->bundle->manifest.version : 0;
    show_progress(rl, "check", 0, 0);
    bool ok = run[op->kind](rl, m, op);
    op->state = ok ? OPERATION_SUCCEEDED : OPERATION_FAILED;
    op->duration_ms = now_ms() - begin;
    op->ended = (int64_t)time(NULL);
    tell(rl, m, op, ok);
}
