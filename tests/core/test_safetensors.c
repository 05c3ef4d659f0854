/* If this fails, a damaged model file is believed (or crashes its reader), or PyTorch's safetensors cannot read what we
 * write. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/json.h"
#include "core/safetensors.h"
#include "tests/core/support.h"

static const float five[5] = {1, -2, 3.5f, 0, 1e-30f};

/* A file from a header's text and its data. For free(). */
static char *image(const char *header, const void *data, size_t n_data, size_t *n)
{
    uint64_t len = strlen(header);
    *n = 8 + len + n_data;
    char *p = malloc(*n);
    memcpy(p, &len, 8);
    memcpy(p + 8, header, len);
    if (n_data)
        memcpy(p + 8 + len, data, n_data);
    return p;
}

static struct safetensors *open_text(const char *header, size_t n_data, char **bytes, struct err *err)
{
    static const char zero[64];
    size_t n;
    *bytes = image(header, zero, n_data, &n);
    return safetensors_open_mem(*bytes, n, "test", err);
}

static bool write_two(const char *path, struct err *err)
{
    const struct st_tensor t[] = {{.name = "a", .dtype = ST_F32, .n_dims = 2, .dim = {2, 2}},
                                  {.name = "none", .dtype = ST_F32, .n_dims = 2, .dim = {0, 7}},
                                  {.name = "\xc3\xa9 \"b\"", .dtype = ST_F32, .n_dims = 1, .dim = {1}}};
    const struct st_meta meta[] = {{"kind", "dat"}, {"note", "a \"quoted\" \xe4\xb8\xad"}};
    const struct st_layout layout = {.tensor = t, .n_tensors = 3, .meta = meta, .n_meta = 2};
    struct safetensors_writer *w = safetensors_writer_new(path, &layout, err);
    bool ok =
        w && safetensors_put(w, five, 4, err) && safetensors_put(w, five + 1, 16, err) && safetensors_finish(w, err);
    safetensors_writer_free(w);
    return ok;
}

static void reads_what_it_wrote(void **state)
{
    struct err err = {0};
    const char *path = tmp_path(state, "m.safetensors");
    assert_ok(write_two(path, &err), &err);
    struct safetensors *s = safetensors_open(path, &err);
    assert_ok(s, &err);
    assert_int_equal(safetensors_count(s), 3);
    assert_string_equal(safetensors_at(s, 0)->name, "a");
    assert_string_equal(safetensors_meta(s, "note"), "a \"quoted\" \xe4\xb8\xad");
    assert_null(safetensors_meta(s, "none"));
    assert_null(safetensors_find(s, "b"));
    const uint64_t two[2] = {2, 2}, one[1] = {1}, none[2] = {0, 7};
    float out[4];
    assert_ok(safetensors_read_f32(s, "a", 2, two, out, &err), &err);
    assert_memory_equal(out, five, sizeof(out));
    assert_ok(safetensors_read_f32(s, "none", 2, none, out, &err), &err);
    const float *b = safetensors_view_f32(s, "\xc3\xa9 \"b\"", 1, one, &err);
    assert_ok(b, &err);
    assert_memory_equal(b, five + 4, 4);
    assert_err(safetensors_read_f32(s, "c", 1, one, out, &err), &err, ERR_FORMAT, "missing");
    assert_err(safetensors_read_f32(s, "a", 1, one, out, &err), &err, ERR_MISMATCH, "[2][2], want [1]");
    assert_err(safetensors_read_f32(s, "a", 2, none, out, &err), &err, ERR_MISMATCH, "[2][2], want [0][7]");
    safetensors_close(s);
    safetensors_close(NULL);
}

