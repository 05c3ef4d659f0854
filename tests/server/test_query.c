/* If this fails, a request is answered for something else than what was asked, a faulty one is not refused by its
 * field, or the hot path allocates. */
#include "tests/core/support.h"

#include <math.h>

#include "core/base/json.h"
#include "core/base/rng.h"
#include "server/hits.h"
#include "server/query.h"
#include "tests/core/world.h"

static const struct query_limits limits = {
    .k = 10000, .ef = 20000, .ids = 10, .id_bytes = 256, .history = 3, .depth = 16};

static struct bundle *bundle;
static struct query q;

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
    bundle_free(bundle);
    return tmp_teardown(state);
}

static void parse(const char *body)
{
    struct wire_error e = {0};
    if (!query_parse(&q, QUERY_RETRIEVE, body, strlen(body), &limits, &e))
        fail_msg("%s: %s", body, e.detail);
}

static struct retrieve_query resolve(const char *body)
{
    struct wire_error e = {0};
    struct retrieve_query rq;
    parse(body);
    if (!query_resolve(&q, bundle, 100, 0, &rq, &e))
        fail_msg("%s: %s", body, e.detail);
    return rq;
}

static bool is(struct str s, const char *text)
{
    return s.n == strlen(text) && memcmp(s.p, text, s.n) == 0;
}

static void every_field_is_read(void **state)
{
    (void)state;
    struct retrieve_query rq = resolve(
        "{\"user_id\":\"u1\",\"model\":\"dat\",\"features\":{\"city\":\"SH\",\"age\":25,\"likes\":[\"tea\",\"cats\"]},"
        "\"k\":7,\"ef\":50,"
        "\"exact\":true,\"exclude_ids\":[\"i1\",\"i2\"],\"exclude_seen\":true,\"filter\":{\"field\":\"category\","
        "\"in\":[\"food\",\"movie\"]},"
        "\"min_score\":-0.5,\"history\":[\"i5\",\"i6\"],\"fields\":[\"title\",\"category\"],\"format\":\"columns\"}");
    assert_true(is(rq.user_id, "u1"));
    assert_true(is(q.model, "dat"));
    assert_int_equal(rq.n_features, 3);
    assert_true(is(rq.feature[0].name, "city") && is(rq.feature[0].value, "SH"));
    assert_true(is(rq.feature[1].value, "25"));
    assert_true(is(rq.feature[2].value, "tea,cats"));
    assert_int_equal(rq.k, 7);
    assert_int_equal(rq.ef, 50);
    assert_true(rq.exact && rq.exclude_seen && rq.has_min_score && q.columns);
    assert_true(rq.min_score == -0.5f);
    assert_int_equal(rq.n_exclude, 2);
    assert_int_equal(rq.exclude[1], items_find(bundle->items, "i2", 2));
    assert_int_equal(rq.n_history, 2);
    assert_int_equal(rq.history[0], items_find(bundle->items, "i5", 2));
    assert_int_equal(rq.filter->n, 1);
    assert_true(rq.filter->node[0].n_in == 2 && is(rq.filter->node[0].in[1], "movie"));
    assert_int_equal(q.fields.n, 2);
    assert_string_equal(bundle->items->attr[q.attr[0]].name, "title");
    assert_int_equal(q.attr[1], QUERY_ATTR_CATEGORY);
}

static void a_target_becomes_an_ef(void **state)
{
    (void)state;
    struct wire_error e = {0};
    struct retrieve_query rq;
    size_t want;
    rq = resolve("{\"target_recall\":0.9,\"k\":50}");
    assert_int_equal(calibration_ef(&bundle->manifest.calibration, HNSW_PLAIN, 50, 0.9, &want), CALIBRATION_EF);
    assert_true(rq.ef == want && want >= 50 && !rq.exact);
    rq = resolve("{\"target_recall\":1}");
    assert_true(rq.exact);
    bundle->manifest.calibration.n_curves = 0; // of an earlier version
    parse("{\"target_recall\":0.9}");
    assert_false(query_resolve(&q, bundle, 100, 0, &rq, &e));
    assert_int_equal(e.status, 422);
    assert_string_equal(e.code, "not_calibrated");
    assert_string_equal(e.pointer, "/target_recall");
}

static void defaults(void **state)
{
    (void)state;
    struct retrieve_query rq = resolve("{}");
    assert_null(rq.user_id.p);
    assert_int_equal(rq.k, 100);
    assert_int_equal(rq.ef, 0);
    assert_false(rq.exact || rq.exclude_seen || rq.has_min_score || q.columns || rq.filter);
    assert_int_equal(rq.n_exclude + rq.n_history + rq.n_features, 0);
}

