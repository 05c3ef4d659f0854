/* Amazon's reviews as J. McAuley's group publishes them: one JSON object a line, plain or gzip.
 *
 *     2014, 2018   reviewerID, asin, overall, unixReviewTime              meta: asin, title, price, brand, category |
 * categories 2023         user_id, parent_asin, rating, timestamp (milliseconds) meta: parent_asin, title, price,
 * store, main_category, categories
 *
 * All files *.json[l][.gz] of the folder are read in the order of their names, those that begin with "meta" as
 * metadata, and of these only the lines of items that somebody has reviewed. */
#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"
#include "core/base/json.h"
#include "core/base/mem.h"
#include "train/read.h"
#include "train/textin.h"

// ----------------------------------------------------------------------------------------------------------- files

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

static int is_json(const struct dirent *e)
{
    return e->d_name[0] != '.' && (ends_with(e->d_name, ".json") || ends_with(e->d_name, ".jsonl") ||
                                   ends_with(e->d_name, ".json.gz") || ends_with(e->d_name, ".jsonl.gz"));
}

static bool is_meta(const char *name)
{
    return strncmp(name, "meta", 4) == 0;
}

/* Names of the folder's JSON files, sorted bytewise (not by locale: the same everywhere). -1 after an error. */
static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int list(const char *dir, struct dirent ***names, struct err *err)
{
    int n = scandir(dir, names, is_json, by_bytes);
    if (n < 0)
        err_errno(err, "%s", dir);
    return n;
}

static void free_list(struct dirent **names, int n)
{
    for (int i = 0; i < n; i++)
        free(names[i]);
    if (n >= 0)
        free(names);
}

static bool has_word(struct str s, const char *word)
{
    return memmem(s.p, s.n, word, strlen(word)) != NULL;
}

static bool looks_like_reviews(const char *dir, const char *name)
{
    char path[PATH_MAX];
    struct textin in;
    struct str line;
    uint64_t number;
    if (!fio_join(path, dir, name, NULL) || !textin_open(&in, path, NULL))
        return false;
    bool found = textin_line(&in, &line, &number, NULL) == 1 && has_word(line, "asin\"") &&
                 (has_word(line, "\"reviewerID\"") || has_word(line, "\"user_id\""));
    textin_close(&in);
    return found;
}

bool read_amazon_found(const char *dir)
{
    struct dirent **names = NULL;
    int n = list(dir, &names, NULL);
    bool found = false;
    for (int i = 0; i < n && !found; i++)
        found = !is_meta(names[i]->d_name) && looks_like_reviews(dir, names[i]->d_name);
    free_list(names, n);
    return found;
}

// ----------------------------------------------------------------------------------------------------------- lines

struct context {
    struct raw *raw;
    const struct strtab_index *items;       // metadata: those that are wanted
    uint32_t title, price, brand, category; // columns
};

typedef bool object_fn(const json_t *o, struct context *c, struct err *err);

static bool read_object(struct str line, object_fn *row, struct context *c, struct err *err)
{
    json_t *o = json_parse(line.p, line.n, err);
    if (!o && line.n > 1 && line.p[0] == '{' && line.p[1] == '\'')
        err_prefix(err, "a Python literal? convert the metadata of 2014 to JSON first");
    if (!o)
        return false;
    bool ok = json_is_object(o) ? row(o, c, err) : err_set(err, ERR_FORMAT, "want one JSON object a line");
    json_decref(o);
    return ok;
}

static bool read_objects(const char *dir, const char *name, object_fn *row, struct context *c, struct err *err)
{
    char path[PATH_MAX];
    struct textin in;
    struct str line;
    uint64_t number;
    if (!fio_join(path, dir, name, err) || !textin_open(&in, path, err))
        return false;
    bool ok = true;
    for (int got; ok && (got = textin_line(&in, &line, &number, err)) != 0;) {
        if (got > 0 && line.n == 0)
            continue;
        ok = got > 0 && read_object(line, row, c, err);
        if (!ok && got > 0)
            err_prefix(err, "%s:%llu", path, (unsigned long long)number);
        ok = ok || raw_skip(c->raw, err);
    }
    textin_close(&in);
    return ok;
}

/* The first of the keys that the object has with a text, or NULL. */
static const char *text_of(const json_t *o, const char *const *keys)
{
    for (; *keys; keys++) {
        const char *text = json_string_value(json_object_get(o, *keys));
        if (text && text[0])
            return text;
    }
    return NULL;
}

static struct str str_of(const char *text)
{
    return (struct str){text ? text : "", text ? strlen(text) : 0};
}

// --------------------------------------------------------------------------------------------------------- reviews

static bool time_of(const json_t *o, int64_t *out, struct err *err)
{
    const json_t *seconds = json_object_get(o, "unixReviewTime"), *milliseconds = json_object_get(o, "timestamp");
    const json_t *found = seconds ? seconds : milliseconds;
    if (!found || json_is_null(found))
        return true;
    if (!json_is_integer(found))
        return err_set(err, ERR_FORMAT, "%s is no whole number", seconds ? "unixReviewTime" : "timestamp");
    json_int_t v = json_integer_value(found);
    *out = seconds ? v : v / 1000;
    return true;
}