/* The format's rules, read back by hand and not by our reader. */
static void writes_what_the_format_says(void **state)
{
    struct err err = {0};
    size_t n;
    const char *path = tmp_path(state, "m.safetensors");
    assert_ok(write_two(path, &err), &err);
    unsigned char *p = (unsigned char *)get_file(path, &n);
    uint64_t len = 0;
    for (int i = 7; i >= 0; i--)
        len = len << 8 | p[i];
    assert_int_equal(n, 8 + len + 20);
    assert_int_equal((8 + len) % 64, 0); // a multiple of 8, as the format's own writer makes it, and of our cache lines
    assert_int_equal(p[8], '{');
    size_t end = 8 + len;
    while (p[end - 1] == ' ')
        end--;
    assert_int_equal(p[end - 1], '}');
    json_t *h = json_loadb((char *)p + 8, end - 8, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(h);
    json_t *want =
        json_pack("{s:{s:s,s:s}, s:{s:s,s:[i,i],s:[i,i]}, s:{s:s,s:[i,i],s:[i,i]}, s:{s:s,s:[i],s:[i,i]}}",
                  "__metadata__", "kind", "dat", "note", "a \"quoted\" \xe4\xb8\xad", "a", "dtype", "F32", "shape", 2,
                  2, "data_offsets", 0, 16, "none", "dtype", "F32", "shape", 0, 7, "data_offsets", 16, 16,
                  "\xc3\xa9 \"b\"", "dtype", "F32", "shape", 1, "data_offsets", 16, 20);
    assert_true(json_equal(h, want));
    assert_memory_equal(p + 8 + len, five, 20);
    json_decref(h);
    json_decref(want);
    free(p);
}

static void half_written_files_go_away(void **state)
{
    struct err err = {0};
    struct stat st;
    const char *path = tmp_path(state, "half");
    const struct st_tensor t[] = {{.name = "a", .dtype = ST_F32, .n_dims = 1, .dim = {2}}};
    const struct st_layout layout = {.tensor = t, .n_tensors = 1};
    struct safetensors_writer *w = safetensors_writer_new(path, &layout, &err);
    assert_ok(w, &err);
    assert_ok(safetensors_put(w, five, 4, &err), &err);
    assert_err(safetensors_finish(w, &err), &err, ERR_ARG, "4 bytes of tensors put, 8 announced");
    assert_err(safetensors_put(w, five, 8, &err), &err, ERR_ARG, "too many");
    safetensors_writer_free(w);
    assert_int_not_equal(stat(path, &st), 0);
    assert_err(safetensors_writer_new(tmp_path(state, "no/such"), &layout, &err), &err, ERR_NOT_FOUND, "no/such");
    const struct st_tensor twice[] = {t[0], t[0]};
    const struct st_layout bad = {.tensor = twice, .n_tensors = 2};
    assert_err(safetensors_writer_new(path, &bad, &err), &err, ERR_ARG, "distinct");
    const struct st_tensor huge[] = {{.name = "a", .dtype = ST_F32, .n_dims = 2, .dim = {UINT64_MAX / 2, 4}}};
    const struct st_layout too_big = {.tensor = huge, .n_tensors = 1};
    assert_err(safetensors_writer_new(path, &too_big, &err), &err, ERR_ARG, "fit");
}

/* Files as other programs write them: other types, scalars, any order of the header, data at odd places. */
static void reads_foreign_files(void **state)
{
    (void)state;
    struct err err = {0};
    char *bytes;
    struct safetensors *s = open_text("{\"b\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[5,13]},"
                                      "\"a\":{\"data_offsets\":[0,4],\"shape\":[1],\"dtype\":\"F32\"},"
                                      "\"c\":{\"dtype\":\"BOOL\",\"shape\":[1,1,1],\"data_offsets\":[4,5]}}  ",
                                      13, &bytes, &err);
    assert_ok(s, &err);
    const uint64_t one[1] = {1};
    float v = 9;
    assert_string_equal(safetensors_at(s, 2)->name, "b");
    assert_int_equal(safetensors_find(s, "b")->n_bytes, 8);
    assert_ok(safetensors_read_f32(s, "a", 1, one, &v, &err), &err);
    assert_true(v == 0);
    assert_err(safetensors_read_f32(s, "b", 0, NULL, &v, &err), &err, ERR_FORMAT, "type I64, want F32");
    bool aligned = (uintptr_t)safetensors_find(s, "a")->data % 4 == 0;
    if (!aligned)
        assert_err(safetensors_view_f32(s, "a", 1, one, &err), &err, ERR_FORMAT, "multiple of 4");
    else
        assert_non_null(safetensors_view_f32(s, "a", 1, one, &err));
    safetensors_close(s);
    free(bytes);
    s = open_text("{}", 0, &bytes, &err); // no tensors at all is legal
    assert_ok(s, &err);
    assert_int_equal(safetensors_count(s), 0);
    safetensors_close(s);
    free(bytes);
}

static void views_need_alignment(void **state)
{
    (void)state;
    struct err err = {0};
    const uint64_t one[1] = {1};
    int refused = 0;
    for (int pad = 0; pad < 4; pad++) {
        char header[128], *bytes;
        snprintf(header, sizeof(header), "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}%.*s", pad,
                 "   ");
        struct safetensors *s = open_text(header, 4, &bytes, &err);
        assert_ok(s, &err);
        refused += safetensors_view_f32(s, "a", 1, one, NULL) == NULL;
        assert_true(safetensors_read_f32(s, "a", 1, one, NULL, NULL));
        safetensors_close(s);
        free(bytes);
    }
    assert_int_equal(refused, 3);
}

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"

static void refuses_each_broken_rule(void **state)
{
    (void)state;
    static const struct {
        const char *header, *want;
        size_t n_data;
    } bad[] = {
        {"", "begin with {", 8},
        {"[]", "begin with {", 8},
        {" {}", "begin with {", 0},
        {"{} x", "header", 0},
        {"{" A "," A "}", "header", 8},
        {"{" A "}", "tensors end at data offset 8", 12},
        {"{" A "}", "within the 4 bytes", 4},
        {"{}", "file's data at 4", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", "want 0: no holes", 12},
        {"{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", "no overlaps", 8},
        {"{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "no overlaps", 8},
        {"{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}", "no holes", 16},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", "range", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", "want 2", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8.0]}}", "integers", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,-8]}}", "integers", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", "want 12", 8},
        {"{\"a\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[0,8]}}", "want 16", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", "integers", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", "shape", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905,4],\"data_offsets\":[0,16]}}", "overflow", 16},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807,4],\"data_offsets\":[0,0]}}", "overflow", 0},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", "at most 8", 4},
        {"{\"a\":{\"dtype\":\"f32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "\"f32\"", 8},
        {"{\"a\":{\"dtype\":3,\"shape\":[2],\"data_offsets\":[0,8]}}", "dtype", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", "want an object of", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"offsets\":[0,8]}}", "data_offsets", 8},
        {"{\"a\":[]}", "want an object of", 0},
        {"{\"__metadata__\":[]}", "__metadata__", 0},
        {"{\"__metadata__\":{\"a\":1}}", "not a string", 0},
        {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "header", 8},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err = {0};
        char *bytes;
        struct safetensors *s = open_text(bad[i].header, bad[i].n_data, &bytes, &err);
        if (s || !strstr(err.msg, bad[i].want) || !strstr(err.msg, "test"))
            fail_msg("%s: %s, want %s", bad[i].header, s ? "accepted" : err.msg, bad[i].want);
        free(bytes);
    }
}

