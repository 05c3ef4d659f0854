/* Breaks when an element cannot be found because no link leads to it, or leads nowhere itself: after single additions, replacements and
 * small batches, by one thread or many, to an index that was built, loaded or imported. */
#include "index_testing.h"

#include <unistd.h>

#include "index/hnsw_priv.h"

#define DIM 4

static size_t spread(const struct hnsw *h, bool back)
{
    uint8_t *seen = calloc(h->n, 1);
    size_t n = 1;
    seen[h->entry] = 1;
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0; i < h->n; i++) {
            const uint32_t *link = node_links(h, i, 0);
            for (unsigned j = 0; j < h->m0 && link[j] != NO_ID; j++) {
                uint32_t from = back ? link[j] : i, to = back ? i : link[j];
                if (seen[from] && !seen[to]) {
                    seen[to] = 1;
                    n++;
                    more = true;
                }
            }
        }
    }
    free(seen);
    return n;
}

/* Sound, from the entry point to all and from all to it, and the counts are those of the links. */
static void assert_connected(const struct hnsw *h)
{
    assert_sound(h, 0);
    assert_int_equal(spread(h, false), h->n);
    assert_int_equal(spread(h, true), h->n);
    uint32_t *ways = calloc(h->n, sizeof(*ways));
    for (uint32_t i = 0; h->ways && i < h->n; i++)
        for (unsigned j = 0; j < h->m0 && node_links(h, i, 0)[j] != NO_ID; j++)
            ways[node_links(h, i, 0)[j]] += node_links(h, i, 0)[j] > i;
    for (uint32_t i = 0; h->ways && i < h->n; i++)
        assert_int_equal(h->ways[i], ways[i]);
    free(ways);
}

static struct hnsw *new_tiny(enum hnsw_metric metric, size_t capacity, unsigned m, unsigned ef)
{
    struct hnsw_params p = {
        .metric = metric, .dim = DIM, .capacity = capacity, .m = m, .ef_construction = ef, .seed = 3};
    struct hnsw_err err = {0};
    struct hnsw *h = hnsw_new(&p, &err);
    assert_ok(h, err);
    return h;
}

static void equal_vectors_one_by_one(void **state)
{
    (void)state;
    const float same[DIM] = {0.5f, 0.5f, -0.5f, 0.5f};
    for (int metric = HNSW_IP; metric <= HNSW_L2; metric++)
        for (unsigned m = 2; m <= 16; m *= 2) {
            enum { N = 600 };
            struct hnsw *h = new_tiny((enum hnsw_metric)metric, N, m, 20);
            struct hnsw_err err = {0};
            float *v = clustered(N, DIM, 5, 1);
            for (uint64_t i = 0; i < N; i++) {
                assert_ok(hnsw_add(h, i % 3 ? same : v + i * DIM, i, &err), err);
                if (i % 101 == 100)
                    assert_connected(h);
            }
            assert_connected(h);
            free(v);
            hnsw_free(h);
        }
}

/* Additions, replacements and removals at random, in calls of one and of a few. */
static void random_changes(void **state)
{
    (void)state;
    enum { N = 500, STEPS = 6000 };
    for (unsigned m = 2; m <= 6; m += 2) {
        struct hnsw *h = new_tiny(HNSW_L2, N, m, 15);
        struct hnsw_err err = {0};
        uint64_t s = m;
        for (size_t step = 0; step < STEPS; step++) {
            float v[3 * DIM];
            uint64_t label[3] = {rnd(&s) % N, 0, 0};
            for (size_t j = 0; j < 3 * DIM; j++)
                v[j] = (float)(rnd(&s) % 4); // many are equal
            label[1] = (label[0] + 1) % N;
            label[2] = (label[0] + 2) % N;
            if (rnd(&s) % 4 == 0)
                hnsw_remove(h, label[0], NULL); // known or not
            else
                assert_ok(hnsw_add_batch(h, v, label, 1 + step % 3, 1, NULL, NULL, &err), err);
            if (step % 500 == 499)
                assert_connected(h);
        }
        hnsw_free(h);
    }
}

