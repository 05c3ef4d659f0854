/* If this fails, values reach the wrong rows of embedding tables (answers silently wrong), or a damaged schema or a row
 * out of range gets past the checks that all array accesses of the towers rely on. */
#include <math.h>
#include <unistd.h>

#include "core/schema.h"
#include "tests/core/support.h"

static const char good[] =
    "{\"format\": \"duet-schema\", \"format_version\": 1,"
    " \"user\": {\"segment\": \"city\", \"fields\": ["
    "   {\"name\": \"uid\", \"kind\": \"id\", \"rows\": 11},"
    "   {\"name\": \"city\", \"kind\": \"categorical\", \"values\": [\"SH\", \"BJ\", \"\xe4\xb8\x8a\xe6\xb5\xb7\"]},"
    "   {\"name\": \"age\", \"kind\": \"numeric\", \"bounds\": [-1.5, 18, 25, 1e6]}]},"
    " \"item\": {\"segment\": null, \"fields\": ["
    "   {\"name\": \"title\", \"kind\": \"display\"},"
    "   {\"name\": \"class\", \"kind\": \"categorical\", \"category\": true, \"values\": [\"food\"]},"
    "   {\"name\": \"genres\", \"kind\": \"multi\", \"sep\": \"|\", \"slots\": 3, \"values\": [\"Drama\", \"Sci Fi\", "
    "\"War\", \"Noir\"]},"
    "   {\"name\": \"price\", \"kind\": \"numeric\", \"bounds\": []}]}}";

static struct schema *parse(const char *text, struct err *err)
{
    json_t *v = json_parse(text, strlen(text), err);
    struct schema *s = v ? schema_from_json(v, err) : NULL;
    json_decref(v);
    return s;
}

static struct schema *parse_good(void)
{
    struct err err = {0};
    struct schema *s = parse(good, &err);
    if (!s)
        fail_msg("%s", err.msg);
    return s;
}

static void places_slots_and_rows(void **state)
{
    (void)state;
    struct schema *s = parse_good();
    assert_int_equal(s->user.n_slots, 3);
    assert_int_equal(s->item.n_slots, 5);
    assert_int_equal(s->user.id_field, 0);
    assert_int_equal(s->item.id_field, -1);
    assert_int_equal(s->user.segment_field, 1);
    assert_int_equal(schema_n_segments(&s->user), 4);
    assert_int_equal(schema_n_segments(&s->item), 1);
    static const uint32_t slot[] = {0, 0, 1, 4}, rows[] = {0, 2, 5, 2};
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(s->item.field[i].slot, slot[i]);
        assert_int_equal(s->item.field[i].n_rows, rows[i]);
    }
    assert_int_equal(s->user.field[2].n_rows, 6);
    assert_string_equal(schema_category(&s->item)->name, "class");
    assert_null(schema_category(&s->user));
    assert_ptr_equal(schema_find(&s->user, "age!", 3), &s->user.field[2]);
    assert_null(schema_find(&s->user, "ag", 2));
    assert_true(schema_seal(s, NULL)); // sealing again changes nothing
    assert_int_equal(s->item.n_slots, 5);
    schema_free(s);
    schema_free(NULL);
}

static bool encode(const struct schema_side *side, const char *field, const char *value, uint32_t *x)
{
    return schema_encode_value(side, schema_find(side, field, strlen(field)), value, strlen(value), x);
}

static void encodes_single_values(void **state)
{
    (void)state;
    struct schema *s = parse_good();
    uint32_t x[3] = {7, 7, 7};
    schema_encode_unknown(&s->user, x);
    assert_int_equal(x[0] | x[1] | x[2], 0);
    assert_true(encode(&s->user, "city", "BJ", x));
    assert_int_equal(x[1], 2);
    assert_int_equal(schema_segment(&s->user, x), 2);
    assert_int_equal(schema_segment(&s->item, x), 0);
    assert_true(encode(&s->user, "city", "\xe4\xb8\x8a\xe6\xb5\xb7", x));
    assert_int_equal(x[1], 3);
    assert_false(encode(&s->user, "city", "bj", x));
    assert_int_equal(x[1], 0);
    x[0] = 9;
    assert_true(encode(&s->user, "uid", "anything", x));
    assert_int_equal(x[0], 9);
    schema_free(s);
}

