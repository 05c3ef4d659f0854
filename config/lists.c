#include "config/lists.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "config/keys.h"

#define NAME_BYTES 64
#define MODELS_MAX 64 // as many as one generation holds
#define EXPERIMENTS_MAX 64
#define VARIANTS_MAX 64

// ------------------------------------------------------------------------------------------------------- entries

/* One member of a list's entry: where it goes, and how it is read. */
struct member {
    const char *name;
    enum { M_NAME, M_TEXT, M_UINT, M_VERSION, M_VERSIONS, M_MODEL, M_WEIGHT, M_LAYOUT, M_RECALL, M_VARIANTS, M_LIMIT, M_GUARDRAILS, M_JSON, M_BOOL } kind;
    void *out;
    bool needed;
};

static bool read_variants(struct config_experiment *e, const struct ynode *list, const char *name, struct err *err);

static bool read_guardrails(struct config_guardrails *g, const struct ynode *map, const char *name, struct err *err);

static bool read_text(const struct ynode *v, const char *name, char **out, struct err *err)
{
    const char *s = ynode_str(v, name, err);
    if (!s)
        return false;
    if (!s[0])
        return ynode_error(v, name, err, "found nothing, want a value");
    *out = mem_dup(s, strlen(s), err);
    return *out != NULL;
}

