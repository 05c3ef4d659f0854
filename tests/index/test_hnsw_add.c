/* Breaks when adding, replacing, removing, reusing or resizing damages the graph, loses elements or recall, or changes
 * an index that it should have refused to change. */
#include "index_testing.h"

#include <pthread.h>

#define DIM 16

static const struct hnsw_query top10 = {.plan = HNSW_PLAN_WALK, .k = 10, .ef = 100};

static void add_all(struct hnsw *h, const float *v, const uint64_t *label, size_t n, unsigned threads)
{
    struct hnsw_err err = {0};
    assert_ok(hnsw_add_batch(h, v, label, n, threads, NULL, NULL, &err), err);
}

static char *saved(const struct hnsw *h, size_t *n)
{
    char path[] = "/tmp/hnsw_add_XXXXXX", *bytes = NULL;
    struct hnsw_err err = {0};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_ok(hnsw_save(h, path, &err), err);
    FILE *f = fdopen(fd, "rb"), *m = open_memstream(&bytes, n);
    for (int c; (c = getc(f)) != EOF;)
        putc(c, m);
    fclose(m);
    fclose(f);
    remove(path);
    return bytes;
}

static void one_thread_is_deterministic(void **state)
{
    (void)state;
    enum { N = 1500 };
    float *v = clustered(N, DIM, 20, 1);
    struct hnsw *a = new_index(HNSW_IP, DIM, N), *b = new_index(HNSW_IP, DIM, N + 100);
    struct hnsw_err err = {0};
    size_t na, nb;
    add_all(a, v, NULL, N, 1);
    for (uint64_t i = 0; i < N; i++) // one by one is the same graph as in one batch
        assert_ok(hnsw_add(b, v + i * DIM, i, &err), err);
    char *x = saved(a, &na), *y = saved(b, &nb);
    assert_int_equal(na, nb);
    assert_memory_equal(x, y, na);
    free(x);
    free(y);
    hnsw_free(a);
    hnsw_free(b);
    free(v);
}

static void levels_follow_their_law(void **state)
{
    (void)state;
    enum { N = 20000 };
    struct hnsw_params p = {.metric = HNSW_L2, .dim = 1, .capacity = N, .m = 4, .ef_construction = 8, .seed = 1};
    struct hnsw_err err = {0};
    struct hnsw_stats s;
    struct hnsw *h = hnsw_new(&p, &err);
    float *v = calloc(N, sizeof(*v));
    uint64_t seed = 1;
    for (size_t i = 0; i < N; i++)
        v[i] = rnd_normal(&seed);
    add_all(h, v, NULL, N, 1);
    hnsw_get_stats(h, &s);
    assert_in_range(s.max_level, 5, 12); // log4(20000) = 7.1
    assert_int_equal(s.n, N);
    assert_int_equal(s.m, 4);
    assert_true(s.mean_degree0 > 2 && s.mean_degree0 <= 8);
    assert_true(s.bytes >= N * (4 + 8 * 4) && s.bytes == hnsw_bytes(h));
    free(v);
    hnsw_free(h);
}

static void four_threads_build_a_sound_graph(void **state)
{
    (void)state;
    enum { N = 3000 };
    float *v = clustered(N, DIM, 40, 1), *q = clustered(30, DIM, 40, 2);
    struct hnsw *h = new_index(HNSW_COSINE, DIM, N);
    add_all(h, v, NULL, N / 2, 4);
    uint64_t *label = malloc(N * sizeof(*label));
    for (uint64_t i = 0; i < N; i++)
        label[i] = i + N / 4; // half of them known: replaced alone, the rest by all threads
    struct hnsw_err err = {0};
    assert_false(hnsw_add_batch(h, v, label, N, 4, NULL, NULL, &err));
    assert_int_equal(err.code, HNSW_FULL);
    add_all(h, v, label, N * 3 / 4, 4);
    assert_int_equal(hnsw_count(h), N);
    assert_sound(h, 3);
    assert_true(recall(h, q, 30, &top10) >= 0.98);
    free(label);
    free(v);
    free(q);
    hnsw_free(h);
}

static void replacing_moves_an_element(void **state)
{
    (void)state;
    enum { N = 1500 };
    float *v = clustered(N, DIM, 20, 1), *w = clustered(N, DIM, 20, 3), *q = clustered(30, DIM, 20, 2);
    struct hnsw *h = new_index(HNSW_L2, DIM, N);
    struct hnsw_err err = {0};
    add_all(h, v, NULL, N, 1);
    for (uint64_t i = 0; i < N; i++)
        assert_ok(hnsw_add(h, w + i * DIM, i, &err), err);
    assert_int_equal(hnsw_count(h), N);
    for (uint64_t i = 0; i < N; i++)
        assert_memory_equal(hnsw_vector(h, i), w + i * DIM, DIM * sizeof(float));
    assert_sound(h, N / 200);
    double r = recall(h, q, 30, &top10);
    if (r < 0.97)
        fail_msg("recall after replacing everything: %.4f", r);
    free(v);
    free(w);
    free(q);
    hnsw_free(h);
}

