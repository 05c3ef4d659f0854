/* Breaks when the fast layout finds less than the graph it was made from, scores inexactly, is used when it is out of
 * date, or when one of its kernels differs from plain C by a bit. */
#include "index_testing.h"

#include "index/hnsw_priv.h"

#define N 1500
#define NQ 30

static struct hnsw *build(enum hnsw_metric metric, size_t dim, unsigned m, const float *v)
{
    struct hnsw_params p = {.metric = metric, .dim = dim, .capacity = N + 10, .m = m, .seed = 3};
    struct hnsw_err err = {0};
    struct hnsw *h = hnsw_new(&p, &err);
    assert_ok(h, err);
    assert_ok(hnsw_add_batch(h, v, NULL, N, 2, NULL, NULL, &err), err);
    return h;
}

/* Widths and dimensions that do not fill their groups, too; the floor is what the graph itself gives, less the noise of
 * 400 hits. */
static void finds_as_much_as_the_graph(void **state)
{
    (void)state;
    static const struct {
        size_t dim;
        unsigned m;
    } t[] = {{32, 16}, {13, 5}, {50, 20}, {3, 2}};
    for (int metric = HNSW_IP; metric <= HNSW_L2; metric++)
        for (size_t i = 0; i < 4; i++) {
            float *v = clustered(N, t[i].dim, 40, 1), *q = clustered(NQ, t[i].dim, 40, 2);
            struct hnsw *h = build((enum hnsw_metric)metric, t[i].dim, t[i].m, v);
            struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = 10, .ef = 60};
            struct hnsw_err err = {0};
            size_t before = hnsw_bytes(h);
            double plain = recall(h, q, NQ, &p);
            assert_ok(hnsw_optimize(h, HNSW_FAST, 2, &err), err);
            assert_true(hnsw_bytes(h) > before + N * t[i].m * 2 * t[i].dim);
            assert_sound(h, N / 100);
            double packed = recall(h, q, NQ, &p);
            if (packed < plain - 0.01)
                fail_msg("metric %d dim %d: recall %.4f packed, %.4f plain", metric, (int)t[i].dim, packed, plain);
            hnsw_free(h);
            free(v);
            free(q);
        }
}

static void scores_are_exact_and_sorted(void **state)
{
    (void)state;
    float *v = clustered(N, 24, 40, 1), *q = clustered(NQ, 24, 40, 2);
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[100];
    for (int metric = HNSW_IP; metric <= HNSW_L2; metric += 2) {
        struct hnsw *h = build((enum hnsw_metric)metric, 24, 8, v);
        struct hnsw_err err = {0};
        assert_ok(hnsw_optimize(h, HNSW_FAST, 2, &err), err);
        for (size_t i = 0; i < NQ; i++) {
            assert_int_equal(hnsw_search(h, q + 24 * i, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 100, .ef = 150}, ws, hit, &err), 100);
            for (size_t j = 0; j < 100; j++) {
                float s;
                uint32_t at = (uint32_t)hit[j].label;
                hnsw_scores((enum hnsw_metric)metric, 24, q + 24 * i, v, &at, 1, &s);
                assert_true(s == hit[j].score);
                assert_true(j == 0 || hit[j - 1].score > s ||
                            (hit[j - 1].score == s && hit[j - 1].label < hit[j].label));
            }
        }
        hnsw_free(h);
    }
    hnsw_ws_free(ws);
    free(v);
    free(q);
}

/* Byte for byte, also where a thread's share ends in the middle; and gone when the plain layout is asked for. */
static void threads_make_the_same_layout(void **state)
{
    (void)state;
    enum { MANY = 9500, DIM = 8 };
    float *v = clustered(MANY, DIM, 40, 1);
    struct hnsw *h = new_index(HNSW_L2, DIM, MANY);
    struct hnsw_err err = {0};
    assert_ok(hnsw_add_batch(h, v, NULL, MANY, 2, NULL, NULL, &err), err);
    size_t plain = hnsw_bytes(h);
    assert_ok(hnsw_optimize(h, HNSW_FAST, 1, &err), err);
    struct fast *one = h->fast;
    h->fast = NULL;
    assert_ok(hnsw_optimize(h, HNSW_FAST, 3, &err), err);
    assert_memory_equal(h->fast->block, one->block, MANY * one->stride);
    assert_int_equal(h->fast->n_seed, one->n_seed);
    assert_memory_equal(h->fast->seed, one->seed, one->n_seed * one->stride);
    assert_memory_equal(h->fast->element, one->element, MANY * sizeof(uint32_t));
    assert_memory_equal(h->fast->step, one->step, DIM * sizeof(float));
    hnsw_fast_free(one);
    assert_ok(hnsw_optimize(h, HNSW_PLAIN, 0, &err), err);
    assert_int_equal(hnsw_bytes(h), plain);
    assert_false(hnsw_optimize(h, (enum hnsw_layout)77, 1, &err));
    assert_int_equal(err.code, HNSW_ARG);
    hnsw_free(h);
    free(v);
}

