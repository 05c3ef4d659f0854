/* Breaks when an allocation that fails leaks, crashes, damages the index or goes unreported. Every allocation of the
 * library is made to fail in turn, until the whole sequence succeeds. Linked with --wrap for the three allocators of
 * hnsw_mem.c. */
#include "index_testing.h"

#include <unistd.h>

#include "index/hnsw_live.h"
#include "index/hnsw_priv.h"

static long fail_at = -1; // counts down; the allocation that meets 0 fails
static size_t largest;    // bytes asked for at once

void *__real_hnsw_mem_new(size_t n, size_t size);
void *__real_hnsw_mem_grow(void *p, size_t n, size_t size);
void *__real_hnsw_mem_block(size_t n, size_t size);
void *__wrap_hnsw_mem_new(size_t n, size_t size);
void *__wrap_hnsw_mem_grow(void *p, size_t n, size_t size);
void *__wrap_hnsw_mem_block(size_t n, size_t size);

static bool fails(size_t n, size_t size)
{
    if (n * size > largest)
        largest = n * size;
    return fail_at >= 0 && fail_at-- == 0;
}

void *__wrap_hnsw_mem_new(size_t n, size_t size)
{
    return fails(n, size) ? NULL : __real_hnsw_mem_new(n, size);
}

void *__wrap_hnsw_mem_grow(void *p, size_t n, size_t size)
{
    return fails(n, size) ? NULL : __real_hnsw_mem_grow(p, n, size);
}

void *__wrap_hnsw_mem_block(size_t n, size_t size)
{
    return fails(n, size) ? NULL : __real_hnsw_mem_block(n, size);
}

static char path[] = "/tmp/hnsw_memory_XXXXXX";

static bool all(const void *ctx, uint64_t label)
{
    (void)ctx;
    return label < 1000000;
}

static bool use(struct hnsw **h, const float *v, struct hnsw_err *err)
{
    struct hnsw_params p = {.metric = HNSW_COSINE, .dim = 8, .capacity = 300, .m = 4, .seed = 1};
    uint64_t label[120];
    for (uint64_t i = 0; i < 120; i++)
        label[i] = 50 + i;
    if (!(*h = hnsw_new(&p, err)) || !hnsw_add_batch(*h, v, NULL, 100, 2, NULL, NULL, err) ||
        !hnsw_resize(*h, 400, err) || !hnsw_remove(*h, 3, err) ||
        !hnsw_add_batch(*h, v, label, 120, 1, NULL, NULL, err) || !hnsw_add(*h, v, 700, err) ||
        !hnsw_optimize(*h, HNSW_FAST, 2, err))
        return false;
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[300];
    struct hnsw_query q = {.plan = HNSW_PLAN_WALK, .k = 5}, f = {.plan = HNSW_PLAN_WALK, .k = 270, .filter = all};
    bool ok = ws && hnsw_search(*h, v, &q, ws, hit, err) == 5 && hnsw_search(*h, v, &f, ws, hit, err) > 0;
    if (!ws)
        hnsw_fail(err, HNSW_NOMEM, "workspace");
    hnsw_ws_free(ws);
    return ok;
}

static bool files(const struct hnsw *h, const float *v, struct hnsw_err *err)
{
    struct hnsw *a = NULL, *b = NULL, *c = NULL;
    struct hnsw_ws *ws = NULL;
    struct hnsw_hit hit[60];
    size_t found[3];
    struct hnsw_query scan = {.k = 20, .plan = HNSW_PLAN_SCAN};
    bool ok = hnsw_save(h, path, err) && (a = hnsw_load(path, err)) && hnsw_export(h, path, err) &&
              (b = hnsw_import(path, HNSW_COSINE, 8, err)) && hnsw_check(b, NULL, err);
    ok = ok && hnsw_optimize(a, HNSW_COMPACT, 2, err) && hnsw_save(a, path, err) && (c = hnsw_load(path, err));
    ok = ok && ((ws = hnsw_ws_new()) || hnsw_fail(err, HNSW_NOMEM, "workspace"));
    ok = ok && hnsw_search_multi(c, v, 3, &(struct hnsw_query){.k = 20}, ws, hit, err) == 20 &&
         hnsw_search_exact(h, v, &(struct hnsw_query){.k = 20}, ws, hit, err) == 20 &&
         hnsw_search_batch(h, v, 3, &scan, ws, hit, found, err);
    hnsw_ws_free(ws);
    hnsw_free(a);
    hnsw_free(b);
    hnsw_free(c);
    return ok;
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    float *v = clustered(120, 8, 4, 1);
    bool done = false;
    long n = 0;
    for (; !done; n++) {
        struct hnsw *h = NULL;
        struct hnsw_err err = {0};
        assert_true(n < 2000);
        fail_at = n;
        done = use(&h, v, &err) && files(h, v, &err);
        fail_at = -1;
        if (!done)
            assert_int_equal(err.code, HNSW_NOMEM);
        if (h)
            assert_sound(h, 300);
        hnsw_free(h);
    }
    assert_true(n > 30);
    free(v);
}

