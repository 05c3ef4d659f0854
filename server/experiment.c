#include "server/experiment.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/hash.h"
#include "core/base/mem.h"
#include "server/query.h"
#include "server/tally.h"

struct experiment_table {
    size_t n;
    struct experiment *e; // [n]
    bool has_shadow;
    _Atomic unsigned refs;
};

// ------------------------------------------------------------------------------------------------------- buckets

uint32_t experiment_bucket(const char *salt, const char *unit, size_t n)
{
    char text[EXPERIMENT_SALT_MAX + 1 + EXPERIMENT_UNIT_MAX];
    size_t len = strnlen(salt, EXPERIMENT_SALT_MAX);
    memcpy(text, salt, len);
    text[len++] = 0x1F;
    if (n > EXPERIMENT_UNIT_MAX)
        n = EXPERIMENT_UNIT_MAX;
    if (n)
        memcpy(text + len, unit, n);
    return (uint32_t)(hash_xxh64(text, len + n) % EXPERIMENT_BUCKETS);
}

/* Cumulative ranges computed afresh from the new weights would move every bucket behind the first change. Instead each
 * variant keeps what it may, and only the surplus travels:
 *
 *     33/33/34   aaa bbb ccc         50/25/25   aaa bb. cc.   surplus freed from the top of b and c
 *                                               aaa bba cca   and given to a: 17 % moved, not 26 %            */
void experiment_rebalance(uint8_t owner[EXPERIMENT_BUCKETS], const uint32_t *want, size_t n)
{
    uint32_t had[EXPERIMENT_VARIANTS_MAX] = {0};
    for (size_t b = 0; b < EXPERIMENT_BUCKETS; b++) {
        if (owner[b] < n)
            had[owner[b]]++;
        else
            owner[b] = EXPERIMENT_NO_OWNER;
    }
    for (size_t b = EXPERIMENT_BUCKETS; b-- > 0;) {
        uint8_t v = owner[b];
        if (v != EXPERIMENT_NO_OWNER && had[v] > want[v]) {
            owner[b] = EXPERIMENT_NO_OWNER;
            had[v]--;
        }
    }
    size_t v = 0;
    for (size_t b = 0; b < EXPERIMENT_BUCKETS; b++) {
        if (owner[b] != EXPERIMENT_NO_OWNER)
            continue;
        while (v < n && had[v] >= want[v])
            v++;
        if (v == n)
            return; // weights that sum to less: callers refuse them
        owner[b] = (uint8_t)v;
        had[v]++;
    }
}

// ------------------------------------------------------------------------------------------------------- checks

static bool check_name(const char *what, const char *name, struct err *err)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < n; i++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", name[i]))
            return err_set(err, ERR_ARG, "%s name '%s': only letters, digits, '.', '_' and '-' are allowed", what,
                           name);
    return n ? true : err_set(err, ERR_ARG, "a %s has no name", what);
}

static bool check_variants(const struct experiment *e, struct err *err)
{
    uint64_t sum = 0;
    if (e->n_variants < 1 || e->n_variants > EXPERIMENT_VARIANTS_MAX)
        return err_set(err, ERR_ARG, "%zu variants, need 1 to %d", e->n_variants, EXPERIMENT_VARIANTS_MAX);
    for (size_t i = 0; i < e->n_variants; i++) {
        const struct experiment_variant *v = &e->variant[i];
        if (!check_name("variant", v->name, err))
            return false;
        for (size_t j = 0; j < i; j++)
            if (strcmp(e->variant[j].name, v->name) == 0)
                return err_set(err, ERR_ARG, "variant '%s' is there twice", v->name);
        if (v->filter[0] && !query_check_filter(v->filter, err))
            return err_prefix(err, "variant '%s'", v->name);
        if (v->shadow ? v->buckets > 0 || v->share == 0 : v->share > 0)
            return err_set(err, ERR_ARG, "variant '%s': a shadow has weight 0 and a share above 0, and only a shadow has a share", v->name);
        sum += v->buckets;
    }
    if (sum != EXPERIMENT_BUCKETS)
        return err_set(err, ERR_ARG, "weights sum to %.2f, need 100", (double)sum / 100);
    return true;
}

