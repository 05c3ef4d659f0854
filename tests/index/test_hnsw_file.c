/* Breaks when a saved index comes back different, or when a damaged file is loaded, crashes the loader or costs it much
 * memory. */
#include "index_testing.h"

#include "file_testing.h"

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
        size_t nx = hnsw_search(a, q + 8 * i, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 10}, ws, x, &err);
        assert_int_equal(hnsw_search(b, q + 8 * i, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 10}, ws, y, &err), nx);
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

static void every_flip_and_cut_is_refused(void **state)
{
    (void)state;
    struct hnsw_err err = {0};
    struct hnsw *h = sample(HNSW_IP, 40);
    assert_ok(hnsw_save(h, path, &err), err);
    size_t n;
    unsigned char *bytes = slurp(&n);
    every_flip_and_cut_refused(bytes, n);
    free(bytes);
    hnsw_free(h);
}

/* Each case changes one field and is refused by structure. */
static void crafted_files_are_refused(void **state)
{
    (void)state;
    enum { N = 300, RECORD = 8 * 4 + 8 * 4 };
    struct hnsw_err err = {0};
    struct hnsw *h = sample(HNSW_IP, N);
    assert_ok(hnsw_save(h, path, &err), err);
    size_t n;
    unsigned char *b = slurp(&n);
    size_t levels = 128 + padded(8 * N), removed = levels + padded(N), upper = removed + padded(N);
    size_t records = n - 8 - N * RECORD;
    static const uint32_t wrong[] = {0, 1, 3, 300, 0x7fffffff, 0x80000000, 0xffffffff};
    for (size_t at = 8; at < 80; at += 4)
        for (size_t i = 0; i < 7; i++) {
            uint32_t now;
            memcpy(&now, b + at, 4);
            bool harmless =
                at == 24 || at == 64 || at == 68 || at == 12; // ef_construction, seed; metric has its own case
            if (now != wrong[i] && !harmless && !(at == 28 && wrong[i] < N && h->level[wrong[i]] == h->max_level))
                crafted(b, n, at, wrong[i], 4);
        }
    crafted(b, n, 12, 3, 4);
    crafted(b, n, 24, 0, 4);
    crafted(b, n, 80, 1, 1);                                       // padding of the header
    crafted(b, n, 128 + 8 * 5, h->label[6], 8);                    // a label twice
    crafted(b, n, levels + 2, h->level[2] + 1u, 1);                // one list more than there are
    crafted(b, n, levels + 2, 200, 1);                             // a level that nothing has
    crafted(b, n, removed + 3, 0, 1);                              // one mark less than counted
    crafted(b, n, removed + 3, 3, 1);                              // no mark at all
    crafted(b, n, levels + N, 1, 1);                               // padding
    crafted(b, n, upper, N, 4);                                    // link out of range above level 0
    crafted(b, n, records + 4, 0x7fc00000, 4);                     // NaN
    crafted(b, n, records + 4, 0x7f800000, 4);                     // infinity
    crafted(b, n, records + RECORD + 32, N, 4);                    // link out of range
    crafted(b, n, records + RECORD + 32, 1, 4);                    // link to itself
    crafted(b, n, records + RECORD + 36, *node_links(h, 1, 0), 4); // link twice
    crafted(b, n, records + RECORD + 32, NO_ID, 4);                // a hole
    free(b);
    hnsw_free(h);
}

static struct hnsw *import_mem(const unsigned char *bytes, size_t n, struct hnsw_err *err)
{
    struct hnsw_in in;
    hnsw_in_mem(&in, bytes, n, "bytes");
    return hnsw_import_from(&in, HNSW_L2, 8, err);
}

/* hnswlib's files have no checksum: a flip is refused or loads into a graph that passes the check and can be searched.
 */
static void damaged_foreign_files_are_harmless(void **state)
{
    (void)state;
    struct hnsw_err err = {0};
    struct hnsw *h = sample(HNSW_L2, 60);
    assert_ok(hnsw_export(h, path, &err), err);
    size_t n, loaded = 0;
    unsigned char *b = slurp(&n);
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[80];
    const float q[8] = {0.1f, 0.2f};
    for (size_t bit = 0; bit < 8 * n; bit++) {
        b[bit / 8] ^= (unsigned char)(1 << bit % 8);
        err = (struct hnsw_err){0};
        struct hnsw *back = import_mem(b, n, &err);
        b[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_int_equal(err.code, back ? HNSW_OK : HNSW_FORMAT);
        if (back) {
            assert_sound(back, 60);
            assert_int_equal(hnsw_search(back, q, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 80}, ws, hit, &err), hnsw_count(back));
            loaded++;
        }
        hnsw_free(back);
    }
    assert_true(loaded > 0);
    for (size_t cut = 0; cut < n; cut++) {
        unsigned char *part = malloc(cut ? cut : 1);
        memcpy(part, b, cut);
        err = (struct hnsw_err){0};
        assert_null(import_mem(part, cut, &err));
        assert_int_equal(err.code, HNSW_FORMAT);
        free(part);
    }
    hnsw_ws_free(ws);
    free(b);
    hnsw_free(h);
}

