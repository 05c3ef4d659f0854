/* Breaks when the compact layout finds less than the graph it was made from, scores worse than it promises, returns
 * what is removed or filtered out, misses a label, lets itself be changed, or takes more memory than half of hnswlib's.
 */
#include "index_testing.h"

#include "index/hnsw_priv.h"

#define N 1500
#define NQ 30

static struct hnsw *build(enum hnsw_metric metric, size_t dim, unsigned m, const float *v, const uint64_t *label)
{
    struct hnsw_params p = {.metric = metric, .dim = dim, .capacity = N + 10, .m = m, .seed = 3};
    struct hnsw_err err = {0};
    struct hnsw *h = hnsw_new(&p, &err);
    assert_ok(h, err);
    assert_ok(hnsw_add_batch(h, v, label, N, 2, NULL, NULL, &err), err);
    return h;
}

static void compact(struct hnsw *h)
{
    struct hnsw_err err = {0};
    assert_ok(hnsw_optimize(h, HNSW_COMPACT, 1, &err), err);
}

static struct hnsw_hit *exact(const struct hnsw *h, const float *q, size_t k)
{
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit *hit = calloc(NQ * k, sizeof(*hit));
    for (size_t i = 0; i < NQ; i++)
        assert_int_equal(hnsw_search_exact(h, q + i * hnsw_dim(h), &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = k}, ws, hit + i * k, NULL),
                         k);
    hnsw_ws_free(ws);
    return hit;
}

/* Against what the plain index holds. */
static double recall_of(const struct hnsw *h, const float *q, const struct hnsw_hit *want, size_t k, size_t ef)
{
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit *hit = calloc(k, sizeof(*hit));
    size_t same = 0;
    for (size_t i = 0; i < NQ; i++) {
        assert_int_equal(hnsw_search(h, q + i * hnsw_dim(h), &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = k, .ef = ef}, ws, hit, NULL), k);
        for (size_t x = 0; x < k; x++)
            for (size_t y = 0; y < k; y++)
                same += hit[x].label == want[i * k + y].label;
    }
    free(hit);
    hnsw_ws_free(ws);
    return (double)same / (double)(NQ * k);
}

/* Links of all widths and dimensions that fill no register, too; the floor is what the graph itself gives, less the
 * noise of 300 hits. */
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
            struct hnsw *h = build((enum hnsw_metric)metric, t[i].dim, t[i].m, v, NULL);
            struct hnsw_hit *want = exact(h, q, 10);
            struct hnsw_stats before, after;
            hnsw_get_stats(h, &before);
            double plain = recall_of(h, q, want, 10, 60);
            compact(h);
            hnsw_get_stats(h, &after);
            assert_true(after.mean_degree0 == before.mean_degree0 && after.n == N && after.bytes < before.bytes);
            assert_sound(h, N / 100);
            double packed = recall_of(h, q, want, 10, 60);
            if (packed < plain - 0.01)
                fail_msg("metric %d dim %d: recall %.4f compact, %.4f plain", metric, (int)t[i].dim, packed, plain);
            hnsw_free(h);
            free(want);
            free(v);
            free(q);
        }
}

/* The promise of hnsw.h: a stored value is off by at most 1/131,068 of its dimension's range, and a bit for the floats.
 */