/* Lay out a fresh experiment, or check that owners given agree with the weights. */
static bool settle_owners(struct experiment *e, struct err *err)
{
    uint32_t had[EXPERIMENT_VARIANTS_MAX] = {0}, want[EXPERIMENT_VARIANTS_MAX] = {0}, unowned = 0;
    for (size_t b = 0; b < EXPERIMENT_BUCKETS; b++) {
        if (e->owner[b] < e->n_variants)
            had[e->owner[b]]++;
        else
            unowned++;
    }
    for (size_t v = 0; v < e->n_variants; v++)
        want[v] = e->variant[v].buckets;
    if (unowned == EXPERIMENT_BUCKETS) {
        experiment_rebalance(e->owner, want, e->n_variants);
        return true;
    }
    for (size_t v = 0; v < e->n_variants; v++)
        if (had[v] != want[v])
            return err_set(err, ERR_ARG, "variant '%s' has ranges of %u buckets, its weight %.2f asks for %u",
                           e->variant[v].name, had[v], want[v] / 100.0, want[v]);
    return true;
}

enum parameter { PARAM_MODEL, PARAM_EF, PARAM_K, PARAM_N };
static const char *const parameter_name[PARAM_N] = {"model", "ef", "k"};

static bool sets(const struct experiment *e, enum parameter p)
{
    for (size_t i = 0; i < e->n_variants; i++) {
        const struct experiment_variant *v = &e->variant[i];
        if (p == PARAM_MODEL ? v->model[0] != '\0' : p == PARAM_EF ? v->ef != 0 : v->k != 0)
            return true;
    }
    return false;
}

/* The answer to "which model?" must not depend on which experiment is asked first. */
static bool check_conflicts(const struct experiment *e, size_t i, struct err *err)
{
    for (size_t j = 0; j < i; j++) {
        if (strcmp(e[i].name, e[j].name) == 0)
            return err_set(err, ERR_ARG, "it is there twice");
        for (int p = 0; p < PARAM_N; p++)
            if (sets(&e[i], (enum parameter)p) && sets(&e[j], (enum parameter)p))
                return err_set(err, ERR_ARG, "it sets '%s', and so does experiment '%s': only one may",
                               parameter_name[p], e[j].name);
    }
    return true;
}

// ------------------------------------------------------------------------------------------------------- table

struct experiment_table *experiment_table_build(const struct experiment *e, size_t n, struct err *err)
{
    if (n > EXPERIMENT_MAX) {
        err_set(err, ERR_LIMIT, "%zu experiments, at most %d run at once", n, EXPERIMENT_MAX);
        return NULL;
    }
    struct experiment_table *t = mem_array(1, sizeof(*t), err);
    if (!t)
        return NULL;
    t->n = n;
    atomic_init(&t->refs, 1);
    if (!(t->e = mem_array(n, sizeof(*t->e), err)))
        goto fail;
    if (n)
        memcpy(t->e, e, n * sizeof(*t->e));
    for (size_t i = 0; i < n; i++)
        t->e[i].tally = NULL; // of another table, if it is a copy
    for (size_t i = 0; i < n; i++) {
        if (!check_name("experiment", t->e[i].name, err) || !check_variants(&t->e[i], err) ||
            !settle_owners(&t->e[i], err) || !check_conflicts(t->e, i, err)) {
            err_prefix(err, "experiment '%s'", t->e[i].name);
            goto fail;
        }
        for (size_t v = 0; v < t->e[i].n_variants; v++)
            t->has_shadow |= t->e[i].variant[v].shadow;
    }
    return t;
fail:
    experiment_table_unref(t);
    return NULL;
}

