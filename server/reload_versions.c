/* reload_versions.c - which versions a repository has, which of them are in quarantine, and looking for new ones, less often where there is
 * no room for them. */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "core/base/fio.h"
#include "core/base/utf8.h"
#include "server/reload_priv.h"

// ------------------------------------------------------------------------------------------------------- quarantine

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static uint64_t mix_text(uint64_t h, const char *s)
{
    for (; *s; s++)
        h = mix(h, (unsigned char)*s);
    return h;
}

/* Changes when any file in the folder is replaced, added, removed or written, and when the configuration asks for another layout, which may
 * be read from another file. The order of the entries does not matter. */
static uint64_t folder_identity(const char *dir, const char *layout)
{
    uint64_t sum = mix_text(1, layout);
    DIR *d = opendir(dir);
    struct stat st;
    for (const struct dirent *e; d && (e = readdir(d));) {
        if (strcmp(e->d_name, "..") == 0 || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        uint64_t h = mix_text(1, e->d_name);
        h = mix(mix(h, (uint64_t)st.st_ino), (uint64_t)st.st_size);
        h = mix(mix(h, (uint64_t)st.st_mtim.tv_sec), (uint64_t)st.st_mtim.tv_nsec);
        sum += mix(mix(h, (uint64_t)st.st_ctim.tv_sec), (uint64_t)st.st_ctim.tv_nsec); // rights too
    }
    if (d)
        closedir(d);
    return sum;
}

static struct quarantined *find(struct rmodel *m, uint64_t version)
{
    for (size_t i = 0; i < m->n_quarantined; i++)
        if (m->quarantined[i].version == version)
            return &m->quarantined[i];
    return NULL;
}

const char *reload_quarantine_reason(const struct rmodel *m, uint64_t version)
{
    const struct quarantined *q = find((struct rmodel *)m, version);
    return q ? q->reason : "";
}

static void show(struct reloads *rl, const struct rmodel *m)
{
    if (rl->p.metrics)
        metrics_set(rl->p.metrics, m->quarantined_metric, (double)m->n_quarantined);
}

/* It holds until the restart at least. Only this thread writes the record, so it is read without the lock. */
static void keep(struct reloads *rl, const struct rmodel *m)
{
    struct err err = {0};
    show(rl, m);
    if (!state_set_quarantine(rl->p.state, m->name, m->quarantined, m->n_quarantined, &err))
        log_event(rl->p.log, LOG_WARN, "quarantine_not_kept", LOG_STR("model", m->name), LOG_STR("cause", err.msg));
}

void reload_restore_quarantine(struct reloads *rl, struct rmodel *m)
{
    m->n_quarantined = state_quarantine(rl->p.state, m->name, m->quarantined);
    show(rl, m);
}

/* Only this thread takes models from the list, so their names stay. */
void reload_forget_quarantines(struct reloads *rl)
{
    struct err err = {0};
    const char *name[RELOAD_MODELS_MAX];
    size_t n = 0;
    pthread_mutex_lock(&rl->lock);
    for (size_t i = 0; i < rl->n_models; i++)
        if (!rl->model[i]->gone)
            name[n++] = rl->model[i]->name;
    pthread_mutex_unlock(&rl->lock);
    if (!state_trim_quarantine(rl->p.state, name, n, &err))
        log_event(rl->p.log, LOG_WARN, "quarantine_not_kept", LOG_STR("model", ""), LOG_STR("cause", err.msg));
}

void reload_quarantine(struct reloads *rl, struct rmodel *m, uint64_t version, const char *dir, const char *reason)
{
    struct quarantined now = {.version = version, .folder = folder_identity(dir, m->index_layout), .since = (int64_t)time(NULL)};
    snprintf(now.reason, sizeof(now.reason), "%s", reason);
    utf8_mend(now.reason);
    pthread_mutex_lock(&rl->lock);
    struct quarantined *q = find(m, version);
    if (!q && m->n_quarantined == QUARANTINED_MAX) {
        memmove(m->quarantined, m->quarantined + 1, (QUARANTINED_MAX - 1) * sizeof(*q));
        q = &m->quarantined[QUARANTINED_MAX - 1];
    }
    *(q ? q : &m->quarantined[m->n_quarantined++]) = now;
    pthread_mutex_unlock(&rl->lock);
    keep(rl, m);
    log_event(rl->p.log, LOG_WARN, "version_quarantined", LOG_STR("model", m->name), LOG_INT("version", version),
              LOG_STR("reason", now.reason));
}

void reload_release(struct reloads *rl, struct rmodel *m, uint64_t version)
{
    struct quarantined *q = find(m, version);
    if (!q)
        return;
    pthread_mutex_lock(&rl->lock);
    memmove(q, q + 1, (size_t)(m->quarantined + --m->n_quarantined - q) * sizeof(*q));
    pthread_mutex_unlock(&rl->lock);
    keep(rl, m);
}

/* In quarantine, its folder and the layout as they were? Else it is released. */
static bool is_barred(struct reloads *rl, struct rmodel *m, const char *path, const char *layout, uint64_t version)
{
    char dir[PATH_MAX], name[24];
    const struct quarantined *q = find(m, version);
    snprintf(name, sizeof(name), "%" PRIu64, version);
    if (!q || !fio_join(dir, path, name, NULL))
        return false;
    if (q->folder == folder_identity(dir, layout))
        return true;
    reload_release(rl, m, version);
    return false;
}

// ------------------------------------------------------------------------------------------------------- on disk

uint64_t reload_newest(struct reloads *rl, struct rmodel *m, const char *path, const char *layout, uint64_t below, uint64_t *skipped, struct err *err)
{
    size_t n = 0;
    uint64_t *v = bundle_versions(path, &n, err), found = 0, barred = 0;
    while (v && n-- > 0 && !found)
        if (v[n] < below && !is_barred(rl, m, path, layout, v[n]))
            found = v[n];
        else if (v[n] < below && !barred)
            barred = v[n];
    free(v);
    if (skipped)
        *skipped = barred;
    return found;
}

// ------------------------------------------------------------------------------------------------------- polling

#define PAUSE_MAX_MS 600000 // ten minutes: by then whoever gave the daemon more memory is done waiting

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Twice the last pause; never shorter than from poll to poll. */
static uint64_t next_pause(const struct reloads *rl, const struct retry *r)
{
    uint64_t most = rl->p.poll_ms > PAUSE_MAX_MS ? rl->p.poll_ms : PAUSE_MAX_MS, next = r->failures ? 2 * r->pause_ms : rl->p.poll_ms;
    return next < most ? next : most;
}

static void set_retry(struct reloads *rl, struct rmodel *m, struct retry r)
{
    m->retry = r;
    if (rl->p.metrics)
        metrics_set(rl->p.metrics, m->retry_metric, (double)r.pause_ms / 1000);
}

bool reload_put_off(struct reloads *rl, struct rmodel *m, const struct operation *op)
{
    struct retry was = m->retry, next = {0};
    bool failed = op->state == OPERATION_FAILED && !op->broken;
    if (op->kind == OPERATION_VERIFY || (failed && !op->polled))
        return false;
    if (failed) {
        if (was.version != op->version)
            was = (struct retry){0};
        next = (struct retry){.version = op->version, .failures = was.failures + 1, .code = op->code, .pause_ms = next_pause(rl, &was)};
        next.at_ms = now_ms() + next.pause_ms;
    }
    set_retry(rl, m, next);
    return next.pause_ms != was.pause_ms;
}

void reload_retry_now(struct reloads *rl, struct rmodel *m)
{
    set_retry(rl, m, (struct retry){0});
}

void reload_tell_retry(struct reloads *rl, const struct rmodel *m, const struct operation *op, const struct retry *r)
{
    log_event(rl->p.log, r->failures ? LOG_WARN : LOG_INFO, "retry", LOG_STR("model", m->name), LOG_INT("version", op->version),
              LOG_STR("code", op->code), LOG_INT("failures", r->failures), LOG_NUM("pause_s", (double)r->pause_ms / 1000));
}

/* Is it too early for this version? */
static bool waits(const struct rmodel *m, uint64_t version)
{
    return m->retry.failures && m->retry.version == version && now_ms() < m->retry.at_ms;
}

/* Read without the lock: a slow disk must hold up nobody. By then another operation may have been asked for. */
static void poll_model(struct reloads *rl, struct rmodel *m)
{
    char path[PATH_MAX], name[GENERATION_NAME_MAX + 1], layout[sizeof(m->index_layout)];
    struct err err = {0};
    uint64_t now = m->cur ? m->cur->bundle->manifest.version : 0;
    snprintf(path, sizeof(path), "%s", m->path);
    memcpy(name, m->name, sizeof(name));
    memcpy(layout, m->index_layout, sizeof(layout));
    pthread_mutex_unlock(&rl->lock);
    uint64_t newest = state_pin(rl->p.state, name) ? 0 : reload_newest(rl, m, path, layout, UINT64_MAX, NULL, &err);
    pthread_mutex_lock(&rl->lock);
    if (m->retry.failures && m->retry.version != newest)
        set_retry(rl, m, (struct retry){0});
    if (newest > now && !m->busy && !m->gone && !rl->refuse && !m->config_version && strcmp(path, m->path) == 0 &&
        rl->next_seq - rl->next_run < OPERATIONS_KEPT - 1 && !waits(m, newest))
        reload_enqueue(rl, OPERATION_RELOAD, m, 0, "poll")->polled = true;
}

void reload_poll(struct reloads *rl)
{
    for (size_t i = 0; i < rl->n_models; i++) // models are only ever taken from the list by this thread
        if (!rl->model[i]->gone && !rl->model[i]->busy && !rl->model[i]->config_version)
            poll_model(rl, rl->model[i]);
}