static void scores_and_vectors_are_as_exact_as_promised(void **state)
{
    (void)state;
    enum { DIM = 24, K = 100 };
    float *v = clustered(N, DIM, 40, 1), *q = clustered(NQ, DIM, 40, 2), range[DIM], got[DIM];
    for (size_t i = 0; i < N; i++)
        v[i * DIM + 5] *= 100; // dimensions differ
    for (size_t j = 0; j < DIM; j++) {
        float low = v[j], high = v[j];
        for (size_t i = 1; i < N; i++) {
            low = fminf(low, v[i * DIM + j]);
            high = fmaxf(high, v[i * DIM + j]);
        }
        range[j] = high - low;
    }
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[K];
    for (int metric = HNSW_IP; metric <= HNSW_L2; metric += 2) {
        struct hnsw *h = build((enum hnsw_metric)metric, DIM, 8, v, NULL);
        compact(h);
        for (uint64_t i = 0; i < N; i++) {
            assert_true(hnsw_get_vector(h, i, got));
            for (size_t j = 0; j < DIM; j++)
                assert_true(fabsf(got[j] - v[i * DIM + j]) <= range[j] / 131068 * 1.01f + 1e-7f);
        }
        for (size_t i = 0; i < NQ; i++) {
            assert_int_equal(hnsw_search(h, q + DIM * i, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = K, .ef = 150}, ws, hit, NULL), K);
            for (size_t x = 0; x < K; x++) {
                float s, off = 1e-5f * (1 + fabsf(hit[x].score));
                uint32_t at = (uint32_t)hit[x].label;
                hnsw_scores((enum hnsw_metric)metric, DIM, q + DIM * i, v, &at, 1, &s);
                for (size_t j = 0; j < DIM; j++) {
                    float from = metric == HNSW_IP ? fabsf(q[DIM * i + j])
                                                   : 2 * fabsf(q[DIM * i + j] - v[at * DIM + j]) + range[j] / 131068;
                    off += from * range[j] / 131068;
                }
                assert_true(fabsf(s - hit[x].score) <= off);
                assert_true(x == 0 || hit[x - 1].score > hit[x].score ||
                            (hit[x - 1].score == hit[x].score && hit[x - 1].label < hit[x].label));
            }
        }
        hnsw_free(h);
    }
    hnsw_ws_free(ws);
    free(v);
    free(q);
}

static bool third(const void *ctx, uint64_t label)
{
    (void)ctx;
    return label % 3 == 0;
}

/* Filters of every strength and removed elements: as many as there are, all of them eligible, the exact ones from a
 * scan. */
static void filters_and_removals(void **state)
{
    (void)state;
    float *v = clustered(N, 16, 40, 1), *q = clustered(NQ, 16, 40, 2);
    struct hnsw *h = build(HNSW_COSINE, 16, 8, v, NULL);
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[N];
    struct hnsw_err err = {0};
    float got[16];
    for (uint64_t i = 0; i < N; i += 6)
        assert_ok(hnsw_remove(h, i, &err), err);
    compact(h);
    assert_sound(h, N / 100);
    assert_int_equal(hnsw_count(h), N - N / 6);
    assert_false(hnsw_get_vector(h, 6, got));
    assert_true(hnsw_get_vector(h, 7, got));
    struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = 20, .ef = 60};
    assert_true(recall(h, q, NQ, &p) > 0.9); // checks the counts as well
    p.filter = third;
    assert_true(recall(h, q, NQ, &p) > 0.9);
    assert_int_equal(hnsw_search(h, q, &p, ws, hit, &err), 20);
    for (size_t i = 0; i < 20; i++)
        assert_int_equal(hit[i].label % 6, 3);
    p.k = N;
    assert_int_equal(hnsw_search(h, q, &p, ws, hit, &err), N / 6);
    uint64_t allow[2] = {0};
    for (size_t i = 0; i < 100; i += 7)
        allow[i / 64] |= (uint64_t)1 << i % 64;
    p = (struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 50, .allow = allow, .n_allow = 100};
    assert_int_equal(hnsw_search(h, q, &p, ws, hit, &err), 12); // 15 of 7, 3 of 42 removed
    for (size_t i = 0; i < 12; i++)
        assert_true(hit[i].label % 7 == 0 && hit[i].label % 6 != 0 && hit[i].label < 100);
    struct hnsw_report report;
    p = (struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 10, .ef = 200, .max_visits = 150, .report = &report};
    hnsw_search(h, q, &p, ws, hit, &err);
    assert_int_equal(err.code, HNSW_OK);
    assert_true(report.visited <= 150 && report.cut == HNSW_CUT_VISITS);
    hnsw_ws_free(ws);
    hnsw_free(h);
    free(v);
    free(q);
}

