#include "train/prepare.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "train/dataset.h"
#include "train/features.h"
#include "train/read.h"

/* Everything between the raw log and the file; what `d` borrows lives here. */
struct job {
    const struct prepare_params *p;
    struct raw raw;
    struct log *log;
    struct features_spec *spec;
    uint32_t *user_row, *item_row;     // [d.n_*] row of the source
    uint32_t *new_user, *new_item;     // row of the source -> index, or NONE
    uint32_t *user_train, *item_train; // [d.n_*] training interactions
    struct strtab_builder user_id, item_id, category;
    struct strtab_builder *attr_values; // [d.n_attrs]
    uint32_t *user_x, *item_x, *item_category;
    uint8_t *user_held, *item_held;
    struct split_arrays {
        uint64_t *off;
        uint32_t *item;
        int64_t *time;
    } split[4];
    struct dataset d;
};

#define NONE UINT32_MAX

static void note(const struct job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(const struct job *j, const char *fmt, ...)
{
    char text[512];
    va_list args;
    if (!j->p->note)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    j->p->note(j->p->user, text);
}

static void job_fini(struct job *j)
{
    raw_fini(&j->raw);
    log_free(j->log);
    features_spec_free(j->spec);
    free(j->user_row);
    free(j->item_row);
    free(j->new_user);
    free(j->new_item);
    free(j->user_train);
    free(j->item_train);
    strtab_builder_fini(&j->user_id);
    strtab_builder_fini(&j->item_id);
    strtab_builder_fini(&j->category);
    for (uint32_t i = 0; j->attr_values && i < j->d.n_attrs; i++)
        strtab_builder_fini(&j->attr_values[i]);
    free(j->attr_values);
    free(j->user_x);
    free(j->item_x);
    free(j->item_category);
    free(j->user_held);
    free(j->item_held);
    for (size_t s = 0; s < 4; s++) {
        free(j->split[s].off);
        free(j->split[s].item);
        free(j->split[s].time);
    }
    free(j->d.attr);
    schema_free(j->d.schema);
}

// --------------------------------------------------------------------------------------------------------- reading

static bool read_source(struct job *j, struct prepare_report *report, struct err *err)
{
    const struct read_layout *layout = read_layout_find(j->p->in, j->p->layout, err);
    if (!layout)
        return false;
    note(j, "layout %s%s: %s", layout->name, j->p->layout ? "" : " (told by its files)", j->p->in);
    struct err e = {0}; // never NULL: skipping bad lines reads and clears it
    j->raw.bad.allowed = j->p->skip_bad;
    report->layout = layout->name;
    if (!layout->read(j->p->in, &j->raw, &e))
        return err_set(err, e.code, "%s", e.msg);
    report->n_read = j->raw.n;
    report->n_bad = j->raw.bad.found;
    report->users_read = j->raw.user.ids.n;
    report->items_read = j->raw.item.ids.n;
    note(j, "read %zu interactions, %u users, %u items", j->raw.n, report->users_read, report->items_read);
    if (report->n_bad > 0)
        note(j, "skipped %llu bad lines; the first: %s", (unsigned long long)report->n_bad, j->raw.bad.first);
    return true;
}

static bool split_log(struct job *j, struct prepare_report *report, struct err *err)
{
    if (!(j->log = log_new(&j->raw, &j->p->log, err)))
        return false;
    report->split = split_name(j->log->how);
    report->n_low = j->log->n_low;
    report->n_repeated = j->log->n_repeated;
    report->n_thin = j->log->n_thin;
    note(j, "split %s%s", report->split, j->p->log.how == SPLIT_AUTO ? " (chosen by what the data has)" : "");
    return true;
}

// --------------------------------------------------------------------------------------------- users and items left

/* Renumber the entities that are marked. */
static bool keep_marked(const uint8_t *mark, const struct raw_table *t, uint32_t **row, uint32_t **index,
                        struct strtab_builder *ids, uint32_t *n, struct err *err)
{
    struct strtab all = strtab_view(&t->ids);
    *row = mem_array(all.n, sizeof(**row), err);
    *index = mem_array(all.n, sizeof(**index), err);
    *n = 0;
    if (!*row || !*index)
        return false;
    for (uint32_t i = 0; i < all.n; i++) {
        struct str id = strtab_get(&all, i);
        (*index)[i] = mark[i] ? *n : NONE;
        if (!mark[i])
            continue;
        if (!strtab_add(ids, id.p, id.n, NULL, err))
            return false;
        (*row)[(*n)++] = i;
    }
    return true;
}

static bool keep_touched(struct job *j, struct err *err)
{
    const struct log *l = j->log;
    uint8_t *user = mem_array(l->n_users, 1, err), *item = mem_array(l->n_items, 1, err);
    bool ok = user && item;
    if (ok && j->p->all_items)
        memset(item, 1, l->n_items);
    for (uint64_t i = 0; ok && i < l->off[l->n_users]; i++)
        user[l->e[i].user] = item[l->e[i].item] = 1;
    ok = ok && keep_marked(user, &j->raw.user, &j->user_row, &j->new_user, &j->user_id, &j->d.n_users, err) &&
         keep_marked(item, &j->raw.item, &j->item_row, &j->new_item, &j->item_id, &j->d.n_items, err);
    free(user);
    free(item);
    j->d.user_id = strtab_view(&j->user_id);
    j->d.item_id = strtab_view(&j->item_id);
    return ok;
}

static bool count_training(struct job *j, struct err *err)
{
    const struct log *l = j->log;
    struct dataset *d = &j->d;
    j->user_train = mem_array(d->n_users, sizeof(*j->user_train), err);
    j->item_train = mem_array(d->n_items, sizeof(*j->item_train), err);
    j->user_held = mem_array(d->n_users, 1, err);
    j->item_held = mem_array(d->n_items, 1, err);
    if (!j->user_train || !j->item_train || !j->user_held || !j->item_held)
        return false;
    for (uint64_t i = 0; i < l->off[l->n_users]; i++)
        if (l->e[i].split == RAW_TRAIN) {
            j->user_train[j->new_user[l->e[i].user]]++;
            j->item_train[j->new_item[l->e[i].item]]++;
        }
    for (uint32_t u = 0; u < d->n_users; u++)
        j->user_held[u] = l->user_held[j->user_row[u]];
    for (uint32_t i = 0; i < d->n_items; i++)
        j->item_held[i] = l->item_held[j->item_row[i]];
    d->item_count = j->item_train;
    d->user_held_out = j->user_held;
    d->item_held_out = j->item_held;
    return true;
}

// ---------------------------------------------------------------------------------------------------------- splits

/* The rows of one split. Users keep the order of the source, so one pass over the log fills offsets and rows together.
 */
static bool cut_split(struct job *j, enum raw_split split, struct split_arrays *s, struct interactions *out,
                      struct err *err)
{
    const struct log *l = j->log;
    size_t n = (size_t)log_count(l, split), at = 0;
    s->off = mem_array((size_t)j->d.n_users + 1, sizeof(*s->off), err);
    s->item = mem_array(n, sizeof(*s->item), err);
    s->time = l->has_time ? mem_array(n, sizeof(*s->time), err) : NULL;
    if (!s->off || !s->item || (l->has_time && !s->time))
        return false;
    for (uint32_t u = 0; u < j->d.n_users; u++) {
        uint32_t row = j->user_row[u];
        for (uint64_t i = l->off[row]; i < l->off[row + 1]; i++) {
            if (l->e[i].split != split)
                continue;
            if (s->time)
                s->time[at] = l->e[i].time;
            s->item[at++] = j->new_item[l->e[i].item];
        }
        s->off[u + 1] = at;
    }
    *out = (struct interactions){s->off, s->item, s->time};
    return true;
}

static bool cut_splits(struct job *j, struct err *err)
{
    struct dataset *d = &j->d;
    return cut_split(j, RAW_TRAIN, &j->split[0], &d->train, err) &&
           cut_split(j, RAW_VALID, &j->split[1], &d->valid, err) &&
           cut_split(j, RAW_TEST, &j->split[2], &d->test, err) && cut_split(j, RAW_HELD, &j->split[3], &d->held, err);
}

// -------------------------------------------------------------------------------------------------------- features

static bool encode(struct job *j, struct err *err)
{
    struct dataset *d = &j->d;
    struct entities users = {&j->raw.user, j->user_row, j->user_train, d->n_users};
    struct entities items = {&j->raw.item, j->item_row, j->item_train, d->n_items};
    uint32_t min_count = j->p->min_count ? j->p->min_count : 1;
    j->spec = j->p->schema ? schema_yaml_load(j->p->schema, &j->raw.user, &j->raw.item, err)
                           : derive_schema(&users, &items, min_count, err);
    if (!j->spec || !(d->schema = features_schema(j->spec, &users, &items, min_count, err)))
        return false;
    note(j, "schema %s: %u user fields, %u item fields", j->p->schema ? j->p->schema : "derived from the columns",
         d->schema->user.n_fields, d->schema->item.n_fields);
    d->user_x = j->user_x = features_encode(&d->schema->user, &j->spec->user, &users, min_count, err);
    d->item_x = j->item_x = features_encode(&d->schema->item, &j->spec->item, &items, min_count, err);
    return j->user_x && j->item_x;
}

/* The category's names as the source has them, rare ones too: filters and tables per category want them all. */
static bool name_categories(struct job *j, struct err *err)
{
    struct dataset *d = &j->d;
    const struct schema_field *f = schema_category(&d->schema->item);
    int col = f ? raw_find_column(&j->raw.item, f->name) : -1;
    if (!(j->item_category = mem_array(d->n_items, sizeof(*j->item_category), err)) ||
        !strtab_intern(&j->category, "", 0, NULL, err))
        return false;
    for (uint32_t i = 0; col >= 0 && i < d->n_items; i++) {
        struct str s = raw_get(&j->raw.item, j->item_row[i], (uint32_t)col);
        if (!strtab_intern(&j->category, s.p, s.n, &j->item_category[i], err))
            return false;
    }
    d->category = strtab_view(&j->category);
    d->item_category = j->item_category;
    return true;
}

static bool copy_attr(struct job *j, uint32_t col, struct err *err)
{
    struct dataset_attr *a = &j->d.attr[col];
    struct strtab_builder *values = &j->attr_values[col];
    snprintf(a->name, sizeof(a->name), "%s", j->raw.item.col[col].name);
    for (uint32_t i = 0; i < j->d.n_items; i++) {
        struct str s = raw_get(&j->raw.item, j->item_row[i], col);
        if (!strtab_add(values, s.p, s.n, NULL, err))
            return false;
    }
    a->values = strtab_view(values);
    return true;
}

static bool copy_attrs(struct job *j, struct err *err)
{
    uint32_t n = j->raw.item.n_cols;
    j->d.attr = mem_array(n, sizeof(*j->d.attr), err);
    j->attr_values = mem_array(n, sizeof(*j->attr_values), err);
    if (!j->d.attr || !j->attr_values)
        return false;
    j->d.n_attrs = n;
    for (uint32_t c = 0; c < n; c++)
        if (!copy_attr(j, c, err))
            return false;
    return true;
}

// ------------------------------------------------------------------------------------------------------------ file

static char *info_text(const struct job *j, const struct prepare_report *r, struct err *err)
{
    const struct log_params *q = &j->p->log;
    json_t *v = json_pack(
        "{s:s,s:s,s:s,s:I,s:I,s:I,s:f,s:I,s:I,s:I,s:I,s:I,s:I}", "made_by", "duet " DUET_VERSION, "layout", r->layout,
        "split", r->split, "seed", (json_int_t)q->seed, "k_core_user", (json_int_t)q->k_core_user, "k_core_item",
        (json_int_t)q->k_core_item, "hold_out", q->hold_out, "min_count", (json_int_t)j->p->min_count,
        "interactions_read", (json_int_t)r->n_read, "value_too_small", (json_int_t)r->n_low, "pair_repeated",
        (json_int_t)r->n_repeated, "outside_k_core", (json_int_t)r->n_thin, "bad_lines", (json_int_t)r->n_bad);
    char *text = NULL;
    if (!v)
        err_set(err, ERR_NOMEM, "out of memory");
    else if (!q->has_min_value || json_object_set_new(v, "min_value", json_real(q->min_value)) == 0)
        text = json_text(v, err);
    json_decref(v);
    return text;
}

static bool save(struct job *j, const struct prepare_report *report, struct err *err)
{
    char *info = info_text(j, report, err);
    bool ok = info && dataset_save(&j->d, info, j->p->out, err);
    free(info);
    return ok;
}

bool prepare_run(const struct prepare_params *p, struct prepare_report *report, struct err *err)
{
    struct job j = {.p = p};
    *report = (struct prepare_report){0};
    raw_init(&j.raw);
    bool ok = read_source(&j, report, err) && split_log(&j, report, err) && keep_touched(&j, err) &&
              count_training(&j, err) && cut_splits(&j, err) && encode(&j, err) && name_categories(&j, err) &&
              copy_attrs(&j, err) && save(&j, report, err);
    job_fini(&j);
    return ok;
}
