/* If this fails, a body is refused that docs/api.md allows, accepted where it must not be, refused for another reason or place than the
 * first that is wrong, read as something else than it says, or read beyond its end. Bodies of every kind are made up, from sound to odd,
 * then damaged; jansson's tree and query_oracle.c give the second opinion. Prints its seed; DUET_FUZZ_RUNS sets how many bodies,
 * DUET_FUZZ_SEED repeats a run. */
#include "tests/core/support.h"

#include <time.h>

#include "core/base/rng.h"
#include "server/batch_body.h"
#include "server/query_priv.h"
#include "tests/core/world.h"
#include "tests/server/query_oracle.h"

#define BATCH_MOST 5
#define TEXT_MAX 16384

static const struct query_limits limits = {.k = 50, .ef = 60, .ids = 6, .id_bytes = 12, .history = 4, .depth = 7};

static struct bundle *bundle;
static struct query q;
static struct batch_body batch;
static size_t n_accepted, n_refused;

static int setup(void **state)
{
    struct err e = {0};
    char dir[PATH_MAX];
    uint64_t version;
    tmp_setup(state);
    struct world *w = world_new(&(struct world_params){.kind = MODEL_DAT, .seed = 5});
    struct publish_params p = {.repository = *state, .name = "m", .threads = 1, .seed = 7};
    assert_ok(bundle_publish(&w->in, &p, &version, dir, &e), &e);
    world_free(w);
    assert_ok(bundle = bundle_load(dir, &(struct bundle_load_params){.mode = BUNDLE_PRIVATE}, &e), &e);
    query_init(&q);
    return 0;
}

static int teardown(void **state)
{
    query_fini(&q);
    batch_body_fini(&batch);
    bundle_free(bundle);
    return tmp_teardown(state);
}

// ------------------------------------------------------------------------------------------------------- bodies

struct text {
    struct rng *r;
    char s[TEXT_MAX];
    size_t n;
};

static bool odds(struct text *t, uint32_t n)
{
    return rng_below(t->r, n) == 0;
}

static void put(struct text *t, const char *s)
{
    size_t n = strlen(s);
    if (t->n + n + 1 < sizeof(t->s)) // what does not fit is one more kind of damage
        memcpy(t->s + t->n, s, n), t->n += n;
}

static void space(struct text *t)
{
    static const char *const some[] = {"", "", "", "", " ", "\n", "\t ", "\r\n"};
    put(t, some[rng_below(t->r, 8)]);
}

#define PICK(t, list) (list)[rng_below((t)->r, sizeof(list) / sizeof((list)[0]))]

/* In quotes, now and then with escapes for what needs none. */
static void put_quoted(struct text *t, const char *s)
{
    bool escapes = odds(t, 6);
    char one[8];
    put(t, "\"");
    for (; *s; s++) {
        if (escapes && (unsigned char)*s < 0x80 && odds(t, 3))
            snprintf(one, sizeof(one), "\\u%04x", *s);
        else
            snprintf(one, sizeof(one), "%s%c", *s == '"' || *s == '\\' ? "\\" : "", *s);
        put(t, one);
    }
    put(t, "\"");
}

static void put_string(struct text *t)
{
    static const char *const some[] = {"",     "a",     "i1",       "u1",   "i17",          "food",  "movie",        "caf\xc3\xa9", "\xf0\x9f\x8e\xac", "a/b~c",
                                       "city", "class", "category", "tags", "exactly12byt", "13 bytes long", "he said \"so\"", "10.0",        "columns"};
    put_quoted(t, PICK(t, some));
}

static void put_number(struct text *t)
{
    static const char *const some[] = {"0",   "-0",    "1",     "2",   "7",   "50",  "51",    "60",       "61",       "-3",   "253",
                                       "0.5", "1.0",   "-1.5",  "1e2", "1E-3", "0.75", "1e15", "1.1e15", "-1e39",    "3.4e38", "12345678901234567890123",
                                       "1e400", "123456789012", "1234567890123", "-0.0", "9007199254740993", "0.1234567890123456789"};
    put(t, PICK(t, some));
}