static bool even(const void *ctx, uint64_t label)
{
    (void)ctx;
    return label % 2 == 0;
}

/* A workspace goes from one index and layout to another; what changes the graph drops the layout or goes around it. */
static void is_never_out_of_date(void **state)
{
    (void)state;
    float *v = clustered(N, 16, 40, 1);
    struct hnsw *h = build(HNSW_IP, 16, 8, v);
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[20];
    struct hnsw_err err = {0};
    struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = 20};
    assert_ok(hnsw_optimize(h, HNSW_FAST, 2, &err), err);
    assert_ok(hnsw_optimize(h, HNSW_FAST, 2, &err), err); // twice is once
    assert_int_equal(hnsw_search(h, v, &p, ws, hit, &err), 20);
    uint64_t best = hit[0].label;
    p.filter = even;
    assert_int_equal(hnsw_search(h, v, &p, ws, hit, &err), 20);
    for (size_t i = 0; i < 20; i++)
        assert_int_equal(hit[i].label % 2, 0);
    p.filter = NULL;
    assert_ok(hnsw_remove(h, best, &err), err);
    assert_int_equal(hnsw_search(h, v, &p, ws, hit, &err), 20);
    for (size_t i = 0; i < 20; i++)
        assert_int_not_equal(hit[i].label, best);
    float far[16];
    for (size_t j = 0; j < 16; j++)
        far[j] = 3 * v[j];
    assert_ok(hnsw_add(h, far, 777777, &err), err);
    assert_null(h->fast);
    assert_int_equal(hnsw_search(h, v, &p, ws, hit, &err), 20);
    assert_int_equal(hit[0].label, 777777);
    assert_ok(hnsw_optimize(h, HNSW_FAST, 2, &err), err);
    assert_ok(hnsw_resize(h, 2 * N, &err), err);
    assert_int_equal(hnsw_search(h, v, &p, ws, hit, &err), 20);
    assert_int_equal(hit[0].label, 777777);
    hnsw_ws_free(ws);
    hnsw_free(h);
    free(v);
}

static void odd_contents(void **state)
{
    (void)state;
    float v[40][4] = {{0}};
    struct hnsw_err err = {0};
    struct hnsw_hit hit[50];
    struct hnsw_ws *ws = hnsw_ws_new();
    for (int metric = HNSW_IP; metric <= HNSW_L2; metric++)
        for (size_t n = 0; n <= 40; n += n < 2 ? 1 : 19)
            for (int kind = 0; kind < 4; kind++) { // zeros, equal ones, one dimension constant, huge and tiny
                struct hnsw *h = new_index((enum hnsw_metric)metric, 4, 40);
                for (size_t i = 0; i < n; i++) {
                    v[i][0] = kind == 0 ? 0 : kind == 1 ? 0.5f : kind == 2 ? (float)i : i % 2 ? 1e15f : -1e-15f;
                    v[i][1] = kind == 2 ? -7 : 0;
                    assert_ok(hnsw_add(h, v[i], i, &err), err);
                }
                assert_ok(hnsw_optimize(h, HNSW_FAST, 2, &err), err);
                assert_int_equal(hnsw_search(h, v[1], &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 50}, ws, hit, &err), n);
                assert_int_equal(err.code, HNSW_OK);
                hnsw_free(h);
            }
    hnsw_ws_free(ws);
}