/* Dense, sparse and 64-bit labels: hits carry them, and a vector is found by them. */
static void labels_of_every_kind(void **state)
{
    (void)state;
    float *v = clustered(N, 8, 40, 1), got[8];
    uint64_t label[N];
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit;
    for (int kind = 0; kind < 3; kind++) {
        for (uint64_t i = 0; i < N; i++)
            label[i] = kind == 0 ? (i * 7 + 3) % N : kind == 1 ? 3 * i + 1 : UINT64_MAX - i * i;
        struct hnsw *h = build(HNSW_L2, 8, 8, v, label);
        compact(h);
        assert_sound(h, N / 100);
        for (size_t i = 0; i < N; i++) {
            assert_true(hnsw_get_vector(h, label[i], got));
            for (size_t j = 0; j < 8; j++)
                assert_true(fabsf(got[j] - v[8 * i + j]) < 1e-4f);
            if (i % 10 == 0) {
                assert_int_equal(hnsw_search(h, v + 8 * i, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 1}, ws, &hit, NULL), 1);
                assert_true(hit.label == label[i] && hit.score > -1e-6f);
            }
        }
        assert_false(hnsw_get_vector(h, 3 * N + 2, got));
        assert_false(hnsw_get_vector(h, UINT64_MAX - 2, got));
        hnsw_free(h);
    }
    hnsw_ws_free(ws);
    free(v);
}

static void refuses(bool done, struct hnsw_err *err)
{
    assert_false(done);
    assert_int_equal(err->code, HNSW_ARG);
    assert_non_null(strstr(err->msg, "compact"));
    *err = (struct hnsw_err){0};
}

static void is_read_only(void **state)
{
    (void)state;
    float *v = clustered(N, 16, 40, 1), got[16];
    struct hnsw *h = build(HNSW_IP, 16, 8, v, NULL);
    struct hnsw_err err = {0};
    assert_ok(hnsw_optimize(h, HNSW_FAST, 1, &err), err);
    compact(h);
    assert_ok(hnsw_optimize(h, HNSW_COMPACT, 1, &err), err); // twice is once
    refuses(hnsw_optimize(h, HNSW_FAST, 1, &err), &err);
    refuses(hnsw_optimize(h, HNSW_PLAIN, 1, &err), &err);
    refuses(hnsw_add(h, v, 5000, &err), &err);
    refuses(hnsw_add_batch(h, v, NULL, 3, 1, NULL, NULL, &err), &err);
    refuses(hnsw_remove(h, 1, &err), &err);
    refuses(hnsw_resize(h, 2 * N, &err), &err);
    refuses(hnsw_export(h, "/tmp/never-written.hnswlib", &err), &err);
    assert_null(hnsw_vector(h, 1));
    assert_true(hnsw_get_vector(h, 1, got));
    assert_int_equal(hnsw_count(h), N);
    assert_int_equal(hnsw_capacity(h), N);
    assert_int_equal(hnsw_dim(h), 16);
    assert_sound(h, N / 100);
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
            for (int kind = 0; kind < 5;
                 kind++) { // zeros, equal ones, one dimension constant, huge and tiny, only tiny
                struct hnsw *h = new_index((enum hnsw_metric)metric, 4, 40);
                for (size_t i = 0; i < n; i++) {
                    v[i][0] = kind == 0   ? 0
                              : kind == 1 ? 0.5f
                              : kind == 2 ? (float)i
                              : kind == 3 ? i % 2 ? 1e15f : -1e15f
                                          : (float)i * 1e-42f;
                    v[i][1] = kind == 2 ? -7 : 0;
                }
                assert_ok(n == 0 || hnsw_add_batch(h, v[0], NULL, n, 1, NULL, NULL, &err), err);
                compact(h);
                assert_sound(h, 0);
                assert_int_equal(hnsw_search(h, v[1], &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 50}, ws, hit, &err), n);
                assert_int_equal(err.code, HNSW_OK);
                for (size_t i = 0; i < n; i++)
                    assert_true(isfinite(hit[i].score));
                hnsw_free(h);
            }
    hnsw_ws_free(ws);
}

/* Half of the 374 bytes that hnswlib needs beside the ids at d = 32, M = 16 (bench/results.md). Links are counted at
 * the 20 bits of a million elements. */