static void buckets_numbers(void **state)
{
    (void)state;
    struct schema *s = parse_good();
    static const struct {
        const char *text;
        uint32_t row;
    } cases[] = {{"-2", 1},
                 {"-1.5", 2},
                 {"17.99", 2},
                 {"18", 3},
                 {" 18 ", 3},
                 {"1.8e1", 3},
                 {"24", 3},
                 {"25", 4},
                 {"999999", 4},
                 {"1e6", 5},
                 {"1E300", 5},
                 {"1e999", 0},
                 {"-1e999", 0},
                 {"", 0},
                 {"  ", 0},
                 {"nan", 0},
                 {"inf", 0},
                 {"0x12", 0},
                 {"18y", 0},
                 {"1,8", 0},
                 {"--1", 0},
                 {"1 2", 0},
                 {".", 0},
                 {"e5", 0},
                 {"0000000000000000000000000000000000000000000000000000000000000018", 0}};
    uint32_t x[3] = {0};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool known = encode(&s->user, "age", cases[i].text, x);
        if (x[2] != cases[i].row || known != (cases[i].row != 0))
            fail_msg("\"%s\": row %u, want %u", cases[i].text, x[2], cases[i].row);
    }
    uint32_t y[5];
    assert_true(encode(&s->item, "price", "-3", y)); // no bounds: one bucket for all numbers
    assert_int_equal(y[4], 1);
    schema_free(s);
}

static void encodes_multi_values(void **state)
{
    (void)state;
    struct schema *s = parse_good();
    const uint32_t no = SLOT_EMPTY;
    const struct {
        const char *text;
        uint32_t row[3];
        bool known;
    } cases[] = {{"War", {3, no, no}, true},
                 {"War|Drama", {3, 1, no}, true},
                 {" War | Sci Fi |", {3, 2, no}, true},
                 {"|| |Noir", {4, no, no}, true},
                 {"War|War|War|War|Drama", {3, 1, no}, true},
                 {"War|Drama|Noir|Sci Fi", {3, 1, 4}, true},
                 {"War|Opera|Drama", {3, 0, 1}, false},
                 {"Opera|Ballet", {0, no, no}, false},
                 {"", {0, no, no}, false},
                 {"||", {0, no, no}, false}};
    uint32_t x[5];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(x, 1, sizeof(x));
        assert_int_equal(encode(&s->item, "genres", cases[i].text, x), cases[i].known);
        assert_memory_equal(x + 1, cases[i].row, sizeof(cases[i].row));
        assert_int_equal(x[4], 0x01010101); // neighbours untouched
    }
    schema_encode_unknown(&s->item, x);
    const uint32_t unknown[5] = {0, 0, no, no, 0};
    assert_memory_equal(x, unknown, sizeof(unknown));
    assert_true(schema_check_x(&s->item, x, 1, NULL));
    schema_free(s);
}

static void checks_rows_from_files(void **state)
{
    (void)state;
    struct schema *s = parse_good();
    const uint32_t no = SLOT_EMPTY;
    const uint32_t ok[3][5] = {{0, 0, no, no, 0}, {1, 4, 3, no, 1}, {1, 1, 2, 3, 1}};
    assert_true(schema_check_x(&s->item, ok[0], 3, NULL));
    const uint32_t bad[][5] = {{2, 0, no, no, 0}, {no, 0, no, no, 0}, {0, no, no, no, 0}, {0, 1, no, 1, 0},
                               {0, 5, no, no, 0}, {0, 1, 2, 5, 0},    {0, 0, no, no, 2},  {0, no, 1, no, 0}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err = {0};
        uint32_t x[10];
        memcpy(x, ok[0], sizeof(ok[0]));
        memcpy(x + 5, bad[i], sizeof(bad[i]));
        assert_false(schema_check_x(&s->item, x, 2, &err));
        assert_int_equal(err.code, ERR_FORMAT);
        assert_non_null(strstr(err.msg, "entity 1"));
    }
    schema_free(s);
}

/* The document with one occurrence of `from` replaced must be refused with `want` in the message. */
static void refused(const char *from, const char *to, const char *want)
{
    char text[4096];
    struct err err = {0};
    const char *at = strstr(good, from);
    assert_non_null(at);
    snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
    struct schema *s = parse(text, &err);
    if (s || !strstr(err.msg, want))
        fail_msg("%s -> %s: %s", from, to, s ? "accepted" : err.msg);
}