static void put_value(struct text *t, int depth);

static void put_ids(struct text *t)
{
    put(t, "[");
    for (uint32_t i = 0, n = rng_below(t->r, odds(t, 8) ? 9 : 5); i < n; i++) {
        space(t);
        if (i)
            put(t, ",");
        if (odds(t, 40))
            put_value(t, 2);
        else if (odds(t, 3))
            put(t, odds(t, 3) ? "-7" : "42");
        else
            put_string(t);
    }
    space(t);
    put(t, "]");
}

/* Members name by name, each with `one`; a name may come twice. */
static void put_object(struct text *t, uint32_t most, const char *const *name, uint32_t n_names, int depth,
                       void (*one)(struct text *, const char *name, int depth))
{
    uint32_t begin = rng_below(t->r, n_names), n = rng_below(t->r, most + 1);
    put(t, "{");
    for (uint32_t i = 0; i < n; i++) {
        const char *key = odds(t, 60) ? name[rng_below(t->r, n_names)] : name[(begin + i) % n_names];
        space(t);
        if (i)
            put(t, ",");
        space(t);
        if (odds(t, 80))
            put_string(t);
        else
            put_quoted(t, key);
        space(t);
        put(t, ":");
        space(t);
        if (odds(t, 30))
            put_value(t, depth - 1);
        else
            one(t, key, depth - 1);
    }
    space(t);
    put(t, "}");
}

static void put_any(struct text *t, const char *name, int depth)
{
    (void)name;
    put_value(t, depth);
}

static void put_value(struct text *t, int depth)
{
    static const char *const keys[] = {"a", "b/c", "~", "k", ""}, *const words[] = {"true", "false", "null"};
    switch (rng_below(t->r, depth > 0 ? 6 : 4)) {
    case 0:
        put(t, PICK(t, words));
        return;
    case 1:
        put_number(t);
        return;
    case 2:
    case 3:
        put_string(t);
        return;
    case 4:
        put(t, "[");
        for (uint32_t i = 0, n = rng_below(t->r, 4); i < n; i++) {
            if (i)
                put(t, ",");
            put_value(t, depth - 1);
        }
        put(t, "]");
        return;
    default:
        put_object(t, 3, keys, 5, depth, put_any);
    }
}

static void put_feature(struct text *t, const char *name, int depth)
{
    (void)name;
    if (odds(t, 3))
        put_ids(t);
    else
        put_value(t, odds(t, 10) ? depth : 0);
}

static void put_bound(struct text *t, const char *name, int depth)
{
    (void)name, (void)depth;
    static const char *const some[] = {"0", "1", "2", "3", "10", "25", "50", "51", "-0", "-1", "1.0"};
    put(t, some[rng_below(t->r, odds(t, 10) ? 11 : 6)]);
}

static void put_bounds(struct text *t, const char *name, int depth)
{
    static const char *const names[] = {"min", "max"};
    (void)name;
    put_object(t, 2, names, 2, depth, put_bound);
}

static void put_filter(struct text *t, int depth);

static void put_filter_part(struct text *t, const char *name, int depth)
{
    switch (name[0]) {
    case 'f':
        put_string(t);
        return;
    case 'i':
        put_ids(t);
        return;
    case 'n':
        if (name[3])
            put_ids(t);
        else
            put_filter(t, depth);
        return;
    case 'g':
    case 'l':
        put_number(t);
        return;
    default:
        put(t, "[");
        for (uint32_t i = 0, n = rng_below(t->r, odds(t, 30) ? 40 : 4); i < n; i++) {
            if (i)
                put(t, ",");
            put_filter(t, depth);
        }
        put(t, "]");
    }
}