static void integers_stand_for_ids(void **state)
{
    (void)state;
    assert_true(is(resolve("{\"user_id\":253}").user_id, "253"));
    assert_true(is(resolve("{\"user_id\":-7}").user_id, "-7"));
    assert_true(is(resolve("{\"user_id\":-0}").user_id, "0"));
    assert_true(is(resolve("{\"user_id\":123456789012345678901234567890}").user_id, "123456789012345678901234567890"));
    assert_true(is(resolve("{\"user_id\":\"\\u0061\\uD83C\\uDFAC\"}").user_id, "a\xf0\x9f\x8e\xac"));
}

static void unknown_ids_are_counted(void **state)
{
    (void)state;
    struct retrieve_query rq = resolve(
        "{\"exclude_ids\":[\"i1\",\"x\",4],\"history\":[\"y\"],\"filter\":{\"in\":[\"zoo\"],\"field\":\"category\"}}");
    assert_int_equal(rq.n_exclude, 1);
    assert_int_equal(q.unknown_exclude, 2);
    assert_int_equal(q.unknown_history, 1);
    assert_int_equal(q.unknown_filter, 1);
    resolve("{\"filter\":{\"in\":[\"\"],\"field\":\"category\"}}"); // items without a category
    assert_int_equal(q.unknown_filter, 0);
}