/* Puts 0 .. 39, removes every fifth, merges in between; counts what it was told is done. */
static bool change(struct hnsw_live *l, const float *v, size_t *alive, struct hnsw_err *err)
{
    for (uint64_t i = 0; i < 40; i++) {
        if (!hnsw_live_put(l, i, v + 8 * i, err))
            return false;
        ++*alive;
        if (i % 5 == 4) {
            if (!hnsw_live_remove(l, i - 2, err))
                return false;
            --*alive;
        }
        if (i % 20 == 19 && !hnsw_live_merge(l, 2, err))
            return false;
    }
    return true;
}

static void a_change_that_fails_changes_nothing(void **state)
{
    (void)state;
    float *v = clustered(40, 8, 4, 1);
    bool done = false;
    long n = 0;
    for (; !done; n++) {
        struct hnsw_params p = {.metric = HNSW_COSINE, .dim = 8, .m = 4, .seed = 1};
        struct hnsw_err err = {0};
        size_t alive = 0;
        assert_true(n < 2000);
        fail_at = n;
        struct hnsw_live *l = hnsw_live_new(&p, &(struct hnsw_live_params){.optimize = true}, &err);
        done = l && change(l, v, &alive, &err);
        struct hnsw_ws *ws = hnsw_ws_new();
        struct hnsw_hit hit[50];
        if (done)
            done = ws && hnsw_live_search(l, v, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 50}, ws, hit, &err) == alive;
        fail_at = -1;
        if (!done && err.code)
            assert_int_equal(err.code, HNSW_NOMEM);
        if (l)
            assert_int_equal(hnsw_live_count(l), alive);
        if (l && ws)
            assert_int_equal(hnsw_live_search(l, v, &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 50}, ws, hit, NULL), alive);
        hnsw_ws_free(ws);
        hnsw_live_free(l);
    }
    assert_true(n > 30);
    free(v);
}

/* A header that promises much costs nothing: sizes must be the file's before anything is allocated. */
static void allocation_is_bounded_by_the_file(void **state)
{
    (void)state;
    struct hnsw_err err = {0};
    float *v = clustered(2000, 8, 4, 1);
    struct hnsw *h = new_index(HNSW_IP, 8, 100000);
    assert_ok(hnsw_add_batch(h, v, NULL, 2000, 1, NULL, NULL, &err), err);
    for (int foreign = 0; foreign < 2; foreign++) {
        assert_ok(foreign ? hnsw_export(h, path, &err) : hnsw_save(h, path, &err), err);
        FILE *f = fopen(path, "rb");
        fseek(f, 0, SEEK_END);
        size_t size = (size_t)ftell(f);
        fclose(f);
        largest = 0;
        struct hnsw *back = foreign ? hnsw_import(path, HNSW_IP, 8, &err) : hnsw_load(path, &err);
        assert_ok(back, err);
        assert_true(largest <= 2 * size + (1 << 20));
        assert_true(hnsw_bytes(back) <= 2 * size);
        hnsw_free(back);
    }
    hnsw_free(h);
    free(v);
}

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failed_allocation_is_survived),
        cmocka_unit_test(a_change_that_fails_changes_nothing),
        cmocka_unit_test(allocation_is_bounded_by_the_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
