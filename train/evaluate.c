#include "train/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "train/checkpoint.h"
#include "train/embed.h"
#include "train/evaluate_stored.h"

// -------------------------------------------------------------------------------------------------------- targets

static bool held_user(const struct dataset *d, uint32_t u)
{
    return d->user_held_out && d->user_held_out[u];
}

/* Users of one kind that have targets, and their targets in ranking order. */
static bool collect(struct target_set *set, const struct evaluation *e, bool held, struct err *err)
{
    const struct dataset *d = e->p.data;
    const struct interactions *t = e->target;
    size_t all = (size_t)t->off[d->n_users];
    set->user = mem_array(d->n_users, sizeof(*set->user), err);
    set->item = mem_array(all, sizeof(*set->item), err);
    set->keep_known = mem_array(all, 1, err);
    set->keep_cold = mem_array(all, 1, err);
    if (!set->user || !set->item || !set->keep_known || !set->keep_cold)
        return false;
    for (uint32_t u = 0; u < d->n_users; u++) {
        if (t->off[u + 1] == t->off[u] || held_user(d, u) != held)
            continue;
        set->user[set->n_users++] = u;
        for (uint64_t i = t->off[u]; i < t->off[u + 1]; i++, set->n++) {
            uint32_t item = set->item[set->n] = t->item[i];
            set->keep_cold[set->n] = d->item_held_out && d->item_held_out[item];
            set->keep_known[set->n] = !set->keep_cold[set->n];
            set->n_cold += set->keep_cold[set->n];
        }
    }
    return true;
}

static void set_fini(struct target_set *s)
{
    free(s->user);
    free(s->item);
    free(s->keep_known);
    free(s->keep_cold);
}

bool evaluation_init(struct evaluation *e, const struct evaluation_params *p, struct pool *pool, struct err *err)
{
    const struct dataset *d = p->data;
    *e = (struct evaluation){.p = *p, .pool = pool, .target = p->valid ? &d->valid : &d->test};
    if (e->target->off[d->n_users] == 0)
        return err_set(err, ERR_ARG,
                       "the dataset has no %s interactions: choose --split %s, or prepare it with another --split",
                       p->valid ? "validation" : "test", p->valid ? "test" : "valid");
    e->rank = mem_array((size_t)e->target->off[d->n_users], sizeof(*e->rank), err);
    if (e->rank && collect(&e->known, e, false, err) && collect(&e->cold, e, true, err))
        return true;
    evaluation_fini(e);
    return false;
}

void evaluation_fini(struct evaluation *e)
{
    set_fini(&e->known);
    set_fini(&e->cold);
    free(e->rank);
    *e = (struct evaluation){0};
}

// ------------------------------------------------------------------------------------------------------- ranking

struct rank_input evaluation_rank_input(const struct evaluation *e, const struct target_set *set)
{
    const struct dataset *data = e->p.data;
    struct rank_input in = {.user = set->user,
                            .n_users = set->n_users,
                            .n_items = data->n_items,
                            .target = e->target,
                            .exclude = {&data->train, e->p.valid ? NULL : &data->valid}};
    if (set == &e->cold && data->held.off)
        in.exclude[0] = &data->held; // held-out users' withheld rows are their known past
    return in;
}

/* Query and item vectors of one view -> e->rank. */
static bool rank_set(struct evaluation *e, const struct target_set *set, const float *pu, const float *pv, size_t d,
                     struct err *err)
{
    struct rank_input in = evaluation_rank_input(e, set);
    in.pu = pu;
    in.pv = pv;
    in.d = d;
    return rank_targets(&in, e->pool, e->rank, err);
}

static void put_categories(const struct evaluation *e, const struct target_set *set, const float *rank, uint8_t *keep,
                           json_t *system)
{
    const struct dataset *d = e->p.data;
    json_t *list = json_array();
    for (uint32_t c = 0; c < d->category.n; c++) {
        for (size_t i = 0; i < set->n; i++)
            keep[i] = set->keep_known[i] && d->item_category[set->item[i]] == c;
        struct metrics m = metrics_of(&e->p.spec, rank, keep, set->n);
        if (m.n == 0)
            continue;
        struct str name = strtab_get(&d->category, c);
        json_t *o = metrics_to_json(&e->p.spec, &m);
        json_object_set_new(o, "category", name.n ? json_stringn(name.p, name.n) : json_string("(none)"));
        json_array_append_new(list, o);
    }
    json_object_set_new(system, "categories", list);
}

bool evaluation_put_metrics(const struct evaluation *e, const struct target_set *set, const float *rank, json_t *system,
                            struct err *err)
{
    struct metrics m = metrics_of(&e->p.spec, rank, set->keep_known, set->n);
    if (e->kept && set == &e->known)
        memcpy(e->kept, rank, set->n * sizeof(*rank));
    json_object_set_new(system, "metrics", metrics_to_json(&e->p.spec, &m));
    if (!e->p.per_category)
        return true;
    uint8_t *keep = mem_array(set->n, 1, err);
    if (keep)
        put_categories(e, set, rank, keep, system);
    free(keep);
    return keep != NULL;
}

