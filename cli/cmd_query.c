/* duet query: candidates out of a bundle without a daemon, by the code that serves requests; or out of a running one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/opts.h"
#include "cli/source.h"
#include "core/base/mem.h"
#include "core/blas.h"
#include "core/bundle.h"

static const char usage[] = "duet query --bundle DIR | --url URL [--user ID] [options]";
static const char about[] = "DIR: a version's folder, or a model's folder for its newest. URL: a daemon's data "
                            "listener, as http://127.0.0.1:8080.\n"
                            "Without a known user, features or history, the most popular items.\n";

struct args {
    const char *bundle, *url, *user, *model;
    uint64_t k, ef;
    double target_recall;
    bool exact, exclude_seen, embed, json;
    struct client_tls tls;
    struct opt_list feature, history, category, exclude;
};

// ---------------------------------------------------------------------------------------------------- reading args

/* A value given twice is a multi-valued one. */
static bool add_feature(json_t *features, const char *text, struct err *err)
{
    const char *eq = strchr(text, '=');
    if (!eq)
        return err_set(err, ERR_ARG, "--feature \"%s\": want NAME=VALUE", text);
    char *name = mem_dup(text, (size_t)(eq - text), err);
    if (!name)
        return false;
    json_t *had = json_object_get(features, name);
    if (json_is_array(had))
        json_array_append_new(had, json_string(eq + 1));
    else if (had)
        json_object_set_new(features, name, json_pack("[O, s]", had, eq + 1));
    else
        json_object_set_new(features, name, json_string(eq + 1));
    free(name);
    return true;
}

/* A name that the bundle does not have is an error here, where somebody typed it; only the daemon knows its own. */
static bool add_name(json_t *list, const struct strtab_index *x, const char *option, const char *p, size_t n,
                     struct err *err)
{
    if (x && strtab_find(x, p, n) == STRTAB_NONE)
        return err_set(err, ERR_NOT_FOUND, "--%s: the bundle has no \"%.*s\"", option, (int)(n < 200 ? n : 200), p);
    return json_array_append_new(list, json_stringn(p, n)) == 0 || err_set(err, ERR_ARG, "--%s: not UTF-8", option);
}

/* Each value whole if there is such a name, else cut at its commas. NULL: `err` is set. */
static json_t *read_names(const struct strtab_index *x, const char *option, const struct opt_list *given,
                          struct err *err)
{
    json_t *list = json_array();
    bool ok = true;
    for (size_t i = 0; ok && i < given->n; i++) {
        const char *p = given->v[i];
        if (x && strtab_find(x, p, strlen(p)) != STRTAB_NONE) {
            ok = add_name(list, x, option, p, strlen(p), err);
            continue;
        }
        for (size_t n; ok && *p; p += n + (p[n] == ',')) {
            n = strcspn(p, ",");
            ok = add_name(list, x, option, p, n, err);
        }
    }
    if (ok)
        return list;
    json_decref(list);
    return NULL;
}

static bool put_names(json_t *request, const char *key, const struct strtab_index *x, const char *option,
                      const struct opt_list *given, struct err *err)
{
    json_t *list = given->n ? read_names(x, option, given, err) : NULL;
    if (!given->n)
        return true;
    if (!list)
        return false;
    if (strcmp(key, "filter") == 0)
        list = json_pack("{s:s, s:o}", "field", "category", "in", list);
    return json_object_set_new(request, key, list) == 0;
}

static void put_scalars(json_t *request, const struct args *a)
{
    json_object_set_new(request, "k", json_integer((json_int_t)a->k));
    if (a->ef)
        json_object_set_new(request, "ef", json_integer((json_int_t)a->ef));
    if (a->target_recall > 0)
        json_object_set_new(request, "target_recall", json_real(a->target_recall));
    if (a->exact)
        json_object_set_new(request, "exact", json_true());
    if (a->exclude_seen)
        json_object_set_new(request, "exclude_seen", json_true());
}

static bool read_request(const struct args *a, const struct bundle *b, json_t *request, struct err *err)
{
    const struct strtab_index *ids = b ? &b->items->by_id : NULL, *categories = b ? &b->items->category_index : NULL;
    json_t *features = json_object();
    bool ok = true;
    if (a->user)
        ok = json_object_set_new(request, "user_id", json_string(a->user)) == 0 ||
             err_set(err, ERR_ARG, "--user: not UTF-8");
    if (a->model)
        json_object_set_new(request, "model", json_string(a->model));
    for (size_t i = 0; ok && i < a->feature.n; i++)
        ok = add_feature(features, a->feature.v[i], err);
    if (json_object_size(features))
        json_object_set(request, "features", features);
    json_decref(features);
    ok = ok && put_names(request, "history", ids, "history", &a->history, err);
    if (a->embed || !ok)
        return ok;
    put_scalars(request, a);
    return put_names(request, "exclude_ids", ids, "exclude", &a->exclude, err) &&
           put_names(request, "filter", categories, "category", &a->category, err);
}

// ---------------------------------------------------------------------------------------------------------- answer