static void takes_half_of_hnswlib(void **state)
{
    (void)state;
    float *v = clustered(N, 32, 40, 1);
    struct hnsw *h = build(HNSW_IP, 32, 16, v, NULL);
    compact(h);
    double each = (double)hnsw_bytes(h) / N, fixed = (double)sizeof(*h) / N + 24 * 64.0 / N + 300.0 / N;
    double more = (double)(hnsw_compact_row(1000000, 32) - hnsw_compact_row(N, 32));
    if (each - fixed + more > 187)
        fail_msg("%.1f bytes an element, %.1f for the links of a million", each, more);
    assert_int_equal(hnsw_compact_row(1000000, 32), 80);
    hnsw_free(h);
    free(v);
}

static void every_kernel_is_plain_c(void **state)
{
    (void)state;
    static const char *const kernel[] = {"avx512", "avx2", "sse", "plain"};
    enum { ROWS = 7, DIM_MAX = 70 };
    for (size_t dim = 1; dim <= DIM_MAX; dim++) {
        uint64_t s = dim;
        struct planes code = {malloc(ROWS * dim), malloc(ROWS * dim)}; // their own size: a sanitizer sees a read too far
        float *q = malloc(dim * sizeof(*q)), *step = malloc(dim * sizeof(*step)), got[ROWS], alone;
        for (size_t i = 0; i < ROWS * dim; i++)
            code.hi[i] = (uint8_t)(rnd(&s) >> 56), code.lo[i] = (uint8_t)(rnd(&s) >> 56);
        for (size_t j = 0; j < dim; j++) {
            q[j] = rnd_normal(&s);
            step[j] = rnd_unit(&s) * 1e-4f;
        }
        for (size_t x = 0; x < 8; x++) {
            if (!hnsw_force_kernel(kernel[x / 2]))
                continue;
            bool l2 = x % 2;
            metric_many16 *score = l2 ? hnsw_kernel_get()->l2_16 : hnsw_kernel_get()->ip16;
            score(q, step, code, NULL, ROWS, dim, got);
            for (uint32_t i = 0; i < ROWS; i++) {
                double want = 0, size = 0;
                for (size_t j = 0; j < dim; j++) {
                    double c = 256 * code.hi[i * dim + j] + code.lo[i * dim + j] - 32768, d = q[j] - (double)step[j] * c;
                    want += l2 ? -d * d : q[j] * c;
                    size += l2 ? d * d : fabs(q[j] * c);
                }
                if (fabs(got[i] - want) > 3e-6 * size)
                    fail_msg("%s, dim %zu: %g, wanted %g", kernel[x / 2], dim, (double)got[i], want);
                score(q, step, code, &i, 1, dim, &alone);
                assert_true(alone == got[i]);
            }
        }
        free(code.hi);
        free(code.lo);
        free(q);
        free(step);
    }
    assert_true(hnsw_force_kernel(NULL));
}