static void many_threads(void **state)
{
    (void)state;
    enum { N = 3000 };
    for (unsigned round = 0; round < 6; round++) {
        struct hnsw *h = new_tiny(HNSW_IP, N, 2 + round % 2, 10);
        struct hnsw_err err = {0};
        float *v = clustered(N, DIM, 3, round);
        for (size_t i = 0; i < N; i += 2)
            memcpy(v + i * DIM, v, DIM * sizeof(*v));
        assert_ok(hnsw_add_batch(h, v, NULL, N, 8, NULL, NULL, &err), err);
        assert_connected(h);
        free(v);
        hnsw_free(h);
    }
}

/* Nobody leads to `lost` any more, and `island` leads only to its twin, which leads only to it. */
static void tear(struct hnsw *h, uint32_t lost, uint32_t island)
{
    for (uint32_t i = 0; i < h->n; i++) {
        uint32_t *link = node_links(h, i, 0);
        unsigned n = links_count(link, h->m0), kept = 0;
        for (unsigned j = 0; j < n; j++)
            if (link[j] != lost)
                link[kept++] = link[j];
        memset(link + kept, 0xff, (h->m0 - kept) * sizeof(*link));
    }
    for (uint32_t i = island; i < island + 2; i++) {
        memset(node_links(h, i, 0), 0xff, h->m0 * sizeof(uint32_t));
        node_links(h, i, 0)[0] = i == island ? island + 1 : island;
    }
}

static struct hnsw *torn(const char *path, bool foreign)
{
    enum { N = 400 };
    struct hnsw *h = new_tiny(HNSW_L2, N, 4, 20);
    struct hnsw_err err = {0};
    float *v = clustered(N, DIM, 5, 1);
    assert_ok(hnsw_add_batch(h, v, NULL, N, 1, NULL, NULL, &err), err);
    tear(h, h->entry == 7 ? 8 : 7, h->entry == 200 || h->entry == 201 ? 300 : 200);
    assert_ok(foreign ? hnsw_export(h, path, &err) : hnsw_save(h, path, &err), err);
    assert_true(spread(h, false) < N && spread(h, true) < N);
    hnsw_free(h);
    free(v);
    h = foreign ? hnsw_import(path, HNSW_L2, DIM, &err) : hnsw_load(path, &err);
    assert_ok(h, err);
    return h;
}

static void graphs_from_elsewhere(void **state)
{
    (void)state;
    char path[] = "/tmp/hnsw_ways_XXXXXX";
    int fd = mkstemp(path);
    struct hnsw_err err = {0};
    const float v[DIM] = {0.1f};
    size_t linked, lost;
    assert_true(fd >= 0 && close(fd) == 0);

    struct hnsw *h = torn(path, true); // import repairs
    assert_connected(h);
    assert_ok(hnsw_repair(h, &linked, &err), err);
    assert_int_equal(linked, 0);
    hnsw_free(h);

    h = torn(path, false); // loading does not, and says so; hnsw_repair does
    assert_ok(hnsw_check(h, &lost, &err), err);
    assert_true(lost >= 1);
    assert_ok(hnsw_optimize(h, HNSW_FAST, 1, &err), err);
    assert_ok(hnsw_repair(h, &linked, &err), err);
    assert_true(linked >= lost);
    assert_connected(h);
    hnsw_free(h);

    h = torn(path, false); // and so does the first addition
    assert_ok(hnsw_add(h, v, 3, &err), err);
    assert_non_null(h->ways);
    assert_connected(h);
    hnsw_free(h);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_vectors_one_by_one),
        cmocka_unit_test(random_changes),
        cmocka_unit_test(many_threads),
        cmocka_unit_test(graphs_from_elsewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