static void put_filter(struct text *t, int depth)
{
    static const char *const leaf[] = {"field", "in", "not_in", "gte", "lt"}, *const op[] = {"and", "or", "not"},
                             *const all[] = {"field", "gte", "gt", "lte", "lt", "in", "not_in", "and", "or", "not"};
    if (odds(t, 12)) {
        put_object(t, 4, all, 10, depth, put_filter_part);
    } else if (depth <= 0 || odds(t, 2)) {
        char member[64];
        snprintf(member, sizeof(member), "{\"field\":\"price\",\"%s\":", leaf[1 + rng_below(t->r, 4)]);
        put(t, member);
        put_filter_part(t, member[19] == 'i' ? "in" : member[19] == 'n' ? "not_in" : "lt", depth - 1);
        put(t, "}");
    } else {
        const char *name = PICK(t, op);
        put(t, "{");
        put_quoted(t, name);
        put(t, ":");
        put_filter_part(t, name, depth - 1);
        put(t, "}");
    }
}

static void put_member(struct text *t, const char *name, int depth)
{
    static const char *const features[] = {"city", "age", "likes", "x/y", "z"}, *const categories[] = {"food", "movie", "", "zoo", "caf\xc3\xa9"},
                             *const formats[] = {"\"rows\"", "\"columns\"", "\"rows\"", "\"table\""};
    static const char *const lists[] = {"exclude_ids", "include_ids", "item_ids", "history", "fields"};
    for (size_t i = 0; i < 5; i++)
        if (strcmp(name, lists[i]) == 0) {
            put_ids(t);
            return;
        }
    if (strcmp(name, "features") == 0)
        put_object(t, 4, features, 5, depth, put_feature);
    else if (strcmp(name, "categories") == 0)
        put_object(t, 4, categories, 5, depth, put_bounds);
    else if (strcmp(name, "filter") == 0)
        put_filter(t, depth);
    else if (strcmp(name, "format") == 0)
        put(t, PICK(t, formats));
    else if (strcmp(name, "exact") == 0 || strcmp(name, "exclude_seen") == 0)
        put(t, odds(t, 2) ? "true" : "false");
    else if (strcmp(name, "target_recall") == 0)
        put(t, odds(t, 5) ? "0.4" : odds(t, 3) ? "1" : "0.95");
    else if (strcmp(name, "vector") == 0) {
        put(t, "[");
        for (uint32_t i = 0, n = odds(t, 50) ? 4098 : 16; i < n; i++) {
            if (i)
                put(t, ",");
            if (n > 16)
                put(t, "0");
            else if (odds(t, 60))
                put_value(t, 1);
            else
                put(t, odds(t, 2) ? "0.25" : "-1e-3");
        }
        put(t, "]");
    } else if (name[0] == 'k' || name[0] == 'e' || strcmp(name, "max_per_category") == 0) {
        put_bound(t, name, 0);
    } else if (strcmp(name, "min_score") == 0) {
        put_number(t);
    } else if (odds(t, 4)) {
        put(t, odds(t, 4) ? "1234567890123" : "17");
    } else {
        put_string(t);
    }
}

static void put_body(struct text *t, enum query_kind kind)
{
    static const char *const all[] = {"user_id", "k", "features", "model", "history", "filter", "ef", "exact", "exclude_ids", "fields",
                                      "min_score", "include_ids", "format", "categories", "exclude_seen", "max_per_category", "target_recall", "item_ids", "item_id", "vector"};
    static const char *const who[] = {"user_id", "features", "history", "model"};
    static const char *const search[] = {"vector", "k", "model", "filter", "include_ids", "format", "fields", "min_score", "ef", "exact", "exclude_ids"};
    static const char *const score[] = {"item_ids", "user_id", "features", "history", "model"};
    static const char *const explain[] = {"item_id", "user_id", "features", "k", "categories", "max_per_category", "filter", "exclude_ids", "min_score", "history"};
    if (odds(t, 40))
        put_value(t, 3);
    else if (odds(t, 10))
        put_object(t, 8, all, 20, 5, put_member);
    else if (kind == QUERY_EMBED)
        put_object(t, 4, who, 4, 5, put_member);
    else if (kind == QUERY_SEARCH)
        put_object(t, 11, search, 11, 5, put_member);
    else if (kind == QUERY_SCORE)
        put_object(t, 5, score, 5, 5, put_member);
    else if (kind == QUERY_EXPLAIN)
        put_object(t, 10, explain, 10, 5, put_member);
    else
        put_object(t, 9, all, 17, 5, put_member);
}

