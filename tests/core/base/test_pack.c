/* If this fails, a damaged or crafted dataset or bundle file is read as if it were whole, or crashes its reader. */
#include "tests/core/support.h"

#include "core/base/hash.h"
#include "core/base/mem.h"
#include "core/base/pack.h"

#define HEADER 64
#define ENTRY 88

static const uint32_t numbers[6] = {1, 2, 3, 4, 5, 6};
static const float floats[3] = {0.5f, 1.5f, 2.5f};

static bool write_sample(const char *path, struct err *e)
{
    static const uint64_t off[] = {0, 1, 1, 4};
    struct strtab t = {.n = 3, .off = off, .bytes = "abcd"};
    struct pack_writer *w = pack_writer_new(path, "sample", e);
    bool ok = w && pack_put(w, "numbers", PACK_U32, 2, 3, numbers, e) &&
              pack_put(w, "floats", PACK_F32, 3, 1, floats, e) && pack_put(w, "nothing", PACK_U8, 0, 4, NULL, e) &&
              pack_put_strtab(w, "names", &t, e) && pack_writer_finish(w, e);
    pack_writer_free(w);
    return ok;
}

static void comes_back_as_written(void **state)
{
    struct err e = {0};
    assert_ok(write_sample(tmp_path(state, "p"), &e), &e);
    for (int mode = PACK_MAP; mode <= PACK_READ; mode++) {
        struct pack *p = pack_open(tmp_path(state, "p"), "sample", (enum pack_mode)mode, true, &e);
        assert_ok(p, &e);
        size_t rows = 9;
        const uint32_t *x = pack_get(p, "numbers", PACK_U32, 3, &rows, &e);
        assert_ok(x, &e);
        assert_int_equal(rows, 2);
        assert_int_equal((uintptr_t)x % 64, 0);
        assert_memory_equal(x, numbers, sizeof(numbers));
        assert_memory_equal(pack_need(p, "floats", PACK_F32, 1, 3, &e), floats, sizeof(floats));
        assert_non_null(pack_get(p, "nothing", PACK_U8, 4, &rows, &e));
        assert_int_equal(rows, 0);
        assert_int_equal(pack_cols(p, "numbers"), 3);
        assert_int_equal(pack_cols(p, "none"), 0);
        assert_true(pack_has(p, "floats"));
        assert_false(pack_has(p, "none"));
        struct strtab t;
        assert_ok(pack_get_strtab(p, "names", &t, &e), &e);
        assert_int_equal(t.n, 3);
        assert_memory_equal(strtab_get(&t, 2).p, "bcd", 3);
        assert_true(pack_bytes(p) > HEADER + 5 * ENTRY);
        assert_err(pack_get(p, "none", PACK_U8, 1, &rows, &e), &e, ERR_FORMAT, "p: no section none");
        assert_err(pack_get(p, "numbers", PACK_U32, 2, &rows, &e), &e, ERR_FORMAT, "numbers is u32[3], want u32[2]");
        assert_err(pack_get(p, "numbers", PACK_F32, 3, &rows, &e), &e, ERR_FORMAT, "want f32[3]");
        assert_err(pack_need(p, "numbers", PACK_U32, 3, 4, &e), &e, ERR_FORMAT, "has 2 rows, want 4");
        assert_err(pack_get_strtab(p, "floats", &t, &e), &e, ERR_FORMAT, "no section floats.off");
        pack_close(p);
    }
    pack_close(NULL);
}

