/* Threads and whole-dataset embedding. If this fails, parts of a step are done twice or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/train/toy.h"
#include "train/backward.h"
#include "train/embed.h"
#include "train/pool.h"

struct tally {
    struct pool *pool;
    unsigned char hit[1000];
    unsigned rounds[POOL_THREADS_MAX];
};

static void mark(void *ctx, unsigned i)
{
    struct tally *t = ctx;
    size_t lo, hi;
    pool_range(sizeof(t->hit), i, pool_threads(t->pool), &lo, &hi);
    for (size_t k = lo; k < hi; k++)
        t->hit[k]++;
    t->rounds[i]++;
}

static void every_part_runs_once_a_round(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 7; n++) {
        struct tally t = {0};
        t.pool = pool_new(n, NULL);
        assert_non_null(t.pool);
        for (int round = 0; round < 200; round++)
            pool_run(t.pool, mark, &t);
        for (size_t i = 0; i < sizeof(t.hit); i++)
            assert_int_equal(t.hit[i], 200);
        for (unsigned i = 0; i < n; i++)
            assert_int_equal(t.rounds[i], 200);
        pool_free(t.pool);
    }
}

static void numbers_of_threads_out_of_range_are_refused(void **state)
{
    (void)state;
    struct err err = {0};
    assert_null(pool_new(0, &err));
    err = (struct err){0};
    assert_null(pool_new(65, &err));
    assert_non_null(strstr(err.msg, "65"));
}

/* Training's forward pass and serving's agree, for rows with and without an id of their own. */
static void training_and_serving_embed_alike(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    struct recipe r = toy_recipe(MODEL_DAT);
    toy_init(&t, 300, 30, 1);
    struct model *m = toy_model(&t, &r, 2);
    struct pool *pool = pool_new(3, &err);
    uint32_t d = m->user.d;
    float *own = calloc(300, d * sizeof(float)), *given = calloc(300, d * sizeof(float)),
          *a = calloc(300, d * sizeof(float));
    for (uint32_t i = 0; i < m->user.shape.n_segments * d; i++)
        m->user.aug_segment[i] = (float)(i % 7) / 10;
    for (uint32_t u = 0; u < 300; u++)
        memcpy(a + u * d,
               u + 1 < 300
                   ? m->user.aug + (u + 1) * d
                   : m->user.aug_segment + schema_segment(&m->schema->user, t.user_x + u * m->user.shape.n_slots) * d,
               d * sizeof(float));
    struct tower_pass pass;
    assert_true(tower_pass_init(&pass, &m->user, 300, pool, &err));
    tower_pass_forward(&pass, &m->user, t.user_x, a, 300);
    assert_true(embed_rows(&m->user, &m->schema->user, t.user_x, NULL, 300, EMBED_OWN, NULL, pool, own, &err));
    for (size_t i = 0; i < 300 * d; i++)
        assert_float_equal(pass.p[i], own[i], 1e-5f);

    /* without ids: unknown = given the segment's mean */
    for (uint32_t u = 0; u < 300; u++)
        memcpy(a + u * d,
               m->user.aug_segment + schema_segment(&m->schema->user, t.user_x + u * m->user.shape.n_slots) * d,
               d * sizeof(float));
    assert_true(embed_rows(&m->user, &m->schema->user, t.user_x, NULL, 300, EMBED_UNKNOWN, NULL, pool, own, &err));
    assert_true(embed_rows(&m->user, &m->schema->user, t.user_x, NULL, 300, EMBED_GIVEN, a, pool, given, &err));
    assert_memory_equal(own, given, 300 * d * sizeof(float));
    tower_pass_fini(&pass);
    pool_free(pool);
    model_free(m);
    toy_fini(&t);
    free(own);
    free(given);
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_runs_once_a_round),
        cmocka_unit_test(numbers_of_threads_out_of_range_are_refused),
        cmocka_unit_test(training_and_serving_embed_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