static void put_batch(struct text *t)
{
    put(t, odds(t, 30) ? "{\"request\":[" : "{ \"requests\" : [");
    for (uint32_t i = 0, n = rng_below(t->r, odds(t, 8) ? 8 : 5); i < n; i++) {
        if (i)
            put(t, odds(t, 4) ? " , " : ",");
        put_body(t, QUERY_RETRIEVE);
    }
    put(t, odds(t, 40) ? "],\"requests\":[{}]}" : "]\n}");
}

static void damage(struct text *t)
{
    static const char *const parts[] = {"\"", "\\", "{", "}", "[", "]", ":", ",", "0", "-", "e", "null", "\\u00", "\x01", "\xc3", "\xff", " ", "\\ud83c"};
    size_t at = rng_below(t->r, (uint32_t)t->n), n;
    const char *part = PICK(t, parts);
    switch (rng_below(t->r, 5)) {
    case 0:
        t->s[at] = (char)rng_u64(t->r);
        return;
    case 1:
        t->s[at] = part[0];
        return;
    case 2:
        n = rng_below(t->r, 4) + 1;
        n = n < t->n - at ? n : t->n - at;
        memmove(t->s + at, t->s + at + n, t->n - at - n);
        t->n -= n;
        return;
    case 3:
        n = strlen(part);
        if (t->n + n >= sizeof(t->s))
            return;
        memmove(t->s + at + n, t->s + at, t->n - at);
        memcpy(t->s + at, part, n);
        t->n += n;
        return;
    default:
        t->n = at;
    }
}

// ------------------------------------------------------------------------------------------------------- two opinions

