/* Breaks when a way of loading (threads, shared, from memory, the first version of the format) gives another index than the one that
 * was saved, lets damage through, or dies of a file that is cut meanwhile; or when loading and freeing do not give way. */
#include "index_testing.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "index/hnsw_io.h"

static char path[] = "/tmp/hnsw_load_XXXXXX";

static const struct hnsw_load_opts way[] = {
    {.threads = 0}, {.threads = 4}, {.threads = 1000}, {.threads = 1, .shared = true}, {.threads = 4, .shared = true}};
#define N_WAYS (sizeof(way) / sizeof(way[0]))

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
    struct stat st;
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fstat(fileno(f), &st), 0);
    *n = (size_t)st.st_size;
    unsigned char *p = malloc(*n);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

static void spill(const unsigned char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* Elements of 12 to 80 bytes, so that there are padded ones; labels are their places, or not. */
static struct hnsw *sample(size_t n, size_t dim, unsigned m, bool plain)
{
    float *v = clustered(n + 1, dim, 10, 3);
    uint64_t *label = calloc(n + 1, sizeof(*label)), s = 5;
    struct hnsw_params p = {
        .metric = HNSW_L2, .dim = dim, .capacity = n + 3, .m = m, .ef_construction = 10, .seed = 5};
    struct hnsw_err err = {0};
    struct hnsw *h = hnsw_new(&p, &err);
    assert_ok(h, err);
    for (size_t i = 0; i < n; i++)
        label[i] = rnd(&s);
    assert_ok(hnsw_add_batch(h, v, plain ? NULL : label, n, 1, NULL, NULL, &err), err);
    for (size_t i = 3; i < n; i += 11)
        assert_ok(hnsw_remove(h, plain ? i : label[i], &err), err);
    free(label);
    free(v);
    return h;
}

static void assert_equal_index(const struct hnsw *a, const struct hnsw *b)
{
    assert_sound(b, b->n);
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->n_removed, b->n_removed);
    assert_int_equal(a->entry, b->entry);
    assert_int_equal(a->max_level, b->max_level);
    for (uint32_t i = 0; i < a->n; i++) {
        assert_true(a->label[i] == b->label[i]);
        assert_int_equal(a->level[i], b->level[i]);
        assert_int_equal(hnsw_label_map_find(&b->map, b->label, b->label[i]), i);
        assert_memory_equal(node_vec(a, i), node_vec(b, i), a->dim * sizeof(float) + a->m0 * sizeof(uint32_t));
        for (int l = 1; l <= a->level[i]; l++)
            assert_memory_equal(node_links(a, i, l), node_links(b, i, l), a->m * sizeof(uint32_t));
    }
}

static void every_way_gives_the_same(void **state)
{
    (void)state;
    static const struct {
        size_t n, dim;
        unsigned m;
    } shape[] = {{0, 8, 4}, {1, 9, 4}, {300, 9, 4}, {300, 1, 2}, {40000, 9, 4}}; // the last has three groups
    for (size_t i = 0; i < 2 * sizeof(shape) / sizeof(shape[0]); i++) {
        struct hnsw *h = sample(shape[i / 2].n, shape[i / 2].dim, shape[i / 2].m, i % 2);
        struct hnsw_err err = {0};
        size_t n;
        assert_ok(hnsw_save(h, path, &err), err);
        unsigned char *bytes = slurp(&n);
        for (size_t w = 0; w <= N_WAYS; w++) {
            struct hnsw *back =
                w < N_WAYS ? hnsw_load_with(path, &way[w], &err) : hnsw_load_mem_with(bytes, n, "bytes", 3, &err);
            assert_ok(back, err);
            assert_equal_index(h, back);
            assert_true(!back->map.slot == (i % 2 || h->n == 0)); // plain labels take no map
            hnsw_free(back);
        }
        free(bytes);
        hnsw_free(h);
    }
}

static void damage_is_refused_every_way(void **state)
{
    (void)state;
    struct hnsw *h = sample(40000, 9, 4, true);
    struct hnsw_err err = {0};
    size_t n;
    assert_ok(hnsw_save(h, path, &err), err);
    unsigned char *bytes = slurp(&n);
    const size_t stride = 80, at[] = {200, n - 8 - 40000 * stride + 3, n / 2, n - 8 - stride + 1, n - 8 - 1, n - 1};
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        bytes[at[i]] ^= 4;
        spill(bytes, n);
        bytes[at[i]] ^= 4;
        for (size_t w = 0; w < N_WAYS; w++) {
            err = (struct hnsw_err){0};
            if (hnsw_load_with(path, &way[w], &err))
                fail_msg("flip at %zu of %zu was loaded, way %zu", at[i], n, w);
            assert_int_equal(err.code, HNSW_FORMAT);
            assert_null(hnsw_load_with(path, &way[w], NULL));
        }
    }
    free(bytes);
    hnsw_free(h);
}