/* Rows that end where the memory ends, and links of every width: what the kernels of a hop give is what plain C gives. */
static void every_hop_is_plain_c(void **state)
{
    (void)state;
    static const char *const kernel[] = {"avx512", "avx2", "sse"};
    enum { ROWS = 40, SEEN = 64 };
    for (size_t dim = 1; dim <= 70; dim++)
        for (unsigned width = 4; width <= 70; width += 6) {
            uint64_t s = dim + width;
            struct compact c = {.n = ROWS, .dim = dim, .width = width, .bits = 6 + (unsigned)(dim % 25)};
            uint32_t tag[2][SEEN], id[2][HOP_ROOM], bin[2][HOP_ROOM];
            const struct seen seen[2] = {{tag[0], SEEN - 1, (uint32_t)1 << c.bits, c.bits, SEEN},
                                         {tag[1], SEEN - 1, (uint32_t)1 << c.bits, c.bits, SEEN}};
            int32_t sum[2][HOP_ROOM];
            int8_t q[96] = {0};
            c.row = ((size_t)width * c.bits + 7) / 8;
            c.link = calloc(c.row + 8, 1);
            c.code.hi = malloc(ROWS * dim + COMPACT_PAST);
            for (size_t i = 0; i < ROWS * dim + COMPACT_PAST; i++)
                c.code.hi[i] = (uint8_t)rnd(&s);
            for (size_t j = 0; j < dim; j++)
                q[j] = (int8_t)(rnd(&s) % 255 - 127);
            unsigned used = (unsigned)(rnd(&s) % (width + 1));
            for (unsigned i = 0; i < width; i++) {
                uint64_t to = i < used ? i % ROWS : compact_none(&c), word;
                memcpy(&word, c.link + (size_t)i * c.bits / 8, sizeof(word));
                word |= to << (i * c.bits % 8);
                memcpy(c.link + (size_t)i * c.bits / 8, &word, sizeof(word));
            }
            for (size_t x = 0; x < 3; x++) {
                if (!hnsw_force_kernel(kernel[x]))
                    continue;
                for (uint32_t i = 0; i < SEEN; i++) // of this walk, of one before it, none
                    tag[0][i] = tag[1][i] = i % 3 == 0 ? i | seen[0].walk : i % 3 == 1 ? i : NO_ID;
                size_t n = hnsw_compact_hop_plain.fresh(&c, 0, &seen[0], id[0]);
                assert_true(used < 3 || n > 0);
                assert_int_equal(hnsw_compact_hop_get()->fresh(&c, 0, &seen[1], id[1]), n);
                assert_memory_equal(id[0], id[1], (n + 8) * sizeof(uint32_t));
                assert_memory_equal(tag[0], tag[1], sizeof(tag[0]));
                hnsw_compact_hop_plain.sums(c.code.hi, dim, id[0], n, q, sum[0]);
                hnsw_compact_hop_get()->sums(c.code.hi, dim, id[1], n, q, sum[1]);
                assert_memory_equal(sum[0], sum[1], n * sizeof(int32_t));
                const struct lack lack = {.top = 2, .scale = 1e-5f, .first = (int32_t)(rnd(&s) % 70000)};
                uint32_t last = (uint32_t)(rnd(&s) % N_BINS);
                size_t found = hnsw_compact_hop_plain.near(&lack, sum[0], n, last, id[0], bin[0]);
                assert_int_equal(hnsw_compact_hop_get()->near(&lack, sum[1], n, last, id[1], bin[1]), found);
                assert_memory_equal(id[0], id[1], found * sizeof(uint32_t));
                assert_memory_equal(bin[0], bin[1], found * sizeof(uint32_t));
            }
            free(c.link);
            free(c.code.hi);
        }
    assert_true(hnsw_force_kernel(NULL));
}