/* An exact copy on the heap, so that the sanitizer sees a read beyond the NUL behind it. */
static char *exact_copy(const char *s, size_t n)
{
    char *copy = malloc(n + 1);
    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

static void expect(const char *text, size_t n, const struct verdict *want, bool ok, const struct wire_error *e)
{
    bool same = ok ? want->status == 0
                   : want->status == e->status && strcmp(want->code, e->code) == 0 &&
                         (strlen(want->pointer) > 200 || strcmp(want->pointer, e->pointer) == 0); // longer ones are cut
    if (!same)
        fail_msg("%.*s\nread: %u %s at '%s' (%s), oracle: %u %s at '%s'", (int)n, text, ok ? 0 : e->status, ok ? "accepted" : e->code,
                 ok ? "" : e->pointer, ok ? "" : e->detail, want->status, want->status ? want->code : "accepted", want->pointer);
}

/* What is accepted is also resolved, which may refuse it but not fail otherwise; bounds have their oracle. */
static void resolve(const char *text, size_t n, json_t *body)
{
    struct wire_error e = {0};
    struct retrieve_query rq;
    const struct retrieve_bounds *bounds;
    size_t k = q.k ? q.k : QUERY_K_DEFAULT, unknown = 0;
    const char *key;
    json_t *value;
    if (!query_resolve(&q, bundle, QUERY_K_DEFAULT, 0, &rq, &e))
        assert_true(e.code != NULL && (e.status == 400 || e.status == 422));
    q.unknown_categories = 0;
    e = (struct wire_error){0};
    bool ok = query_resolve_bounds(&q, bundle->items, k, &bounds, &e);
    if (ok != (oracle_bounds(body, k) == 0) || (!ok && (e.status != 400 || strcmp(e.code, "invalid_value") || strcmp(e.pointer, "/categories"))))
        fail_msg("%.*s\nbounds: %u %s", (int)n, text, e.status, e.detail);
    if (!ok)
        return;
    json_object_foreach(json_object_get(body, "categories"), key, value) unknown += strtab_find(&bundle->items->category_index, key, strlen(key)) == STRTAB_NONE;
    assert_int_equal(q.unknown_categories, unknown);
    assert_int_equal(bounds != NULL, q.has_bounds);
    assert_true(!bounds || bounds->n_rules + unknown == json_object_size(json_object_get(body, "categories")));
}

static void check(enum query_kind kind, const char *text, size_t n)
{
    struct wire_error e = {0};
    json_error_t je;
    char *body = exact_copy(text, n);
    bool ok = query_parse(&q, kind, body, n, &limits, &e);
    json_t *tree = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
    bool beyond = !tree && json_error_code(&je) == json_error_numeric_overflow; // where the oracle cannot read numbers that we can
    n_accepted += ok;
    n_refused += !ok;
    if (memchr(text, '\0', n) || (!tree && !beyond)) {
        if (ok || (e.status != 400 && e.status != 422))
            fail_msg("%.*s\naccepted, oracle: %s", (int)n, text, je.text);
    } else if (tree) {
        struct verdict want = oracle_judge(kind, tree, &limits);
        expect(text, n, &want, ok, &e);
        const char *differs = ok ? oracle_differs(tree, &q) : NULL;
        if (differs)
            fail_msg("%.*s\n'%s' was read differently", (int)n, text, differs);
        if (ok)
            resolve(text, n, tree);
    }
    json_decref(tree);
    free(body);
}

static void check_requests(json_t *list)
{
    assert_int_equal(batch.n, json_array_size(list));
    for (size_t i = 0; i < batch.n; i++) {
        struct str s = batch.request[i];
        json_t *one = json_loadb(s.p, s.n, JSON_DECODE_ANY, NULL);
        if (!one || !json_equal(one, json_array_get(list, i)) || s.p[s.n] != '\0')
            fail_msg("request %zu was cut as %.*s", i, (int)s.n, s.p);
        json_decref(one);
        check(QUERY_RETRIEVE, s.p, s.n);
    }
}

static void check_batch(const char *text, size_t n)
{
    struct wire_error e = {0};
    json_error_t je;
    char *body = exact_copy(text, n);
    bool ok = batch_body_read(&batch, body, n, &limits, BATCH_MOST, &e);
    json_t *tree = json_loadb(text, n, JSON_DECODE_ANY, &je), *strict = json_loadb(text, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    if (memchr(text, '\0', n) || (!tree && json_error_code(&je) != json_error_numeric_overflow)) {
        if (ok || (e.status != 400 && e.status != 422))
            fail_msg("%.*s\naccepted, oracle: %s", (int)n, text, je.text);
    } else if (strict) { // names that come twice inside a request are that request's affair
        struct verdict want = oracle_judge_batch(tree, &limits, BATCH_MOST);
        expect(text, n, &want, ok, &e);
    }
    if (ok && strict)
        check_requests(json_object_get(tree, "requests"));
    json_decref(tree);
    json_decref(strict);
    free(body);
}

static void bodies_of_every_kind(void **state)
{
    (void)state;
    static struct text t;
    struct rng r;
    const char *runs = getenv("DUET_FUZZ_RUNS"), *given = getenv("DUET_FUZZ_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    long n = runs ? atol(runs) : 2000;
    print_message("seed %llu\n", (unsigned long long)seed);
    rng_init(&r, seed);
    for (long i = 0; i < n; i++) {
        int kind = (int)rng_below(&r, 7); // 5 and 6: batches
        t.r = &r;
        t.n = 0;
        if (kind > (int)QUERY_EXPLAIN)
            put_batch(&t);
        else
            put_body(&t, (enum query_kind)kind);
        for (uint32_t d = odds(&t, 3) ? 1 + rng_below(&r, 3) : 0; d > 0 && t.n > 0; d--)
            damage(&t);
        if (kind > (int)QUERY_EXPLAIN)
            check_batch(t.s, t.n);
        else
            check((enum query_kind)kind, t.s, t.n);
    }
    print_message("%zu bodies accepted, %zu refused\n", n_accepted, n_refused);
    assert_true(n < 2000 || (n_accepted > (size_t)n / 20 && n_refused > (size_t)n / 20));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bodies_of_every_kind)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
