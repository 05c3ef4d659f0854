/* Breaks when threads that search an index see what was removed before they began, a vector that was never put (half of
 * one and half of another), a label twice, or not one that has been there all the time; or when a change made beside a
 * merge is lost. To be run under ThreadSanitizer as well. */
#include "index_testing.h"

#include <pthread.h>
#include <stdatomic.h>

#include "index/hnsw_live.h"

#define DIM 16
#define LABELS 600 // 0 .. LABELS / 3 stay for ever, the rest comes, goes and changes
#define STAY (LABELS / 3)
#define WRITERS 2
#define READERS 2
#define CHANGES 6000

/* Version v of label l is a vector whose first value says which it is and whose others repeat it, so a torn one shows:
 * <q, x> with q = (1, 0, ...) is l + v / 1024, with all of q = 1 it is DIM times that. */
static void fill(float *x, uint64_t label, unsigned version)
{
    for (size_t j = 0; j < DIM; j++)
        x[j] = (float)label + (float)(version % 1024) / 1024;
}

/* For each label, written by its one writer: the version last put, odd while a change is under way; and whether it has
 * been removed. */
struct work {
    struct hnsw_live *l;
    _Atomic uint64_t removed_since[LABELS]; // number of the removal that has returned and was not followed by a put; 0: none
    atomic_bool stop;
    atomic_size_t n_searches;
};

struct worker {
    struct work *w;
    unsigned number;
    pthread_t thread;
};

static void *write_some(void *arg)
{
    const struct worker *me = arg;
    struct work *w = me->w;
    uint64_t seed = 10 + me->number;
    float x[DIM];
    struct hnsw_err err = {0};
    for (uint64_t i = 1; i <= CHANGES; i++) {
        uint64_t label = STAY + rnd(&seed) % ((LABELS - STAY) / WRITERS) * WRITERS + me->number;
        bool gone = atomic_load(&w->removed_since[label]) > 0;
        if (!gone && i % 3 == 0) {
            assert_ok(hnsw_live_remove(w->l, label, &err), err);
            atomic_store(&w->removed_since[label], i);
        } else {
            atomic_store(&w->removed_since[label], 0);
            fill(x, label, (unsigned)i);
            assert_ok(hnsw_live_put(w->l, label, x, &err), err);
        }
        if (i % 50 == 0) { // those that stay are replaced by others all the time
            label = rnd(&seed) % (STAY / WRITERS) * WRITERS + me->number;
            fill(x, label, (unsigned)i);
            assert_ok(hnsw_live_put(w->l, label, x, &err), err);
        }
    }
    return NULL;
}

static void *search_some(void *arg)
{
    const struct worker *me = arg;
    struct work *w = me->w;
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[LABELS];
    uint64_t before[LABELS];
    float one[DIM] = {1}, v[DIM];
    for (size_t turn = 0; !atomic_load(&w->stop) || turn < 20; turn++) {
        struct hnsw_err err = {0};
        bool seen[LABELS] = {false};
        for (size_t i = 0; i < LABELS; i++)
            before[i] = atomic_load(&w->removed_since[i]);
        struct hnsw_query p = {.plan = HNSW_PLAN_WALK, .k = LABELS, .ef = LABELS};
        size_t n = (turn % 2 ? hnsw_live_search : hnsw_live_search_exact)(w->l, one, &p, ws, hit, &err);
        assert_int_equal(err.code, HNSW_OK);
        assert_true(n >= STAY);
        for (size_t i = 0; i < n; i++) {
            uint64_t label = hit[i].label;
            assert_true(label < LABELS && !seen[label]);
            seen[label] = true;
            assert_true(hit[i].score >= (float)label && hit[i].score < (float)label + 1);
            if (before[label] > 0 && atomic_load(&w->removed_since[label]) == before[label])
                fail_msg("label %d was found after its removal", (int)label);
        }
        for (uint64_t i = 0; i < STAY; i++)
            assert_true(seen[i]);
        uint64_t label = turn % STAY;
        assert_true(hnsw_live_get_vector(w->l, label, v));
        for (size_t j = 1; j < DIM; j++)
            assert_true(v[j] == v[0]);
        assert_true(v[0] >= (float)label && v[0] < (float)label + 1);
        assert_true(hnsw_live_count(w->l) >= STAY);
        atomic_fetch_add(&w->n_searches, 1);
    }
    hnsw_ws_free(ws);
    return NULL;
}

static void run(bool optimize)
{
    struct hnsw_params index = {.metric = HNSW_IP, .dim = DIM, .m = 8, .seed = 3};
    struct hnsw_live_params params = {.delta_max = 300, .merge_threads = 1, .optimize = optimize};
    struct hnsw_err err = {0};
    static struct work w;
    struct worker writer[WRITERS], reader[READERS];
    float x[DIM];
    memset(&w, 0, sizeof(w));
    w.l = hnsw_live_new(&index, &params, &err);
    assert_ok(w.l, err);
    for (uint64_t i = 0; i < LABELS; i++) {
        fill(x, i, 0);
        assert_ok(hnsw_live_put(w.l, i, x, &err), err);
    }
    for (unsigned i = 0; i < READERS; i++) {
        reader[i] = (struct worker){.w = &w, .number = i};
        assert_int_equal(pthread_create(&reader[i].thread, NULL, search_some, &reader[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        writer[i] = (struct worker){.w = &w, .number = i};
        assert_int_equal(pthread_create(&writer[i].thread, NULL, write_some, &writer[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(writer[i].thread, NULL);
    atomic_store(&w.stop, true);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(reader[i].thread, NULL);

    /* Nothing is lost: what each label was left as. */
    size_t alive = 0;
    for (uint64_t i = 0; i < LABELS; i++) {
        bool gone = atomic_load(&w.removed_since[i]) > 0;
        assert_true(hnsw_live_get_vector(w.l, i, x) == !gone);
        alive += !gone;
    }
    assert_int_equal(hnsw_live_count(w.l), alive);
    struct hnsw_live_stats s;
    hnsw_live_get_stats(w.l, &s);
    assert_true(s.n_merges > 10 && s.n_failed == 0);
    hnsw_live_free(w.l);
}

static void readers_and_writers_beside_merges(void **state)
{
    (void)state;
    run(false);
}

static void the_same_with_the_fast_layout(void **state)
{
    (void)state;
    run(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_and_writers_beside_merges),
        cmocka_unit_test(the_same_with_the_fast_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
