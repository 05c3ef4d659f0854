/* If this fails, a damaged file is taken for a whole one because several threads read it, or its message does not say where. */
#include "tests/core/support.h"

#include <fcntl.h>
#include <unistd.h>

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/verified.h"

#define BYTES (6 * MANIFEST_CHUNK + 123) // large enough to be read together, with a chunk that is not full

struct fixture {
    int dirfd;
    char path[PATH_MAX];
    char *bytes;
    struct manifest m;
};

static void make(struct fixture *f, void **state)
{
    struct err e = {0};
    struct rng r;
    const char *name = manifest_file_name[MF_ITEMS];
    *f = (struct fixture){.dirfd = open(*state, O_RDONLY | O_DIRECTORY), .bytes = mem_array(BYTES, 1, &e)};
    assert_true(f->dirfd >= 0 && f->bytes);
    snprintf(f->path, sizeof(f->path), "%s", tmp_path(state, name));
    rng_init(&r, 1);
    for (size_t i = 0; i < BYTES; i++)
        f->bytes[i] = (char)rng_u64(&r);
    put_file(f->path, f->bytes, BYTES);
    assert_ok(manifest_hash_file(&f->m, *state, MF_ITEMS, &e), &e);
}

static void unmake(struct fixture *f)
{
    close(f->dirfd);
    free(f->bytes);
    manifest_fini(&f->m);
}

static bool read_it(const struct fixture *f, unsigned threads, struct block *out, struct err *e)
{
    *e = (struct err){0};
    return verified_read(f->dirfd, manifest_file_name[MF_ITEMS], &f->m.file[MF_ITEMS], false, threads, NULL, out, e);
}

static void every_byte_comes_in(void **state)
{
    struct fixture f;
    struct err e;
    struct block b;
    make(&f, state);
    for (unsigned threads = 0; threads < 40; threads = 2 * threads + 1) {
        assert_ok(read_it(&f, threads, &b, &e), &e);
        assert_int_equal(b.n, BYTES);
        assert_memory_equal(b.p, f.bytes, BYTES);
        block_free(&b);
    }
    unmake(&f);
}

static void damage_is_named_alike_by_any_number(void **state)
{
    static const size_t at[] = {0, MANIFEST_CHUNK, 3 * MANIFEST_CHUNK + 7, BYTES - 1};
    struct fixture f;
    struct err alone, together;
    struct block b;
    make(&f, state);
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        char want[64];
        snprintf(want, sizeof(want), "chunk %zu", at[i] / MANIFEST_CHUNK);
        f.bytes[at[i]] ^= 4;
        put_file(f.path, f.bytes, BYTES);
        assert_false(read_it(&f, 1, &b, &alone));
        assert_false(read_it(&f, 4, &b, &together));
        assert_null(b.p);
        assert_int_equal(together.code, ERR_FORMAT);
        assert_non_null(strstr(together.msg, want));
        assert_string_equal(alone.msg, together.msg);
        f.bytes[at[i]] ^= 4;
    }
    put_file(f.path, f.bytes, BYTES);
    f.m.file[MF_ITEMS].hash.lo ^= 1; // every chunk is right, the whole is not what the manifest says
    assert_false(read_it(&f, 4, &b, &together));
    assert_non_null(strstr(together.msg, "in the whole"));
    unmake(&f);
}

/* Memory of another file: used where it fits, whatever is in it; where it does not, left alone. */
static void spare_memory_is_used_where_it_fits(void **state)
{
    static const size_t sizes[] = {BYTES - 1, BYTES, BYTES + 5 * 4096 + 1, 2 * BYTES + 2};
    struct fixture f;
    struct err e = {0};
    make(&f, state);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct block spare = {.p = mem_block(sizes[i], &e), .n = sizes[i]}, b;
        bool fits = i == 1 || i == 2;
        void *was = spare.p;
        assert_non_null(was);
        memset(was, 0xaa, sizes[i]);
        assert_ok(verified_read(f.dirfd, manifest_file_name[MF_ITEMS], &f.m.file[MF_ITEMS], false, 1, &spare, &b, &e), &e);
        assert_ptr_equal(spare.p, fits ? NULL : was);
        assert_int_equal(b.p == was, fits);
        assert_int_equal(b.n, BYTES);
        assert_memory_equal(b.p, f.bytes, BYTES);
        block_free(&b);
        block_free(&spare);
    }
    unmake(&f);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, tmp_setup, tmp_teardown)
    const struct CMUnitTest tests[] = {T(every_byte_comes_in), T(damage_is_named_alike_by_any_number),
                                       T(spare_memory_is_used_where_it_fits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