static void faults_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        unsigned status;
        const char *code, *pointer, *says;
    } c[] = {
        {"", 400, "malformed_json", "", "the end"},
        {"[]", 400, "wrong_type", "", "found an array, want an object"},
        {"{\"user_id\":\"u1\"", 400, "malformed_json", "/user_id", "found the end"},
        {"{} {}", 400, "malformed_json", "", "want the end"},
        {"{\"kk\":1}", 400, "unknown_field", "/kk", "did you mean 'k'"},
        {"{\"exclude_seeen\":true}", 400, "unknown_field", "/exclude_seeen", "did you mean 'exclude_seen'"},
        {"{\"zzzzzzzzz\":1}", 400, "unknown_field", "/zzzzzzzzz", "unknown field 'zzzzzzzzz'"},
        {"{\"k\":1,\"k\":2}", 400, "duplicate_field", "/k", "twice"},
        {"{\"features\":{\"city\":\"a\",\"city\":\"b\"}}", 400, "duplicate_field", "/features/city", "twice"},
        {"{\"k\":\"10\"}", 400, "wrong_type", "/k", "found a string, want an integer"},
        {"{\"k\":1.0}", 400, "wrong_type", "/k", "1.0"},
        {"{\"k\":0}", 400, "invalid_value", "/k", "found 0, want 1 to 10000"},
        {"{\"k\":-0}", 400, "invalid_value", "/k", "found 0, want 1 to 10000"},
        {"{\"ef\":0}", 400, "invalid_value", "/ef", "want 1 to 20000"},
        {"{\"max_per_category\":0}", 400, "invalid_value", "/max_per_category", "want 1 to 10000"},
        {"{\"max_per_category\":10001}", 422, "limit_exceeded", "/max_per_category", "found 10001"},
        {"{\"categories\":{\"food\":{\"min\":10001}}}", 422, "limit_exceeded", "/categories/food/min", "limits.k"},
        {"{\"categories\":{\"food\":{\"max\":1,\"max\":2}}}", 400, "duplicate_field", "/categories/food/max", "twice"},
        {"{\"categories\":{\"a\":{},\"a\":{}}}", 400, "duplicate_field", "/categories/a", "twice"},
        {"{\"categories\":{\"a\":3}}", 400, "wrong_type", "/categories/a", "want an object"},
        {"{\"categories\":[]}", 400, "wrong_type", "/categories", "found an array"},
        {"{\"k\":10001}", 422, "limit_exceeded", "/k", "limits.k"},
        {"{\"target_recall\":0.4}", 400, "invalid_value", "/target_recall", "found 0.4, want a recall from 0.5 to 1"},
        {"{\"target_recall\":1.01}", 400, "invalid_value", "/target_recall", "found 1.01"},
        {"{\"target_recall\":\"high\"}", 400, "wrong_type", "/target_recall", "found a string"},
        {"{\"target_recall\":0.9,\"ef\":10}", 400, "invalid_value", "", "both given"},
        {"{\"ef\":20001}", 422, "limit_exceeded", "/ef", "limits.ef"},
        {"{\"exact\":1}", 400, "wrong_type", "/exact", "found a number, want true or false"},
        {"{\"user_id\":1.5}", 400, "wrong_type", "/user_id", "want a string or an integer"},
        {"{\"user_id\":null}", 400, "wrong_type", "/user_id", "found null"},
        {"{\"user_id\":\"\"}", 400, "invalid_value", "/user_id", "empty"},
        {"{\"model\":\"\"}", 400, "invalid_value", "/model", "empty"},
        {"{\"exclude_ids\":[1,2,3,4,5,6,7,8,9,10,11]}", 422, "limit_exceeded", "/exclude_ids/10", "limits.ids"},
        {"{\"exclude_ids\":\"i1\"}", 400, "wrong_type", "/exclude_ids", "want an array"},
        {"{\"history\":[1,2,3,4]}", 422, "limit_exceeded", "/history/3", "limits.history"},
        {"{\"history\":[true]}", 400, "wrong_type", "/history/0", "boolean"},
        {"{\"features\":{\"city\":null}}", 400, "wrong_type", "/features/city", "found null"},
        {"{\"features\":{\"city\":{}}}", 400, "wrong_type", "/features/city", "an object"},
        {"{\"features\":[]}", 400, "wrong_type", "/features", "found an array"},
        {"{\"min_score\":1e39}", 400, "wrong_type", "/min_score", "32-bit"},
        {"{\"min_score\":1e400}", 400, "wrong_type", "/min_score", "double"},
        {"{\"format\":\"table\"}", 400, "invalid_value", "/format", "rows"},
        {"{\"filter\":{\"and\":[],\"or\":[]}}", 400, "invalid_value", "/filter", "alone"},
        {"{\"filter\":{\"and\":[],\"field\":\"class\"}}", 400, "invalid_value", "/filter", "alone"},
        {"{\"filter\":{\"and\":{}}}", 400, "wrong_type", "/filter/and", "want an array"},
        {"{\"filter\":{\"not\":[]}}", 400, "wrong_type", "/filter/not", "want an object"},
        {"{\"filter\":{\"or\":[{\"in\":[]}]}}", 400, "invalid_value", "/filter/or/0", "'field' is missing"},
        {"{\"filter\":{\"field\":\"price\",\"gte\":1,\"gt\":2}}", 400, "invalid_value", "/filter/gt", "same side"},
        {"{\"filter\":{\"field\":\"price\",\"lt\":\"1\"}}", 400, "wrong_type", "/filter/lt", "found a string"},
        {"{\"filter\":{\"field\":\"category\"}}", 400, "invalid_value", "/filter", "no condition"},
        {"{\"filter\":{\"field\":\"a\",\"in\":[1,2,3,4,5,6,7,8,9,10,11]}}", 422, "limit_exceeded", "/filter/in/10",
         "more than 10"},
        {"{\"filter\":{\"in\":[],\"in\":[]}}", 400, "duplicate_field", "/filter/in", "twice"},
        {"{\"filter\":{\"feild\":\"category\"}}", 400, "unknown_field", "/filter/feild", "did you mean 'field'"},
        {"{\"fields\":[1]}", 400, "wrong_type", "/fields/0", "want a string"},
        {"{\"user_id\":\"\xff\"}", 400, "malformed_json", "/user_id", "UTF-8"},
        {"{\"features\":{\"a\":[[1]]}}", 400, "wrong_type", "/features/a/0", "array"},
    };
    for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        struct wire_error e = {0};
        if (query_parse(&q, QUERY_RETRIEVE, c[i].body, strlen(c[i].body), &limits, &e))
            fail_msg("accepted: %s", c[i].body);
        if (e.status != c[i].status || strcmp(e.code, c[i].code) || strcmp(e.pointer, c[i].pointer) ||
            !strstr(e.detail, c[i].says))
            fail_msg("%s: %u %s at '%s': %s", c[i].body, e.status, e.code, e.pointer, e.detail);
    }
}

/* 64 nodes are taken and 65 are not. */
static void nodes_are_limited(void **state)
{
    (void)state;
    char body[8192];
    for (int n = 63; n <= 64; n++) {
        struct wire_error e = {0};
        int at = snprintf(body, sizeof(body), "{\"filter\":{\"and\":[");
        for (int i = 0; i < n; i++)
            at += snprintf(body + at, sizeof(body) - (size_t)at, "%s{\"field\":\"class\",\"in\":[\"food\"]}",
                           i ? "," : "");
        at += snprintf(body + at, sizeof(body) - (size_t)at, "]}}");
        assert_int_equal(query_parse(&q, QUERY_RETRIEVE, body, (size_t)at, &limits, &e), n == 63);
        if (n == 64)
            assert_string_equal(e.code, "limit_exceeded");
    }
}

