/* duet query: candidates out of a bundle without a daemon, by the code that serves requests. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bundle_path.h"
#include "cli/cmd.h"
#include "cli/opts.h"
#include "core/base/json.h"
#include "core/base/mem.h"
#include "core/blas.h"
#include "core/retrieve.h"

static const char usage[] = "duet query --bundle DIR [--user ID] [options]";
static const char about[] =
    "DIR: a version's folder, or a model's folder for its newest. Without a known user, features or history, the most "
    "popular items.\n";

#define LIST_MAX 1000

struct args {
    const char *bundle, *user;
    uint64_t k, ef;
    bool exact, exclude_seen, embed, json;
    struct opt_list feature, history, category, exclude;
};

/* A query and what it points into. */
struct query {
    struct retrieve_query q;
    struct retrieve_feature feature[OPT_LIST_MAX];
    uint32_t history[LIST_MAX], category[LIST_MAX], exclude[LIST_MAX];
};

// ---------------------------------------------------------------------------------------------------- reading args

static bool read_features(const struct opt_list *list, struct query *q, struct err *err)
{
    for (size_t i = 0; i < list->n; i++) {
        const char *eq = strchr(list->v[i], '=');
        if (!eq)
            return err_set(err, ERR_ARG, "--feature \"%s\": want NAME=VALUE", list->v[i]);
        q->feature[i].name = (struct str){list->v[i], (size_t)(eq - list->v[i])};
        q->feature[i].value = (struct str){eq + 1, strlen(eq + 1)};
    }
    q->q.feature = q->feature;
    q->q.n_features = list->n;
    return true;
}

static bool find_one(const struct strtab_index *x, const char *option, const char *p, size_t n, uint32_t *out,
                     size_t *n_out, struct err *err)
{
    uint32_t row = strtab_find(x, p, n);
    if (row == STRTAB_NONE)
        return err_set(err, ERR_NOT_FOUND, "--%s: the bundle has no \"%.*s\"", option, (int)(n < 200 ? n : 200), p);
    if (*n_out == LIST_MAX)
        return err_set(err, ERR_LIMIT, "--%s: more than %d of them", option, LIST_MAX);
    out[(*n_out)++] = row;
    return true;
}

/* Each value whole if there is such a name, else cut at its commas. */
static bool read_names(const struct strtab_index *x, const char *option, const struct opt_list *list, uint32_t *out,
                       size_t *n_out, struct err *err)
{
    for (size_t i = 0; i < list->n; i++) {
        const char *p = list->v[i];
        if (strtab_find(x, p, strlen(p)) != STRTAB_NONE) {
            if (!find_one(x, option, p, strlen(p), out, n_out, err))
                return false;
            continue;
        }
        for (size_t n; *p; p += n + (p[n] == ',')) {
            n = strcspn(p, ",");
            if (!find_one(x, option, p, n, out, n_out, err))
                return false;
        }
    }
    return true;
}

static bool read_query(const struct args *a, const struct bundle *b, struct query *q, struct err *err)
{
    struct retrieve_query *r = &q->q;
    *r = (struct retrieve_query){.k = a->k,
                                 .ef = a->ef,
                                 .exact = a->exact,
                                 .exclude_seen = a->exclude_seen,
                                 .history = q->history,
                                 .category = q->category,
                                 .exclude = q->exclude};
    if (a->user)
        r->user_id = (struct str){a->user, strlen(a->user)};
    return read_features(&a->feature, q, err) &&
           read_names(&b->items->by_id, "history", &a->history, q->history, &r->n_history, err) &&
           read_names(&b->items->by_id, "exclude", &a->exclude, q->exclude, &r->n_exclude, err) &&
           read_names(&b->items->category_index, "category", &a->category, q->category, &r->n_category, err);
}

// ---------------------------------------------------------------------------------------------------------- answer

static json_t *text_json(struct str s)
{
    return json_stringn(s.p, s.n);
}

static json_t *head_json(const struct bundle *b, const struct retrieve_query *q, const struct retrieve_result *r)
{
    const char *fallback = retrieve_fallback_name(r->fallback);
    json_t *o = json_pack("{s:s, s:I, s:o}", "model", b->manifest.model, "version", (json_int_t)b->manifest.version,
                          "fallback", fallback ? json_string(fallback) : json_null());
    json_t *unknown = json_array();
    for (size_t i = 0; i < r->n_unknown; i++)
        json_array_append_new(unknown, text_json(q->feature[r->unknown_feature[i]].name));
    json_object_set_new(o, "unknown_features", unknown);
    return o;
}

static int print_json(json_t *o)
{
    int rc = json_dumpf(o, stdout, JSON_REAL_PRECISION(9)) == 0 && putchar('\n') != EOF && fflush(stdout) == 0 ? 0 : 1;
    json_decref(o);
    return rc;
}

static json_t *floats_json(const float *v, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, json_real((double)v[i]));
    return a;
}

static json_t *item_json(const struct items *it, struct retrieve_hit hit)
{
    char score[32];
    snprintf(score, sizeof(score), "%.7g", (double)hit.score);
    json_t *attributes = json_object();
    for (uint32_t i = 0; i < it->n_attrs; i++)
        json_object_set_new(attributes, it->attr[i].name, text_json(strtab_get(&it->attr[i].values, hit.item_idx)));
    return json_pack("{s:o, s:f, s:o}", "id", text_json(strtab_get(&it->ids, hit.item_idx)), "score",
                     strtod(score, NULL), "attributes", attributes);
}

