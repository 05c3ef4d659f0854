#include "train/publish_input.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"
#include "core/base/mem.h"

#define JSON_MAX ((size_t)16 << 20)

// ------------------------------------------------------------------------------------------------------- the model

static bool same_schema(const struct schema *a, const struct schema *b, struct err *err)
{
    json_t *x = schema_to_json(a, err), *y = x ? schema_to_json(b, err) : NULL;
    bool same = x && y && json_equal(x, y);
    json_decref(x);
    json_decref(y);
    return same || err_set(err, ERR_MISMATCH,
                           "the model's schema is not the dataset's: its rows would mean other users, items and "
                           "values; train again on this dataset");
}

static bool load_plain(struct publish_source *s, const char *model, const char *schema, struct err *err)
{
    struct schema *sch = NULL;
    if (schema) {
        sch = schema_load(schema, err);
    } else {
        json_t *v = schema_to_json(s->data->schema, err);
        sch = v ? schema_from_json(v, err) : NULL;
        json_decref(v);
    }
    return sch && (s->model = model_load(model, sch, true, err));
}

/* Metrics of `duet evaluate`, or what training saw on the validation split. */
static bool read_metrics(struct publish_source *s, const char *dir, const struct checkpoint_info *info, struct err *err)
{
    char path[PATH_MAX];
    if (!fio_join(path, dir, "metrics.json", err))
        return false;
    if (fio_exists(path)) {
        s->metrics = json_read_file(path, JSON_MAX, err);
        return json_is_object(s->metrics) || err_set(err, ERR_FORMAT, "%s: want an object", path);
    }
    if (info && info->valid.n)
        s->metrics = json_pack("{s:o}", "validation", metrics_to_json(&info->spec, &info->valid));
    return true;
}

/* With checkpoint.json, as training leaves it. */
static bool load_trained(struct publish_source *s, const struct publish_paths *p, struct err *err)
{
    struct checkpoint *c = checkpoint_load(p->checkpoint, err);
    if (!c)
        return false;
    bool ok = p->other_data || strcmp(c->info.dataset_hash, s->data->hash) == 0 ||
              err_set(err, ERR_MISMATCH,
                      "%s was trained on dataset %s, %s is %s; --other-data publishes it all the same, if user and "
                      "item order are the same",
                      p->checkpoint, c->info.dataset_hash, p->data, s->data->hash);
    ok = ok && read_metrics(s, p->checkpoint, &c->info, err);
    if (ok && c->info.collapsed)
        snprintf(s->collapsed, sizeof(s->collapsed), "%s", c->info.reason);
    if (ok) {
        s->model = c->model;
        c->model = NULL;
    }
    checkpoint_free(c);
    return ok;
}

static bool load_model(struct publish_source *s, const struct publish_paths *p, struct err *err)
{
    char trained[PATH_MAX], model[PATH_MAX], schema[PATH_MAX];
    if (p->from)
        return load_plain(s, p->from, p->schema, err);
    if (!fio_join(trained, p->checkpoint, "checkpoint.json", err) ||
        !fio_join(model, p->checkpoint, "model.safetensors", err) ||
        !fio_join(schema, p->checkpoint, "schema.json", err))
        return false;
    if (fio_exists(trained))
        return load_trained(s, p, err);
    return load_plain(s, model, schema, err) && read_metrics(s, p->checkpoint, NULL, err);
}

// ----------------------------------------------------------------------------------------------------- seen items

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static size_t append(const struct interactions *x, uint32_t u, uint32_t *to)
{
    size_t n = (size_t)(x->off[u + 1] - x->off[u]);
    if (n)
        memcpy(to, x->item + x->off[u], n * sizeof(*to));
    return n;
}

static bool collect_seen(struct publish_source *s, struct err *err)
{
    const struct dataset *d = s->data;
    uint64_t total = d->train.off[d->n_users] + d->valid.off[d->n_users] + d->held.off[d->n_users];
    s->seen_off = mem_array((size_t)d->n_users + 1, sizeof(*s->seen_off), err);
    s->seen = mem_array((size_t)total, sizeof(*s->seen), err);
    if (!s->seen_off || !s->seen)
        return false;
    uint64_t at = 0;
    for (uint32_t u = 0; u < d->n_users; u++) {
        uint32_t *mine = s->seen + at;
        size_t n = append(&d->train, u, mine), kept = 0;
        n += append(&d->valid, u, mine + n);
        n += append(&d->held, u, mine + n);
        if (n)
            qsort(mine, n, sizeof(*mine), ascending);
        for (size_t i = 0; i < n; i++)
            if (i == 0 || mine[i] != mine[i - 1])
                mine[kept++] = mine[i];
        at += kept;
        s->seen_off[u + 1] = at;
    }
    return true;
}

// ------------------------------------------------------------------------------------------------------- together

static bool copy_attrs(struct publish_source *s, struct err *err)
{
    const struct dataset *d = s->data;
    if (!(s->attr = mem_array(d->n_attrs, sizeof(*s->attr), err)))
        return false;
    for (uint32_t i = 0; i < d->n_attrs; i++) {
        memcpy(s->attr[i].name, d->attr[i].name, sizeof(s->attr[i].name));
        s->attr[i].values = d->attr[i].values;
    }
    return true;
}

bool publish_source_open(struct publish_source *s, const struct publish_paths *p, struct err *err)
{
    s->data = dataset_open(p->data, err);
    if (!s->data || !load_model(s, p, err) || !same_schema(s->model->schema, s->data->schema, err) ||
        !collect_seen(s, err) || !copy_attrs(s, err))
        return false;
    const struct dataset *d = s->data;
    s->in = (struct publish_input){.model = s->model,
                                   .n_users = d->n_users,
                                   .n_items = d->n_items,
                                   .user_id = d->user_id,
                                   .item_id = d->item_id,
                                   .user_x = d->user_x,
                                   .item_x = d->item_x,
                                   .attr = s->attr,
                                   .n_attrs = d->n_attrs,
                                   .category = d->category,
                                   .item_category = d->item_category,
                                   .item_count = d->item_count,
                                   .seen_off = s->seen_off,
                                   .seen = s->seen,
                                   .metrics = s->metrics};
    return true;
}

void publish_source_fini(struct publish_source *s)
{
    free(s->attr);
    free(s->seen_off);
    free(s->seen);
    json_decref(s->metrics);
    model_free(s->model);
    dataset_close(s->data);
    *s = (struct publish_source){0};
}
