/* Breaks when a compact index comes back different from its file, when a damaged file is loaded, crashes the loader or
 * costs it much memory, or when hnsw_check overlooks damage in memory. */
#include "index_testing.h"

#include "file_testing.h"

enum { DIM = 8, M = 4 };

static struct hnsw *sample(enum hnsw_metric metric, size_t n, uint64_t first, bool remove)
{
    float *v = clustered(n + 1, DIM, 10, 3);
    uint64_t *label = calloc(n + 1, sizeof(*label));
    struct hnsw_params p = {.metric = metric, .dim = DIM, .capacity = n + 20, .m = M, .seed = 5};
    struct hnsw_err err = {0};
    struct hnsw *h = hnsw_new(&p, &err);
    for (size_t i = 0; i < n; i++)
        label[i] = first + i;
    assert_ok(hnsw_add_batch(h, v, label, n, 1, NULL, NULL, &err), err);
    for (uint64_t i = 3; remove && i < n; i += 11)
        assert_ok(hnsw_remove(h, first + i, &err), err);
    assert_ok(hnsw_optimize(h, HNSW_COMPACT, 1, &err), err);
    free(label);
    free(v);
    return h;
}

static void assert_same(const struct hnsw *a, const struct hnsw *b)
{
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit x[10], y[10];
    float *q = clustered(20, DIM, 10, 4);
    struct hnsw_stats s, t;
    hnsw_get_stats(a, &s);
    hnsw_get_stats(b, &t);
    assert_memory_equal(&s, &t, sizeof(s));
    for (size_t i = 0; i < 40; i++) { // the second time exactly
        size_t (*search)(const struct hnsw *, const float *, const struct hnsw_query *, struct hnsw_ws *,
                         struct hnsw_hit *, struct hnsw_err *) = i < 20 ? hnsw_search : hnsw_search_exact;
        size_t n = search(a, q + DIM * (i % 20), &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 10}, ws, x, NULL);
        assert_int_equal(search(b, q + DIM * (i % 20), &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 10}, ws, y, NULL), n);
        for (size_t j = 0; j < n; j++)
            assert_true(x[j].label == y[j].label && x[j].score == y[j].score);
    }
    free(q);
    hnsw_ws_free(ws);
}

static void comes_back_the_same(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 500};
    for (int m = HNSW_IP; m <= HNSW_L2; m++)
        for (size_t i = 0; i < 16; i++) {
            struct hnsw_err err = {0};
            size_t n;
            struct hnsw *h = sample((enum hnsw_metric)m, sizes[i / 4], i & 1 ? UINT64_MAX / 2 : 0, i & 2);
            assert_ok(hnsw_save(h, path, &err), err);
            struct hnsw *back = hnsw_load(path, &err);
            assert_ok(back, err);
            assert_sound(back, 1);
            assert_same(h, back);
            unsigned char *bytes = slurp(&n);
            struct hnsw *again = hnsw_load_mem(bytes, n, "bytes", &err);
            assert_ok(again, err);
            assert_same(h, again);
            assert_false(hnsw_add(again, (float[DIM]){1}, 77, &err));
            free(bytes);
            hnsw_free(h);
            hnsw_free(back);
            hnsw_free(again);
        }
}

static void every_flip_and_cut_is_refused(void **state)
{
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        struct hnsw_err err = {0};
        struct hnsw *h = sample(HNSW_IP, 40, wide ? UINT64_MAX / 2 : 0, true);
        assert_ok(hnsw_save(h, path, &err), err);
        size_t n;
        unsigned char *bytes = slurp(&n);
        every_flip_and_cut_refused(bytes, n);
        free(bytes);
        hnsw_free(h);
    }
}

