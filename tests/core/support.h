/* support.h - what the tests of core share: a folder of their own, whole files, and allocations that fail on demand. */
#ifndef DUET_TESTS_CORE_SUPPORT_H
#define DUET_TESTS_CORE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"

/* Assertions that show the message of an error that should not be there, or miss one that should. */
#define assert_ok(call, e)                                                                                             \
    do {                                                                                                               \
        if (!(call))                                                                                                   \
            fail_msg("%s: %s", #call, (e)->msg);                                                                       \
        assert_int_equal((e)->code, ERR_OK);                                                                           \
    } while (0)
#define assert_err(call, e, want_code, want_text)                                                                      \
    do {                                                                                                               \
        *(e) = (struct err){0};                                                                                        \
        if (call)                                                                                                      \
            fail_msg("%s succeeded", #call);                                                                           \
        if ((e)->code != (want_code) || !strstr((e)->msg, (want_text)))                                                \
            fail_msg("%s: %s \"%s\", want %s with \"%s\"", #call, err_name((e)->code), (e)->msg, err_name(want_code),  \
                     (want_text));                                                                                     \
        *(e) = (struct err){0};                                                                                        \
    } while (0)

/* cmocka setup and teardown: *state becomes the path of a fresh folder; removed with all it holds. */
int tmp_setup(void **state);
int tmp_teardown(void **state);
const char *tmp_path(void *const *state, const char *name); // one of 16 rotating buffers

void put_file(const char *path, const void *data, size_t n);
char *get_file(const char *path, size_t *n); // for free()
void copy_file(const char *from, const char *to);
void copy_dir(const char *from, const char *to); // flat
void flip_bit(const char *path, uint64_t offset, int bit);

/* With alloc_fail.c and ALLOC_WRAP linked in: the n-th allocation from now (1 = the next) fails, 0 = none does.
 * alloc_failed tells whether it came to that. */
void alloc_fail_at(size_t n);
bool alloc_failed(void);

#endif