static void faults_that_the_bundle_decides(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        unsigned status;
        const char *code, *pointer, *says;
    } c[] = {
        {"{\"features\":{\"citty\":\"SH\"}}", 422, "unknown_feature", "/features/citty", "did you mean 'city'"},
        {"{\"features\":{\"a/b\":\"SH\"}}", 422, "unknown_feature", "/features/a~1b", "no user feature 'a/b'"},
        {"{\"features\":{\"uid\":\"u2\"}}", 422, "unknown_feature", "/features/uid", "uid"},
        {"{\"features\":{\"city\":[\"SH\"]}}", 400, "wrong_type", "/features/city", "not multi-valued"},
        {"{\"fields\":[\"title\",\"titel\"]}", 422, "unknown_attribute", "/fields/1", "did you mean 'title'"},
        {"{\"fields\":[\"title\",\"title\"]}", 400, "invalid_value", "/fields/1", "twice"},
        {"{\"filter\":{\"field\":\"clas\",\"in\":[]}}", 422, "unknown_attribute", "/filter/field",
         "did you mean 'class'"},
        {"{\"filter\":{\"and\":[{\"or\":[]},{\"not\":{\"field\":\"xyzzy\",\"in\":[]}}]}}", 422, "unknown_attribute",
         "/filter/and/1/not/field", "no attribute 'xyzzy'"},
        {"{\"filter\":{\"or\":[{\"field\":\"title\",\"lt\":5}]}}", 422, "filter_unsupported", "/filter/or/0",
         "has no numbers"},
    };
    for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        struct wire_error e = {0};
        struct retrieve_query rq;
        parse(c[i].body);
        if (query_resolve(&q, bundle, 100, 0, &rq, &e))
            fail_msg("accepted: %s", c[i].body);
        if (e.status != c[i].status || strcmp(e.code, c[i].code) || strcmp(e.pointer, c[i].pointer) ||
            !strstr(e.detail, c[i].says))
            fail_msg("%s: %u %s at '%s': %s", c[i].body, e.status, e.code, e.pointer, e.detail);
    }
}

static void embed_takes_fewer_fields(void **state)
{
    (void)state;
    struct wire_error e = {0};
    const char *good = "{\"user_id\":1,\"features\":{},\"history\":[],\"model\":\"m\"}",
               *bad = "{\"user_id\":1,\"k\":5}";
    assert_true(query_parse(&q, QUERY_EMBED, good, strlen(good), &limits, &e));
    assert_false(query_parse(&q, QUERY_EMBED, bad, strlen(bad), &limits, &e));
    assert_string_equal(e.code, "unknown_field");
}

/* Bodies damaged byte by byte: refused or understood, never a crash; exactly sized copies let the sanitizer see. */
static void damaged_bodies(void **state)
{
    (void)state;
    static const char body[] =
        "{\"user_id\":\"u1\",\"features\":{\"city\":\"S\\u00e9\",\"likes\":[\"tea\",\"c\\nats\"]"
        "},\"k\":7,\"exclude_ids\":[\"i1\",2],"
        "\"filter\":{\"and\":[{\"field\":\"class\",\"in\":[\"food\"]},{\"not\":{\"field\":\"price\",\"gte\":1,"
        "\"lt\":9}}]},\"min_score\":-0.5,\"history\":["
        "\"i5\"],\"fields\":[\"title\"]}";
    struct rng r;
    struct wire_error e;
    struct retrieve_query rq;
    rng_init(&r, 77);
    for (int i = 0; i < 20000; i++) {
        size_t n = sizeof(body) - 1;
        char *copy = malloc(n + 1);
        memcpy(copy, body, n + 1);
        for (uint32_t m = 0; m <= rng_below(&r, 3); m++)
            copy[rng_below(&r, (uint32_t)n)] = "\"\\{}[]:,0e-\x01\xc3 u"[rng_below(&r, 15)];
        if (query_parse(&q, QUERY_RETRIEVE, copy, n, &limits, &e))
            query_resolve(&q, bundle, 100, 0, &rq, &e);
        free(copy);
    }
}

