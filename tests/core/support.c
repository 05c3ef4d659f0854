#include "tests/core/support.h"

#include <dirent.h>
#include <unistd.h>

#include "core/base/fio.h"

int tmp_setup(void **state)
{
    const char *base = getenv("TMPDIR"),
               *memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"; // fsync costs nothing there
    char *path = malloc(PATH_MAX);
    snprintf(path, PATH_MAX, "%s/duet-test-XXXXXX", base && *base ? base : memory);
    *state = path;
    return mkdtemp(path) ? 0 : -1;
}

int tmp_teardown(void **state)
{
    bool ok = fio_remove_tree(*state, NULL);
    free(*state);
    return ok ? 0 : -1;
}

const char *tmp_path(void *const *state, const char *name)
{
    static char ring[16][PATH_MAX];
    static unsigned at;
    char *out = ring[at++ % 16];
    snprintf(out, PATH_MAX, "%.2000s/%.2000s", (const char *)*state, name);
    return out;
}

void put_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

char *get_file(const char *path, size_t *n)
{
    struct err err = {0};
    char *data = fio_read_all(path, (size_t)1 << 30, n, &err);
    assert_ok(data, &err);
    return data;
}

void copy_file(const char *from, const char *to)
{
    size_t n;
    char *data = get_file(from, &n);
    put_file(to, data, n);
    free(data);
}

void copy_dir(const char *from, const char *to)
{
    assert_true(fio_mkdirs(to, NULL));
    DIR *d = opendir(from);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char a[PATH_MAX], b[PATH_MAX];
        if (e->d_name[0] != '.' && fio_join(a, from, e->d_name, NULL) && fio_join(b, to, e->d_name, NULL))
            copy_file(a, b);
    }
    closedir(d);
}

void flip_bit(const char *path, uint64_t offset, int bit)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)offset, SEEK_SET), 0);
    int c = fgetc(f);
    assert_int_not_equal(c, EOF);
    assert_int_equal(fseek(f, (long)offset, SEEK_SET), 0);
    fputc(c ^ 1 << bit, f);
    assert_int_equal(fclose(f), 0);
}