static void refuses_bad_header_lengths(void **state)
{
    (void)state;
    struct err err = {0};
    static const uint64_t lengths[] = {0, 1, 3, 1000, ST_HEADER_MAX + 1, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        char bytes[10] = "12345678{}";
        memcpy(bytes, &lengths[i], 8);
        assert_null(safetensors_open_mem(bytes, 10, "test", NULL));
    }
    for (size_t n = 0; n < 10; n++) {
        char *bytes = malloc(n + 1);
        memset(bytes, 0, n + 1);
        assert_err(safetensors_open_mem(bytes, n, "test", &err), &err, ERR_FORMAT, "test");
        free(bytes);
    }
    char *big = calloc(1, ST_HEADER_MAX + 64); // as much header as the file claims, but more than we parse
    const uint64_t len = ST_HEADER_MAX + 1;
    memset(big + 8, ' ', len);
    memcpy(big, &len, 8);
    memcpy(big + 8, "{}", 2);
    assert_err(safetensors_open_mem(big, 8 + len, "test", &err), &err, ERR_FORMAT, "1 MiB");
    free(big);
}

static void long_names_are_refused(void **state)
{
    (void)state;
    struct err err = {0};
    char header[512], *bytes;
    snprintf(header, sizeof(header), "{\"%0256d\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 0);
    assert_err(open_text(header, 8, &bytes, &err), &err, ERR_LIMIT, "256 bytes");
    free(bytes);
}

static void finds_values_that_are_not_finite(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 16, 17, 16384, 16385, 40000};
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t n = sizes[i], at[] = {0, n / 2, n - 1};
        char *raw = calloc(n + 1, 4), *p = raw + 1; // odd address
        assert_true(st_all_finite(p, n));
        for (int j = 0; j < 9; j++) {
            const float v = bad[j / 3], zero = 3.4e38f;
            memcpy(p + at[j % 3] * 4, &v, 4);
            assert_false(st_all_finite(p, n));
            memcpy(p + at[j % 3] * 4, &zero, 4);
        }
        assert_true(st_all_finite(p, n));
        free(raw);
    }
    assert_true(st_all_finite(NULL, 0));
}