static bool read_name(const struct ynode *v, const char *name, char **out, struct err *err)
{
    if (!read_text(v, name, out, err))
        return false;
    size_t n = strlen(*out);
    if (n <= NAME_BYTES && strspn(*out, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n &&
        (*out)[0] != '.')
        return true;
    const char *at = strchr(*out, '@');
    if (at && at > *out)
        return ynode_error(v, name, err, "found \"%.80s\": names with an '@' are made by `versions` and `labels`; want the name \"%.*s\"", *out,
                           (int)(at - *out), *out);
    return ynode_error(
        v, name, err, "found \"%.80s\", want a name of 1 to 64 letters, digits, '.', '_' or '-', not starting with '.'",
        *out);
}

static bool read_version(const struct ynode *v, const char *name, uint64_t *out, struct err *err)
{
    const char *s = ynode_str(v, name, err);
    if (!s)
        return false;
    *out = 0;
    if (strcmp(s, "latest") == 0)
        return true;
    return (ynode_uint(v, name, out, NULL) && *out > 0) ||
           ynode_error(v, name, err, "found \"%.60s\", want latest or a version from 1", s);
}

/* Of a model that is served in several versions. */
struct versions {
    uint64_t v[MODELS_MAX];
    size_t n;
};

static bool read_versions(const struct ynode *list, const char *name, struct versions *out, struct err *err)
{
    if (list->kind != YNODE_SEQ || list->n == 0 || list->n > MODELS_MAX)
        return ynode_error(list, name, err, "versions: want a list of 1 to %d versions", MODELS_MAX);
    for (size_t i = 0; i < list->n; i++) {
        uint64_t v;
        if (!ynode_uint(&list->child[i], name, &v, NULL) || v == 0)
            return ynode_error(&list->child[i], name, err, "found \"%.60s\", want a version from 1", list->child[i].text);
        for (size_t j = 0; j < i; j++)
            if (out->v[j] == v)
                return ynode_error(&list->child[i], name, err, "version %llu stands here for the second time", (unsigned long long)v);
        out->v[out->n++] = v;
    }
    return true;
}

static bool read_weight(const struct ynode *v, const char *name, double *out, struct err *err)
{
    if (!ynode_double(v, name, out, err))
        return false;
    return (*out >= 0 && *out <= 100) || ynode_error(v, name, err, "found %g, want a percentage from 0 to 100", *out);
}

static bool read_layout(const struct ynode *v, const char *name, char **out, struct err *err)
{
    const char *s = ynode_str(v, name, err);
    if (!s)
        return false;
    if (strcmp(s, "auto") != 0 && strcmp(s, "plain") != 0 && strcmp(s, "fast") != 0 && strcmp(s, "compact") != 0)
        return ynode_error(v, name, err, "found \"%.60s\", want auto, plain, fast or compact", s);
    *out = mem_dup(s, strlen(s), err);
    return *out != NULL;
}

static bool read_recall(const struct ynode *v, const char *name, double *out, struct err *err)
{
    if (!ynode_double(v, name, out, err))
        return false;
    return (*out >= 0.5 && *out <= 1) || ynode_error(v, name, err, "found %g, want a recall from 0.5 to 1", *out);
}

static bool read_limit(const struct ynode *v, const char *name, double *out, struct err *err)
{
    if (!ynode_double(v, name, out, err))
        return false;
    return *out > 0 || ynode_error(v, name, err, "found %g, want a positive number", *out);
}

/* As JSON, which is a way to write YAML too: what is not quoted and reads as a number is one. */
static void put_json(const struct ynode *v, struct buf *out)
{
    double number;
    if (v->kind == YNODE_SCALAR) {
        if (!v->quoted && ynode_double(v, "", &number, NULL))
            buf_printf(out, "%.17g", number);
        else
            key_quote(out, v->text);
        return;
    }
    buf_puts(out, v->kind == YNODE_MAP ? "{" : "[");
    for (size_t i = 0; i < v->n; i++) {
        buf_puts(out, i ? ", " : "");
        if (v->kind == YNODE_MAP) {
            key_quote(out, v->key[i].text);
            buf_puts(out, ": ");
        }
        put_json(&v->child[i], out);
    }
    buf_puts(out, v->kind == YNODE_MAP ? "}" : "]");
}

static bool read_json(const struct ynode *v, const char *name, char **out, struct err *err)
{
    struct buf text = {0};
    if (v->kind != YNODE_MAP)
        return ynode_error(v, name, err, "want a mapping of keys, as the JSON of a request");
    put_json(v, &text);
    *out = text.data; // given away, or NULL
    return !text.failed || err_set(err, ERR_NOMEM, "out of memory");
}

static bool read_member(const struct member *m, const struct ynode *v, const char *name, struct err *err)
{
    switch (m->kind) {
    case M_NAME:
        return read_name(v, name, m->out, err);
    case M_TEXT:
        return read_text(v, name, m->out, err);
    case M_UINT:
        return ynode_uint(v, name, m->out, err);
    case M_VERSION:
        return read_version(v, name, m->out, err);
    case M_MODEL:
        return lists_read_model_name(v, name, m->out, err);
    case M_VERSIONS:
        return read_versions(v, name, m->out, err);
    case M_WEIGHT:
        return read_weight(v, name, m->out, err);
    case M_LAYOUT:
        return read_layout(v, name, m->out, err);
    case M_RECALL:
        return read_recall(v, name, m->out, err);
    case M_BOOL:
        return ynode_bool(v, name, m->out, err);
    case M_JSON:
        return read_json(v, name, m->out, err);
    case M_LIMIT:
        return read_limit(v, name, m->out, err);
    case M_GUARDRAILS:
        return read_guardrails(m->out, v, name, err);
    case M_VARIANTS:
        return read_variants(m->out, v, name, err);
    }
    return false;
}

static const struct member *find_member(const struct member *m, const char *key)
{
    for (; m->name; m++)
        if (strcmp(m->name, key) == 0)
            return m;
    return NULL;
}

static bool unknown_member(const struct member *m, const struct ynode *key, const char *name, const char *what,
                           struct err *err)
{
    const char *known[12];
    size_t n = 0;
    for (; m->name && n < 12; m++)
        known[n++] = m->name;
    const char *near = ynode_nearest(key->text, known, n);
    return ynode_error(key, name, err, "unknown key %s of %s%s%s%s", key->text, what, near ? "; did you mean " : "",
                       near ? near : "", near ? "?" : "");
}

static bool read_entry(const struct ynode *map, const struct member *members, const char *name, const char *what,
                       struct err *err)
{
    if (map->kind != YNODE_MAP)
        return ynode_error(map, name, err, "want %s as a mapping of keys", what);
    for (size_t i = 0; i < map->n; i++) {
        const struct member *m = find_member(members, map->key[i].text);
        if (!m)
            return unknown_member(members, &map->key[i], name, what, err);
        if (!read_member(m, &map->child[i], name, err))
            return false;
    }
    for (const struct member *m = members; m->name; m++)
        if (m->needed && !ynode_get(map, m->name))
            return ynode_error(map, name, err, "%s without %s", what, m->name);
    return true;
}

/* An array with room for the list's entries. An empty value is an empty list. */
static bool open_list(const struct ynode *list, const char *name, const char *what, size_t most, size_t size, void *out,
                      struct err *err)
{
    bool nothing = list->kind == YNODE_SCALAR && !list->text[0] && !list->quoted;
    if (list->kind != YNODE_SEQ && !nothing)
        return ynode_error(list, name, err, "%s: want a list", what);
    if (list->n > most)
        return ynode_error(list, name, err, "%s: %zu entries, at most %zu allowed", what, list->n, most);
    return (*(void **)out = mem_array(list->n, size, err)) != NULL;
}

// ---------------------------------------------------------------------------------------------------------- lists

bool lists_read_models(struct config *c, const struct ynode *list, const char *name, struct err *err)
{
    if (!open_list(list, name, "models", MODELS_MAX, sizeof(c->model[0]), &c->model, err))
        return false;
    free(c->model); // its versions may make more of a model than the list has entries
    if (!(c->model = mem_array(MODELS_MAX, sizeof(c->model[0]), err)))
        return false;
    for (size_t i = 0; i < list->n; i++) {
        size_t at = c->n_models++;
        struct config_model *m = &c->model[at];
        struct versions several = {.n = 0};
        const struct member members[] = {{"name", M_NAME, &m->name, true},
                                         {"path", M_TEXT, &m->path, true},
                                         {"version", M_VERSION, &m->version, false},
                                         {"versions", M_VERSIONS, &several, false},
                                         {"index_layout", M_LAYOUT, &m->index_layout, false},
                                         {"target_recall", M_RECALL, &m->target_recall, false},
                                         {NULL, M_TEXT, NULL, false}};
        m->line = list->child[i].line;
        if (!read_entry(&list->child[i], members, name, "a model", err))
            return false;
        if (several.n && ynode_get(&list->child[i], "version"))
            return ynode_error(&list->child[i], name, err, "a model with both version and versions; want one of them");
        if (several.n && !lists_expand_versions(c, at, several.v, several.n, MODELS_MAX, err))
            return err_prefix(err, "%s:%d", name, m->line);
        if (c->n_models == MODELS_MAX && i + 1 < list->n)
            return ynode_error(&list->child[i + 1], name, err, "models: more than %d with all of their versions", MODELS_MAX);
    }
    return true;
}

static bool read_variants(struct config_experiment *e, const struct ynode *list, const char *name, struct err *err)
{
    if (!open_list(list, name, "variants", VARIANTS_MAX, sizeof(e->variant[0]), &e->variant, err))
        return false;
    for (size_t i = 0; i < list->n; i++) {
        struct config_variant *v = &e->variant[e->n_variants++];
        const struct member members[] = {{"name", M_NAME, &v->name, true},
                                         {"model", M_MODEL, &v->model, false},
                                         {"weight", M_WEIGHT, &v->weight, true},
                                         {"ef", M_UINT, &v->ef, false},
                                         {"k", M_UINT, &v->k, false},
                                         {"filter", M_JSON, &v->filter, false},
                                         {"shadow", M_BOOL, &v->shadow, false},
                                         {"share", M_WEIGHT, &v->share, false},
                                         {NULL, M_TEXT, NULL, false}};
        v->line = list->child[i].line;
        if (!read_entry(&list->child[i], members, name, "a variant", err))
            return false;
    }
    return true;
}

static bool read_guardrails(struct config_guardrails *g, const struct ynode *map, const char *name, struct err *err)
{
    const struct member members[] = {{"error_share", M_LIMIT, &g->error_share, false},
                                     {"p99_ms", M_LIMIT, &g->p99_ms, false},
                                     {"empty_share", M_LIMIT, &g->empty_share, false},
                                     {"window_s", M_UINT, &g->window_s, false},
                                     {"min_requests", M_UINT, &g->min_requests, false},
                                     {NULL, M_TEXT, NULL, false}};
    g->given = true;
    if (!read_entry(map, members, name, "guardrails", err))
        return false;
    return (g->window_s <= 86400 && g->min_requests <= UINT32_MAX) ||
           ynode_error(map, name, err, "window_s %llu, min_requests %llu: at most 86400 and 4294967295 are allowed",
                       (unsigned long long)g->window_s, (unsigned long long)g->min_requests);
}

bool lists_read_experiments(struct config *c, const struct ynode *list, const char *name, struct err *err)
{
    if (!open_list(list, name, "experiments", EXPERIMENTS_MAX, sizeof(c->experiment[0]), &c->experiment, err))
        return false;
    for (size_t i = 0; i < list->n; i++) {
        struct config_experiment *e = &c->experiment[c->n_experiments++];
        const struct member members[] = {{"name", M_NAME, &e->name, true},
                                         {"salt", M_TEXT, &e->salt, true},
                                         {"unit", M_TEXT, &e->unit, false},
                                         {"variants", M_VARIANTS, e, true},
                                         {"guardrails", M_GUARDRAILS, &e->guardrails, false},
                                         {NULL, M_TEXT, NULL, false}};
        e->line = list->child[i].line;
        if (!read_entry(&list->child[i], members, name, "an experiment", err))
            return false;
        if (!e->unit && !(e->unit = mem_dup("user_id", 7, err)))
            return false;
    }
    return true;
}

// --------------------------------------------------------------------------------------------------------- checks

static bool at(struct err *err, const char *name, int line, const char *what, const char *found, const char *want)
{
    return err_set(err, ERR_ARG, "%s:%d: %s \"%s\" %s", name, line, what, found, want);
}

static bool check_experiment(const struct config *c, const struct config_experiment *e, const char *name,
                             struct err *err)
{
    double sum = 0;
    if (strcmp(e->unit, "user_id") != 0)
        return at(err, name, e->line, "unit", e->unit, "is not known; want user_id");
    for (size_t i = 0; i < e->n_variants; i++) {
        const struct config_variant *v = &e->variant[i];
        for (size_t j = 0; j < i; j++)
            if (strcmp(v->name, e->variant[j].name) == 0)
                return at(err, name, v->line, "variant", v->name, "stands here for the second time");
        if (v->model && !lists_known_model(c, v->model))
            return at(err, name, v->line, "model", v->model, "of a variant is not in models, nor a label");
        sum += v->weight;
    }
    if (fabs(sum - 100) > 1e-6)
        return err_set(err, ERR_ARG, "%s:%d: the weights of experiment \"%s\" sum to %g, want 100", name, e->line,
                       e->name, sum);
    return true;
}

static bool check_pair(const struct config_model *a, const struct config_model *b, const char *name, struct err *err)
{
    size_t n = strcspn(a->name, "@");
    if (strcmp(a->name, b->name) == 0)
        return at(err, name, a->line, "model", a->name, "stands here for the second time");
    if (n != strcspn(b->name, "@") || memcmp(a->name, b->name, n) != 0)
        return true;
    bool versions = a->name[n] && b->name[n];
    return (versions && strcmp(a->path, b->path) == 0) ||
           err_set(err, ERR_ARG, "%s:%d: model \"%.*s\" stands on line %d %s; requests for \"%.*s\" could mean either: want one entry "
                   "with all `versions`, or another name", name, a->line, (int)n, a->name, b->line,
                   versions ? "with `versions` of another path" : "too, one of the two with `versions`", (int)n, a->name);
}

bool lists_check(const struct config *c, const char *name, struct err *err)
{
    for (size_t i = 0; i < c->n_models; i++)
        for (size_t j = 0; j < i; j++)
            if (!check_pair(&c->model[i], &c->model[j], name, err))
                return false;
    if (!lists_check_labels(c, name, err))
        return false;
    for (size_t i = 0; i < c->n_experiments; i++) {
        for (size_t j = 0; j < i; j++)
            if (strcmp(c->experiment[i].name, c->experiment[j].name) == 0)
                return at(err, name, c->experiment[i].line, "experiment", c->experiment[i].name,
                          "stands here for the second time");
        if (!check_experiment(c, &c->experiment[i], name, err))
            return false;
    }
    return true;
}

// ---------------------------------------------------------------------------------------------------- -- free

void lists_free(struct config *c)
{
    for (size_t i = 0; i < c->n_models; i++) {
        free(c->model[i].name);
        free(c->model[i].path);
        free(c->model[i].index_layout);
    }
    free(c->model);
    lists_free_labels(c);
    for (size_t i = 0; i < c->n_experiments; i++) {
        struct config_experiment *e = &c->experiment[i];
        for (size_t j = 0; j < e->n_variants; j++) {
            free(e->variant[j].name);
            free(e->variant[j].model);
            free(e->variant[j].filter);
        }
        free(e->variant);
        free(e->name);
        free(e->salt);
        free(e->unit);
    }
    free(c->experiment);
}