static int print_json(const json_t *o)
{
    return json_dumpf(o, stdout, JSON_REAL_PRECISION(9)) == 0 && putchar('\n') != EOF && fflush(stdout) == 0 ? 0 : 1;
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* The attribute that people recognise an item by; `category` has a column of its own. */
static const char *title_of(const json_t *attributes)
{
    const char *name;
    json_t *v;
    if (json_object_get(attributes, "title"))
        return text_of(attributes, "title");
    if (json_object_get(attributes, "name"))
        return text_of(attributes, "name");
    json_object_foreach((json_t *)(uintptr_t)attributes, name,
                        v) if (strcmp(name, "category") != 0) return json_string_value(v)
        ? json_string_value(v)
        : "";
    return "";
}

static void print_head(const json_t *o, double us)
{
    const char *fallback = json_string_value(json_object_get(o, "fallback"));
    json_int_t ef = json_integer_value(json_object_get(o, "ef"));
    json_t *name;
    char how[64] = "graph search";
    size_t i;
    if (fallback && strcmp(fallback, "popular") == 0)
        snprintf(how, sizeof(how), "by popularity");
    else if (json_is_true(json_object_get(o, "exact")))
        snprintf(how, sizeof(how), "exact scan");
    else if (ef)
        snprintf(how, sizeof(how), "ef %lld", (long long)ef);
    printf("%s version %lld: %lld items for %s%s, %s, %.0f us\n", text_of(o, "model"),
           (long long)json_integer_value(json_object_get(o, "version")),
           (long long)json_integer_value(json_object_get(o, "returned")), fallback ? "fallback " : "a stored user",
           fallback ? fallback : "", how, us);
    json_array_foreach(json_object_get(o, "unknown_features"), i, name)
        printf("unknown value of feature %s: its out-of-vocabulary row was used\n", json_string_value(name));
}

static int print_items(const json_t *o, double us)
{
    json_t *item;
    size_t i;
    print_head(o, us);
    json_array_foreach(json_object_get(o, "items"), i, item)
    {
        const json_t *attributes = json_object_get(item, "attributes");
        printf("%5zu  %11.7g  %-12s  %-14s  %s\n", i + 1, json_number_value(json_object_get(item, "score")),
               text_of(item, "id"), text_of(attributes, "category"), title_of(attributes));
    }
    return 0;
}

static int answer(struct source *s, const struct args *a, json_t *request, struct err *err)
{
    double us = 0;
    json_t *o = NULL;
    int rc = 1;
    if (a->embed)
        o = source_embed(s, request, err);
    else if (source_want_attributes(s, request, err))
        o = source_ask(s, request, &us, err);
    if (o)
        rc = a->embed || a->json ? print_json(o) : print_items(o, us);
    json_decref(o);
    return rc;
}

static int run(const struct args *a)
{
    struct err err = {0};
    json_t *request = json_object();
    struct source *s = source_open(a->url ? a->url : a->bundle, &a->tls, &err);
    int rc = 1;
    if (s && read_request(a, source_bundle(s), request, &err))
        rc = answer(s, a, request, &err);
    if (rc)
        cmd_fail("query", &err);
    source_free(s);
    json_decref(request);
    return rc;
}

int cmd_query(int argc, char **argv)
{
    struct args a = {.k = 10};
    const struct opt opts[] = {
        {"bundle", OPT_STR, &a.bundle, "DIR", "folder of the bundle", 0, 0},
        {"url", OPT_STR, &a.url, "URL", "ask a running daemon instead", 0, 0},
        CLIENT_TLS_OPTIONS(&a.tls),
        {"model", OPT_STR, &a.model, "NAME", "with --url: this model, whatever experiments say", 0, 0},
        {"user", OPT_STR, &a.user, "ID", "user", 0, 0},
        {"k", OPT_UINT, &a.k, "N", "how many items", 1, 10000},
        {"ef", OPT_UINT, &a.ef, "N", "breadth of the search; 0 = the bundle's own", 0, 1e6},
        {"target-recall", OPT_NUM, &a.target_recall, "R",
         "instead of --ef: the smallest that reaches this recall by the bundle's calibration, 0.5 to 1", 0.5, 1},
        {"exact", OPT_FLAG, &a.exact, NULL, "scan all items instead of walking the graph", 0, 0},
        {"exclude-seen", OPT_FLAG, &a.exclude_seen, NULL, "leave out what the user has seen", 0, 0},
        {"feature", OPT_LIST, &a.feature, "NAME=VALUE", "feature of the user, instead of the stored one", 0, 0},
        {"history", OPT_LIST, &a.history, "ID,ID", "items of an unknown user", 0, 0},
        {"category", OPT_LIST, &a.category, "A,B", "only items of these categories", 0, 0},
        {"exclude", OPT_LIST, &a.exclude, "ID,ID", "leave out these items", 0, 0},
        {"embed", OPT_FLAG, &a.embed, NULL, "print p_u and a_u (JSON) instead of items", 0, 0},
        {"json", OPT_FLAG, &a.json, NULL, "print JSON", 0, 0},
        {0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    if (!a.bundle == !a.url) {
        fprintf(stderr, "duet query: --bundle or --url is needed, one of them\nusage: %s\n", usage);
        return 2;
    }
    if (a.ef && a.target_recall > 0) {
        fprintf(stderr, "duet query: --ef or --target-recall, not both\nusage: %s\n", usage);
        return 2;
    }
    blas_set_threads(1);
    return run(&a);
}