/* Every byte of header and length set to 0, to 0xff, and each of its bits flipped: refused, or a file that is still
 * valid and whose tensors can be taken. */
static void any_header_byte_may_change(void **state)
{
    struct err err = {0};
    size_t n, refused = 0;
    const char *path = tmp_path(state, "m.safetensors");
    assert_ok(write_two(path, &err), &err);
    char *good = get_file(path, &n);
    for (size_t i = 0; i < n - 20; i++)
        for (int how = 0; how < 10; how++) {
            char *bytes = malloc(n); // exactly n: a read past the end is seen by ASan
            memcpy(bytes, good, n);
            int b = how < 8 ? good[i] ^ (1 << how) : how == 8 ? 0 : 0xff;
            bytes[i] = (char)b;
            struct safetensors *s = safetensors_open_mem(bytes, n, "test", NULL);
            refused += s == NULL;
            for (size_t j = 0; s && j < safetensors_count(s); j++) {
                const struct st_tensor *t = safetensors_at(s, j);
                float *out = malloc(t->n_bytes + 1);
                safetensors_read_f32(s, t->name, t->n_dims, t->dim, out, NULL);
                free(out);
            }
            safetensors_close(s);
            free(bytes);
        }
    assert_true(refused > 1000);
    free(good);
}

static void survives_lack_of_memory(void **state)
{
    const char *path = tmp_path(state, "m.safetensors");
    bool done = false;
    for (size_t i = 1; !done; i++) {
        struct err err = {0};
        alloc_fail_at(i);
        bool ok = write_two(path, &err);
        struct safetensors *s = ok ? safetensors_open(path, &err) : NULL;
        done = !alloc_failed();
        alloc_fail_at(0);
        assert_int_equal(s != NULL, done);
        if (!done)
            assert_int_equal(err.code, ERR_NOMEM);
        safetensors_close(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_what_it_wrote, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(writes_what_the_format_says, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(half_written_files_go_away, tmp_setup, tmp_teardown),
        cmocka_unit_test(reads_foreign_files),
        cmocka_unit_test(views_need_alignment),
        cmocka_unit_test(refuses_each_broken_rule),
        cmocka_unit_test(refuses_bad_header_lengths),
        cmocka_unit_test(long_names_are_refused),
        cmocka_unit_test(finds_values_that_are_not_finite),
        cmocka_unit_test_setup_teardown(any_header_byte_may_change, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(survives_lack_of_memory, tmp_setup, tmp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