static int print_items_json(const struct bundle *b, const struct retrieve_query *q, const struct retrieve_result *r,
                            const struct retrieve_hit *hit)
{
    json_t *o = head_json(b, q, r), *items = json_array();
    json_object_set_new(o, "k", json_integer((json_int_t)q->k));
    json_object_set_new(o, "ef", json_integer((json_int_t)r->ef_used));
    json_object_set_new(o, "exact", json_boolean(r->exact_used));
    json_object_set_new(o, "returned", json_integer((json_int_t)r->n));
    for (size_t i = 0; i < r->n; i++)
        json_array_append_new(items, item_json(b->items, hit[i]));
    json_object_set_new(o, "items", items);
    return print_json(o);
}

/* The attribute that people recognise an item by. */
static int title_column(const struct items *it)
{
    static const char *const names[] = {"title", "name"};
    for (size_t i = 0; i < 2; i++) {
        int column = items_attr(it, names[i], strlen(names[i]));
        if (column >= 0)
            return column;
    }
    return it->n_attrs ? 0 : -1;
}

static int print_items(const struct bundle *b, const struct retrieve_query *q, const struct retrieve_result *r,
                       const struct retrieve_hit *hit)
{
    const struct items *it = b->items;
    const char *fallback = retrieve_fallback_name(r->fallback);
    int title = title_column(it);
    char how[64];
    snprintf(how, sizeof(how), r->exact_used ? "exact scan" : "ef %zu", r->ef_used);
    printf("%s version %llu: %zu items for %s%s, %s, %.0f us\n", b->manifest.model,
           (unsigned long long)b->manifest.version, r->n, fallback ? "fallback " : "a known query",
           fallback ? fallback : "", r->fallback == FALLBACK_POPULAR ? "by popularity" : how,
           (double)(r->embed_ns + r->search_ns) / 1000);
    for (size_t i = 0; i < r->n_unknown; i++) {
        struct str name = q->feature[r->unknown_feature[i]].name;
        printf("unknown value of feature %.*s: its out-of-vocabulary row was used\n", (int)name.n, name.p);
    }
    for (size_t i = 0; i < r->n; i++) {
        struct str id = strtab_get(&it->ids, hit[i].item_idx),
                   category = strtab_get(&it->category, it->category_of[hit[i].item_idx]);
        struct str name = title < 0 ? (struct str){"", 0} : strtab_get(&it->attr[title].values, hit[i].item_idx);
        printf("%5zu  %11.7g  %-12.*s  %-14.*s  %.*s\n", i + 1, (double)hit[i].score, (int)id.n, id.p, (int)category.n,
               category.p, (int)name.n, name.p);
    }
    return 0;
}

static int answer_embed(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws, struct err *err)
{
    struct retrieve_result r;
    uint32_t d_aug = b->model->user.shape.d_aug;
    float *p = mem_array(b->manifest.d, sizeof(*p), err), *a = mem_array(d_aug, sizeof(*a), err);
    int rc = 1;
    if (p && a && retrieve_embed(b, q, ws, p, a, &r, err)) {
        bool none = r.fallback == FALLBACK_POPULAR;
        json_t *o = head_json(b, q, &r);
        json_object_set_new(o, "p_u", none ? json_null() : floats_json(p, b->manifest.d));
        json_object_set_new(o, "a_u", none || !d_aug ? json_null() : floats_json(a, d_aug));
        rc = print_json(o);
    }
    free(p);
    free(a);
    return rc;
}

static int answer_items(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws, bool json,
                        struct err *err)
{
    struct retrieve_result r;
    struct retrieve_hit *hit = mem_array(q->k, sizeof(*hit), err);
    int rc = 1;
    if (hit && retrieve_topk(b, q, ws, hit, &r, err))
        rc = (json ? print_items_json : print_items)(b, q, &r, hit);
    free(hit);
    return rc;
}

static int run(const struct args *a)
{
    struct err err = {0};
    char dir[PATH_MAX];
    struct query *q = mem_array(1, sizeof(*q), &err);
    struct bundle *b = q && bundle_path(a->bundle, dir, &err) ? bundle_load(dir, NULL, &err) : NULL;
    struct retrieve_ws *ws = b ? retrieve_ws_new(b, &err) : NULL;
    int rc = 1;
    if (ws && read_query(a, b, q, &err))
        rc = a->embed ? answer_embed(b, &q->q, ws, &err) : answer_items(b, &q->q, ws, a->json, &err);
    if (rc)
        cmd_fail("query", &err);
    retrieve_ws_free(ws);
    bundle_free(b);
    free(q);
    return rc;
}

int cmd_query(int argc, char **argv)
{
    struct args a = {.k = 10};
    const struct opt opts[] = {
        {"bundle", OPT_STR, &a.bundle, "DIR", "folder of the bundle", 0, 0},
        {"user", OPT_STR, &a.user, "ID", "user", 0, 0},
        {"k", OPT_UINT, &a.k, "N", "how many items", 1, 10000},
        {"ef", OPT_UINT, &a.ef, "N", "breadth of the search; 0 = the bundle's own", 0, 1e6},
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
    if (!a.bundle) {
        fprintf(stderr, "duet query: --bundle is needed\nusage: %s\n", usage);
        return 2;
    }
    blas_set_threads(1);
    return run(&a);
}
