/* Breaks when a file of vectors or ids comes back different, when one that is damaged, cut short or of another kind is
 * read, or when an error does not say where. */
#include "index_testing.h"

#include <unistd.h>

#include "index/vecs.h"

enum { N = 300, DIM = 7 };

static char folder[] = "/tmp/hnsw_vecs_XXXXXX";

static const char *in(const char *name)
{
    static char ring[4][200];
    static unsigned at;
    char *out = ring[at++ % 4];
    snprintf(out, sizeof(ring[0]), "%s/%s", folder, name);
    return out;
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof(command), "rm -r %s", folder);
    return system(command);
}

static void write_rows(const char *path, const void *row, size_t n, size_t dim)
{
    struct hnsw_err err = {0};
    enum hnsw_vecs_kind kind;
    assert_ok(hnsw_vecs_kind_of(path, &kind, &err), err);
    struct hnsw_vecs_out *out = hnsw_vecs_create(path, kind, n, dim, &err);
    assert_ok(out, err);
    for (size_t i = 0; i < n; i++)
        assert_ok(hnsw_vecs_put(out, (const char *)row + i * dim * 4, &err), err);
    assert_ok(hnsw_vecs_finish(out, true, &err), err);
}

static void put_bytes(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void refused(const char *path, enum hnsw_err_code code, const char *why)
{
    struct hnsw_err err = {0};
    assert_null(hnsw_vecs_open(path, &err));
    assert_int_equal(err.code, code);
    if (!strstr(err.msg, why))
        fail_msg("\"%s\" does not say \"%s\"", err.msg, why);
}

static void comes_back_the_same(void **state)
{
    (void)state;
    static const char *const name[] = {"a.fbin", "a.fvecs", "a.ibin", "a.ivecs"};
    float *v = clustered(N, DIM, 5, 1);
    struct hnsw_err err = {0};
    for (int kind = HNSW_FBIN; kind <= HNSW_IVECS; kind++) {
        write_rows(in(name[kind]), v, N, DIM);
        struct hnsw_vecs *back = hnsw_vecs_open(in(name[kind]), &err);
        assert_ok(back, err);
        assert_int_equal(hnsw_vecs_get_kind(back), kind);
        assert_string_equal(hnsw_vecs_kind_name((enum hnsw_vecs_kind)kind), name[kind] + 2);
        assert_int_equal(hnsw_vecs_n(back), N);
        assert_int_equal(hnsw_vecs_dim(back), DIM);
        assert_true(hnsw_vecs_is_float(back) == (kind <= HNSW_FVECS));
        for (size_t i = 0; i < N; i++)
            assert_memory_equal(kind <= HNSW_FVECS ? (const void *)hnsw_vecs_row(back, i) : hnsw_vecs_ids(back, i),
                                v + i * DIM, DIM * 4);
        hnsw_vecs_close(back);
    }
    free(v);
}

/* The bytes are those of the published formats, not just of our own reader. */
static void bytes_are_the_format_s(void **state)
{
    (void)state;
    const float row[2][3] = {{1, 2, 3}, {4, 5, 6}};
    const uint32_t head[2] = {2, 3};
    unsigned char want[32], got[64];
    write_rows(in("b.fbin"), row, 2, 3);
    memcpy(want, head, 8);
    memcpy(want + 8, row, 24);
    FILE *f = fopen(in("b.fbin"), "rb");
    assert_int_equal(fread(got, 1, sizeof(got), f), 32);
    fclose(f);
    assert_memory_equal(got, want, 32);
    write_rows(in("b.fvecs"), row, 2, 3);
    for (int i = 0; i < 2; i++) {
        memcpy(want + 16 * i, &head[1], 4);
        memcpy(want + 16 * i + 4, row[i], 12);
    }
    f = fopen(in("b.fvecs"), "rb");
    assert_int_equal(fread(got, 1, sizeof(got), f), 32);
    fclose(f);
    assert_memory_equal(got, want, 32);
}

static void an_index_is_filled_from_either(void **state)
{
    (void)state;
    float *v = clustered(N, DIM, 5, 1);
    uint64_t label[N];
    struct hnsw_err err = {0};
    for (uint64_t i = 0; i < N; i++)
        label[i] = 1000 + i;
    for (int kind = HNSW_FBIN; kind <= HNSW_FVECS; kind++) {
        const char *path = in(kind == HNSW_FBIN ? "c.fbin" : "c.fvecs");
        write_rows(path, v, N, DIM);
        struct hnsw_vecs *from = hnsw_vecs_open(path, &err);
        struct hnsw *h = new_index(HNSW_L2, DIM, N), *other = new_index(HNSW_L2, DIM + 1, N);
        assert_ok(hnsw_vecs_add(h, from, label, 1, NULL, NULL, &err), err);
        for (uint64_t i = 0; i < N; i++)
            assert_memory_equal(hnsw_vector(h, 1000 + i), v + i * DIM, DIM * 4);
        assert_false(hnsw_vecs_add(other, from, NULL, 1, NULL, NULL, &err));
        assert_int_equal(err.code, HNSW_ARG);
        err = (struct hnsw_err){0};
        hnsw_vecs_close(from);
        hnsw_free(h);
        hnsw_free(other);
    }
    free(v);
}

static void damage_is_refused(void **state)
{
    (void)state;
    float *v = clustered(20, DIM, 5, 1);
    unsigned char bytes[8 + 20 * DIM * 4];
    struct {
        const char *name;
        size_t size;
    } const kinds[] = {{"d.fbin", 8 + 20 * DIM * 4}, {"d.fvecs", 20 * (DIM + 1) * 4}, {"d.ibin", 8 + 20 * DIM * 4}};
    for (size_t k = 0; k < 3; k++) {
        const char *path = in(kinds[k].name);
        write_rows(path, v, 20, DIM);
        FILE *f = fopen(path, "rb");
        unsigned char all[2000];
        size_t n = fread(all, 1, sizeof(all), f);
        fclose(f);
        assert_int_equal(n, kinds[k].size);
        for (size_t cut = 0; cut < n; cut += k == 1 ? 3 : 1) { // a fvecs cut between rows is a shorter one
            if (k == 1 && cut % ((DIM + 1) * 4) == 0)
                continue;
            struct hnsw_err err = {0};
            put_bytes(path, all, cut);
            assert_null(hnsw_vecs_open(path, &err));
            assert_int_equal(err.code, HNSW_FORMAT);
            assert_non_null(strstr(err.msg, path));
        }
    }
    memcpy(bytes, (uint32_t[]){20, DIM}, 8);
    memcpy(bytes + 8, v, sizeof(bytes) - 8);
    put_bytes(in("e.fbin"), bytes, sizeof(bytes));
    struct hnsw_err err = {0};
    struct hnsw_vecs *good = hnsw_vecs_open(in("e.fbin"), &err);
    assert_ok(good, err);
    hnsw_vecs_close(good);
    memcpy(bytes + 8 + (3 * DIM + 2) * 4, &(float){NAN}, 4);
    put_bytes(in("e.fbin"), bytes, sizeof(bytes));
    refused(in("e.fbin"), HNSW_FORMAT, "offset 100");
    memcpy(bytes, (uint32_t[]){UINT32_MAX, UINT32_MAX}, 8);
    put_bytes(in("e.fbin"), bytes, sizeof(bytes));
    refused(in("e.fbin"), HNSW_FORMAT, "4294967295");
    memcpy(bytes, (uint32_t[]){20, 0}, 8);
    put_bytes(in("e.fbin"), bytes, sizeof(bytes));
    refused(in("e.fbin"), HNSW_FORMAT, "found");
    refused(in("none.fbin"), HNSW_IO, "none.fbin");
    refused(in("x.npy"), HNSW_ARG, "x.npy");
    free(v);
}

static void a_writer_s_mistakes_are_told(void **state)
{
    (void)state;
    struct hnsw_err err = {0};
    float row[DIM] = {0};
    struct hnsw_vecs_out *out = hnsw_vecs_create(in("f.fbin"), HNSW_FBIN, 3, DIM, &err);
    assert_ok(out && hnsw_vecs_put(out, row, &err), err);
    assert_false(hnsw_vecs_finish(out, true, &err));
    assert_int_equal(err.code, HNSW_ARG);
    err = (struct hnsw_err){0};
    assert_null(hnsw_vecs_create(in("no/such/f.fbin"), HNSW_FBIN, 3, DIM, &err));
    assert_int_equal(err.code, HNSW_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_the_same),          cmocka_unit_test(bytes_are_the_format_s),
        cmocka_unit_test(an_index_is_filled_from_either), cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(a_writer_s_mistakes_are_told),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
