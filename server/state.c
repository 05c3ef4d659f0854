#include "server/state.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"
#include "core/base/json.h"
#include "core/base/mem.h"

#define FILE_MAX (8u << 20)
#define PINS_MAX 256

struct pin {
    char model[65];
    uint64_t version;
};

/* All that the file holds: replaced as one, so a failed write leaves the old. */
struct content {
    uint64_t revision;
    struct pin pin[PINS_MAX];
    size_t n_pins;
    struct experiment_table *experiments; // counted; NULL = never set
    struct labels *labels;                // the same
    json_t *quarantine;                   // of each model that has any; owned, NULL = none
};

struct state {
    pthread_mutex_t lock; // guards all below
    char *path;           // NULL: none; const
    struct content now;
};

// ------------------------------------------------------------------------------------------------------- reading

static bool read_pins(const json_t *models, struct content *c, struct err *err)
{
    const char *name;
    json_t *m;
    json_object_foreach((json_t *)models, name, m)
    {
        struct pin *p = &c->pin[c->n_pins];
        if (c->n_pins == PINS_MAX)
            return err_set(err, ERR_LIMIT, "more than %d models", PINS_MAX);
        if (strlen(name) >= sizeof(p->model))
            return err_set(err, ERR_FORMAT, "model name '%.80s' is longer than 64 bytes", name);
        if (!json_need_uint(m, "pinned", INT64_MAX, &p->version, err))
            return err_prefix(err, "model '%s'", name);
        if (p->version == 0)
            return err_set(err, ERR_FORMAT, "model '%s': pinned to version 0, want 1 or more", name);
        strcpy(p->model, name);
        c->n_pins++;
    }
    return true;
}

static bool read_quarantine(const json_t *models, struct content *c, struct err *err)
{
    const char *name;
    json_t *list;
    struct quarantined q[QUARANTINED_MAX];
    size_t n;
    if (!models || json_is_null(models))
        return true;
    if (!json_is_object(models))
        return err_set(err, ERR_FORMAT, "quarantine: found no object");
    json_object_foreach((json_t *)models, name, list)
        if (!quarantine_from_json(list, q, &n, err))
            return err_prefix(err, "quarantine of model '%.80s'", name);
    c->quarantine = json_deep_copy(models);
    return c->quarantine != NULL || err_set(err, ERR_NOMEM, "out of memory");
}

static bool read_content(const json_t *o, struct content *c, struct err *err)
{
    uint64_t format_version;
    const char *format = json_need_str(o, "format", err);
    if (!format)
        return false;
    if (strcmp(format, "duet-state") != 0)
        return err_set(err, ERR_FORMAT, "format '%.40s', want 'duet-state'", format);
    if (!json_need_uint(o, "format_version", UINT32_MAX, &format_version, err))
        return false;
    if (format_version != 1)
        return err_set(err, ERR_FORMAT, "format_version %llu, this duetd reads 1", (unsigned long long)format_version);
    if (!json_need_uint(o, "revision", INT64_MAX, &c->revision, err))
        return false;
    const json_t *models = json_need_object(o, "models", err);
    if (!models || !read_pins(models, c, err) || !read_quarantine(json_object_get(o, "quarantine"), c, err))
        return false;
    const json_t *labels = json_object_get(o, "labels");
    if (labels && !json_is_null(labels) && !(c->labels = labels_from_json(labels, err)))
        return err_prefix(err, "labels");
    const json_t *table = json_object_get(o, "experiments");
    if (!table || json_is_null(table))
        return true;
    c->experiments = experiment_table_from_json(table, NULL, err);
    return c->experiments != NULL;
}

struct state *state_open(const char *path, struct err *err)
{
    struct state *s = mem_array(1, sizeof(*s), err);
    json_t *o = NULL;
    if (!s)
        return NULL;
    pthread_mutex_init(&s->lock, NULL);
    if (!path || !path[0])
        return s;
    if (!(s->path = mem_dup(path, strlen(path), err)))
        goto fail;
    if (!fio_exists(path))
        return s;
    if (!(o = json_read_file(path, FILE_MAX, err)) || !read_content(o, &s->now, err)) {
        err_prefix(err, "state.path: %s", path);
        goto fail;
    }
    json_decref(o);
    return s;
fail:
    json_decref(o);
    state_free(s);
    return NULL;
}