/* Each case changes one field and is refused by structure. 300 elements: 9 bits a link, 9 bytes a list. */
static void crafted_files_are_refused(void **state)
{
    (void)state;
    enum { N = 300, ROW = 9, NONE = 0x1ff };
    struct hnsw_err err = {0};
    struct hnsw *h = sample(HNSW_COSINE, N, 0, true);
    assert_ok(hnsw_save(h, path, &err), err);
    size_t n;
    unsigned char *b = slurp(&n);
    size_t mid = 128, step = mid + 64, labels = step + 64, removed = labels + padded(4 * N);
    size_t links = removed + padded(N), codes = links + padded(N * ROW);
    assert_int_equal(n, codes + 2 * padded(N * DIM) + 8);
    static const uint32_t wrong[] = {0, 1, 3, 300, 0x7fffffff, 0x80000000, 0xffffffff};
    for (size_t at = 0; at < 120; at += 4)
        for (size_t i = 0; i < 7; i++) {
            uint32_t now;
            memcpy(&now, b + at, 4);
            bool harmless = at == 24 || at == 48 || at == 52 || at == 12; // ef_construction, seed; the metric
            if (now != wrong[i] && !harmless)
                crafted(b, n, at, wrong[i], 4);
        }
    crafted(b, n, 12, 3, 4);
    crafted(b, n, 24, 0, 4);
    crafted(b, n, 64, 1, 1);                                        // padding of the header
    crafted(b, n, mid, 0x7fc00000, 4);                              // NaN
    crafted(b, n, mid, 0x7f800000, 4);                              // infinity
    crafted(b, n, mid + 4 * DIM, 1, 1);                             // padding
    crafted(b, n, step, 0x7fc00000, 4);                             // NaN
    crafted(b, n, step, 0xb8000000, 4);                             // below 0
    crafted(b, n, step, 0x5f000000, 4);                             // values beyond what a score can hold
    crafted(b, n, labels + 4 * 5, compact_label(h->compact, 6), 4); // a label twice
    size_t marked = 0;
    while (!h->removed[marked])
        marked++;
    crafted(b, n, removed + marked, 0, 1); // one mark less than counted
    crafted(b, n, removed + marked, 3, 1); // no mark at all
    crafted(b, n, removed + N, 1, 1);      // padding
    crafted(b, n, links, 300, 2);          // link out of range, the next damaged too
    uint64_t row;
    memcpy(&row, b + links, 8);
    crafted(b, n, links, (row & ~(uint64_t)NONE), 8);                     // to itself
    crafted(b, n, links, (row & ~(uint64_t)NONE) | (row >> 9 & NONE), 8); // twice
    crafted(b, n, links, row | NONE, 8);                                  // after the end
    crafted(b, n, links + padded(N * ROW) - 1, 1, 1);                     // padding
    crafted(b, n, codes, 0x7fff7fff7fff7fff, 8);                          // a vector that has not unit length
    free(b);
    hnsw_free(h);
}

/* Not through a file: what an overwritten index looks like. */
static void check_finds_damage(void **state)
{
    (void)state;
    struct hnsw *h = sample(HNSW_COSINE, 300, 0, true);
    struct compact *c = h->compact;
    assert_sound(h, 3);
    struct {
        void *at;
        uint32_t wrong;
    } t[] = {{&c->by_label[3], 4},     {&c->by_label[3], 300}, {&c->label32[7], 7000000},
             {c->mid + 1, 0x7fc00000}, {c->step, 0xbf800000},  {c->seed.hi + DIM, 0x10001},
             {c->link + 9, 0},         {&h->entry, 300},       {&h->removed[4], 0x01010101}};
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct hnsw_err err = {0};
        uint32_t old;
        memcpy(&old, t[i].at, 4);
        memcpy(t[i].at, &t[i].wrong, 4);
        if (hnsw_check(h, NULL, &err))
            fail_msg("case %zu was overlooked", i);
        assert_int_equal(err.code, HNSW_FORMAT);
        memcpy(t[i].at, &old, 4);
    }
    size_t lost;
    memset(c->link, 0xff, c->row); // the first element leads nowhere now
    assert_true(hnsw_check(h, &lost, NULL));
    assert_int_equal(lost, 299);
    hnsw_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_the_same),
        cmocka_unit_test(every_flip_and_cut_is_refused),
        cmocka_unit_test(crafted_files_are_refused),
        cmocka_unit_test(check_finds_damage),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