static bool review(const json_t *o, struct context *c, struct err *err)
{
    static const char *const user_keys[] = {"reviewerID", "user_id", NULL}, *const item_keys[] = {"parent_asin", "asin",
                                                                                                  NULL};
    struct raw_event e = {.time = RAW_NO_TIME, .value = NAN};
    const char *user = text_of(o, user_keys), *item = text_of(o, item_keys);
    if (!user || !item)
        return err_set(err, ERR_FORMAT, "no text %s",
                       user ? "\"asin\" or \"parent_asin\"" : "\"reviewerID\" or \"user_id\"");
    const json_t *value = json_object_get(o, "overall");
    value = value ? value : json_object_get(o, "rating");
    if (value && !json_is_null(value) && !json_is_number(value))
        return err_set(err, ERR_FORMAT, "the rating is no number");
    if (json_is_number(value))
        e.value = (float)json_number_value(value);
    return time_of(o, &e.time, err) && raw_row(&c->raw->user, str_of(user), &e.user, err) &&
           raw_row(&c->raw->item, str_of(item), &e.item, err) && raw_event_add(c->raw, e, err);
}

// -------------------------------------------------------------------------------------------------------- metadata

/* "$1,299.00", "12.5" or 12.5 -> text of a number; anything else (ranges, scripts of the web page) is missing. */
static struct str price_of(const json_t *o, char text[64])
{
    const json_t *v = json_object_get(o, "price");
    const char *s = json_string_value(v);
    size_t n = 0;
    double number;
    if (json_is_number(v))
        n = (size_t)snprintf(text, 64, "%.9g", json_number_value(v));
    for (; s && *s && n < 63; s++)
        if (*s != '$' && *s != ',')
            text[n++] = *s;
    struct str price = {text, n};
    return (s && *s) || !raw_parse_number(price, &number) ? (struct str){"", 0} : price;
}

/* The path of categories begins with the department, which all items of a file share: take what follows it. */
static const char *category_of(const json_t *o)
{
    static const char *const main_keys[] = {"main_category", "main_cat", NULL};
    const json_t *path = json_object_get(o, "categories");
    path = path ? path : json_object_get(o, "category");
    if (json_is_array(json_array_get(path, 0)))
        path = json_array_get(path, 0);
    const char *second = json_string_value(json_array_get(path, 1)),
               *first = json_string_value(json_array_get(path, 0));
    if (second && second[0])
        return second;
    const char *main = text_of(o, main_keys);
    return main ? main : first;
}

static bool metadata(const json_t *o, struct context *c, struct err *err)
{
    static const char *const item_keys[] = {"parent_asin", "asin", NULL},
                             *const brand_keys[] = {"brand", "store", NULL}, *const title_keys[] = {"title", NULL};
    struct raw_table *t = &c->raw->item;
    char price[64];
    const char *item = text_of(o, item_keys);
    if (!item)
        return err_set(err, ERR_FORMAT, "no text \"asin\" or \"parent_asin\"");
    uint32_t row = strtab_find(c->items, item, strlen(item));
    if (row == STRTAB_NONE)
        return true;
    return raw_set(t, row, c->title, str_of(text_of(o, title_keys)), err) &&
           raw_set(t, row, c->brand, str_of(text_of(o, brand_keys)), err) &&
           raw_set(t, row, c->price, price_of(o, price), err) &&
           raw_set(t, row, c->category, str_of(category_of(o)), err);
}

static bool read_metadata(const char *dir, struct dirent **names, int n, struct raw *raw, struct err *err)
{
    struct context c = {.raw = raw};
    struct strtab_index items = {0};
    bool ok = true, any = false;
    for (int i = 0; i < n; i++)
        any = any || is_meta(names[i]->d_name);
    if (!any)
        return true;
    ok = raw_column(&raw->item, "title", &c.title, err) && raw_column(&raw->item, "brand", &c.brand, err) &&
         raw_column(&raw->item, "price", &c.price, err) && raw_column(&raw->item, "category", &c.category, err) &&
         strtab_index_init(&items, strtab_view(&raw->item.ids), err);
    c.items = &items;
    for (int i = 0; ok && i < n; i++)
        ok = !is_meta(names[i]->d_name) || read_objects(dir, names[i]->d_name, metadata, &c, err);
    strtab_index_fini(&items);
    return ok;
}

bool read_amazon(const char *dir, struct raw *raw, struct err *err)
{
    struct dirent **names = NULL;
    struct context c = {.raw = raw};
    int n = list(dir, &names, err), reviews = 0;
    bool ok = n >= 0;
    for (int i = 0; ok && i < n; i++)
        if (!is_meta(names[i]->d_name)) {
            reviews++;
            ok = read_objects(dir, names[i]->d_name, review, &c, err);
        }
    if (ok && reviews == 0)
        ok = err_set(err, ERR_NOT_FOUND, "%s: no reviews in *.json, *.jsonl, plain or .gz", dir);
    ok = ok && read_metadata(dir, names, n, raw, err);
    free_list(names, n);
    return ok;
}