void state_free(struct state *s)
{
    if (!s)
        return;
    experiment_table_unref(s->now.experiments);
    labels_unref(s->now.labels);
    json_decref(s->now.quarantine);
    pthread_mutex_destroy(&s->lock);
    free(s->path);
    free(s);
}

// ------------------------------------------------------------------------------------------------------- writing

static json_t *content_to_json(const struct content *c, struct err *err)
{
    json_t *models = json_object(), *table = json_null();
    for (size_t i = 0; i < c->n_pins; i++)
        json_object_set_new(models, c->pin[i].model, json_pack("{s:I}", "pinned", (json_int_t)c->pin[i].version));
    if (c->experiments)
        table = experiment_table_to_json(c->experiments, err);
    json_t *labels = c->labels ? labels_to_json(c->labels) : json_null(), *none = json_object();
    json_t *o = json_pack("{s:s, s:i, s:I, s:o, s:O, s:o, s:o}", "format", "duet-state", "format_version", 1, "revision",
                          (json_int_t)c->revision, "models", models, "quarantine",
                          c->quarantine ? c->quarantine : none, "labels", labels, "experiments", table);
    if (!o)
        err_set(err, ERR_NOMEM, "out of memory");
    json_decref(none);
    return o;
}

static bool write_content(const struct state *s, const struct content *c, struct err *err)
{
    if (!s->path)
        return true;
    struct err why = {0};
    json_t *o = content_to_json(c, err);
    char *text = o ? json_text(o, err) : NULL;
    bool ok = text && fio_write_atomic(s->path, text, strlen(text), &why);
    if (text && !ok)
        err_set(err, ERR_STATE, "the state file cannot be written, so nothing was changed: %s", why.msg);
    free(text);
    json_decref(o);
    return ok;
}

static bool is_revision(const struct state *s, uint64_t if_match, struct err *err)
{
    if (if_match == STATE_ANY_REVISION || if_match == s->now.revision)
        return true;
    return err_set(err, ERR_MISMATCH, "revision %llu was expected, it is %llu now: read it again",
                   (unsigned long long)if_match, (unsigned long long)s->now.revision);
}

/* Put `next` in the place of s->now, on disk first. The lock is held. */
static bool commit(struct state *s, struct content *next, uint64_t if_match, uint64_t *revision, struct err *err)
{
    if (!is_revision(s, if_match, err))
        return false;
    next->revision = s->now.revision + 1;
    if (!write_content(s, next, err))
        return false;
    s->now = *next;
    if (revision)
        *revision = next->revision;
    return true;
}

static struct pin *find_pin(struct content *c, const char *model)
{
    for (size_t i = 0; i < c->n_pins; i++)
        if (strcmp(c->pin[i].model, model) == 0)
            return &c->pin[i];
    return NULL;
}

static bool edit_pin(struct content *c, const char *model, uint64_t version, struct err *err)
{
    struct pin *p = find_pin(c, model);
    if (version == 0) {
        if (p)
            *p = c->pin[--c->n_pins];
        return true;
    }
    if (!p) {
        if (c->n_pins == PINS_MAX || strlen(model) >= sizeof(p->model))
            return err_set(err, ERR_LIMIT, "no room to pin model '%.80s'", model);
        p = &c->pin[c->n_pins++];
        strcpy(p->model, model);
    }
    p->version = version;
    return true;
}

bool state_set_pin(struct state *s, const char *model, uint64_t version, uint64_t if_match, uint64_t *revision,
                   struct err *err)
{
    pthread_mutex_lock(&s->lock);
    struct content next = s->now;
    bool ok = edit_pin(&next, model, version, err) && commit(s, &next, if_match, revision, err);
    pthread_mutex_unlock(&s->lock);
    return ok;
}