/* Exhaustive over the file: every flipped bit outside the padding between sections is noticed. */
static void every_flipped_bit_is_noticed(void **state)
{
    struct err e = {0};
    const char *path = tmp_path(state, "p");
    assert_ok(write_sample(path, &e), &e);
    size_t n;
    char *data = get_file(path, &n);
    size_t accepted = 0;
    for (size_t bit = 0; bit < n * 8; bit++) {
        char *block = mem_block(n, &e);
        memcpy(block, data, n);
        block[bit / 8] ^= (char)(1 << bit % 8);
        struct pack *p = pack_open_block(block, n, "bad", "sample", PACK_READ, true, &e);
        if (p) {
            assert_int_equal(data[bit / 8], 0); // padding
            accepted++;
        } else {
            assert_true(e.code == ERR_FORMAT || e.code == ERR_MISMATCH);
            assert_non_null(strstr(e.msg, "bad"));
        }
        e = (struct err){0};
        pack_close(p);
    }
    assert_true(accepted <= 8 * 64 * 6);
    free(data);
}

static void cut_and_extended_files_are_refused(void **state)
{
    struct err e = {0};
    const char *path = tmp_path(state, "p");
    assert_ok(write_sample(path, &e), &e);
    size_t n;
    char *data = get_file(path, &n);
    for (size_t cut = 0; cut <= n + 1; cut++) {
        if (cut == n)
            continue;
        char *block = mem_block(cut, &e);
        memcpy(block, data, cut < n ? cut : n);
        assert_err(pack_open_block(block, cut, "bad", "sample", PACK_READ, true, &e), &e, ERR_FORMAT, "bad");
    }
    free(data);
    assert_err(pack_open(path, "users", PACK_MAP, true, &e), &e, ERR_MISMATCH, "holds \"sample\", want \"users\"");
    assert_err(pack_open(tmp_path(state, "none"), "users", PACK_MAP, true, &e), &e, ERR_NOT_FOUND, "none");
    assert_err(pack_open(tmp_path(state, "none"), "users", PACK_READ, true, &e), &e, ERR_NOT_FOUND, "none");
}

/* With right checksums a liar is still refused: the fields themselves are checked. */
static void put64(char *p, uint64_t v)
{
    memcpy(p, &v, sizeof(v));
}