static void refuses_each_broken_rule(void **state)
{
    (void)state;
    refused("duet-schema", "duet-model", "duet-model");
    refused("\"format_version\": 1", "\"format_version\": 2", "this program reads 1");
    refused("\"format_version\": 1,", "", "format_version");
    refused("\"format_version\": 1,", "\"format_version\": 1, \"more\": 1,", "unknown member \"more\"");
    refused("\"segment\": \"city\"", "\"segment\": \"town\"", "no field \"town\"");
    refused("\"segment\": \"city\"", "\"segment\": \"age\"", "want categorical");
    refused("\"segment\": \"city\"", "\"segment\": 1", "segment");
    refused("\"segment\": \"city\",", "", "segment");
    refused("\"name\": \"uid\"", "\"name\": \"\"", "1 to 63");
    refused("\"name\": \"uid\"", "\"name\": \"a\\nb\"", "control character");
    refused("\"name\": \"uid\"", "\"name\": \"1234567890123456789012345678901234567890123456789012345678901234\"",
            "1 to 63");
    refused("\"name\": \"uid\"", "\"name\": 3", "name");
    refused("\"name\": \"uid\"", "\"name\": \"city\"", "distinct names");
    refused("\"kind\": \"id\"", "\"kind\": \"ID\"", "\"ID\"");
    refused("\"rows\": 11", "\"rows\": 0", "want 1 to");
    refused("\"rows\": 11", "\"rows\": -1", "rows");
    refused("\"rows\": 11", "\"rows\": 4294967296", "rows");
    refused("\"rows\": 11", "\"rows\": 11.0", "rows");
    refused("\"rows\": 11", "\"rows\": 11, \"values\": []", "unknown member \"values\"");
    refused("\"SH\", \"BJ\"", "\"SH\", \"SH\"", "rows 0 and 1");
    refused("\"SH\", \"BJ\"", "\"SH\", \"\"", "empty value");
    refused("\"SH\", \"BJ\"", "\"SH\", 1", "not a string");
    refused("[-1.5, 18", "[18, 18", "not above");
    refused("[-1.5, 18", "[19, 18", "not above");
    refused("[-1.5, 18", "[-1.5, \"18\"", "not a number");
    refused("\"bounds\": [-1.5, 18, 25, 1e6]", "\"bounds\": 3", "bounds");
    refused("\"kind\": \"numeric\", \"bounds\": [-1.5, 18, 25, 1e6]", "\"kind\": \"id\", \"rows\": 2", "at most one");
    refused("\"values\": [\"SH\"", "\"category\": true, \"values\": [\"SH\"", "only items");
    refused("{\"name\": \"title\", \"kind\": \"display\"}",
            "{\"name\": \"title\", \"kind\": \"categorical\", \"category\": true, \"values\": []}", "both marked");
    refused("\"category\": true", "\"category\": 1", "category");
    refused("\"sep\": \"|\"", "\"sep\": \"||\"", "sep");
    refused("\"sep\": \"|\"", "\"sep\": \"\\t\"", "separator");
    refused("\"sep\": \"|\"", "\"sep\": \"a\"", "separator");
    refused("\"slots\": 3", "\"slots\": 0", "want 1 to 16");
    refused("\"slots\": 3", "\"slots\": 17", "slots");
    refused("\"Drama\"", "\" Drama\"", "space at an end");
    refused("\"user\": {", "\"user\": [], \"users\": {", "unknown member");
    refused("\"fields\": [", "\"fields\": 1, \"f\": [", "unknown member");
}

static void refuses_too_many_fields(void **state)
{
    (void)state;
    struct err err = {0};
    json_t *v = json_parse(good, strlen(good), NULL);
    json_t *fields = json_object_get(json_object_get(v, "item"), "fields");
    for (int i = 0; json_array_size(fields) < SCHEMA_FIELDS_MAX; i++)
        json_array_append_new(fields, json_pack("{s:o, s:s}", "name", json_sprintf("t%d", i), "kind", "display"));
    struct schema *s = schema_from_json(v, NULL);
    assert_non_null(s);
    schema_free(s);
    json_array_append_new(fields, json_pack("{s:s, s:s}", "name", "last", "kind", "display"));
    assert_null(schema_from_json(v, &err));
    assert_int_equal(err.code, ERR_LIMIT);
    json_decref(v);
}

/* What no JSON can say: a hand-built schema with a non-finite bound, NUL in a value, or a category of the wrong kind.
 */