static atomic_size_t paced;

static void pace(void *ctx)
{
    assert_ptr_equal(ctx, &paced);
    atomic_fetch_add(&paced, 1);
}

/* A point after every piece of the file, and in what is done afterwards, whatever the way. */
static void a_load_keeps_the_callers_pace(void **state)
{
    (void)state;
    for (int compact = 0; compact < 2; compact++) {
        struct hnsw *h = sample(12000, 9, 4, true);
        struct hnsw_err err = {0};
        size_t n;
        assert_ok(!compact || hnsw_optimize(h, HNSW_COMPACT, 1, &err), err);
        assert_ok(hnsw_save(h, path, &err), err);
        free(slurp(&n));
        for (size_t w = 0; w < N_WAYS; w++) {
            struct hnsw_load_opts how = way[w];
            how.pace = pace;
            how.pace_ctx = &paced;
            atomic_store(&paced, 0);
            struct hnsw *back = hnsw_load_with(path, &how, &err);
            assert_ok(back, err);
            assert_true(atomic_load(&paced) >= n / 65536 + (compact ? 3 * 12000 / 1024 : 0));
            assert_null(back->loading); // it is the call's
            hnsw_free(back);
        }
        hnsw_free(h);
    }
}

static size_t given_back, most_given_back;

int __real_madvise(void *p, size_t n, int advice);
int __wrap_madvise(void *p, size_t n, int advice);
int __wrap_madvise(void *p, size_t n, int advice)
{
    if (advice == MADV_DONTNEED) {
        given_back += n;
        most_given_back = n > most_given_back ? n : most_given_back;
    }
    return __real_madvise(p, n, advice);
}

/* In one call a kernel that does not preempt itself would keep everybody else off the processor for milliseconds. */
static void large_blocks_are_given_back_piece_by_piece(void **state)
{
    (void)state;
    const size_t piece = (size_t)8 << 20;
    const struct hnsw_params p = {.metric = HNSW_L2, .dim = 100, .capacity = 100000, .m = 4};
    struct hnsw_err err = {0};
    struct hnsw *h = hnsw_new(&p, &err);
    assert_ok(h, err);
    size_t bytes = p.capacity * h->stride;
    assert_true(bytes > 3 * piece);
    hnsw_free(h);
    assert_true(given_back > bytes - piece && given_back <= bytes && most_given_back <= piece);
}

/* What version 1 wrote: no stride in the header, elements without padding, one checksum over all. */
static unsigned char *as_version_1(const unsigned char *b, size_t n, const struct hnsw *h, size_t *n_old)
{
    size_t stride = hnsw_graph_stride(h->dim, h->m), record = h->dim * 4 + h->m0 * 4, head = n - 8 - h->n * stride;
    unsigned char *old = malloc(n);
    uint32_t one = 1, none = 0;
    uint64_t size = *n_old = head + h->n * record + 8, sum;
    memcpy(old, b, head);
    for (size_t i = 0; i < h->n; i++)
        memcpy(old + head + i * record, b + head + i * stride, record);
    memcpy(old + 8, &one, 4);
    memcpy(old + 36, &none, 4);
    memcpy(old + 72, &size, 8);
    sum = hnsw_sum_of(old, 120);
    memcpy(old + 120, &sum, 8);
    sum = hnsw_sum_of(old, size - 8);
    memcpy(old + size - 8, &sum, 8);
    return old;
}

