/* If this fails, ids are looked up wrongly, or offsets out of a crafted file send a reader outside its memory. */
#include "tests/core/support.h"

#include "core/base/strtab.h"

static void builder_keeps_order(void **state)
{
    (void)state;
    struct err e = {0};
    struct strtab_builder b = {0};
    uint32_t row;
    assert_int_equal(strtab_view(&b).n, 0);
    assert_int_equal(strtab_view(&b).off[0], 0);
    char text[32];
    for (uint32_t i = 0; i < 5000; i++) {
        int n = snprintf(text, sizeof(text), "value-%u", i % 2500);
        assert_ok(strtab_add(&b, text, (size_t)n, &row, &e), &e);
        assert_int_equal(row, i);
    }
    struct strtab t = strtab_view(&b);
    assert_int_equal(t.n, 5000);
    assert_true(strtab_check(&t, b.len, NULL));
    struct str s = strtab_get(&t, 4999);
    assert_int_equal(s.n, 10);
    assert_memory_equal(s.p, "value-2499", 10);
    strtab_builder_fini(&b);
    strtab_builder_fini(&b);
}

static void interning_finds_again(void **state)
{
    (void)state;
    struct err e = {0};
    struct strtab_builder b = {0};
    char text[32];
    for (uint32_t i = 0; i < 9000; i++) {
        uint32_t row = 77;
        int n = snprintf(text, sizeof(text), "%u", i % 3000);
        assert_ok(strtab_intern(&b, text, (size_t)n, &row, &e), &e);
        assert_int_equal(row, i % 3000);
    }
    assert_ok(strtab_intern(&b, "", 0, NULL, &e) && strtab_intern(&b, NULL, 0, NULL, &e), &e);
    assert_int_equal(b.n, 3001);
    strtab_builder_fini(&b);
}

static void index_finds_all_and_nothing_else(void **state)
{
    (void)state;
    struct err e = {0};
    struct strtab_builder b = {0};
    char text[32];
    for (uint32_t i = 0; i < 3000; i++)
        strtab_add(&b, text, (size_t)snprintf(text, sizeof(text), "%u", i * 7), NULL, &e);
    strtab_add(&b, "a\0b", 3, NULL, &e);
    strtab_add(&b, "", 0, NULL, &e);
    struct strtab_index x;
    assert_ok(strtab_index_init(&x, strtab_view(&b), &e), &e);
    for (uint32_t i = 0; i < 3000 * 7; i++) {
        uint32_t row = strtab_find(&x, text, (size_t)snprintf(text, sizeof(text), "%u", i));
        assert_int_equal(row, i % 7 ? STRTAB_NONE : i / 7);
    }
    assert_int_equal(strtab_find(&x, "a\0b", 3), 3000);
    assert_int_equal(strtab_find(&x, "a", 1), STRTAB_NONE);
    assert_int_equal(strtab_find(&x, NULL, 0), 3001);
    strtab_index_fini(&x);
    assert_int_equal(strtab_find(&x, "0", 1), STRTAB_NONE);
    strtab_add(&b, "14", 2, NULL, &e);
    assert_err(strtab_index_init(&x, strtab_view(&b), &e), &e, ERR_FORMAT, "rows 2 and 3002 are both \"14\"");
    strtab_builder_fini(&b);
}

static void offsets_are_checked(void **state)
{
    (void)state;
    struct err e = {0};
    static const uint64_t good[] = {0, 2, 2, 5}, first[] = {1, 2, 2, 5}, back[] = {0, 3, 2, 5}, past[] = {0, 9, 2, 5},
                          zero[] = {0};
    struct strtab t = {.n = 3, .off = good, .bytes = "aabbb"};
    assert_ok(strtab_check(&t, 5, &e), &e);
    assert_err(strtab_check(&t, 6, &e), &e, ERR_FORMAT, "0 to 5, want 0 to 6");
    t.off = first;
    assert_err(strtab_check(&t, 5, &e), &e, ERR_FORMAT, "run from 1");
    t.off = back;
    assert_err(strtab_check(&t, 5, &e), &e, ERR_FORMAT, "row 2 goes backwards");
    t.off = past;
    assert_err(strtab_check(&t, 5, &e), &e, ERR_FORMAT, "row 2 goes backwards");
    t = (struct strtab){.n = 0, .off = zero, .bytes = ""};
    assert_ok(strtab_check(&t, 0, &e), &e);
}

static void lack_of_memory_is_an_error(void **state)
{
    (void)state;
    for (size_t n = 1;; n++) {
        struct err e = {0};
        struct strtab_builder b = {0};
        struct strtab_index x = {0};
        alloc_fail_at(n);
        bool ok = true;
        char text[16];
        for (uint32_t i = 0; ok && i < 300; i++)
            ok = strtab_intern(&b, text, (size_t)snprintf(text, sizeof(text), "long value %u", i), NULL, &e);
        ok = ok && strtab_index_init(&x, strtab_view(&b), &e);
        alloc_fail_at(0);
        strtab_index_fini(&x);
        strtab_builder_fini(&b);
        assert_int_equal(e.code, ok ? ERR_OK : ERR_NOMEM);
        if (ok)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(builder_keeps_order),
        cmocka_unit_test(interning_finds_again),
        cmocka_unit_test(index_finds_all_and_nothing_else),
        cmocka_unit_test(offsets_are_checked),
        cmocka_unit_test(lack_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