static void foreign_files_come_back(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 500};
    for (int m = HNSW_IP; m <= HNSW_L2; m++)
        for (size_t i = 0; i < 4; i++) {
            struct hnsw_err err = {0};
            struct hnsw *h = sample((enum hnsw_metric)m, sizes[i]);
            assert_ok(hnsw_export(h, path, &err), err);
            struct hnsw *back = hnsw_import(path, (enum hnsw_metric)m, 8, &err);
            assert_ok(back, err);
            assert_sound(back, 1);
            assert_same(h, back, sizes[i]);
            hnsw_free(back);
            assert_null(hnsw_import(path, (enum hnsw_metric)m, 9, &err)); // the wrong dim
            assert_int_equal(err.code, HNSW_FORMAT);
            err = (struct hnsw_err){0};
            assert_null(hnsw_import(path, (enum hnsw_metric)m, 0, &err));
            assert_int_equal(err.code, HNSW_ARG);
            hnsw_free(h);
        }
}

static void missing_and_strange_paths(void **state)
{
    (void)state;
    struct hnsw *h = sample(HNSW_IP, 5);
    static const char *const bad[] = {"/nonexistent/x", "/tmp"};
    for (size_t i = 0; i < 2; i++) {
        struct hnsw_err err = {0};
        assert_null(hnsw_load(bad[i], &err));
        assert_int_equal(err.code, HNSW_IO);
        err = (struct hnsw_err){0};
        assert_null(hnsw_import(bad[i], HNSW_IP, 8, &err));
        assert_int_equal(err.code, HNSW_IO);
        err = (struct hnsw_err){0};
        assert_false(hnsw_save(h, bad[i], &err));
        assert_int_equal(err.code, HNSW_IO);
    }
    struct hnsw_err err = {0};
    assert_false(hnsw_save(h, "/dev/full", &err));
    assert_int_equal(err.code, HNSW_IO);
    hnsw_free(h);
}

/* Pieces of any length give the sum of the whole, and the sum is the one that docs/formats.md defines. */
static void checksum_of_pieces(void **state)
{
    (void)state;
    unsigned char data[1000];
    uint64_t seed = 1;
    struct hnsw_sum s, whole;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char)rnd(&seed);
    for (size_t n = 0; n <= 200; n++) {
        uint64_t lane[8], w, h = n * 0xc2b2ae3d27d4eb4fu;
        for (uint64_t i = 0; i < 8; i++)
            lane[i] = (i + 1) * 0xc2b2ae3d27d4eb4fu;
        unsigned char block[320] = {0};
        memcpy(block, data, n);
        for (size_t j = 0; j < (n / 64 + 1) * 8; j++) {
            memcpy(&w, block + 8 * j, 8);
            w ^= lane[j % 8];
            lane[j % 8] = (w << 27 | w >> 37) * 0x9e3779b97f4a7c15u;
        }
        for (size_t i = 0; i < 8; i++) {
            h ^= lane[i];
            h = (h << 29 | h >> 35) * 0x9e3779b97f4a7c15u;
            h ^= h >> 32;
        }
        hnsw_sum_init(&whole);
        hnsw_sum_add(&whole, data, n);
        assert_int_equal(hnsw_sum_end(&whole), h);
    }
    for (size_t step = 1; step < 200; step += 7) {
        hnsw_sum_init(&s);
        for (size_t i = 0; i < sizeof(data); i += step)
            hnsw_sum_add(&s, data + i, sizeof(data) - i < step ? sizeof(data) - i : step);
        hnsw_sum_init(&whole);
        hnsw_sum_add(&whole, data, sizeof(data));
        assert_int_equal(hnsw_sum_end(&s), hnsw_sum_end(&whole));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_the_same),
        cmocka_unit_test(every_flip_and_cut_is_refused),
        cmocka_unit_test(crafted_files_are_refused),
        cmocka_unit_test(foreign_files_come_back),
        cmocka_unit_test(damaged_foreign_files_are_harmless),
        cmocka_unit_test(missing_and_strange_paths),
        cmocka_unit_test(checksum_of_pieces),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