static void put32(char *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static void reseal(char *data, size_t n)
{
    uint64_t table;
    memcpy(&table, data + 16, 8);
    if (table < n)
        put64(data + 24, hash64(data + table, n - table));
    put64(data + 56, hash64(data, 56));
}

static void crafted_fields_are_refused(void **state)
{
    struct err e = {0};
    const char *path = tmp_path(state, "p");
    assert_ok(write_sample(path, &e), &e);
    size_t n;
    char *good = get_file(path, &n);
    uint64_t table;
    memcpy(&table, good + 16, 8);
    enum { TYPE = 48, COLS = 52, ROWS = 56, OFFSET = 64, BYTES = 72 };
    const struct {
        size_t at;
        uint64_t value;
        bool narrow;
        const char *want;
    } cases[] = {
        {8, 2, true, "format version 2, this program reads 1"},
        {12, 4097, true, "the header wants"},
        {12, 4, true, "the header wants"},
        {16, table - 8, false, "the header wants"},
        {16, UINT64_MAX - 7, false, "the header wants"},
        {16, 8, false, "the header wants"},
        {table + TYPE, 0, true, "section numbers: type 0"},
        {table + TYPE, 7, true, "section numbers: type 7"},
        {table + COLS, 0, true, "0 columns"},
        {table + COLS, 4, true, "do not hold 2 x 4 u32"},
        {table + ROWS, 3, false, "do not hold 3 x 3 u32"},
        {table + ROWS, UINT64_MAX / 4, false, "do not hold"},
        {table + OFFSET, 0, false, "lie outside the file"},
        {table + OFFSET, 65, false, "lie outside the file"},
        {table + OFFSET, UINT64_MAX - 63, false, "lie outside the file"},
        {table + OFFSET, table, false, "lie outside the file"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *block = mem_block(n, &e);
        memcpy(block, good, n);
        if (cases[i].narrow)
            put32(block + cases[i].at, (uint32_t)cases[i].value);
        else
            put64(block + cases[i].at, cases[i].value);
        reseal(block, n);
        assert_err(pack_open_block(block, n, "bad", "sample", PACK_READ, true, &e), &e, ERR_FORMAT, cases[i].want);
    }
    char *block = mem_block(n, &e);
    memcpy(block, good, n);
    memset(block + table, 'x', 48);
    reseal(block, n);
    assert_err(pack_open_block(block, n, "bad", "sample", PACK_READ, true, &e), &e, ERR_FORMAT, "not terminated");
    free(good);
}

static void string_tables_are_checked(void **state)
{
    struct err e = {0};
    const char *path = tmp_path(state, "p");
    struct strtab t;
    static const uint64_t off[] = {0, 9};
    struct pack_writer *w = pack_writer_new(path, "sample", &e);
    assert_ok(pack_put(w, "a.off", PACK_U64, 2, 1, off, &e) && pack_put(w, "a.bytes", PACK_U8, 4, 1, "abcd", &e) &&
                  pack_put(w, "b.off", PACK_U64, 0, 1, off, &e) && pack_put(w, "b.bytes", PACK_U8, 4, 1, "abcd", &e) &&
                  pack_put(w, "c.off", PACK_U64, 2, 1, off, &e) && pack_writer_finish(w, &e),
              &e);
    pack_writer_free(w);
    struct pack *p = pack_open(path, "sample", PACK_MAP, true, &e);
    assert_ok(p, &e);
    assert_err(pack_get_strtab(p, "a", &t, &e), &e, ERR_FORMAT, "offsets run from 0 to 9, want 0 to 4");
    assert_err(pack_get_strtab(p, "b", &t, &e), &e, ERR_FORMAT, "0 offsets");
    assert_err(pack_get_strtab(p, "c", &t, &e), &e, ERR_FORMAT, "no section c.bytes");
    pack_close(p);
}

static void writer_refuses_and_cleans_up(void **state)
{
    struct err e = {0};
    const char *path = tmp_path(state, "p");
    assert_err(pack_writer_new(tmp_path(state, "no/p"), "sample", &e), &e, ERR_NOT_FOUND, "no/p");
    struct pack_writer *w = pack_writer_new(path, "sample", &e);
    char name[49];
    memset(name, 'n', 48);
    name[48] = '\0';
    assert_err(pack_put(w, name, PACK_U8, 1, 1, "x", &e), &e, ERR_LIMIT, "too long");
    assert_ok(pack_put(w, "a", PACK_U8, 1, 1, "x", &e), &e);
    assert_err(pack_put(w, "a", PACK_U8, 1, 1, "x", &e), &e, ERR_ARG, "section a is there already");
    pack_writer_free(w); // without finish: no file is left
    assert_null(fopen(path, "rb"));
    w = pack_writer_new(path, "sample", &e);
    for (int i = 0; i < 4096; i++) {
        snprintf(name, sizeof(name), "s%d", i);
        assert_ok(pack_put(w, name, PACK_U8, 1, 1, "x", &e), &e);
    }
    assert_err(pack_put(w, "more", PACK_U8, 1, 1, "x", &e), &e, ERR_LIMIT, "more than 4096 sections");
    assert_ok(pack_writer_finish(w, &e), &e);
    pack_writer_free(w);
    struct pack *p = pack_open(path, "sample", PACK_MAP, true, &e);
    assert_ok(p, &e);
    pack_close(p);
}

static void lack_of_memory_is_an_error(void **state)
{
    const char *path = tmp_path(state, "p");
    for (size_t n = 1;; n++) {
        struct err e = {0};
        alloc_fail_at(n);
        bool ok = write_sample(path, &e);
        struct pack *p = ok ? pack_open(path, "sample", PACK_READ, true, &e) : NULL;
        alloc_fail_at(0);
        assert_int_equal(e.code, p ? ERR_OK : ERR_NOMEM);
        pack_close(p);
        if (p)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comes_back_as_written, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(every_flipped_bit_is_noticed, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(cut_and_extended_files_are_refused, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(crafted_fields_are_refused, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(string_tables_are_checked, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(writer_refuses_and_cleans_up, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(lack_of_memory_is_an_error, tmp_setup, tmp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