static void hits_are_json(void **state)
{
    (void)state;
    struct retrieve_hit hit[3] = {
        {items_find(bundle->items, "i1", 2), 0.5f}, {items_find(bundle->items, "i5", 2), 0.25f}, {0, -1.5f}};
    parse("{\"fields\":[\"title\",\"category\"]}");
    struct retrieve_query rq;
    struct wire_error e;
    assert_true(query_resolve(&q, bundle, 100, 0, &rq, &e));
    struct hits_attrs a = {q.attr, 2}, none = {NULL, 0};
    struct buf b = {0};
    hits_write_rows(&b, bundle->items, hit, 3, &a);
    json_t *o = json_parse(b.data, b.len, NULL), *row = json_array_get(o, 0);
    assert_int_equal(json_array_size(o), 3);
    assert_string_equal(json_string_value(json_object_get(row, "id")), "i1");
    assert_true(json_real_value(json_object_get(row, "score")) == 0.5);
    assert_string_equal(json_string_value(json_object_get(json_object_get(row, "attributes"), "title")),
                        "Title \"1\" \xc3\xa9");
    assert_true(json_is_null(json_object_get(json_object_get(json_array_get(o, 1), "attributes"), "title")));
    json_decref(o);
    buf_reset(&b);
    hits_write_rows(&b, bundle->items, hit, 0, &none);
    assert_string_equal(b.data, "[]");
    buf_reset(&b);
    hits_write_columns(&b, bundle->items, hit, 3, &a);
    o = json_parse(b.data, b.len, NULL);
    assert_int_equal(json_array_size(json_object_get(o, "ids")), 3);
    assert_int_equal(json_array_size(json_object_get(json_object_get(o, "attributes"), "category")), 3);
    json_decref(o);
    buf_reset(&b);
    hits_write_columns(&b, bundle->items, hit, 1, &none);
    assert_string_equal(b.data, "{\"ids\":[\"i1\"],\"scores\":[0.5]}");
    buf_fini(&b);
}

static void a_warm_request_allocates_nothing(void **state)
{
    (void)state;
    static const char body[] =
        "{\"user_id\":\"u1\",\"features\":{\"city\":\"S\\u00e9\",\"likes\":[\"tea\",\"cats\"]},\"k\":50,\"exclude_"
        "ids\":[\"i1\",2],"
        "\"filter\":{\"or\":[{\"field\":\"class\",\"in\":[\"food\"]},{\"field\":\"price\",\"lt\":90}]},\"exclude_"
        "seen\":true,\"fields\":[\"title\"]}";
    struct err err = {0};
    struct retrieve_ws *ws = retrieve_ws_new(bundle, &err);
    struct retrieve_hit hit[50];
    struct buf b = {0};
    for (int round = 0; round < 3; round++) {
        struct wire_error e;
        struct retrieve_query rq;
        struct retrieve_result res = {0};
        alloc_fail_at(round == 2 ? 1 : 0);
        assert_true(query_parse(&q, QUERY_RETRIEVE, body, sizeof(body) - 1, &limits, &e));
        assert_true(query_resolve(&q, bundle, 100, 0, &rq, &e));
        assert_true(retrieve_topk(bundle, &rq, ws, hit, &res, &err));
        buf_reset(&b);
        hits_write_rows(&b, bundle->items, hit, res.n, &(struct hits_attrs){q.attr, 1});
        assert_false(alloc_failed());
        alloc_fail_at(0);
        assert_true(res.n > 0);
    }
    retrieve_ws_free(ws);
    buf_fini(&b);
}

/* Every allocation of reading and resolving fails once: a 503, and the next request works. */
static void lack_of_memory_is_an_answer(void **state)
{
    (void)state;
    static const char body[] = "{\"user_id\":\"u1\",\"exclude_ids\":[\"i1\"],\"history\":[\"i2\"]}";
    for (size_t n = 1; n < 20; n++) {
        struct query fresh;
        struct wire_error e = {0};
        struct retrieve_query rq;
        query_init(&fresh);
        alloc_fail_at(n);
        bool ok = query_parse(&fresh, QUERY_RETRIEVE, body, sizeof(body) - 1, &limits, &e) &&
                  query_resolve(&fresh, bundle, 100, 0, &rq, &e);
        bool failed = alloc_failed();
        alloc_fail_at(0);
        assert_int_equal(ok, !failed);
        if (failed)
            assert_int_equal(e.status, 503);
        query_fini(&fresh);
        if (!failed)
            return;
    }
    fail_msg("it never worked");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_is_read),
        cmocka_unit_test(defaults),
        cmocka_unit_test(integers_stand_for_ids),
        cmocka_unit_test(unknown_ids_are_counted),
        cmocka_unit_test(faults_are_named),
        cmocka_unit_test(nodes_are_limited),
        cmocka_unit_test(faults_that_the_bundle_decides),
        cmocka_unit_test(embed_takes_fewer_fields),
        cmocka_unit_test(damaged_bodies),
        cmocka_unit_test(hits_are_json),
        cmocka_unit_test(a_warm_request_allocates_nothing),
        cmocka_unit_test(lack_of_memory_is_an_answer),
        cmocka_unit_test(a_target_becomes_an_ef), // last: it takes the bundle its curves
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