static void every_kernel_walks_the_same_way(void **state)
{
    (void)state;
    static const char *const kernel[] = {"sse", "avx2", "avx512"};
    float *v = clustered(N, 32, 40, 1), *q = clustered(NQ, 32, 40, 2);
    struct hnsw *h = build(HNSW_COSINE, 32, 16, v, NULL);
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit a[50], b[50];
    struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = 50};
    compact(h);
    assert_true(h->compact->coarse);
    for (size_t i = 0; i < NQ; i++) {
        hnsw_force_kernel("plain");
        assert_int_equal(hnsw_search(h, q + 32 * i, &p, ws, a, NULL), 50);
        for (size_t x = 0; x < 3; x++)
            if (hnsw_force_kernel(kernel[x])) {
                assert_int_equal(hnsw_search(h, q + 32 * i, &p, ws, b, NULL), 50);
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

/* Lengths over powers of ten: the upper bytes of nearly all vectors are the same, so walks go by whole codes. */
static void upper_bytes_are_not_always_enough(void **state)
{
    (void)state;
    float *v = clustered(N, 16, 40, 1), *q = clustered(NQ, 16, 40, 2);
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < 16; j++)
            v[16 * i + j] *= i % 500 == 0 ? 300.0f : 1.0f;
    for (int metric = HNSW_IP; metric <= HNSW_L2; metric += HNSW_L2 - HNSW_IP) {
        struct hnsw *h = build((enum hnsw_metric)metric, 16, 16, v, NULL);
        struct hnsw_hit *want = exact(h, q, 10);
        double plain = recall_of(h, q, want, 10, 60);
        compact(h);
        double packed = recall_of(h, q, want, 10, 60);
        if (packed < plain - 0.05 || (metric == HNSW_L2 && h->compact->coarse))
            fail_msg("metric %d: recall %.4f compact, %.4f plain, by upper bytes: %d", metric, packed, plain, h->compact->coarse);
        hnsw_free(h);
        free(want);
    }
    free(v);
    free(q);
}

/* Bins are as wide as the scores of a query differ: where vectors or queries are tiny, or what all vectors share is far more. (Of tiny
 * vectors the products are 0 while the graph is built: there its links lead anywhere, and walks find a fifth either way.) */
static void vectors_and_queries_of_any_size(void **state)
{
    (void)state;
    static const float vector[] = {1, 1, 1, 1e-24f}, query[] = {1, 1e-25f, 1e14f, 1}, shared[] = {-30000, 1, 1, 1};
    for (int t = 0; t < 4; t++) {
        float *v = clustered(N, 16, 40, 1), *q = clustered(NQ, 16, 40, 2);
        for (size_t i = 0; i < N * 16; i++)
            v[i] = vector[t] * (i % 16 == 0 ? 1 : v[i]);
        for (size_t i = 0; i < NQ * 16; i++)
            q[i] = query[t] * (i % 16 == 0 ? shared[t] : q[i]);
        struct hnsw *h = build(HNSW_IP, 16, 16, v, NULL);
        compact(h);
        struct hnsw_hit *want = exact(h, q, 10);
        h->compact->coarse = false;
        double whole = recall_of(h, q, want, 10, 60);
        h->compact->coarse = true;
        double upper = recall_of(h, q, want, 10, 60);
        if (upper < whole - 0.03)
            fail_msg("vectors * %g, queries * %g: recall %.4f by upper bytes, %.4f by whole codes", (double)vector[t], (double)query[t],
                     upper, whole);
        hnsw_free(h);
        free(want);
        free(v);
        free(q);
    }
}

/* A catalogue of items that nothing tells apart, as new ones without features are: one bin holds them all. */
static void equal_vectors_are_found_once_each(void **state)
{
    (void)state;
    float *v = clustered(N, 32, 40, 1);
    for (size_t i = 0; i < N - 20; i++)
        memcpy(v + 32 * i, v + 32 * (N - 1), 32 * sizeof(*v));
    struct hnsw *h = build(HNSW_COSINE, 32, 8, v, NULL);
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[N];
    compact(h);
    h->compact->coarse = true;
    for (size_t k = 1; k <= N; k = 3 * k + 1) {
        bool seen[N] = {false};
        assert_int_equal(hnsw_search(h, v, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = k}, ws, hit, NULL), k);
        for (size_t i = 0; i < k; i++) {
            assert_false(seen[hit[i].label]);
            assert_true(hit[i].score > 0.9999f || i >= N - 20);
            seen[hit[i].label] = true;
        }
    }
    hnsw_ws_free(ws);
    hnsw_free(h);
    free(v);
}

struct effort {
    double recall, visited; // scores a query
};

static struct effort effort_of(const struct hnsw *h, const float *q, const struct hnsw_hit *want, size_t k, size_t ef)
{
    struct hnsw_report r;
    struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = k, .ef = ef, .report = &r};
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit *hit = calloc(k, sizeof(*hit));
    struct effort e = {0};
    for (size_t i = 0; i < NQ; i++) {
        assert_int_equal(hnsw_search(h, q + i * hnsw_dim(h), &p, ws, hit, NULL), k);
        e.visited += (double)r.visited / NQ;
        for (size_t x = 0; x < k; x++)
            e.recall += (double)(hit[x].score >= want[i * k + k - 1].score) / (double)(NQ * k);
    }
    free(hit);
    hnsw_ws_free(ws);
    return e;
}

/* Where some queries have many alike around them and others few, a walk that ends by a margin needs fewer scores for what one that ends
 * by a count finds; its margin follows from the index alone. */