static void removed_ones_are_gone_and_their_places_reused(void **state)
{
    (void)state;
    enum { N = 1200 };
    float *v = clustered(2 * N, DIM, 20, 1), *q = clustered(30, DIM, 20, 2);
    struct hnsw *h = new_index(HNSW_IP, DIM, N);
    struct hnsw_err err = {0};
    add_all(h, v, NULL, N, 1);
    for (uint64_t i = 0; i < N; i += 2)
        assert_ok(hnsw_remove(h, i, &err), err);
    assert_int_equal(hnsw_count(h), N / 2);
    assert_null(hnsw_vector(h, 0));
    assert_false(hnsw_remove(h, 0, &err)); // already
    assert_int_equal(err.code, HNSW_NOT_FOUND);
    err = (struct hnsw_err){0};
    assert_false(hnsw_remove(h, 123456, &err));
    assert_int_equal(err.code, HNSW_NOT_FOUND);
    err = (struct hnsw_err){0};
    assert_sound(h, 2);
    assert_true(recall(h, q, 30, &top10) >= 0.98); // the exact search leaves them out too

    assert_ok(hnsw_add(h, v, 0, &err), err); // a removed label comes back
    assert_non_null(hnsw_vector(h, 0));
    for (uint64_t i = 0; i < N / 2 - 1; i++) // new labels take the other places
        assert_ok(hnsw_add(h, v + (N + i) * DIM, 10000 + i, &err), err);
    assert_int_equal(hnsw_count(h), N);
    assert_false(hnsw_add(h, v, 99999, &err));
    assert_int_equal(err.code, HNSW_FULL);
    assert_null(hnsw_vector(h, 2)); // its place is another's now
    assert_sound(h, N / 200);
    double r = recall(h, q, 30, &top10);
    if (r < 0.97)
        fail_msg("recall after reusing half: %.4f", r);
    free(v);
    free(q);
    hnsw_free(h);
}

static void everything_removed_then_filled_again(void **state)
{
    (void)state;
    enum { N = 300 };
    float *v = clustered(N, DIM, 5, 1);
    struct hnsw *h = new_index(HNSW_COSINE, DIM, N);
    struct hnsw_err err = {0};
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[10];
    for (int round = 0; round < 4; round++) {
        uint64_t first = (uint64_t)round * 1000;
        for (uint64_t i = 0; i < N; i++)
            assert_ok(hnsw_add(h, v + i * DIM, first + i, &err), err);
        assert_int_equal(hnsw_search(h, v, &top10, ws, hit, &err), 10);
        assert_int_equal(hit[0].label, first);
        assert_sound(h, N / 30);
        for (uint64_t i = 0; i < N; i++)
            assert_ok(hnsw_remove(h, first + i, &err), err);
        assert_int_equal(hnsw_search(h, v, &top10, ws, hit, &err), 0);
        assert_int_equal(hnsw_count(h), 0);
    }
    assert_int_equal(err.code, HNSW_OK);
    hnsw_ws_free(ws);
    free(v);
    hnsw_free(h);
}

static void resizing_keeps_everything(void **state)
{
    (void)state;
    enum { N = 600 };
    float *v = clustered(N, DIM, 10, 1), *q = clustered(20, DIM, 10, 2);
    struct hnsw *h = new_index(HNSW_IP, DIM, N / 3);
    struct hnsw_err err = {0};
    add_all(h, v, NULL, N / 3, 1);
    assert_false(hnsw_resize(h, N / 3 - 1, &err));
    assert_int_equal(err.code, HNSW_ARG);
    err = (struct hnsw_err){0};
    assert_ok(hnsw_resize(h, 10 * N, &err), err);
    assert_int_equal(hnsw_capacity(h), 10 * N);
    assert_sound(h, 1);
    uint64_t label[N];
    for (uint64_t i = 0; i < N; i++)
        label[i] = i;
    add_all(h, v + N / 3 * DIM, label + N / 3, N - N / 3, 1);
    assert_ok(hnsw_resize(h, N, &err), err);
    assert_sound(h, 1);
    assert_true(recall(h, q, 20, &top10) >= 0.99);
    free(v);
    free(q);
    hnsw_free(h);
}