/* One line of the cold-start table. */
void evaluation_put_cold(const struct evaluation *e, json_t *list, const char *view, const uint8_t *keep, size_t n)
{
    struct metrics m = metrics_of(&e->p.spec, e->rank, keep, n);
    if (m.n == 0)
        return;
    json_t *o = metrics_to_json(&e->p.spec, &m);
    json_object_set_new(o, "view", json_string(view));
    json_array_append_new(list, o);
}

// ---------------------------------------------------------------------------------------------------- popularity

json_t *evaluation_system_new(const char *name, const char *kind)
{
    json_t *o = json_object();
    json_object_set_new(o, "name", json_string(name));
    json_object_set_new(o, "kind", json_string(kind));
    json_object_set_new(o, "through", json_string("exact"));
    return o;
}

static bool popularity_views(struct evaluation *e, const float *pu, const float *pv, json_t *o, struct err *err)
{
    json_t *cold = json_array();
    json_object_set_new(o, "cold_start", cold);
    if (!rank_set(e, &e->known, pu, pv, 1, err) || !evaluation_put_metrics(e, &e->known, e->rank, o, err))
        return false;
    evaluation_put_cold(e, cold, "every user as unknown", e->known.keep_known, e->known.n);
    evaluation_put_cold(e, cold, "held-out items", e->known.keep_cold, e->known.n);
    if (e->cold.n && !rank_set(e, &e->cold, pu, pv, 1, err))
        return false;
    evaluation_put_cold(e, cold, "held-out users", e->cold.keep_known, e->cold.n);
    return true;
}