static void seal_checks_hand_built_ones(void **state)
{
    (void)state;
    for (int broken = 0; broken < 4; broken++) {
        struct err err = {0};
        struct schema *s = parse_good();
        if (broken == 0)
            s->user.field[2].bounds[3] = (double)INFINITY;
        if (broken == 1)
            assert_true(strtab_add(&s->user.field[1].vocab, "a\0b", 3, NULL, NULL));
        if (broken == 2)
            s->item.field[2].category = true, s->item.field[1].category = false;
        if (broken == 3)
            s->user.segment_field = 3;
        assert_false(schema_seal(s, &err));
        assert_int_equal(err.code, ERR_FORMAT);
        schema_free(s);
    }
}

static void bounds_survive_their_text(void **state)
{
    (void)state;
    struct schema *s = parse_good();
    struct schema_field *f = &s->user.field[2];
    f->bounds[0] = 1.0 / 3;
    f->bounds[1] = 1234567891.0; // these two differ in the tenth digit only
    f->bounds[2] = 1234567892.0;
    f->bounds[3] = 1e300;
    assert_true(schema_seal(s, NULL));
    assert_int_equal(f->n_bounds, 3);
    assert_int_equal(f->n_rows, 5);
    struct schema *t = schema_copy(s, NULL);
    assert_int_equal(t->user.field[2].n_bounds, 3);
    assert_memory_equal(t->user.field[2].bounds, f->bounds, 3 * sizeof(double));
    schema_free(t);
    schema_free(s);
}

static void saves_and_loads_the_same(void **state)
{
    (void)state;
    struct err err = {0};
    char path[] = "/tmp/duet-schema-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct schema *s = parse_good();
    assert_true(schema_save(s, path, &err));
    struct schema *t = schema_load(path, &err);
    assert_non_null(t);
    json_t *a = schema_to_json(s, &err), *b = schema_to_json(t, &err);
    assert_true(a && json_equal(a, b));
    char *text = json_text(a, &err), *again = json_text(b, &err);
    assert_string_equal(text, again);
    free(text);
    free(again);
    json_decref(a);
    json_decref(b);
    schema_free(t);
    schema_free(s);
    assert_int_equal(truncate(path, 200), 0);
    assert_null(schema_load(path, &err));
    assert_int_equal(err.code, ERR_FORMAT);
    assert_non_null(strstr(err.msg, path));
    unlink(path);
}

static void survives_lack_of_memory(void **state)
{
    (void)state;
    json_t *v = json_parse(good, strlen(good), NULL);
    bool done = false;
    for (size_t i = 1; !done; i++) {
        struct err err = {0};
        alloc_fail_at(i);
        struct schema *s = schema_from_json(v, &err);
        done = !alloc_failed();
        alloc_fail_at(0);
        assert_int_equal(s != NULL, done);
        assert_int_equal(err.code, done ? ERR_OK : ERR_NOMEM);
        schema_free(s);
    }
    json_decref(v);
}

/* What serving does with values that clients send: encoding allocates nothing. */
static void encoding_allocates_nothing(void **state)
{
    (void)state;
    struct schema *s = parse_good();
    uint32_t x[5];
    alloc_fail_at(1);
    schema_encode_unknown(&s->item, x);
    encode(&s->item, "genres", "War|Opera|Drama", x);
    encode(&s->item, "class", "food", x);
    encode(&s->item, "price", "12.5", x);
    bool allocated = alloc_failed();
    alloc_fail_at(0);
    assert_false(allocated);
    schema_free(s);
}

static void kinds_have_names(void **state)
{
    (void)state;
    enum field_kind k;
    for (int i = FIELD_ID; i <= FIELD_DISPLAY; i++) {
        assert_true(schema_kind_parse(schema_kind_name((enum field_kind)i), &k));
        assert_int_equal(k, i);
    }
    assert_false(schema_kind_parse("", &k));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_slots_and_rows),
        cmocka_unit_test(encodes_single_values),
        cmocka_unit_test(buckets_numbers),
        cmocka_unit_test(encodes_multi_values),
        cmocka_unit_test(checks_rows_from_files),
        cmocka_unit_test(refuses_each_broken_rule),
        cmocka_unit_test(refuses_too_many_fields),
        cmocka_unit_test(seal_checks_hand_built_ones),
        cmocka_unit_test(bounds_survive_their_text),
        cmocka_unit_test(saves_and_loads_the_same),
        cmocka_unit_test(kinds_have_names),
        cmocka_unit_test(survives_lack_of_memory),
        cmocka_unit_test(encoding_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