static void a_refused_batch_changes_nothing(void **state)
{
    (void)state;
    enum { N = 50 };
    float *v = clustered(N + 2, DIM, 5, 1);
    uint64_t label[] = {100, 101, 100};
    struct hnsw *h = new_index(HNSW_IP, DIM, N + 2);
    size_t na, nb;
    add_all(h, v, NULL, N, 1);
    char *before = saved(h, &na);
    struct hnsw_err err = {0};
    assert_false(hnsw_add_batch(h, v, label, 3, 1, NULL, NULL, &err)); // a label twice
    assert_int_equal(err.code, HNSW_ARG);
    err = (struct hnsw_err){0};
    label[2] = 102;
    assert_false(hnsw_add_batch(h, v, label, 3, 1, NULL, NULL, &err)); // room for two
    assert_int_equal(err.code, HNSW_FULL);
    assert_non_null(strstr(err.msg, "50 of 52"));
    static const float bad[] = {NAN, INFINITY, 2e15f};
    for (size_t i = 0; i < 3; i++) {
        err = (struct hnsw_err){0};
        float keep = v[DIM + 3];
        v[DIM + 3] = bad[i];
        assert_false(hnsw_add_batch(h, v, label, 2, 2, NULL, NULL, &err));
        assert_int_equal(err.code, HNSW_ARG);
        assert_non_null(strstr(err.msg, "label 101"));
        v[DIM + 3] = keep;
    }
    char *after = saved(h, &nb);
    assert_int_equal(na, nb);
    assert_memory_equal(before, after, na);
    free(before);
    free(after);
    free(v);
    hnsw_free(h);
}

static void bad_parameters_are_refused(void **state)
{
    (void)state;
    static const struct hnsw_params bad[] = {
        {.metric = (enum hnsw_metric)7, .dim = 4, .capacity = 1},
        {.dim = 0, .capacity = 1},
        {.dim = HNSW_DIM_MAX + 1, .capacity = 1},
        {.dim = 4, .capacity = 1, .m = 1},
        {.dim = 4, .capacity = 1, .m = HNSW_M_MAX + 1},
        {.dim = 4, .capacity = (size_t)1 << 31},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct hnsw_err err = {0};
        assert_null(hnsw_new(&bad[i], &err));
        assert_int_equal(err.code, HNSW_ARG);
        assert_null(hnsw_new(&bad[i], NULL));
    }
    hnsw_free(NULL);
    hnsw_ws_free(NULL);
}

/* Equal vectors are the worst case of choosing diverse neighbours. */
static void duplicates_and_zero_vectors_are_fine(void **state)
{
    (void)state;
    enum { N = 400 };
    float v[DIM] = {0};
    for (int m = HNSW_IP; m <= HNSW_L2; m++)
        for (int zero = 0; zero < 2; zero++) {
            struct hnsw *h = new_index((enum hnsw_metric)m, DIM, N);
            struct hnsw_err err = {0};
            v[2] = zero ? 0 : 0.7f;
            for (uint64_t i = 0; i < N; i++)
                assert_ok(hnsw_add(h, v, i, &err), err);
            struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = N};
            assert_true(recall(h, v, 1, &p) == 1);
            assert_sound(h, 0);
            hnsw_free(h);
        }
}

struct seen {
    size_t last, calls;
    pthread_t thread;
};

static void count_progress(void *user, size_t done, size_t n)
{
    struct seen *s = user;
    assert_true(done >= s->last && done <= n);
    assert_true(s->calls == 0 || pthread_equal(s->thread, pthread_self()));
    s->thread = pthread_self();
    s->last = done;
    s->calls++;
}

static void progress_is_told_and_ends_at_n(void **state)
{
    (void)state;
    enum { N = 2000 };
    float *v = clustered(N, DIM, 10, 1);
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct hnsw *h = new_index(HNSW_IP, DIM, N);
        struct hnsw_err err = {0};
        struct seen seen = {0};
        assert_ok(hnsw_add_batch(h, v, NULL, N, threads, count_progress, &seen, &err), err);
        assert_int_equal(seen.last, N);
        assert_in_range(seen.calls, 3, 1001);
        assert_true(pthread_equal(seen.thread, pthread_self()));
        hnsw_free(h);
    }
    free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread_is_deterministic),
        cmocka_unit_test(levels_follow_their_law),
        cmocka_unit_test(four_threads_build_a_sound_graph),
        cmocka_unit_test(replacing_moves_an_element),
        cmocka_unit_test(removed_ones_are_gone_and_their_places_reused),
        cmocka_unit_test(everything_removed_then_filled_again),
        cmocka_unit_test(resizing_keeps_everything),
        cmocka_unit_test(a_refused_batch_changes_nothing),
        cmocka_unit_test(bad_parameters_are_refused),
        cmocka_unit_test(duplicates_and_zero_vectors_are_fine),
        cmocka_unit_test(progress_is_told_and_ends_at_n),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