static void every_kernel_is_plain_c(void **state)
{
    (void)state;
    static const char *const kernel[] = {"avx512", "avx2", "sse", "plain"};
    enum { WIDTH = 48, SEEN = 64 };
    for (unsigned words = 1; words <= 33; words += words < 10 ? 1 : 23)
        for (int bias = 0; bias < 2; bias++) {
            struct fast p = {.width = WIDTH, .words = words, .has_bias = bias};
            size_t size = WIDTH * ((bias ? 8u : 4u) + 4 * (size_t)words);
            unsigned char *block = aligned_alloc(64, (size + 63) / 64 * 64);
            int8_t *q = aligned_alloc(64, 256);
            uint64_t s = words;
            uint32_t seen[SEEN], id[2][WIDTH + FAST_GROUP];
            float score[2][WIDTH + FAST_GROUP];
            for (size_t i = 0; i < size; i++)
                block[i] = (unsigned char)rnd(&s);
            for (uint32_t i = 0; i < WIDTH; i++) {
                uint32_t to = i % 7 == 6 ? NO_ID : 1000 + i;
                float b = rnd_normal(&s) * 1000;
                memcpy(block + 4 * i, &to, 4);
                if (bias)
                    memcpy(block + 4 * (WIDTH + i), &b, 4);
            }
            for (size_t i = 0; i < 256; i++)
                q[i] = (int8_t)(rnd(&s) % 255 - 127);
            for (uint32_t i = 0; i < SEEN; i++)
                seen[i] = i % 5 == 0 ? 1000 + (i + SEEN - 1000 % SEEN) % SEEN : NO_ID;
            for (float above = -1e9f; above < 1e6f; above = above < -1e8f ? -50000 : above + 20000) {
                size_t n = hnsw_fast_hop_plain(&p, block, q, 0.5f, above, seen, SEEN - 1, id[0], score[0]);
                for (size_t i = 0; i < 4; i++)
                    if (hnsw_force_kernel(kernel[i])) {
                        assert_int_equal(
                            hnsw_fast_hop_get()(&p, block, q, 0.5f, above, seen, SEEN - 1, id[1], score[1]), n);
                        assert_memory_equal(id[0], id[1], n * sizeof(uint32_t));
                        assert_memory_equal(score[0], score[1], n * sizeof(float));
                    }
            }
            free(block);
            free(q);
        }
    assert_true(hnsw_force_kernel(NULL));
}

/* The whole walk is the same walk whatever the kernel: only the last bits of the exact scores may differ. */
static void every_kernel_walks_the_same_way(void **state)
{
    (void)state;
    static const char *const kernel[] = {"plain", "sse", "avx2", "avx512"};
    float *v = clustered(N, 32, 40, 1), *q = clustered(NQ, 32, 40, 2);
    struct hnsw *h = build(HNSW_L2, 32, 16, v);
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit a[50], b[50];
    struct hnsw_err err = {0};
    assert_ok(hnsw_optimize(h, HNSW_FAST, 2, &err), err);
    for (size_t i = 0; i < NQ; i++) {
        hnsw_force_kernel("plain");
        assert_int_equal(hnsw_search(h, q + 32 * i, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 50}, ws, a, &err), 50);
        for (size_t x = 1; x < 4; x++)
            if (hnsw_force_kernel(kernel[x])) {
                assert_int_equal(hnsw_search(h, q + 32 * i, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 50}, ws, b, &err), 50);
                for (size_t j = 0; j < 50; j++)
                    assert_true(fabsf(a[j].score - b[j].score) < 1e-5f);
            }
    }
    assert_true(hnsw_force_kernel(NULL));
    hnsw_ws_free(ws);
    hnsw_free(h);
    free(v);
    free(q);
}

/* Lengths over powers of ten: 8 bits over the whole range leave nothing of what neighbours differ by. */
static void what_codes_cannot_hold_is_refused(void **state)
{
    (void)state;
    enum { FEW = 2000, D = 8 };
    float *v = clustered(FEW, D, 20, 1);
    struct hnsw_err err = {0};
    struct hnsw *h = new_index(HNSW_L2, D, FEW);
    for (size_t i = 0; i < FEW; i++)
        for (size_t j = 0; j < D; j++)
            v[i * D + j] *= powf(10, (float)(i % 50) / 10);
    assert_ok(hnsw_add_batch(h, v, NULL, FEW, 2, NULL, NULL, &err), err);
    assert_false(hnsw_optimize(h, HNSW_FAST, 1, &err));
    assert_int_equal(err.code, HNSW_ARG);
    assert_non_null(strstr(err.msg, "8 bits"));
    assert_int_equal(hnsw_get_layout(h), HNSW_PLAIN);
    hnsw_free(h);
    free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_as_much_as_the_graph),
        cmocka_unit_test(scores_are_exact_and_sorted),
        cmocka_unit_test(threads_make_the_same_layout),
        cmocka_unit_test(is_never_out_of_date),
        cmocka_unit_test(odd_contents),
        cmocka_unit_test(every_kernel_is_plain_c),
        cmocka_unit_test(every_kernel_walks_the_same_way),
        cmocka_unit_test(what_codes_cannot_hold_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
