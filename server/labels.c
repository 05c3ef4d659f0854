#include "server/labels.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

struct label {
    char name[LABEL_NAME_MAX + 1], model[LABEL_NAME_MAX + 1];
    bool implied; // by labels_complete
};

struct labels {
    atomic_uint refs;
    size_t n;
    struct label label[LABELS_MAX];
};

static struct labels *labels_new(struct err *err)
{
    struct labels *l = mem_array(1, sizeof(*l), err);
    if (l)
        atomic_init(&l->refs, 1);
    return l;
}

struct labels *labels_ref(struct labels *l)
{
    if (l)
        atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
    return l;
}

void labels_unref(struct labels *l)
{
    if (l && atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) == 1)
        free(l);
}

/* As a model's, or one and a word behind an '@': what the configuration takes too. */
static bool is_name(const char *s, size_t n)
{
    size_t ats = 0;
    for (size_t i = 0; i < n; i++) {
        bool plain = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') || (s[i] >= '0' && s[i] <= '9') || (s[i] && strchr("._-", s[i]));
        ats += s[i] == '@';
        if (!plain && s[i] != '@')
            return false;
    }
    return n > 0 && n <= LABEL_NAME_MAX && ats <= 1 && s[0] != '.' && s[0] != '@' && s[n - 1] != '@';
}

static bool add(struct labels *l, const char *name, size_t name_n, const char *model, struct err *err)
{
    size_t n = strlen(model);
    if (l->n == LABELS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d labels", LABELS_MAX);
    if (!is_name(name, name_n) || !is_name(model, n))
        return err_set(err, ERR_ARG, "label \"%.*s\": \"%.80s\": want a model's name, or name@label, of at most %d bytes",
                       (int)(name_n < 80 ? name_n : 80), name, model, LABEL_NAME_MAX);
    struct label *to = &l->label[l->n++];
    memcpy(to->name, name, name_n);
    memcpy(to->model, model, n);
    return true;
}

static const struct label *find(const struct labels *l, const char *name, size_t n)
{
    for (size_t i = 0; l && i < l->n; i++)
        if (strlen(l->label[i].name) == n && memcmp(l->label[i].name, name, n) == 0)
            return &l->label[i];
    return NULL;
}

struct labels *labels_from_config(const struct config_label *c, size_t n, struct err *err)
{
    struct labels *l = labels_new(err);
    bool ok = l != NULL;
    for (size_t i = 0; ok && i < n; i++)
        ok = add(l, c[i].name, strlen(c[i].name), c[i].model, err);
    if (ok)
        return l;
    labels_unref(l);
    return NULL;
}

struct labels *labels_from_json(const json_t *o, struct err *err)
{
    const char *name;
    json_t *model;
    struct labels *l = labels_new(err);
    bool ok = l && (json_is_object(o) || err_set(err, ERR_ARG, "found no object; want labels, each with the name of a model"));
    json_object_foreach((json_t *)o, name, model)
    {
        if (ok && !json_is_string(model))
            ok = err_set(err, ERR_ARG, "label \"%.80s\": want the name of a model", name);
        ok = ok && add(l, name, strlen(name), json_string_value(model), err);
    }
    if (ok)
        return l;
    labels_unref(l);
    return NULL;
}

static json_t *to_json(const struct labels *l, bool implied)
{
    json_t *o = json_object();
    for (size_t i = 0; l && i < l->n; i++)
        if (l->label[i].implied == implied)
            json_object_set_new(o, l->label[i].name, json_string(l->label[i].model));
    return o;
}

json_t *labels_to_json(const struct labels *l)
{
    return to_json(l, false);
}

json_t *labels_implied_json(const struct labels *l)
{
    return to_json(l, true);
}

/* Every label of `a` that was given is in `b`, and was given there; *n counts them. */
static bool within(const struct labels *a, const struct labels *b, size_t *n)
{
    for (size_t i = 0; a && i < a->n; i++) {
        const struct label *l = &a->label[i], *other = l->implied ? NULL : find(b, l->name, strlen(l->name));
        if (!l->implied && (!other || other->implied || strcmp(other->model, l->model) != 0))
            return false;
        *n += !l->implied;
    }
    return true;
}

bool labels_same(const struct labels *a, const struct labels *b)
{
    size_t na = 0, nb = 0;
    return within(a, b, &na) && within(b, a, &nb) && na == nb;
}

const char *labels_find(const struct labels *l, const char *name, size_t n)
{
    const struct label *found = find(l, name, n);
    return found ? found->model : NULL;
}

static bool is_one_of(const char *name, const char *const *models, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(models[i], name) == 0)
            return true;
    return false;
}

bool labels_check(const struct labels *l, const char *const *models, size_t n, struct err *err)
{
    for (size_t i = 0; l && i < l->n; i++) {
        if (is_one_of(l->label[i].name, models, n))
            return err_set(err, ERR_ARG, "label \"%s\" is the name of a model", l->label[i].name);
        if (!is_one_of(l->label[i].model, models, n))
            return err_set(err, ERR_ARG, "label \"%s\": no model \"%s\" is configured", l->label[i].name, l->label[i].model);
    }
    return true;
}

/* The last of a model's versions: no later model has the same bare name. */
static bool is_last(const char *const *models, size_t n, size_t i, size_t base)
{
    for (size_t j = i + 1; j < n; j++)
        if (strncmp(models[j], models[i], base + 1) == 0)
            return false;
    return true;
}

struct labels *labels_complete(const struct labels *l, const char *const *models, size_t n, struct err *err)
{
    struct labels *all = labels_new(err);
    bool ok = all != NULL;
    for (size_t i = 0; ok && l && i < l->n; i++)
        ok = add(all, l->label[i].name, strlen(l->label[i].name), l->label[i].model, err);
    for (size_t i = 0; ok && i < n; i++) {
        size_t base = strcspn(models[i], "@");
        if (!models[i][base] || !is_last(models, n, i, base) || labels_find(all, models[i], base))
            continue;
        ok = add(all, models[i], base, models[i], err);
        all->label[all->n - 1].implied = ok;
    }
    if (ok)
        return all;
    labels_unref(all);
    return NULL;
}

size_t labels_and_models(const struct labels *l, const char *const *models, size_t n, const char **out)
{
    size_t found = 0;
    for (size_t i = 0; l && i < l->n; i++)
        out[found++] = l->label[i].name;
    for (size_t i = 0; i < n; i++)
        out[found++] = models[i];
    return found;
}