static void the_first_version_is_read(void **state)
{
    (void)state;
    static const size_t dim[] = {8, 9};
    for (size_t d = 0; d < 2; d++) {
        struct hnsw *h = sample(300, dim[d], 4, true);
        struct hnsw_err err = {0};
        size_t n, n_old, n_again;
        assert_ok(hnsw_save(h, path, &err), err);
        unsigned char *bytes = slurp(&n), *old = as_version_1(bytes, n, h, &n_old);
        spill(old, n_old);
        for (size_t w = 0; w < N_WAYS; w++) {
            struct hnsw *back = hnsw_load_with(path, &way[w], &err);
            assert_ok(back, err);
            assert_equal_index(h, back);
            if (!way[w].shared) { // saved again it is of the second version
                char other[sizeof(path) + 4];
                snprintf(other, sizeof(other), "%s.2", path);
                assert_ok(hnsw_save(back, other, &err), err);
                assert_int_equal(rename(other, path), 0);
                unsigned char *again = slurp(&n_again);
                assert_int_equal(n_again, n);
                assert_memory_equal(again, bytes, n);
                free(again);
                spill(old, n_old);
            }
            hnsw_free(back);
        }
        for (size_t at = 0; at < n_old; at++) {
            old[at] ^= 16;
            struct hnsw *back = hnsw_load_mem(old, n_old, "old", &err);
            if (back)
                fail_msg("flip at %zu of version 1 was loaded", at);
            old[at] ^= 16;
        }
        free(old);
        free(bytes);
        hnsw_free(h);
    }
}

static void a_shared_index_becomes_its_own_when_it_changes(void **state)
{
    (void)state;
    struct hnsw *h = sample(2000, 9, 4, true);
    struct hnsw_err err = {0};
    size_t n, n_after, unreachable;
    float v[9] = {0.25f};
    assert_ok(hnsw_save(h, path, &err), err);
    unsigned char *bytes = slurp(&n);
    for (int resize = 0; resize < 2; resize++) {
        struct hnsw *back = hnsw_load_with(path, &way[3], &err);
        assert_ok(back, err);
        assert_true(hnsw_bytes(back) + 2000 * 80 <= hnsw_bytes(h));
        assert_ok(hnsw_remove(back, 5, &err), err);
        assert_non_null(back->mapping);
        assert_false(hnsw_save(back, path, &err)); // it would be cut off under the index
        assert_int_equal(err.code, HNSW_ARG);
        err = (struct hnsw_err){0};
        assert_false(hnsw_export(back, path, NULL));
        if (resize)
            assert_ok(hnsw_resize(back, 2100, &err), err);
        assert_ok(hnsw_add(back, v, resize ? 2000 : 7, &err), err);
        assert_null(back->mapping);
        assert_memory_equal(hnsw_vector(back, resize ? 2000 : 7), v, sizeof(v));
        assert_ok(hnsw_check(back, &unreachable, &err), err);
        hnsw_free(back);
    }
    struct hnsw *compact = hnsw_load_with(path, &way[3], &err);
    assert_ok(compact, err);
    assert_ok(hnsw_optimize(compact, HNSW_COMPACT, 1, &err), err);
    assert_null(compact->mapping);
    assert_int_equal(hnsw_count(compact), hnsw_count(h));
    hnsw_free(compact);
    unsigned char *after = slurp(&n_after);
    assert_int_equal(n_after, n);
    assert_memory_equal(after, bytes, n);
    free(after);
    free(bytes);
    hnsw_free(h);
}

static void *cut_later(void *arg)
{
    usleep(*(useconds_t *)arg);
    assert_int_equal(truncate(path, 5000), 0);
    return NULL;
}

/* Before it is mapped for good a file that is cut is a failed load, not a dead process. */
static void a_file_cut_while_it_is_loaded(void **state)
{
    (void)state;
    struct hnsw *h = sample(40000, 9, 4, true);
    struct hnsw_err err = {0};
    size_t n;
    uint64_t s = 1;
    assert_ok(hnsw_save(h, path, &err), err);
    unsigned char *bytes = slurp(&n);
    for (int i = 0; i < 40; i++) {
        pthread_t cutter;
        useconds_t us = (useconds_t)(rnd(&s) % 3000);
        spill(bytes, n);
        err = (struct hnsw_err){0};
        assert_int_equal(pthread_create(&cutter, NULL, cut_later, &us), 0);
        struct hnsw *back = hnsw_load_with(path, &way[i % 2 ? 4 : 3], &err);
        assert_int_equal(err.code, back ? HNSW_OK : HNSW_FORMAT);
        pthread_join(cutter, NULL);
        hnsw_free(back); // not touched: it may be cut by now
    }
    free(bytes);
    hnsw_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_gives_the_same),
        cmocka_unit_test(damage_is_refused_every_way),
        cmocka_unit_test(a_load_keeps_the_callers_pace),
        cmocka_unit_test(large_blocks_are_given_back_piece_by_piece),
        cmocka_unit_test(the_first_version_is_read),
        cmocka_unit_test(a_shared_index_becomes_its_own_when_it_changes),
        cmocka_unit_test(a_file_cut_while_it_is_loaded),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
