/* Breaks when a saved index comes back different, or when a damaged file is loaded, crashes the loader or costs it much memory. */
#include "index_testing.h"

#include <sys/stat.h>
#include <unistd.h>

static char path[] = "/tmp/hnsw_file_XXXXXX";

static int setup(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static unsigned char *slurp(size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    struct stat st;
    assert_int_equal(fstat(fileno(f), &st), 0);
    *n = (size_t)st.st_size;
    unsigned char *p = malloc(*n);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

static struct hnsw *sample(enum hnsw_metric metric, size_t n)
{
    float *v = clustered(n + 1, 8, 10, 3);
    struct hnsw_params p = {.metric = metric, .dim = 8, .capacity = n + 20, .m = 4, .seed = 5};
    struct hnsw_err err = {0};
    struct hnsw *h = hnsw_new(&p, &err);
    assert_ok(hnsw_add_batch(h, v, NULL, n, 1, NULL, NULL, &err), err);
    for (uint64_t i = 3; i < n; i += 11)
        assert_ok(hnsw_remove(h, i, &err), err);
    free(v);
    return h;
}

static void assert_same(const struct hnsw *a, const struct hnsw *b, size_t n)
{
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit x[10], y[10];
    struct hnsw_err err = {0};
    float *q = clustered(20, 8, 10, 4);
    assert_int_equal(hnsw_count(a), hnsw_count(b));
    for (uint64_t i = 0; i < n; i++) {
        const float *v = hnsw_vector(a, i), *w = hnsw_vector(b, i);
        assert_true(!v == !w);
        if (v)
            assert_memory_equal(v, w, 8 * sizeof(float));
    }
    for (size_t i = 0; i < 20; i++) {
        size_t nx = hnsw_search(a, q + 8 * i, &(struct hnsw_query){.k = 10}, ws, x, &err);
        assert_int_equal(hnsw_search(b, q + 8 * i, &(struct hnsw_query){.k = 10}, ws, y, &err), nx);
        for (size_t j = 0; j < nx; j++) {
            assert_int_equal(x[j].label, y[j].label);
            assert_true(x[j].score == y[j].score);
        }
    }
    free(q);
    hnsw_ws_free(ws);
}

static void comes_back_the_same(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 500};
    for (int m = HNSW_IP; m <= HNSW_L2; m++)
        for (size_t i = 0; i < 4; i++) {
            struct hnsw_err err = {0};
            size_t n;
            struct hnsw *h = sample((enum hnsw_metric)m, sizes[i]);
            assert_ok(hnsw_save(h, path, &err), err);
            struct hnsw *back = hnsw_load(path, &err);
            assert_ok(back, err);
            assert_sound(back, 1);
            assert_same(h, back, sizes[i]);
            unsigned char *bytes = slurp(&n);
            struct hnsw *again = hnsw_load_mem(bytes, n, "bytes", &err);
            assert_ok(again, err);
            assert_same(h, again, sizes[i]);
            float v[8] = {1};
            assert_ok(hnsw_resize(back, sizes[i] + 5, &err), err);
            assert_ok(hnsw_add(back, v, 1000000, &err), err);
            assert_sound(back, 1);
            free(bytes);
            hnsw_free(h);
            hnsw_free(back);
            hnsw_free(again);
        }
}

static void refused(const unsigned char *bytes, size_t n, const char *what, size_t at)
{
    struct hnsw_err err = {0};
    struct hnsw *h = hnsw_load_mem(bytes, n, "bytes", &err);
    if (h)
        fail_msg("%s at %zu was loaded", what, at);
    assert_int_equal(err.code, HNSW_FORMAT);
    assert_true(strlen(err.msg) > 10);
}

static void every_flip_and_cut_is_refused(void **state)
{
    (void)state;
    struct hnsw_err err = {0};
    struct hnsw *h = sample(HNSW_IP, 40);
    assert_ok(hnsw_save(h, path, &err), err);
    size_t n;
    unsigned char *bytes = slurp(&n);
    for (size_t cut = 0; cut < n; cut++) {
        unsigned char *part = malloc(cut ? cut : 1); // its own size, so that the sanitizer sees a byte too far
        memcpy(part, bytes, cut);
        refused(part, cut, "cut", cut);
        free(part);
    }
    for (size_t bit = 0; bit < 8 * n; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        refused(bytes, n, "flipped bit", bit);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    free(bytes);
    hnsw_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_the_same),
        cmocka_unit_test(every_flip_and_cut_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
