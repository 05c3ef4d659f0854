/* labels.c - several versions of one model, and labels: the entries of config.h that are names of other entries. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/keys.h"
#include "config/lists.h"

#define NAME_BYTES 64
#define LABELS_MAX 128

// ------------------------------------------------------------------------------------------------------- versions

static bool set_name(struct config_model *m, const char *base, uint64_t version, struct err *err)
{
    char name[NAME_BYTES + 24];
    int n = snprintf(name, sizeof(name), "%.64s@%llu", base, (unsigned long long)version);
    if (n > NAME_BYTES)
        return err_set(err, ERR_ARG, "model \"%s\" of several versions: \"%s\" has %d bytes, want at most %d", base, name, n, NAME_BYTES);
    m->version = version;
    m->name = mem_dup(name, (size_t)n, err);
    return m->name != NULL;
}

bool lists_expand_versions(struct config *c, size_t i, const uint64_t *v, size_t n, size_t most, struct err *err)
{
    char *base = c->model[i].name;
    bool ok = n > 0;
    if (c->n_models + n - 1 > most)
        return err_set(err, ERR_ARG, "models: %zu with all of their versions, at most %zu allowed", c->n_models + n - 1, most);
    for (size_t x = 1; ok && x < n; x++) {
        struct config_model *m = &c->model[c->n_models++];
        *m = (struct config_model){.line = c->model[i].line, .target_recall = c->model[i].target_recall};
        ok = set_name(m, base, v[x], err) && (m->path = mem_dup(c->model[i].path, strlen(c->model[i].path), err)) &&
             (!c->model[i].index_layout || (m->index_layout = mem_dup(c->model[i].index_layout, strlen(c->model[i].index_layout), err)));
    }
    c->model[i].name = NULL;
    ok = ok && set_name(&c->model[i], base, v[0], err);
    free(base);
    return ok;
}

// ------------------------------------------------------------------------------------------------------- labels

/* A model's name, or one and a word or a version behind an '@'. */
bool lists_read_model_name(const struct ynode *v, const char *name, char **out, struct err *err)
{
    const char *s = ynode_str(v, name, err), *at = s ? strchr(s, '@') : NULL;
    size_t n = s ? strlen(s) : 0;
    if (!s)
        return false;
    if (n == 0 || n > NAME_BYTES || s[0] == '.' || s[0] == '@' || (at && (!at[1] || strchr(at + 1, '@'))) ||
        strspn(s, "@ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != n)
        return ynode_error(v, name, err, "found \"%.80s\", want a model's name, or name@label, of at most %d bytes", s, NAME_BYTES);
    *out = mem_dup(s, n, err);
    return *out != NULL;
}

bool lists_read_labels(struct config *c, const struct ynode *map, const char *name, struct err *err)
{
    if (map->kind == YNODE_SCALAR && !map->text[0] && !map->quoted)
        return true;
    if (map->kind != YNODE_MAP || map->n > LABELS_MAX)
        return ynode_error(map, name, err, "labels: want a mapping of at most %d labels to models", LABELS_MAX);
    if (!(c->label = mem_array(map->n ? map->n : 1, sizeof(*c->label), err)))
        return false;
    for (size_t i = 0; i < map->n; i++) {
        struct config_label *l = &c->label[c->n_labels++];
        l->line = map->key[i].line;
        if (!lists_read_model_name(&map->key[i], name, &l->name, err) || !lists_read_model_name(&map->child[i], name, &l->model, err))
            return false;
    }
    return true;
}

static bool is_model(const struct config *c, const char *model)
{
    for (size_t i = 0; i < c->n_models; i++)
        if (strcmp(c->model[i].name, model) == 0)
            return true;
    return false;
}

/* The name of a model of which several versions are served. */
static bool is_base(const struct config *c, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < c->n_models; i++)
        if (strncmp(c->model[i].name, name, n) == 0 && c->model[i].name[n] == '@')
            return true;
    return false;
}

bool lists_known_model(const struct config *c, const char *model)
{
    for (size_t i = 0; i < c->n_labels; i++)
        if (strcmp(c->label[i].name, model) == 0)
            return true;
    return is_model(c, model) || is_base(c, model);
}

bool lists_check_labels(const struct config *c, const char *name, struct err *err)
{
    for (size_t i = 0; i < c->n_labels; i++) {
        const struct config_label *l = &c->label[i];
        for (size_t j = 0; j < i; j++)
            if (strcmp(l->name, c->label[j].name) == 0)
                return err_set(err, ERR_ARG, "%s:%d: label \"%s\" stands here for the second time", name, l->line, l->name);
        if (is_model(c, l->name))
            return err_set(err, ERR_ARG, "%s:%d: label \"%s\" is the name of a model", name, l->line, l->name);
        if (!is_model(c, l->model))
            return err_set(err, ERR_ARG, "%s:%d: label \"%s\": model \"%s\" is not in models", name, l->line, l->name, l->model);
    }
    return true;
}

void lists_free_labels(struct config *c)
{
    for (size_t i = 0; i < c->n_labels; i++) {
        free(c->label[i].name);
        free(c->label[i].model);
    }
    free(c->label);
}