bool state_set_experiments(struct state *s, struct experiment_table *t, uint64_t if_match, uint64_t *revision,
                           struct err *err)
{
    pthread_mutex_lock(&s->lock);
    struct content next = s->now;
    struct experiment_table *old = s->now.experiments;
    next.experiments = t;
    bool ok = commit(s, &next, if_match, revision, err);
    if (ok) {
        experiment_table_ref(t);
        experiment_table_unref(old);
    }
    pthread_mutex_unlock(&s->lock);
    return ok;
}

bool state_set_labels(struct state *s, struct labels *l, uint64_t if_match, uint64_t *revision, struct err *err)
{
    pthread_mutex_lock(&s->lock);
    struct content next = s->now;
    struct labels *old = s->now.labels;
    next.labels = l;
    bool ok = commit(s, &next, if_match, revision, err);
    if (ok) {
        labels_ref(l);
        labels_unref(old);
    }
    pthread_mutex_unlock(&s->lock);
    return ok;
}

/* In memory in any case: what was refused is refused until the restart. */
bool state_set_quarantine(struct state *s, const char *model, const struct quarantined *q, size_t n, struct err *err)
{
    pthread_mutex_lock(&s->lock);
    json_t *all = s->now.quarantine ? s->now.quarantine : (s->now.quarantine = json_object());
    bool ok = n == 0 || json_object_set_new(all, model, quarantine_to_json(q, n)) == 0;
    if (n == 0)
        json_object_del(all, model);
    ok = (ok || err_set(err, ERR_NOMEM, "out of memory")) && write_content(s, &s->now, err);
    pthread_mutex_unlock(&s->lock);
    return ok;
}

static bool is_one_of(const char *name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], name) == 0)
            return true;
    return false;
}

bool state_trim_quarantine(struct state *s, const char *const *model, size_t n, struct err *err)
{
    const char *name;
    json_t *list;
    void *next;
    pthread_mutex_lock(&s->lock);
    size_t had = json_object_size(s->now.quarantine);
    json_object_foreach_safe(s->now.quarantine, next, name, list)
        if (!is_one_of(name, model, n))
            json_object_del(s->now.quarantine, name);
    bool ok = json_object_size(s->now.quarantine) == had || write_content(s, &s->now, err);
    pthread_mutex_unlock(&s->lock);
    return ok;
}

// ------------------------------------------------------------------------------------------------------- asking

size_t state_quarantine(struct state *s, const char *model, struct quarantined *q)
{
    size_t n = 0;
    pthread_mutex_lock(&s->lock);
    const json_t *list = json_object_get(s->now.quarantine, model);
    if (list && !quarantine_from_json(list, q, &n, NULL))
        n = 0;
    pthread_mutex_unlock(&s->lock);
    return n;
}

bool state_persistent(const struct state *s)
{
    return s->path != NULL;
}

uint64_t state_revision(struct state *s)
{
    pthread_mutex_lock(&s->lock);
    uint64_t r = s->now.revision;
    pthread_mutex_unlock(&s->lock);
    return r;
}

bool state_check_revision(struct state *s, uint64_t if_match, struct err *err)
{
    pthread_mutex_lock(&s->lock);
    bool ok = is_revision(s, if_match, err);
    pthread_mutex_unlock(&s->lock);
    return ok;
}

uint64_t state_pin(struct state *s, const char *model)
{
    pthread_mutex_lock(&s->lock);
    const struct pin *p = find_pin(&s->now, model);
    uint64_t v = p ? p->version : 0;
    pthread_mutex_unlock(&s->lock);
    return v;
}

struct labels *state_labels(struct state *s)
{
    pthread_mutex_lock(&s->lock);
    struct labels *l = labels_ref(s->now.labels);
    pthread_mutex_unlock(&s->lock);
    return l;
}

struct experiment_table *state_experiments(struct state *s)
{
    pthread_mutex_lock(&s->lock);
    struct experiment_table *t = experiment_table_ref(s->now.experiments);
    pthread_mutex_unlock(&s->lock);
    return t;
}