struct experiment_table *experiment_table_new(struct err *err)
{
    return experiment_table_build(NULL, 0, err);
}

struct experiment_table *experiment_table_ref(struct experiment_table *t)
{
    if (t)
        atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void experiment_table_unref(struct experiment_table *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; t->e && i < t->n; i++)
        tally_unref(t->e[i].tally);
    free(t->e);
    free(t);
}

bool experiment_table_has_shadow(const struct experiment_table *t)
{
    return t->has_shadow;
}

size_t experiment_table_n(const struct experiment_table *t)
{
    return t->n;
}

const struct experiment *experiment_table_get(const struct experiment_table *t, size_t i)
{
    return &t->e[i];
}

void experiment_table_set_metric(struct experiment_table *t, size_t experiment, size_t variant, uint32_t id)
{
    t->e[experiment].variant[variant].metric = id;
}

static bool same_variant(const struct experiment_variant *a, const struct experiment_variant *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->model, b->model) == 0 && a->buckets == b->buckets &&
           a->ef == b->ef && a->k == b->k && strcmp(a->filter, b->filter) == 0 &&
           a->shadow == b->shadow && a->share == b->share;
}

/* Would what was counted of the one say something of the other? */
static bool same_experiment(const struct experiment *a, const struct experiment *b)
{
    bool same = strcmp(a->name, b->name) == 0 && strcmp(a->salt, b->salt) == 0 && a->n_variants == b->n_variants &&
                memcmp(&a->guardrails, &b->guardrails, sizeof(a->guardrails)) == 0 &&
                memcmp(a->owner, b->owner, sizeof(a->owner)) == 0;
    for (size_t v = 0; same && v < a->n_variants; v++)
        same = same_variant(&a->variant[v], &b->variant[v]);
    return same;
}

static struct tally *tally_for(const struct experiment *e, const struct experiment_table *before, struct err *err)
{
    uint32_t share[EXPERIMENT_VARIANTS_MAX];
    int i = before ? experiment_table_find(before, e->name, strlen(e->name)) : -1;
    if (i >= 0 && before->e[i].tally && same_experiment(e, &before->e[i]))
        return tally_ref(before->e[i].tally);
    for (size_t v = 0; v < e->n_variants; v++)
        share[v] = e->variant[v].buckets;
    return tally_new(share, e->n_variants, err);
}

bool experiment_table_tally(struct experiment_table *t, const struct experiment_table *before, bool *fresh, struct err *err)
{
    *fresh = t->n == 0 || !t->e[0].tally;
    for (size_t i = 0; i < t->n; i++)
        if (!t->e[i].tally && !(t->e[i].tally = tally_for(&t->e[i], before, err)))
            return false;
    return true;
}

/* Is `v` what `old` was before it was stopped? */
static bool is_stopped(const struct experiment_variant *v, const struct experiment_variant *old)
{
    struct experiment_variant was = *old;
    was.buckets = old->stopped.buckets;
    return old->stopped.reason[0] && old->buckets == 0 && same_variant(v, &was);
}

static void keep_stopped(struct experiment *e, const struct experiment *old)
{
    if (memcmp(&e->guardrails, &old->guardrails, sizeof(e->guardrails)) != 0)
        return;
    for (size_t v = 0; v < e->n_variants; v++)
        for (size_t o = 0; o < old->n_variants; o++)
            if (is_stopped(&e->variant[v], &old->variant[o]) && v != experiment_control(e)) {
                e->variant[v].stopped = old->variant[o].stopped;
                experiment_give(e, v, experiment_control(e));
            }
}

void experiment_table_keep_stopped(struct experiment_table *t, const struct experiment_table *before)
{
    for (size_t i = 0; i < t->n; i++) {
        int at = experiment_table_find(before, t->e[i].name, strlen(t->e[i].name));
        if (at >= 0)
            keep_stopped(&t->e[i], &before->e[at]);
    }
}

