/* If this fails, half-written files are taken for whole ones, or a FIFO or folder in a file's place hangs or confuses a
 * reader. */
#include "tests/core/support.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fio.h"

static void joins_or_refuses(void **state)
{
    (void)state;
    struct err e = {0};
    char out[PATH_MAX], name[PATH_MAX];
    assert_ok(fio_join(out, "a/b", "c", &e), &e);
    assert_string_equal(out, "a/b/c");
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_err(fio_join(out, "a", name, &e), &e, ERR_LIMIT, "too long");
}

static void reads_whole_files(void **state)
{
    struct err e = {0};
    const char *path = tmp_path(state, "f");
    put_file(path, "a\0b", 3);
    uint64_t size;
    size_t n;
    assert_ok(fio_size(path, &size, &e), &e);
    assert_int_equal(size, 3);
    char *s = fio_read_all(path, 3, &n, &e);
    assert_ok(s, &e);
    assert_int_equal(n, 3);
    assert_memory_equal(s, "a\0b\0", 4);
    free(s);
    assert_err(fio_read_all(path, 2, &n, &e), &e, ERR_LIMIT, "3 bytes, at most 2");
    const char *m = fio_map(path, &n, &e);
    assert_ok(m, &e);
    assert_memory_equal(m, "a\0b", 3);
    fio_unmap((void *)(uintptr_t)m, n);
}

static void refuses_what_is_no_file(void **state)
{
    struct err e = {0};
    size_t n;
    uint64_t size;
    assert_err(fio_read_all(tmp_path(state, "none"), 10, &n, &e), &e, ERR_NOT_FOUND, "none: No such file");
    assert_err(fio_read_all(*state, 10, &n, &e), &e, ERR_IO, "not a regular file");
    const char *fifo = tmp_path(state, "fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_err(fio_size(fifo, &size, &e), &e, ERR_IO, "not a regular file");
    put_file(tmp_path(state, "empty"), "", 0);
    assert_err(fio_map(tmp_path(state, "empty"), &n, &e), &e, ERR_FORMAT, "empty file");
}

static void short_reads_name_the_offset(void **state)
{
    struct err e = {0};
    char out[8];
    put_file(tmp_path(state, "f"), "abcdef", 6);
    int fd = open(tmp_path(state, "f"), O_RDONLY);
    assert_ok(fio_read_full(fd, out, 4, 2, &e), &e);
    assert_memory_equal(out, "cdef", 4);
    assert_err(fio_read_full(fd, out, 4, 4, &e), &e, ERR_FORMAT, "ends at offset 6, 2 bytes short");
    close(fd);
    assert_err(fio_read_full(fd, out, 4, 4, &e), &e, ERR_IO, "read at offset 4");
    assert_err(fio_write_full(fd, out, 4, &e), &e, ERR_IO, "write");
}

static void replaces_atomically(void **state)
{
    struct err e = {0};
    size_t n;
    const char *path = tmp_path(state, "f");
    assert_ok(fio_write_atomic(path, "one", 3, &e), &e);
    assert_ok(fio_write_atomic(path, "two!", 4, &e), &e);
    char *s = get_file(path, &n);
    assert_string_equal(s, "two!");
    free(s);
    assert_err(fio_write_atomic(tmp_path(state, "no/f"), "x", 1, &e), &e, ERR_NOT_FOUND, "no/f");
    assert_int_equal(mkdir(tmp_path(state, "dir"), 0755), 0);
    put_file(tmp_path(state, "dir/in"), "x", 1);
    assert_err(fio_write_atomic(tmp_path(state, "dir"), "x", 1, &e), &e, ERR_IO, "rename");
    char tmp[64];
    snprintf(tmp, sizeof(tmp), "dir.tmp-%ld", (long)getpid());
    assert_false(fio_exists(tmp_path(state, tmp)));
}

static void makes_and_removes_folders(void **state)
{
    struct err e = {0};
    const char *deep = tmp_path(state, "a/b/c");
    assert_ok(fio_mkdirs(deep, &e), &e);
    assert_ok(fio_mkdirs(deep, &e), &e);
    assert_true(fio_is_dir(deep));
    assert_ok(fio_sync_dir(deep, &e), &e);
    put_file(tmp_path(state, "a/file"), "x", 1);
    assert_err(fio_mkdirs(tmp_path(state, "a/file"), &e), &e, ERR_IO, "not a folder");
    assert_err(fio_mkdirs(tmp_path(state, "a/file/x"), &e), &e, ERR_IO, "mkdir");
    assert_err(fio_mkdirs("", &e), &e, ERR_ARG, "empty");
    put_file(tmp_path(state, "keep"), "x", 1);
    assert_int_equal(symlink(tmp_path(state, "keep"), tmp_path(state, "a/link")), 0);
    assert_ok(fio_remove_tree(tmp_path(state, "a"), &e), &e);
    assert_false(fio_exists(tmp_path(state, "a")));
    assert_true(fio_exists(tmp_path(state, "keep")));
    assert_ok(fio_remove_tree(tmp_path(state, "a"), &e), &e);
    assert_err(fio_sync_dir(tmp_path(state, "a"), &e), &e, ERR_NOT_FOUND, "a");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joins_or_refuses),
        cmocka_unit_test_setup_teardown(reads_whole_files, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(refuses_what_is_no_file, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(short_reads_name_the_offset, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(replaces_atomically, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(makes_and_removes_folders, tmp_setup, tmp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