/* A model with d = 1: p_u = 1, p_v = number of training interactions. */
json_t *evaluation_popularity(struct evaluation *e, struct err *err)
{
    const struct dataset *d = e->p.data;
    json_t *o = evaluation_system_new("popularity", "popularity");
    float *pv = mem_array(d->n_items, sizeof(*pv), err), *pu = mem_array(d->n_users, sizeof(*pu), err);
    for (uint32_t i = 0; pv && i < d->n_items; i++)
        pv[i] = (float)d->item_count[i];
    for (uint32_t u = 0; pu && u < d->n_users; u++)
        pu[u] = 1;
    bool ok = pv && pu && popularity_views(e, pu, pv, o, err);
    free(pv);
    free(pu);
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

// -------------------------------------------------------------------------------------------------------- models

/* All items; those held out as the unknown items that they are. */
static bool embed_items(const struct evaluation *e, const struct model *m, float *pv, struct err *err)
{
    const struct dataset *d = e->p.data;
    if (!embed_rows(&m->item, &m->schema->item, d->item_x, NULL, d->n_items, EMBED_OWN, NULL, e->pool, pv, err))
        return false;
    for (uint32_t i = 0; d->item_held_out && i < d->n_items; i++)
        if (d->item_held_out[i] && !embed_rows(&m->item, &m->schema->item, d->item_x, &i, 1, EMBED_UNKNOWN, NULL,
                                               e->pool, pv + (size_t)i * m->item.d, err))
            return false;
    return true;
}

/* a_u of strangers with a history (core/history.h). */
static void history_sums(const struct target_set *set, const struct interactions *past, const float *pv,
                         const struct history_form *f, size_t d, float *a)
{
    for (size_t i = 0; i < set->n_users; i++) {
        uint64_t lo = past->off[set->user[i]], hi = past->off[set->user[i] + 1];
        history_sum(f, pv, past->item + lo, (size_t)(hi - lo), d, a + i * d);
    }
}

struct views {
    struct evaluation *e;
    const struct model *m;
    float *pu, *pv; // [users of a set][d], [n_items][d]
};

static bool embed_users(struct views *v, const struct target_set *set, enum embed_as as, const float *a,
                        struct err *err)
{
    return embed_rows(&v->m->user, &v->m->schema->user, v->e->p.data->user_x, set->user, set->n_users, as, a,
                      v->e->pool, v->pu, err) &&
           rank_set(v->e, set, v->pu, v->pv, v->m->user.d, err);
}

/* A model without a_u: the mean itself, normalised, is the query, as retrieve.c has it. */
static void means_to_queries(float *a, size_t n, size_t d, float *pu)
{
    for (size_t i = 0; i < n; i++) {
        float norm = 0;
        for (size_t c = 0; c < d; c++)
            norm += a[i * d + c] * a[i * d + c];
        for (size_t c = 0; c < d; c++)
            pu[i * d + c] = norm > 0 ? a[i * d + c] / sqrtf(norm) : 0;
    }
}

static bool history_view(struct views *v, const struct target_set *set, const struct interactions *past,
                         const char *name, json_t *cold, struct err *err)
{
    size_t d = v->m->user.d;
    float *a = mem_array(set->n_users, d * sizeof(*a), err);
    if (!a)
        return false;
    history_sums(set, past, v->pv, &v->m->history, d, a);
    bool ok;
    if (v->m->user.shape.d_aug) {
        ok = embed_users(v, set, EMBED_GIVEN, a, err);
    } else {
        means_to_queries(a, set->n_users, d, v->pu);
        ok = rank_set(v->e, set, v->pu, v->pv, d, err);
    }
    free(a);
    if (ok)
        evaluation_put_cold(v->e, cold, name, set->keep_known, set->n);
    return ok;
}

/* With held-out users: those. Always: every known user answered as if it were unknown. */
static bool stranger_views(struct views *v, const struct target_set *set, const struct interactions *past,
                           const char *features, const char *history, json_t *cold, struct err *err)
{
    if (set->n == 0)
        return true;
    if (!embed_users(v, set, EMBED_UNKNOWN, NULL, err))
        return false;
    evaluation_put_cold(v->e, cold, features, set->keep_known, set->n);
    return !past->off || history_view(v, set, past, history, cold, err);
}

static bool model_views(struct views *v, json_t *o, struct err *err)
{
    struct evaluation *e = v->e;
    const struct dataset *d = e->p.data;
    json_t *cold = json_array();
    json_object_set_new(o, "cold_start", cold);
    if (!embed_items(e, v->m, v->pv, err) || !embed_users(v, &e->known, EMBED_OWN, NULL, err) ||
        !evaluation_put_metrics(e, &e->known, e->rank, o, err))
        return false;
    evaluation_put_cold(e, cold, "held-out items", e->known.keep_cold, e->known.n);
    return stranger_views(v, &e->known, &d->train, "every user as unknown, by features",
                          "every user as unknown, by history", cold, err) &&
           stranger_views(v, &e->cold, &d->held, "held-out users, by features", "held-out users, by history", cold,
                          err);
}

static bool fits(const struct dataset *d, const struct model *m, struct err *err)
{
    const struct schema *a = d->schema, *b = m->schema;
    if (a->user.n_slots == b->user.n_slots && a->item.n_slots == b->item.n_slots &&
        schema_check_x(&b->user, d->user_x, d->n_users, err) && schema_check_x(&b->item, d->item_x, d->n_items, err))
        return true;
    return err_set(err, ERR_MISMATCH,
                   "the model's features are not the dataset's; evaluate it on the dataset that it was trained on");
}

json_t *evaluation_model(struct evaluation *e, const char *name, const struct model *m, struct err *err)
{
    const struct dataset *d = e->p.data;
    size_t most = e->known.n_users > e->cold.n_users ? e->known.n_users : e->cold.n_users;
    if (m->stored)
        return evaluation_stored(e, name, m, err);
    json_t *o = evaluation_system_new(name, model_kind_name(m->kind));
    struct views v = {.e = e, .m = m};
    bool ok = fits(d, m, err) && (v.pu = mem_array(most, m->user.d * sizeof(float), err)) &&
              (v.pv = mem_array(d->n_items, m->item.d * sizeof(float), err)) && model_views(&v, o, err);
    free(v.pu);
    free(v.pv);
    if (ok)
        return o;
    json_decref(o);
    err_prefix(err, "evaluating %s", name);
    return NULL;
}

// -------------------------------------------------------------------------------------------------------- report

json_t *evaluation_report(const struct evaluation *e, const char *data_path, json_t *systems)
{
    const struct dataset *d = e->p.data;
    json_t *o = json_object(), *k = json_array();
    for (size_t i = 0; i < e->p.spec.n_k; i++)
        json_array_append_new(k, json_integer(e->p.spec.k[i]));
    json_object_set_new(o, "format", json_string("duet-evaluation"));
    json_object_set_new(o, "format_version", json_integer(1));
    json_object_set_new(o, "dataset", json_string(data_path));
    json_object_set_new(o, "dataset_hash", json_string(d->hash));
    json_object_set_new(o, "split", json_string(e->p.valid ? "valid" : "test"));
    json_object_set_new(o, "users", json_integer((json_int_t)e->known.n_users));
    json_object_set_new(o, "items", json_integer(d->n_items));
    json_object_set_new(
        o, "protocol",
        json_string(
            e->p.valid
                ? "every interaction is a positive; whole catalogue ranked, the user's training items left out; an "
                  "equal score "
                  "counts half against the model"
                : "every interaction is a positive; whole catalogue ranked, the user's training and validation items "
                  "left out; an "
                  "equal score counts half against the model; model of the epoch with the best validation HR@100"));
    json_object_set_new(o, "k", k);
    json_object_set_new(o, "systems", systems);
    return o;
}