int experiment_table_find(const struct experiment_table *t, const char *name, size_t n)
{
    for (size_t i = 0; i < t->n; i++)
        if (strlen(t->e[i].name) == n && memcmp(t->e[i].name, name, n) == 0)
            return (int)i;
    return -1;
}

bool experiment_table_check_models(const struct experiment_table *t, const char *const *names, size_t n,
                                   struct err *err)
{
    for (size_t i = 0; i < t->n; i++)
        for (size_t v = 0; v < t->e[i].n_variants; v++) {
            const char *model = t->e[i].variant[v].model;
            bool known = model[0] == '\0';
            for (size_t m = 0; m < n && !known; m++)
                known = strcmp(names[m], model) == 0;
            if (!known)
                return err_set(err, ERR_ARG, "experiment '%s', variant '%s': no model '%s' is configured", t->e[i].name,
                               t->e[i].variant[v].name, model);
        }
    return true;
}

// ------------------------------------------------------------------------------------------------------- assignment

static int find_variant(const struct experiment *e, const char *name, size_t n)
{
    for (size_t i = 0; i < e->n_variants; i++)
        if (strlen(e->variant[i].name) == n && memcmp(e->variant[i].name, name, n) == 0)
            return (int)i;
    return -1;
}

/* One "experiment=variant" of the override header. */
static bool override_one(const struct experiment_table *t, const char *p, size_t n, struct experiment_assignment *a,
                         struct err *err)
{
    const char *eq = memchr(p, '=', n);
    if (!eq)
        return err_set(err, ERR_ARG,
                       "X-Experiment-Override: found '%.*s', want experiment=variant[,experiment=variant]", (int)n, p);
    size_t n_name = (size_t)(eq - p), n_variant = n - n_name - 1;
    int i = experiment_table_find(t, p, n_name);
    if (i < 0)
        return err_set(err, ERR_ARG, "X-Experiment-Override: no experiment '%.*s'", (int)n_name, p);
    int v = find_variant(&t->e[i], eq + 1, n_variant);
    if (v < 0)
        return err_set(err, ERR_ARG, "X-Experiment-Override: experiment '%s' has no variant '%.*s'", t->e[i].name,
                       (int)n_variant, eq + 1);
    a->variant[i] = (uint8_t)v;
    a->overridden[i] = true;
    return true;
}

static bool apply_override(const struct experiment_table *t, const char *text, struct experiment_assignment *a,
                           struct err *err)
{
    for (const char *p = text;; p++) {
        p += strspn(p, " \t");
        size_t whole = strcspn(p, ","), n = whole;
        while (n && (p[n - 1] == ' ' || p[n - 1] == '\t'))
            n--;
        if (!override_one(t, p, n, a, err))
            return false;
        p += whole;
        if (!*p)
            return true;
    }
}

static void apply_variant(const struct experiment_variant *v, struct experiment_assignment *a)
{
    if (v->model[0])
        a->model = v->model;
    if (v->ef)
        a->ef = v->ef;
    if (v->k)
        a->k = v->k;
    if (v->filter[0])
        a->filter[a->n_filters++] = (struct str){v->filter, strlen(v->filter)};
}

bool experiment_assign(const struct experiment_table *t, const char *unit, size_t n, const char *override,
                       struct experiment_assignment *a, struct err *err)
{
    memset(a, 0, sizeof(*a));
    a->n = t->n;
    for (size_t i = 0; i < t->n; i++) {
        a->variant[i] = EXPERIMENT_NO_OWNER;
        if (n == 0)
            continue;
        a->bucket[i] = (uint16_t)experiment_bucket(t->e[i].salt, unit, n);
        a->variant[i] = t->e[i].owner[a->bucket[i]];
    }
    if (override && !apply_override(t, override, a, err))
        return false;
    for (size_t i = 0; i < t->n; i++)
        if (a->variant[i] != EXPERIMENT_NO_OWNER)
            apply_variant(&t->e[i].variant[a->variant[i]], a);
    return true;
}
