/* If this fails, a crafted count overflows an allocation, or lack of memory ends in a crash instead of an error. */
#include "tests/core/support.h"

#include <sys/mman.h>

#include "core/base/mem.h"

static size_t n_unmapped, bytes_unmapped, most_unmapped;

int __real_munmap(void *p, size_t n);
int __wrap_munmap(void *p, size_t n);
int __wrap_munmap(void *p, size_t n)
{
    n_unmapped++;
    bytes_unmapped += n;
    most_unmapped = n > most_unmapped ? n : most_unmapped;
    return __real_munmap(p, n);
}

static void arrays_are_zeroed_and_checked(void **state)
{
    (void)state;
    struct err e = {0};
    uint32_t *a = mem_array(100, sizeof(*a), &e);
    assert_non_null(a);
    for (int i = 0; i < 100; i++)
        assert_int_equal(a[i], 0);
    free(a);
    void *nothing = mem_array(0, 8, &e);
    assert_non_null(nothing);
    free(nothing);
    assert_err(mem_array(SIZE_MAX / 2, 3, &e), &e, ERR_NOMEM, "overflow");
    assert_err(mem_grow(NULL, SIZE_MAX / 2, 3, &e), &e, ERR_NOMEM, "out of memory");
}

static void grow_keeps_what_is_there(void **state)
{
    (void)state;
    struct err e = {0};
    char *a = mem_grow(NULL, 4, 1, &e);
    memcpy(a, "abc", 4);
    a = mem_grow(a, 100000, 1, &e);
    assert_string_equal(a, "abc");
    alloc_fail_at(1);
    assert_err(mem_grow(a, 200000, 1, &e), &e, ERR_NOMEM, "200000");
    alloc_fail_at(0);
    assert_string_equal(a, "abc");
    free(a);
}

static void dup_terminates(void **state)
{
    (void)state;
    char *s = mem_dup("abcdef", 3, NULL), *t = mem_dup(NULL, 0, NULL);
    assert_string_equal(s, "abc");
    assert_string_equal(t, "");
    free(s);
    free(t);
}

static void blocks_are_aligned_and_zeroed(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 64, 65, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20};
    struct err e = {0};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        unsigned char *p = mem_block(sizes[i], &e);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t j = 0; j < sizes[i]; j++)
            if (p[j] != 0)
                fail_msg("byte %zu of %zu is not zero", j, sizes[i]);
        memset(p, 1, sizes[i]);
        mem_block_free(p, sizes[i]);
    }
    mem_block_free(NULL, 5);
    assert_err(mem_block(SIZE_MAX / 2, &e), &e, ERR_NOMEM, "out of memory");
}

/* In one call a kernel that does not preempt itself would keep everybody else off the processor for milliseconds. */
static void large_blocks_are_given_back_piece_by_piece(void **state)
{
    (void)state;
    const size_t n = ((size_t)100 << 20) + 12345, piece = (size_t)8 << 20;
    struct err e = {0};
    char *p = mem_block(n, &e);
    assert_non_null(p);
    p[0] = p[n / 2] = p[n - 1] = 1;
    n_unmapped = bytes_unmapped = most_unmapped = 0;
    mem_block_free(p, n);
    assert_true(bytes_unmapped == n);
    assert_true(most_unmapped <= piece && n_unmapped >= n / piece);
    assert_int_equal(madvise((void *)((uintptr_t)p / 4096 * 4096), n, MADV_NORMAL), -1); // nothing is left there
}

static void buffer_grows(void **state)
{
    (void)state;
    struct buf b = {0};
    for (int i = 0; i < 1000; i++) {
        buf_printf(&b, "%d,", i);
        buf_puts(&b, "x");
        buf_put(&b, "\0", 1);
    }
    assert_false(b.failed);
    assert_int_equal(b.len, 10 * 2 + 90 * 3 + 900 * 4 + 2000);
    assert_memory_equal(b.data, "0,x\0001,x\0", 8);
    assert_int_equal(b.data[b.len], 0);
    size_t cap = b.cap;
    buf_reset(&b);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");
    assert_int_equal(b.cap, cap);
    buf_put(&b, NULL, 0);
    buf_fini(&b);
    assert_null(b.data);
}

static void buffer_remembers_failure(void **state)
{
    (void)state;
    struct buf b = {0};
    alloc_fail_at(1);
    buf_puts(&b, "lost");
    assert_true(b.failed);
    buf_puts(&b, "ignored");
    buf_printf(&b, "%d", 1);
    assert_int_equal(b.len, 0);
    buf_reset(&b);
    buf_puts(&b, "again");
    assert_false(b.failed);
    assert_string_equal(b.data, "again");
    buf_put(&b, "x", SIZE_MAX);
    assert_true(b.failed);
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_are_zeroed_and_checked),
        cmocka_unit_test(grow_keeps_what_is_there),
        cmocka_unit_test(dup_terminates),
        cmocka_unit_test(blocks_are_aligned_and_zeroed),
        cmocka_unit_test(large_blocks_are_given_back_piece_by_piece),
        cmocka_unit_test(buffer_grows),
        cmocka_unit_test(buffer_remembers_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