static void ends_early_where_it_may(void **state)
{
    (void)state;
    enum { K = 20, D = 16 };
    float *v = clustered(2 * N, D, 40, 1), *q = clustered(2 * NQ, D, 40, 2);
    for (size_t i = 0; i < N; i++) // every other is drawn to two of the dimensions
        for (size_t j = 2; j < D; j++)
            v[2 * i * D + j] *= 0.1f;
    for (size_t i = 0; i < NQ / 2; i++)
        for (size_t j = 2; j < D; j++)
            q[2 * i * D + j] *= 0.1f;
    struct hnsw_params params = {.metric = HNSW_COSINE, .dim = D, .capacity = 2 * N, .m = 6, .ef_construction = 40, .seed = 1};
    struct hnsw *h = hnsw_new(&params, NULL);
    assert_true(hnsw_add_batch(h, v, NULL, 2 * N, 1, NULL, NULL, NULL));
    struct hnsw_hit *want = exact(h, q, K);
    compact(h);
    float spread = h->compact->spread;
    assert_true(h->compact->coarse && spread > 0);
    struct effort by_margin = effort_of(h, q, want, K, 160), by_count = {0};
    h->compact->spread = 0;
    for (size_t ef = 160; by_count.recall < by_margin.recall; ef += 2)
        by_count = effort_of(h, q, want, K, ef);
    if (by_count.visited < 1.05 * by_margin.visited)
        fail_msg("spread %g: recall %.4f by %.0f scores, by a count %.4f by %.0f", (double)spread, by_margin.recall, by_margin.visited,
                 by_count.recall, by_count.visited);
    assert_true(hnsw_compact_settle(h) && h->compact->spread == spread);
    hnsw_free(h);
    free(want);
    free(v);
    free(q);
}

/* With a cache of what was met that forgets nearly all, ids come again unseen, into a bin that is too full to be looked through. */
static void what_comes_again_stays_once(void **state)
{
    (void)state;
    enum { K = 200 };
    float *v = clustered(N, 32, 40, 1);
    for (size_t i = 0; i < N - 20; i++)
        memcpy(v + 32 * i, v + 32 * (N - 1), 32 * sizeof(*v));
    struct hnsw *h = build(HNSW_COSINE, 32, 8, v, NULL);
    struct hnsw_ws *ws = hnsw_ws_new();
    bool seen[N] = {false};
    compact(h);
    assert_true(hnsw_ws_fit(ws, 0, 2 * K, 32) && hnsw_compact_ws_fit(ws, h->compact, K, 2 * K));
    assert_true(hnsw_seen_begin(&ws->met, 1, h->compact->bits));
    const struct hnsw_query q = {.k = K, .ef = 2 * K};
    hnsw_compact_coarse(h, hnsw_prepared_query(h, v, ws), &q, 2 * K, ws);
    assert_true(ws->pool.n > 0);
    for (size_t i = 0; i < ws->pool.n; i++) {
        assert_false(seen[key_id(ws->pool.key[i])]);
        seen[key_id(ws->pool.key[i])] = true;
    }
    hnsw_ws_free(ws);
    hnsw_free(h);
    free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_as_much_as_the_graph),
        cmocka_unit_test(scores_and_vectors_are_as_exact_as_promised),
        cmocka_unit_test(filters_and_removals),
        cmocka_unit_test(labels_of_every_kind),
        cmocka_unit_test(is_read_only),
        cmocka_unit_test(odd_contents),
        cmocka_unit_test(takes_half_of_hnswlib),
        cmocka_unit_test(every_kernel_is_plain_c),
        cmocka_unit_test(every_hop_is_plain_c),
        cmocka_unit_test(ends_early_where_it_may),
        cmocka_unit_test(every_kernel_walks_the_same_way),
        cmocka_unit_test(upper_bytes_are_not_always_enough),
        cmocka_unit_test(vectors_and_queries_of_any_size),
        cmocka_unit_test(equal_vectors_are_found_once_each),
        cmocka_unit_test(what_comes_again_stays_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
